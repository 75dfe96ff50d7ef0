"""Several judges: how they agree, and what becomes of scores."""

import dataclasses
import statistics

import numpy as np
import pytest

from tests.evaluators import toy
from vdsm_bench.config import JudgeSettings
from vdsm_bench.contracts import (
    Evaluator,
    FactorScore,
    Findings,
    LabelledClips,
    MetricInfo,
    Score,
)
from vdsm_bench.errors import ProtocolError
from vdsm_bench.evaluators import suite
from vdsm_bench.evaluators.accuracies import Accuracies
from vdsm_bench.evaluators.controls import make_controls
from vdsm_bench.evaluators.frechet import JudgeDistances
from vdsm_bench.evaluators.judge_audit import ConstantJudge, audit
from vdsm_bench.evaluators.judge_card import JudgeClips, judge_key
from vdsm_bench.evaluators.judge_panel import (
    Panel,
    PanelCard,
    agree,
    combine,
    evaluate,
    evaluate_ceiling,
    obtain_panel,
)
from vdsm_bench.evaluators.outputs import RenderedOutputs
from vdsm_bench.evaluators.pixels import Pixels
from vdsm_bench.files import read_json, write_json

EVALUATORS = {"accuracies": Accuracies(), "pixels": Pixels()}
SEVERAL = JudgeSettings(
    architectures=["cnn-gru", "cnn-3d"],
    seeds=[0, 1],
    epochs=8,
    width=8,
    batch_size=16,
    learning_rate=5e-3,
    corruptions_floor=0.3,
)


@pytest.fixture(scope="module")
def clips(train, validation, test_clips):
    return JudgeClips(train, validation, test_clips, toy.make(40, seed=8))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("judges")


@pytest.fixture(scope="module")
def obtained(clips, runs):
    return obtain(clips, runs)


def obtain(clips, runs, settings=SEVERAL, **more):
    folders = [runs / judge_key(settings, {}, choice) for choice in settings.choices]
    return obtain_panel(
        folders,
        clips,
        panel_file=runs / "all" / "panel.json",
        factors=toy.FACTORS,
        settings=settings,
        **more,
    )


@pytest.fixture(scope="module")
def controls(train):
    return make_controls(train)


def test_there_is_one_judge_per_architecture_and_seed(obtained):
    panel, card = obtained
    assert list(card.cards) == [
        "cnn-gru seed 0", "cnn-gru seed 1", "cnn-3d seed 0", "cnn-3d seed 1",
    ]  # fmt: skip
    kinds = [type(member.network).__name__ for member in panel.members]
    assert kinds == ["RecurrentNetwork"] * 2 + ["VolumeNetwork"] * 2
    assert len({each.weights_sha256 for each in card.cards.values()}) == 4


def test_what_was_known_of_other_judges_is_computed_again(obtained, clips, runs):
    file = runs / "all" / "panel.json"
    known = read_json(file)
    write_json(file, {**known, "weights": "of another machine", "agreement": {}})
    _, card = obtain(clips, runs)
    assert card.agreement == obtained[1].agreement
    assert read_json(file) == known
    first, *others = card.cards.items()
    retrained = dict([(first[0], dataclasses.replace(first[1], weights_sha256="other")), *others])
    for cards in (retrained, dict(others)):
        assert PanelCard(cards, {}).summary()["weights"] != known["weights"]


def test_they_are_trained_once_and_a_judge_alone_is_one_of_them(obtained, clips, runs):
    trained = []
    again, card = obtain(clips, runs, progress=lambda *figures: trained.append(figures))
    assert card.agreement == obtained[1].agreement
    alone = SEVERAL.model_copy(update={"architectures": ["cnn-3d"], "seeds": [1]})
    (member,) = obtain(clips, runs, alone, progress=lambda *f: trained.append(f))[0].members
    assert trained == []
    shown = clips.test.clips(np.arange(4))
    np.testing.assert_array_equal(
        member.predict(shown)["action"], again.members[3].predict(shown)["action"]
    )


def test_agreement_of_known_answers():
    said = [{"a": np.array(answers)} for answers in ([0, 1, 2, 3], [0, 1, 2, 0], [0, 1, 0, 1])]
    found = agree(said)["a"]
    assert found == {"pairs": pytest.approx((3 / 4 + 2 / 4 + 2 / 4) / 3), "all": 0.5}
    assert agree([said[0], said[0]])["a"] == {"pairs": 1.0, "all": 1.0}


def test_the_summary_names_every_judge_and_the_worst(obtained):
    summary = obtained[1].summary()
    cards = obtained[1].cards
    lowest = {n: min(c.examinations["test"].accuracy.values()) for n, c in cards.items()}
    assert summary["judges"] == lowest
    assert summary["lowest_accuracy"] == min(lowest.values())
    mean = statistics.fmean(c.examinations["cells"].accuracy["action"] for c in cards.values())
    assert summary["accuracy"]["cells"]["action"] == pytest.approx(mean)
    assert set(summary["agreement"]) == {"colour", "shape", "action"}


