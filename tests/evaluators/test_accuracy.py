"""Known subjects give known values; everything here is arrays, no network."""

import dataclasses

import numpy as np
import pytest

from tests.evaluators import toy
from vdsm_bench.contracts import EvaluationRequest
from vdsm_bench.errors import ProtocolError
from vdsm_bench.evaluators.accuracies import ALL, findings
from vdsm_bench.evaluators.accuracy import (
    agreement,
    chance,
    classes,
    histogram,
    transferred_reality,
)
from vdsm_bench.evaluators.pairs import joint_classes, pair_list
from vdsm_bench.significance import interval

N = 120
LABELS = toy.labels(N, seed=4)
PAIRS = pair_list(LABELS, toy.FACTORS, 200)
A, B = PAIRS.T


def request(**changes):
    test = toy.source(np.zeros((N, 1)), LABELS)
    base = EvaluationRequest(test, toy.FACTORS, PAIRS, bootstrap=20)
    return dataclasses.replace(base, **changes)


def perfect_transfer():
    return transferred_reality(LABELS, PAIRS, toy.FACTORS)


def values(found):
    return {name: score.value for name, score in found.scores.items()}


def rows(found):
    return {(row.metric, row.factor): row.score.value for row in found.long}


def test_perfect_subject():
    found = findings(request(), LABELS, LABELS, perfect_transfer())
    assert values(found) == {
        "consistent_accuracy": 1.0,
        "dynamic_accuracy": 1.0,
        "identity_accuracy": 1.0,
        "transfer_accuracy": 1.0,
        "action_leak": 0.0,
        "identity_leak": 0.0,
    }
    assert rows(found)["identity_leak", "colour"] == 0.0
    assert rows(found)["identity_accuracy_differing", ALL] == 1.0


@pytest.mark.parametrize(("side", "identity"), [(A, 1.0), (B, 0.0)])
def test_copying_one_clip_of_the_pair(side, identity):
    copied = {name: column[side] for name, column in LABELS.items()}
    found = values(findings(request(), LABELS, LABELS, copied))
    assert found["identity_accuracy"] == found["action_leak"] == identity
    assert found["dynamic_accuracy"] == found["identity_leak"] == 1 - identity
    assert found["transfer_accuracy"] == 0.0


def test_a_leak_in_one_factor_shows_in_that_factor_alone():
    said = perfect_transfer() | {"colour": LABELS["colour"][B]}
    found = findings(request(), LABELS, LABELS, said)
    long = rows(found)
    assert long["identity_leak", "colour"] == 1.0
    assert long["identity_accuracy_differing", "colour"] == 0.0
    assert long["identity_leak", "shape"] == 0.0
    assert long["identity_accuracy", "shape"] == 1.0
    same = LABELS["colour"][A] == LABELS["colour"][B]
    assert 0 < same.mean() < 1
    assert long["identity_accuracy", "colour"] == pytest.approx(same.mean())
    assert found.scores["identity_accuracy"].value == pytest.approx(same.mean())


def test_shuffled_answers_fall_to_chance():
    rng = np.random.default_rng(0)
    order = rng.permutation(len(PAIRS))
    said = {name: column[order] for name, column in perfect_transfer().items()}
    found = findings(request(), LABELS, LABELS, said)
    for column in ("dynamic_accuracy", "identity_accuracy"):
        score, level = found.scores[column], found.chance[column]["permutation"]
        assert abs(score.value - level) < 4 * np.sqrt(level / len(PAIRS))
    assert found.scores["dynamic_accuracy"].value < 0.5


def test_accuracy_leak_and_the_rest_add_up_to_one():
    rng = np.random.default_rng(1)
    said = {f.name: rng.integers(len(f.classes), size=len(PAIRS)) for f in toy.FACTORS}
    found = findings(request(), LABELS, LABELS, said)
    long = rows(found)
    for kind, stem in (("dynamic", "action"), ("static", "identity")):
        column = f"{'dynamic' if kind == 'dynamic' else 'identity'}_accuracy"
        for factor in [f.name for f in toy.FACTORS if f.kind == kind]:
            parts = (f"{column}_differing", f"{stem}_leak", f"{stem}_other")
            assert sum(long[part, factor] for part in parts) == pytest.approx(1.0)
            # with two classes, what is not A's is B's
            assert (long[f"{stem}_other", factor] > 0) == (factor != "shape")
        whole = long[f"{column}_differing", ALL] + long[f"{stem}_other", ALL]
        assert whole + found.scores[f"{stem}_leak"].value == pytest.approx(1.0)


