"""The sampled protocol on models whose answers are known."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests.evaluators import toy
from tests.evaluators.known import PROTOTYPES, Oracle, one_hot
from vdsm_bench.errors import ContractError
from vdsm_bench.evaluators.controls import CopyIdentityClip
from vdsm_bench.evaluators.outputs import RenderedOutputs, SubjectOutputs
from vdsm_bench.evaluators.sampled import MixedCodes, PriorSamples, findings, mixed
from vdsm_bench.evaluators.suite import evaluate

EVALUATORS = {"samples": PriorSamples(), "mixed-codes": MixedCodes(repetitions=1)}


def found(subject, judge, request, evaluators=EVALUATORS):
    result = evaluate(subject, judge, request, evaluators)
    return result, {name: score.value for name, score in result.scores.items()}


def test_a_perfect_model(judge, request_):
    result, scores = found(Oracle(request_.test), judge, request_)
    for origin in ("prior", "mixed"):
        assert scores[f"sampled_{origin}_dynamic_accuracy"] >= 0.95
        assert scores[f"sampled_{origin}_identity_accuracy"] >= 0.95
        assert scores[f"sampled_{origin}_H_y"] == pytest.approx(math.log(3), abs=0.05)
        assert scores[f"sampled_{origin}_inception_score"] == pytest.approx(
            math.exp(scores[f"sampled_{origin}_H_y"] - scores[f"sampled_{origin}_H_y_given_x"])
        )
    assert scores["sampled_prior_inception_score"] >= 2.5
    long = {(row.metric, row.factor): row.score.value for row in result.long}
    # what is drawn anew is at chance
    assert long["sampled_prior_accuracy_motion_kept", "colour"] == pytest.approx(1 / 3, abs=0.15)
    assert long["sampled_prior_accuracy_identity_kept", "action"] == pytest.approx(1 / 3, abs=0.15)
    assert result.chance["sampled_prior_inception_score"] == {"largest": 3.0}


def test_a_leaking_model_loses_where_it_leaks(judge, request_):
    _, scores = found(Oracle(request_.test, leak=("identity",)), judge, request_)
    assert scores["sampled_prior_dynamic_accuracy"] <= 0.5  # the action came with the identity
    assert scores["sampled_prior_identity_accuracy"] >= 0.95


def test_a_useless_model_shows_one_class(judge, request_):
    class Constant(Oracle):
        def generate(self, codes, n_frames):
            return PROTOTYPES[:1].expand(len(codes.motion), -1, -1, -1, -1)

    result, scores = found(Constant(request_.test), judge, request_)
    assert scores["sampled_prior_inception_score"] <= 1.1
    assert (
        scores["sampled_prior_dynamic_accuracy"]
        <= result.chance["sampled_prior_dynamic_accuracy"]["majority"]
    )


def test_without_a_prior_only_the_mixed_column_is_filled(judge, request_):
    result, scores = found(Oracle(request_.test, prior=False), judge, request_)
    for name, score in result.scores.items():
        if name.startswith("sampled_prior"):
            assert (score.value, score.reason) == (None, "Oracle cannot sample")
        else:
            assert score.value is not None


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        (CopyIdentityClip(), "no prior"),
        (RenderedOutputs(transfers=lambda rows: rows), "holds no"),
    ],
)
def test_what_cannot_sample_says_so(subject, reason, judge, request_):
    result, scores = found(subject, judge, request_)
    assert set(scores.values()) == {None}
    assert all(reason in score.reason for score in result.scores.values())


def test_without_a_judge_nothing_is_scored(request_):
    result, _ = found(Oracle(request_.test), None, request_)
    assert {score.reason for score in result.scores.values()} == {"there is no judge"}


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_batch_size_changes_no_number(batch_size, judge, request_):
    other = dataclasses.replace(request_, batch_size=batch_size)
    one = found(Oracle(request_.test), judge, request_)[1]
    assert found(Oracle(request_.test), judge, other)[1] == pytest.approx(one, rel=1e-6)


def test_the_order_in_which_rows_are_asked_for_changes_no_clip(request_):
    rows = np.random.default_rng(0).permutation(len(request_.test))
    straight = SubjectOutputs(Oracle(request_.test), request_)
    shuffled = SubjectOutputs(Oracle(request_.test), request_)
    ask = {"keep": "nothing", "repetition": 1}
    whole = straight.samples(np.arange(len(rows)), **ask)
    assert torch.equal(shuffled.samples(rows, **ask), whole[torch.as_tensor(rows)])
    assert not torch.equal(straight.samples(rows, keep="nothing"), whole[torch.as_tensor(rows)])


def test_sampling_leaves_the_global_generator_alone(request_):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    SubjectOutputs(Oracle(request_.test), request_).samples(np.arange(3), keep="motion")
    assert torch.equal(torch.rand(4), expected)


def test_samples_of_a_control_are_refused(request_):
    with pytest.raises(ContractError, match="cannot sample"):
        SubjectOutputs(CopyIdentityClip(), request_).samples(np.arange(2), keep="nothing")


def test_mixed_codes_lie_between_two_other_rows():
    codes = torch.eye(7)
    new = mixed(codes, seed=0, purpose="x")
    assert torch.allclose(new.sum(1), torch.ones(7))
    assert (new.diagonal() == 0).all()  # never of the row itself
    assert ((new > 0).sum(1) == 2).all()
    assert torch.equal(new, mixed(codes, seed=0, purpose="x"))
    assert not torch.equal(new, mixed(codes, seed=0, purpose="y"))


def test_hand_computed_accuracies(request_):
    labels = request_.test.labels
    n = len(request_.test)
    right = {f.name: np.eye(len(f.classes))[labels[f.name]] for f in toy.FACTORS}
    wrong = {
        f.name: np.eye(len(f.classes))[(labels[f.name] + 1) % len(f.classes)] for f in toy.FACTORS
    }
    with np.errstate(divide="ignore"):
        half = {name: np.log(np.stack([right[name], wrong[name]])) for name in right}
    result = findings(request_, half, half, "prior")
    assert result.scores["sampled_prior_dynamic_accuracy"].value == 0.5
    assert result.scores["sampled_prior_dynamic_accuracy"].n == n
    assert result.scores["sampled_prior_H_y_given_x"].value == 0.0
    long = {(row.metric, row.factor): row.score for row in result.long}
    alone = long["sampled_prior_inception_score_of_a_repetition_motion_kept", "action"]
    assert (alone.value, alone.n) == (pytest.approx(3.0), 2)
    assert (alone.low, alone.high) == (None, None)  # two draws have no 95 % interval


def test_entropies_are_of_the_kept_motion_and_of_equally_many_clips_of_every_action(request_):
    labels, n = request_.test.labels, len(request_.test)
    counts = np.bincount(labels["action"])
    assert counts.min() < counts.max()
    with np.errstate(divide="ignore"):
        sure = {f.name: np.log(np.stack([np.eye(len(f.classes))[labels[f.name]]] * 2))
                for f in toy.FACTORS}  # fmt: skip
    unsure = {f.name: np.full((2, n, len(f.classes)), -np.log(len(f.classes))) for f in toy.FACTORS}
    for motion_kept, identity_kept, given_x in ((sure, unsure, 0.0), (unsure, sure, np.log(3))):
        result = findings(request_, motion_kept, identity_kept, "mixed")
        scores = result.scores
        assert scores["sampled_mixed_H_y"].value == pytest.approx(math.log(3))
        assert scores["sampled_mixed_H_y"].n == 2 * 3 * counts.min()
        assert scores["sampled_mixed_H_y_given_x"].value == pytest.approx(given_x)
        score = 3 / np.exp(given_x)
        assert scores["sampled_mixed_inception_score"].value == pytest.approx(score)
        long = {(row.metric, row.factor): row.score.value for row in result.long}
        other = long["sampled_mixed_inception_score_identity_kept", "action"]
        assert other == pytest.approx(3 / score)


class Watching:
    """A judge that keeps the clips it is shown and cannot tell them apart."""

    factors = toy.FACTORS

    def __init__(self):
        self.shown = []

    def predict(self, clips):
        self.shown.append(clips)
        return {
            f.name: np.full((len(clips), len(f.classes)), -np.log(len(f.classes)))
            for f in toy.FACTORS
        }


@pytest.mark.parametrize("evaluator", [PriorSamples, MixedCodes])
def test_every_repetition_is_another_draw(evaluator, request_):
    judge = Watching()
    outputs = SubjectOutputs(Oracle(request_.test), request_)
    evaluator(repetitions=2).evaluate(outputs, request_, judge)
    shown = torch.cat(judge.shown).unflatten(0, (2, 2, len(request_.test)))
    for first, second in shown:  # with the motion kept, then with the identity kept
        assert not torch.equal(first, second)


def test_one_hot_codes_are_the_labels(request_):
    codes = Oracle(request_.test).encode(request_.test.clips(np.arange(5)))
    assert torch.equal(
        torch.cat([codes.identity, codes.motion], 1), one_hot(request_.test.labels)[:5]
    )