def test_one_judge_that_fails_silences_all(obtained, clips, runs):
    strict = SEVERAL.model_copy(update={"corruptions_floor": 1.0})
    worst = min(
        min(card.examinations[name].accuracy.values())
        for card in obtained[1].cards.values()
        for name in ("blur", "resize", "shift")
    )
    assert worst < 1
    with pytest.raises(ProtocolError, match=r"The judge cnn-\w+ seed \d failed the") as caught:
        obtain(clips, runs, strict)
    assert caught.value.exit_code == 6


def test_a_score_is_the_mean_over_the_judges_with_their_spread(obtained, controls, request_):
    panel, subject = obtained[0], controls["frozen-frame"]
    members = [suite.evaluate(subject, each, request_, EVALUATORS) for each in panel.members]
    found = evaluate(subject, panel, request_, EVALUATORS)
    long = {(row.metric, row.factor): row.score for row in found.long}
    for column in ("consistent_accuracy", "dynamic_accuracy", "identity_accuracy"):
        values = [each.scores[column].value for each in members]
        assert found.scores[column].value == pytest.approx(statistics.fmean(values))
        spread = long[f"{column}_judge_spread", "all"]
        assert (spread.value, spread.n) == (pytest.approx(statistics.stdev(values)), 4)
        low = statistics.fmean(each.scores[column].low for each in members)
        assert found.scores[column].low == pytest.approx(low)
        assert found.scores[column].n == members[0].scores[column].n
        ends = [each.scores[column].by_identity for each in members]
        if None not in ends:
            expected = tuple(statistics.fmean(side) for side in zip(*ends, strict=True))
            assert found.scores[column].by_identity == pytest.approx(expected)
    for column, values in found.per_pair.items():
        np.testing.assert_allclose(
            values, np.mean([each.per_pair[column] for each in members], axis=0)
        )
    assert "dynamic_accuracy" in found.per_pair
    assert found.scores["mse"] == members[0].scores["mse"]
    assert ("mse_judge_spread", "all") not in long  # no judge was asked
    assert 0 <= long["accuracies_judge_agreement", "action"].value <= 1
    shown = found.histogram["transferred"]["action"]
    assert sum(shown) == 4 * len(request_.pairs)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_changes_no_digit_of_a_control(batch_size, judge, controls, request_):
    other = dataclasses.replace(request_, batch_size=batch_size)
    for control in controls.values():
        found = evaluate(control, Panel((judge,)), other, {"accuracies": Accuracies()})
        same = evaluate(control, Panel((judge,)), request_, {"accuracies": Accuracies()})
        assert found.as_json() == same.as_json()


def test_the_order_of_clips_and_pairs_changes_no_share(obtained, controls, request_):
    rng = np.random.default_rng(5)
    order = rng.permutation(len(request_.test))
    test = LabelledClips(
        lambda rows: request_.test.clips(order[rows]),
        {name: labels[order] for name, labels in request_.test.labels.items()},
    )
    pairs = rng.permutation(np.argsort(order)[request_.pairs])
    shuffled = dataclasses.replace(request_, test=test, pairs=pairs)
    for control in (controls["frozen-frame"], controls["copy-motion-clip"]):
        found = evaluate(control, obtained[0], shuffled, {"accuracies": Accuracies()})
        same = evaluate(control, obtained[0], request_, {"accuracies": Accuracies()})
        values = {name: score.value for name, score in same.scores.items()}
        assert {name: score.value for name, score in found.scores.items()} == values


def test_an_evaluator_that_asks_no_judge_is_asked_once(obtained, controls, request_):
    calls = []

    class Counting(Evaluator):
        metrics = (MetricInfo("counted", "none", None, None, "", 1, "Calls."),)

        def evaluate(self, outputs, request, judge):
            calls.append(judge.factors)
            return Findings({"counted": Score(1.0, 1.0, 1.0, 1)})

    found = evaluate(controls["mean-clip"], obtained[0], request_, {"counting": Counting()})
    assert len(calls) == 1
    assert found.scores["counted"].value == 1.0


def test_one_judge_and_none_are_scored_as_ever(judge, controls, request_):
    subject = controls["copy-motion-clip"]
    one = evaluate(subject, Panel((judge,)), request_, EVALUATORS).as_json()
    assert one == suite.evaluate(subject, judge, request_, EVALUATORS).as_json()
    none = evaluate(subject, None, request_, EVALUATORS)
    assert none.scores["dynamic_accuracy"].reason == "there is no judge"