def test_constant_judge_is_consistent_and_the_histogram_shows_it():
    constant = {name: np.zeros(N, int) for name in LABELS}
    moved = {name: np.zeros(len(PAIRS), int) for name in LABELS}
    found = findings(request(), constant, constant, moved)
    assert found.scores["consistent_accuracy"].value == 1.0
    assert found.chance["consistent_accuracy"] == {
        "permutation": 1.0, "labels": 1.0, "majority": 1.0
    }  # fmt: skip
    assert found.histogram["regenerated"]["colour"] == [N, 0, 0]
    assert found.scores["dynamic_accuracy"].value == pytest.approx(
        (LABELS["action"][B] == 0).mean()
    )


def test_consistency_compares_answers_not_labels():
    wrong = {f.name: (LABELS[f.name] + 1) % len(f.classes) for f in toy.FACTORS}
    found = findings(request(), wrong, wrong, "none")
    assert found.scores["consistent_accuracy"].value == 1.0
    assert rows(found)["reconstruction_accuracy", "colour"] == 0.0
    assert rows(found)["judge_accuracy", "colour"] == 0.0


def test_one_wrong_factor_breaks_joint_consistency_only_where_it_is_wrong():
    again = LABELS | {"shape": np.where(np.arange(N) < 30, 1 - LABELS["shape"], LABELS["shape"])}
    found = findings(request(), LABELS, again, "none")
    assert found.scores["consistent_accuracy"].value == pytest.approx(0.75)
    assert rows(found)["consistent_accuracy", "colour"] == 1.0
    assert rows(found)["consistent_accuracy", "shape"] == pytest.approx(0.75)


def test_the_order_of_pairs_does_not_matter():
    said = perfect_transfer() | {"colour": np.zeros(len(PAIRS), int)}
    order = np.random.default_rng(3).permutation(len(PAIRS))
    turned = {name: column[order] for name, column in said.items()}
    one = values(findings(request(), LABELS, LABELS, said))
    other = values(findings(request(pairs=PAIRS[order]), LABELS, LABELS, turned))
    assert one == pytest.approx(other)


def test_what_cannot_be_made_is_empty_with_the_reason():
    found = findings(request(), LABELS, "it cannot encode", "it cannot encode")
    assert all(score.value is None for score in found.scores.values())
    assert {score.reason for score in found.scores.values()} == {"it cannot encode"}
    assert found.scores["dynamic_accuracy"].as_json() == {"reason": "it cannot encode"}


def test_unscorable_factors_are_left_out_and_said():
    unscorable = {"colour": "new colours in the test set"}
    said = perfect_transfer()
    del said["colour"]
    real = {name: column for name, column in LABELS.items() if name != "colour"}
    found = findings(request(unscorable=unscorable), real, real, said)
    assert found.scores["identity_accuracy"].value == 1.0
    assert found.notes == ["'colour' is left out: new colours in the test set"]
    assert not any(row.factor == "colour" for row in found.long)


def test_no_static_factor_left_leaves_identity_empty():
    unscorable = {"colour": "new", "shape": "new"}
    found = findings(request(unscorable=unscorable), LABELS, LABELS, perfect_transfer())
    assert found.scores["dynamic_accuracy"].value == 1.0
    for column in ("identity_accuracy", "identity_leak", "transfer_accuracy"):
        assert found.scores[column].value is None
        assert "'colour': new" in found.scores[column].reason


def test_chance_by_hand():
    wanted = {"x": np.array([0, 0, 0, 1])}
    said = {"x": np.array([1, 1, 0, 2])}
    assert chance(said, wanted, ["x"]) == pytest.approx(
        {"permutation": 0.75 * 0.25 + 0.25 * 0.5, "labels": 0.625, "majority": 0.75}
    )


def test_joint_chance_counts_combinations():
    both = {"x": np.array([0, 0, 1, 1]), "y": np.array([0, 1, 0, 1])}
    assert chance(both, both, ["x", "y"])["labels"] == pytest.approx(0.25)


