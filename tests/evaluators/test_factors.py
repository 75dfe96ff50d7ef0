"""MSD's scores on codes and models of known structure."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests.evaluators import toy
from tests.evaluators.known import Oracle
from vdsm_bench.contracts import Factor
from vdsm_bench.evaluators.factors import METRICS, FactorScores, Swaps, _judge_frames, findings
from vdsm_bench.evaluators.latents import (
    Explored,
    assign,
    compactness,
    determined,
    explore,
    frame_consistency,
    intervention_score,
    modularity,
    partners,
)
from vdsm_bench.evaluators.suite import evaluate

WHO = Factor("who", "static", tuple("abcdef"))
EVALUATORS = {"factors": FactorScores(repetitions=2)}


def test_dci_of_hand_computed_importances():
    tidy = np.array([[1.0, 0], [0, 1.0]])
    assert modularity(tidy) == pytest.approx(1.0)
    assert compactness(tidy).tolist() == [1.0, 1.0]
    mixed = np.full((2, 2), 0.5)
    assert modularity(mixed) == pytest.approx(0.0)
    assert compactness(mixed) == pytest.approx([0.0, 0.0])
    # duplicated: every factor spread over two dimensions of its own
    twice = np.array([[0.5, 0], [0.5, 0], [0, 0.5], [0, 0.5]])
    assert modularity(twice) == pytest.approx(1.0)
    assert compactness(twice) == pytest.approx([0.5, 0.5])  # 1 - log_4 2
    uneven = np.array([[0.75, 0.25], [0.25, 0.75]])
    h = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert modularity(uneven) == pytest.approx(1 - h)
    # a dead dimension changes nothing, a factor that nothing serves has no compactness
    assert modularity(np.vstack([uneven, [0, 0]])) == pytest.approx(1 - h)
    assert np.isnan(compactness(np.array([[1.0, 0], [0, 0]]))[1])
    assert np.isnan(modularity(np.zeros((3, 2))))


def test_dimensions_go_to_the_factor_they_matter_to():
    labels = toy.labels(300, seed=0)
    rng = np.random.default_rng(1)
    codes = np.stack([labels["colour"], labels["shape"], labels["action"], np.zeros(300)], 1)
    codes = codes + 0.01 * rng.normal(size=codes.shape) * [1, 1, 1, 0]
    columns = [labels[f.name] for f in toy.FACTORS]
    found = explore(
        codes[:200], [c[:200] for c in columns], codes[200:], [c[200:] for c in columns]
    )
    assert assign(found.importance).tolist() == [0, 1, 2, -1]
    assert found.accuracy.mean() == 1.0
    assert modularity(found.importance) > 0.8


def test_forests_on_noise_tell_nothing():
    """What they say of clips that they have learnt from is right, and counts for nothing."""
    labels = toy.labels(300, seed=0)
    codes = np.random.default_rng(1).normal(size=(300, 5))
    columns = [labels[f.name] for f in toy.FACTORS]
    found = explore(
        codes[:200], [c[:200] for c in columns], codes[200:], [c[200:] for c in columns]
    )
    assert not found.importance.any()
    assert (found.accuracy.mean(0) < [0.5, 0.65, 0.5]).all()  # of three, two and three classes


@pytest.mark.parametrize("n", [2, 3, 50])
def test_partners_are_other_clips(n):
    found = partners(n, 0, "x")
    assert sorted(found) == list(range(n))
    assert (found != np.arange(n)).all()


def test_intervention_score_by_hand():
    floor = np.array([0.25, 0.5])
    everything = np.array([True, True])
    perfect = np.array([[1.0, 0.5], [0.25, 1.0]])
    assert intervention_score(perfect, floor, everything) == 1.0
    nothing = np.array([[0.25, 0.5], [0.25, 0.5]])
    on, off = (0.75 + 0.5) / 2, 0.0
    assert intervention_score(nothing, floor, everything) == pytest.approx(1 - (on + off) / 2)
    copier = np.ones((2, 2))  # hands back the clip itself
    off = (0.5 + 0.75) / 2
    assert intervention_score(copier, floor, everything) == pytest.approx(1 - off / 2)
    missing = intervention_score(perfect, floor, np.array([True, False]))
    assert missing == pytest.approx(1 - 0.5 * (0.5 + 0.5))
    many = intervention_score(np.stack([perfect, copier]), floor, everything)
    assert many == pytest.approx([1.0, 1 - off / 2])


def test_frames_that_change_their_mind():
    said = {"x": np.array([[1, 1, 1, 1], [0, 1, 0, 1], [2, 2, 3, 3]])}
    clip, neighbours = frame_consistency(said)
    assert clip.tolist() == [1.0, 0.5, 0.5]
    assert neighbours == pytest.approx([1.0, 0.0, 2 / 3])
    assert frame_consistency({"x": np.zeros((2, 1), int)})[1].tolist() == [1.0, 1.0]


def test_figures_of_answers_by_hand(request_):
    """Four clips: what the judge says of swaps and of frames is given, every figure computed."""
    labels = {
        "colour": np.array([0, 1, 2, 0]),
        "shape": np.array([0, 1, 0, 1]),
        "action": np.array([2, 0, 1, 1]),
    }
    test = dataclasses.replace(request_.test, labels=labels, recordings=None)
    request = dataclasses.replace(request_, test=test)
    importance = np.array([[1.0, 0, 0], [0, 0.5, 0], [0, 0.5, 0], [0, 0, 1.0]])
    explored = Explored(importance, np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0]]))
    partner = np.array([[1, 2, 3, 0]])
    kept = {name: np.stack([values[None]] * 3) for name, values in labels.items()}
    frames = {  # of clips 3 and 0: half and a quarter right in colour, all and none in shape
        "colour": np.array([[0, 1, 0, 1], [1, 1, 1, 0]]),
        "shape": np.array([[1, 1, 1, 1], [1, 1, 1, 1]]),
    }
    two = {name: values[:2] for name, values in kept.items()}
    swaps = Swaps(partner, kept, two, frames, np.array([3, 0]))
    result = findings(request, explored, swaps)
    scores = {name: score.value for name, score in result.scores.items()}
    assert scores["frame_consistency_swap"] == pytest.approx(((0.5 + 1) / 2 + (0.25 + 0) / 2) / 2)
    assert scores["frame_consistency_clip"] == pytest.approx(((0.5 + 1) / 2 + (0.75 + 1) / 2) / 2)
    assert scores["frame_consistency_neighbours"] == pytest.approx((0.5 + (2 / 3 + 1) / 2) / 2)
    assert scores["dci_compactness"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert scores["dci_explicitness"] == pytest.approx((1 + 0.5 + 0.25) / 3)
    long = {(row.metric, row.factor): row.score.value for row in result.long}
    assert long["dci_compactness", "shape"] == pytest.approx(0.5)
    # every clip comes back as it was: right where its factor is kept, wrong where it is not
    floor = {"colour": 1 / 4, "shape": 0.0, "action": 1 / 4}
    assert {name: long["intervention_floor", name] for name in floor} == floor
    off = np.mean([1 - value for value in floor.values()])
    assert scores["intervention_score"] == pytest.approx(1 - off / 2)
    # no partner has both static factors of the clip
    assert scores["intervention_two_factor_score"] == pytest.approx(1 - (1 + 3 / 4) / 2 / 2)


@pytest.fixture(scope="module")
def oracle(request_):
    return lambda **more: Oracle(request_.test, request_.train, **more)


def test_a_frame_is_judged_as_a_clip_of_it_as_long_as_those_that_the_judge_knows():
    clips = torch.rand(2, 5, 3, 8, 8)
    seen = []

    class Watched:
        def predict(self, shown):
            seen.append(shown)
            return {"x": np.eye(10)}

    said = _judge_frames(Watched(), clips, ["x"])
    assert said["x"].tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    (shown,) = seen
    assert shown.shape == (10, 5, 3, 8, 8)
    for t in range(5):
        assert shown[:, t].equal(clips.flatten(0, 1))


def test_a_perfect_model(oracle, judge, request_):
    result = evaluate(oracle(), judge, request_, EVALUATORS)
    scores = {name: score.value for name, score in result.scores.items()}
    assert set(scores) == {metric.name for metric in METRICS}
    assert scores["intervention_score"] >= 0.9
    assert scores["intervention_two_factor_score"] >= 0.9
    assert scores["frame_consistency_swap"] >= 0.9
    assert scores["dci_explicitness"] == 1.0
    assert scores["dci_modularity"] >= 0.9
    long = {(row.metric, row.factor): row.score.value for row in result.long}
    assert long["intervention_keeping_action", "action"] >= 0.95
    floor = long["intervention_floor", "colour"]
    assert floor == pytest.approx(1 / 3, abs=0.15)
    assert long["intervention_keeping_action", "colour"] == pytest.approx(floor, abs=0.06)
    for score in result.scores.values():
        assert score.low is None or score.low <= score.value <= score.high


def test_factors_that_another_one_determines_are_named():
    who = np.arange(12)
    labels = {"skin": who % 2, "who": who, "name": 11 - who, "hair": who // 6, "shop": who % 6}
    assert determined(labels) == {"shop": "who", "hair": "who", "name": "who", "skin": "who"}
    apart = {"skin": labels["skin"], "hair": labels["hair"], "room": 0 * who}
    assert determined(apart) == {"room": "skin"}
    assert determined({"room": 0 * who}) == {}


class KnowsWho:
    """A judge that is asked who it is, too: the colour and the shape together."""

    def __init__(self, judge):
        self.judge, self.factors = judge, (WHO, *judge.factors)

    def predict(self, clips):
        said = self.judge.predict(clips)
        both = said["colour"][:, :, None] + said["shape"][:, None]
        return {**said, "who": both.reshape(len(clips), -1)}


def test_a_perfect_model_is_perfect_where_the_identity_determines_the_rest(oracle, judge, request_):
    def named(clips):
        who = 2 * clips.labels["colour"] + clips.labels["shape"]
        return dataclasses.replace(clips, labels={**clips.labels, "who": who})

    request = dataclasses.replace(
        request_,
        factors=(WHO, *request_.factors),
        test=named(request_.test),
        train=named(request_.train),
    )
    alone = dataclasses.replace(request, factors=(WHO, toy.FACTORS[2]))
    found, wanted = (evaluate(oracle(), KnowsWho(judge), r, EVALUATORS) for r in (request, alone))
    assert found.scores == wanted.scores
    assert found.scores["intervention_score"].value >= 0.9
    assert found.notes == [
        "factors: 'shape' is left out: 'who' determines it",
        "factors: 'colour' is left out: 'who' determines it",
    ]


def test_a_model_that_ignores_its_codes_scores_low(oracle, judge, request_):
    perfect = evaluate(oracle(), judge, request_, EVALUATORS).scores["intervention_score"]
    model = oracle()
    whole = model.generate
    model.generate = lambda codes, n: whole(
        dataclasses.replace(codes, motion=0 * codes.motion, identity=0 * codes.identity), n
    )
    useless = evaluate(model, judge, request_, EVALUATORS).scores["intervention_score"]
    assert useless.value < perfect.value - 0.2


def test_a_model_that_ignores_its_identity_code_is_steady_and_wrong(oracle, judge, request_):
    model = oracle()
    whole = model.generate
    model.generate = lambda codes, n: whole(
        dataclasses.replace(codes, identity=0 * codes.identity), n
    )
    scores = evaluate(model, judge, request_, EVALUATORS).scores
    assert scores["frame_consistency_swap"].value < 0.6
    assert scores["frame_consistency_clip"].value > 0.8


def test_single_frames_are_of_a_clip_s_identity_and_its_partner_s_motion(oracle, judge, request_):
    model, shown = oracle(), []
    whole = model.generate

    def watched(codes, n):
        shown.append(codes)
        return whole(codes, n)

    model.generate = watched
    evaluate(model, judge, request_, {"factors": FactorScores(repetitions=1)})
    n, size = len(request_.test), request_.batch_size
    own = model.encode(request_.test.clips(np.arange(n)))
    last = shown[-n // size :]  # frames are asked about last
    assert torch.cat([codes.identity for codes in last]).equal(own.identity)
    partner = partners(n, request_.seed, "0")
    assert torch.cat([codes.motion for codes in last]).equal(own.motion[partner])


def test_codes_with_a_dead_factor_count_as_the_worst(oracle, judge, request_):
    model = oracle()
    encode = model.encode
    model.encode = lambda clip: dataclasses.replace(encode(clip), motion=0 * encode(clip).motion)
    result = evaluate(model, judge, request_, EVALUATORS)
    assert any("'action'" in note for note in result.notes)
    assert result.scores["intervention_two_factor_score"].value <= 0.55


def test_what_cannot_be_had_is_empty_with_the_reason(oracle, judge, request_):
    alone = dataclasses.replace(request_, train=None)
    for request, reason in [
        (alone, "training clips"),
        (dataclasses.replace(request_, unscorable={"action": "unseen"}), "one dynamic"),
    ]:
        result = evaluate(oracle(), judge, request, EVALUATORS)
        assert all(reason in score.reason for score in result.scores.values())
    without = evaluate(oracle(), None, request_, EVALUATORS).scores
    assert without["intervention_score"].reason == "there is no judge"
    assert without["dci_explicitness"].value == 1.0


@pytest.fixture(scope="module")
def scored(oracle, judge, request_):
    def scores(size):
        request = dataclasses.replace(request_, batch_size=size)
        found = evaluate(oracle(), judge, request, {"factors": FactorScores(repetitions=1)}).scores
        return {name: score.value for name, score in found.items()}

    return scores


def test_the_batch_size_changes_no_number(scored):
    one = scored(7)
    assert scored(64) == pytest.approx(one, rel=1e-9)
    assert scored(1) == pytest.approx(one, rel=1e-9)
