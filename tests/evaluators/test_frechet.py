"""Distances against torchmetrics, scipy and hand-computed values."""

import dataclasses
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.metrics.pairwise import polynomial_kernel

from vdsm_bench.errors import ContractError
from vdsm_bench.evaluators.controls import make_controls
from vdsm_bench.evaluators.frechet import (
    JudgeDistances,
    frechet_distance,
    judge_features,
    kernel_distance,
)
from vdsm_bench.evaluators.outputs import RenderedOutputs
from vdsm_bench.evaluators.pairs import choose_clips
from vdsm_bench.evaluators.suite import evaluate
from vdsm_bench.optional import import_with_torchvision

EVALUATORS = {"distances": JudgeDistances()}


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return rng.normal(size=(80, 6)) @ rng.normal(size=(6, 6)), 1 + rng.normal(size=(60, 6))


@pytest.fixture(scope="module")
def torchmetrics_image():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [import_with_torchvision(f"torchmetrics.image.{name}") for name in ("fid", "kid")]


def test_frechet_agrees_with_torchmetrics_and_scipy(features, torchmetrics_image):
    first, second = features
    moments = [torch.as_tensor(x) for f in features for x in (f.mean(0), np.cov(f, rowvar=False))]
    theirs = torchmetrics_image[0]._compute_fid(*moments).item()
    assert frechet_distance(first, second) == pytest.approx(theirs, rel=1e-8)
    (m1, s1), (m2, s2) = ((f.mean(0), np.cov(f, rowvar=False)) for f in features)
    root = scipy.linalg.sqrtm(s1 @ s2).real  # sound here: the covariances are not singular
    direct = ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(direct, rel=1e-8)


def test_frechet_by_hand():
    first = np.array([[-1.0], [1.0]])  # variance 2
    assert frechet_distance(first, first + 3) == pytest.approx(9.0)
    assert frechet_distance(first, 2 * first) == pytest.approx(2.0)  # (sqrt 2 - sqrt 8)^2
    diagonal = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert frechet_distance(diagonal, diagonal * [3, 1]) == pytest.approx(2 / 3 * 4)


def test_frechet_of_singular_covariances_is_finite_and_zero_where_equal():
    rng = np.random.default_rng(1)
    few = rng.normal(size=(10, 64))
    assert frechet_distance(few, few) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(few, few[::-1]) == pytest.approx(0.0, abs=1e-6)  # shuffled
    assert frechet_distance(few, np.concatenate([few, few])) < 10  # duplicated
    assert frechet_distance(few, few + 1) == pytest.approx(64.0)
    assert frechet_distance(few, 0 * few) == pytest.approx(
        (few.mean(0) ** 2).sum() + few.var(0, ddof=1).sum()
    )


def test_kernel_distance_agrees_with_torchmetrics_and_scikit_learn(features, torchmetrics_image):
    first, second = features[0][:60], features[1]
    theirs = torchmetrics_image[1].poly_mmd(torch.as_tensor(first), torch.as_tensor(second))
    assert kernel_distance(first, second) == pytest.approx(theirs.item(), rel=1e-6)
    first = features[0]
    kernels = [polynomial_kernel(a, b, 3, coef0=1) for a, b in
               ((first, first), (second, second), (first, second))]  # fmt: skip
    own = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in kernels[:2]]
    assert kernel_distance(first, second) == pytest.approx(sum(own) - 2 * kernels[2].mean())


def test_kernel_distance_of_one_distribution_is_about_zero():
    rng = np.random.default_rng(2)
    near = [kernel_distance(*rng.normal(size=(2, 100, 5))) for _ in range(40)]
    assert abs(np.mean(near)) < 0.01
    assert min(near) < 0  # unbiased
    assert kernel_distance(rng.normal(size=(100, 5)), 2 + rng.normal(size=(100, 5))) > 0.5


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.ones((1, 3)), np.ones((5, 3))),
        (np.ones((5, 3)), np.ones((5, 4))),
        (np.full((5, 3), np.nan), np.ones((5, 3))),
        (np.ones(5), np.ones(5)),
    ],
)
def test_bad_features_are_refused(first, second):
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ContractError):
            distance(first, second)