def test_chance_is_what_shuffling_gives():
    rng = np.random.default_rng(8)
    wanted = {"x": rng.integers(0, 3, 400), "y": rng.integers(0, 2, 400)}
    said = {"x": rng.integers(0, 2, 400), "y": rng.integers(0, 2, 400)}
    shares = []
    for _ in range(300):
        order = rng.permutation(400)
        shares.append(agreement({k: v[order] for k, v in said.items()}, wanted, ["x", "y"]).mean())
    assert np.mean(shares) == pytest.approx(
        chance(said, wanted, ["x", "y"])["permutation"], abs=4e-3
    )


def test_nan_and_misfits_are_refused():
    with pytest.raises(ProtocolError, match="colour"):
        classes({"colour": np.array([[0.0, np.nan]])})
    with pytest.raises(ProtocolError, match="equal numbers"):
        agreement({"x": np.zeros(3)}, {"x": np.zeros(4)}, ["x"])
    with pytest.raises(ProtocolError, match="no factor"):
        agreement({}, {}, [])


def test_histogram_counts_every_class():
    counts = histogram(LABELS, toy.FACTORS)
    assert [len(counts[f.name]) for f in toy.FACTORS] == [3, 2, 3]
    assert sum(counts["shape"]) == N


OUTCOMES = (
    "transfer_accuracy_differing",
    "transfer_copies_a",
    "transfer_copies_b",
    "transfer_exchanged",
    "transfer_other",
)


def third_colour():
    """Returns for every pair a colour that is neither A's nor B's."""
    free = np.ones((len(PAIRS), 3), bool)
    for side in (A, B):
        free[np.arange(len(PAIRS)), LABELS["colour"][side]] = False
    return free.argmax(1)


@pytest.mark.parametrize(
    ("who", "what", "change", "outcome"),
    [
        (A, B, {}, 0),
        (A, A, {}, 1),
        (B, B, {}, 2),
        (B, A, {}, 3),
        (A, B, {"colour": third_colour()}, 4),
    ],
)
def test_every_transfer_has_one_outcome(who, what, change, outcome):
    said = {f.name: LABELS[f.name][who if f.kind == "static" else what] for f in toy.FACTORS}
    long = rows(findings(request(), LABELS, LABELS, said | change))
    assert [long[name, ALL] for name in OUTCOMES] == [float(i == outcome) for i in range(5)]


def test_the_outcomes_of_guesses_add_up_to_one():
    rng = np.random.default_rng(6)
    said = {f.name: rng.integers(len(f.classes), size=len(PAIRS)) for f in toy.FACTORS}
    long = rows(findings(request(), LABELS, LABELS, said))
    assert sum(long[name, ALL] for name in OUTCOMES) == pytest.approx(1.0)
    assert long["transfer_other", ALL] > 0


def test_values_per_pair_are_those_behind_the_columns():
    said = perfect_transfer() | {"colour": LABELS["colour"][B]}
    found = findings(request(), LABELS, LABELS, said)
    assert set(found.per_pair) == {"dynamic_accuracy", "identity_accuracy", "transfer_accuracy"}
    for column, values in found.per_pair.items():
        assert values.shape == (len(PAIRS),)
        assert values.mean() == found.scores[column].value
    assert np.array_equal(
        found.per_pair["identity_accuracy"], LABELS["colour"][A] == LABELS["colour"][B]
    )


def test_columns_have_an_interval_over_identities():
    moved = perfect_transfer() | {"colour": np.zeros(len(A), int)}
    again = LABELS | {"colour": np.zeros(N, int)}
    found = findings(request(), LABELS, again, moved)
    score = found.scores["identity_accuracy"]
    low, high = score.by_identity
    # whole colours are right or wrong, so six identities say far less than 200 pairs
    assert high - low > 2 * (score.high - score.low)
    assert found.scores["dynamic_accuracy"].by_identity == (1.0, 1.0)
    who = joint_classes(LABELS, toy.FACTORS, "static")
    leak = (LABELS["colour"][B] == 0) & (LABELS["shape"][A] == LABELS["shape"][B])
    for column, values, groups in (
        ("consistent_accuracy", LABELS["colour"] == 0, who),
        ("identity_accuracy", found.per_pair["identity_accuracy"], who[PAIRS]),
        ("transfer_accuracy", found.per_pair["transfer_accuracy"], who[PAIRS]),
        ("identity_leak", leak, who[PAIRS]),
    ):
        expected = pytest.approx(interval(values, groups))
        assert found.scores[column].by_identity == expected, column