def test_distances_are_means_over_judges_that_have_features_of_their_own(obtained, request_):
    members = obtained[0].members[::2]
    subject = RenderedOutputs(reconstructions=request_.test.clips)
    alone = [
        suite.evaluate(subject, member, request_, {"distances": JudgeDistances()})
        .scores["fvd_judge_floor"]
        .value
        for member in members
    ]
    assert alone[0] != pytest.approx(alone[1], rel=0.01)
    both = evaluate(subject, Panel(members), request_, {"distances": JudgeDistances()})
    assert both.scores["fvd_judge_floor"].value == pytest.approx(statistics.fmean(alone))
    long = {(row.metric, row.factor): row.score.value for row in both.long}
    spread = long["fvd_judge_floor_judge_spread", "all"]
    assert spread == pytest.approx(statistics.stdev(alone))


def test_what_one_judge_cannot_score_nobody_scores():
    def found(*values):
        score = Score(*values) if len(values) > 1 else Score(None, reason=values[0])
        return Findings({"a": score}, [FactorScore("m", "f", score)], {"a": {"labels": 0.5}},
                        {"real": {"f": [1, 2]}}, ["note"])  # fmt: skip

    whole = combine([found(0.5, 0.4, 0.6, 9), found("nothing to see")])
    assert whole.scores["a"].reason == "nothing to see"
    assert [row.metric for row in whole.long] == ["m"]
    both = combine([found(0.5, 0.4, 0.6, 9), found(0.7, 0.6, 0.8, 9)])
    assert both.scores["a"] == Score(pytest.approx(0.6), pytest.approx(0.5), pytest.approx(0.7), 9)
    assert both.histogram == {"real": {"f": [2, 4]}}
    assert both.chance == {"a": {"labels": 0.5}}
    assert both.notes == ["note"]


# --- the audit ----------------------------------------------------------------------------------


def rows_of(panel, controls, request):
    rows = [{"name": "real-test", **evaluate_ceiling(panel, request).as_json()}]
    for name, control in controls.items():
        found = evaluate(control, panel, request, EVALUATORS).as_json()
        rows.append({"name": name, **found})
    return rows


@pytest.fixture(scope="module")
def audited(obtained, controls, request_):
    return rows_of(obtained[0], controls, request_)


def failed(clips, request, card, rows, settings=SEVERAL):
    found = audit(clips, request, card, settings, rows)
    return [check["name"] for check in found["checks"] if not check["passed"]]


def test_a_sound_protocol_is_trusted(obtained, audited, clips, request_):
    found = audit(clips, request_, obtained[1], SEVERAL, audited)
    assert [check for check in found["checks"] if not check["passed"]] == []
    names = " ".join(check["name"] for check in found["checks"])
    for word in ("gate cells", "agreement", "constant judge", "copy-identity-clip: action_leak",
                 "frozen-frame: dynamic", "mean-clip: identity", "real-test", "best control",
                 "spread over the judges"):  # fmt: skip
        assert word in names
    # a constant judge makes every subject consistent: that column alone proves nothing
    assert found["constant_judge"]["consistent_accuracy"] == 1.0
    assert found["constant_judge"]["dynamic_accuracy"] < 0.5


def test_floors_that_refuse_nobody_are_not_trusted(obtained, audited, clips, request_):
    open_door = SEVERAL.model_copy(update={"floor": 0.0})
    assert failed(clips, request_, obtained[1], audited, open_door) == [
        "a constant judge at gate test"
    ]


def test_a_constant_judge_that_got_past_the_gates_is_found(
    obtained, controls, clips, request_, train
):
    constant = Panel((ConstantJudge.of(toy.FACTORS, train),) * 2)
    names = failed(clips, request_, obtained[1], rows_of(constant, controls, request_))
    assert "copy-identity-clip: action_leak" in names
    assert "real-test: dynamic_accuracy" in names


@pytest.mark.parametrize(
    ("control", "column", "value", "found"),
    [
        ("copy-identity-clip", "dynamic_accuracy", 0.4, "copy-identity-clip: dynamic_accuracy"),
        ("copy-identity-clip", "identity_accuracy", 0.93,
         "copy-identity-clip: identity_accuracy, as real clips"),
        ("copy-motion-clip", "identity_leak", 0.5, "copy-motion-clip: identity_leak"),
        ("frozen-frame", "dynamic_accuracy", 0.9, "frozen-frame: dynamic_accuracy"),
        ("mean-clip", "identity_accuracy", 0.9, "mean-clip: identity_accuracy"),
        ("frozen-frame", "transfer_accuracy", 0.8, "transfer_accuracy of the best control"),
    ],
)  # fmt: skip
def test_a_control_with_a_wrong_answer_is_found(
    obtained, audited, clips, request_, control, column, value, found
):
    rows = [
        {**row, "scores": {**row["scores"], column: {"value": value}}}
        if row["name"] == control
        else row
        for row in audited
    ]
    assert found in failed(clips, request_, obtained[1], rows)


def test_judges_that_do_not_agree_are_found(obtained, audited, clips, request_):
    card = dataclasses.replace(
        obtained[1], agreement={"action": {"pairs": 0.6, "all": 0.4}, "shape": {"pairs": 1.0}}
    )
    assert failed(clips, request_, card, audited) == ["agreement of two judges, worst factor"]