def test_the_judge_s_features_are_what_its_heads_see(judge, request_):
    clips = request_.test.clips(np.arange(5))
    found = judge_features(judge)(clips)
    heads = judge.network.heads
    assert found.shape == (5, heads[2].in_features + heads[0].in_features)
    logits = {f.name: v for f, v in zip(judge.factors, heads, strict=True)}
    moved = torch.as_tensor(found[:, : heads[2].in_features], dtype=torch.float32)
    said = torch.log_softmax(logits["action"](moved).double(), dim=1)
    assert said.numpy() == pytest.approx(judge.predict(clips)["action"], abs=1e-5)
    assert not any(head._forward_pre_hooks for head in heads)


def test_real_clips_are_near_and_a_mean_clip_is_far(judge, request_, train):
    result = {}
    for name, control in make_controls(train).items():
        result[name] = evaluate(control, judge, request_, EVALUATORS)
    scores = {name: {k: s.value for k, s in r.scores.items()} for name, r in result.items()}
    copy = scores["copy-identity-clip"]
    floor = copy["fvd_judge_floor"]
    assert floor > 0
    assert scores["mean-clip"]["fvd_judge_regenerated"] > 3 * copy["fvd_judge_regenerated"]
    assert scores["mean-clip"]["kid_judge_transferred"] > 3 * abs(copy["kid_judge_floor"])
    assert {r["fvd_judge_floor"] for r in scores.values()} == {floor}
    score = result["mean-clip"].scores["fvd_judge_regenerated"]
    assert score.n == 60
    assert "60 clips on either side" in result["mean-clip"].notes[0]
    assert "read kid" in result["mean-clip"].notes[0]


@pytest.mark.parametrize(
    ("stem", "distance"), [("fvd", frechet_distance), ("kid", kernel_distance)]
)
def test_every_column_compares_as_many_training_clips_with_the_clips_it_names(
    stem, distance, judge, request_, train
):
    mean = make_controls(train)["mean-clip"].mean
    subject = RenderedOutputs(
        reconstructions=request_.test.clips,
        transfers=lambda rows: mean.expand(len(rows), *mean.shape),
    )
    found = evaluate(subject, judge, request_, {"distances": JudgeDistances()}).scores
    value = {name: found[f"{stem}_judge_{name}"].value
             for name in ("floor", "regenerated", "transferred")}  # fmt: skip
    known, held_out = (
        judge.features(part.clips(choose_clips(len(part), 60)))
        for part in (request_.train, request_.test)
    )
    one_clip = np.repeat(judge.features(mean[None]), 60, axis=0)
    assert value["floor"] == pytest.approx(distance(known, held_out))
    assert value["regenerated"] == value["floor"]
    assert value["transferred"] == pytest.approx(distance(known, one_clip))
    assert value["transferred"] > 3 * abs(value["floor"])


def test_what_cannot_be_had_is_empty_with_the_reason(judge, request_):
    half = RenderedOutputs(reconstructions=request_.test.clips, name="x.npz")
    scores = evaluate(half, judge, request_, EVALUATORS).scores
    assert scores["fvd_judge_regenerated"].value is not None
    assert scores["kid_judge_transferred"].reason == "x.npz holds no transfers"
    assert {s.reason for s in evaluate(half, None, request_, EVALUATORS).scores.values()} == {
        "there is no judge"
    }
    alone = dataclasses.replace(request_, train=None)
    assert (
        "training clips"
        in evaluate(half, judge, alone, EVALUATORS).scores["fvd_judge_floor"].reason
    )

    class Strange:
        factors = judge.factors

    assert (
        "no heads"
        in evaluate(half, Strange(), request_, EVALUATORS).scores["kid_judge_floor"].reason
    )


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_batch_size_changes_no_number(batch_size, judge, request_, train):
    subject = make_controls(train)["frozen-frame"]
    one, other = (
        evaluate(subject, judge, r, {"distances": JudgeDistances()}).scores
        for r in (request_, dataclasses.replace(request_, batch_size=batch_size))
    )
    for name, score in one.items():
        assert other[name].value == pytest.approx(score.value, rel=1e-3, abs=1e-4), name
