import numpy as np
import pytest

from tests.evaluators import toy
from vdsm_bench.contracts import Factor
from vdsm_bench.errors import DataError, ProtocolError
from vdsm_bench.evaluators.pairs import (
    choose_clips,
    joint_classes,
    pair_list,
    telling_factors,
)

LABELS = toy.labels(90, seed=0)


def test_pairs_differ_in_identity_and_action_and_none_comes_twice():
    pairs = pair_list(LABELS, toy.FACTORS, 300)
    a, b = pairs.T
    identity = joint_classes(LABELS, toy.FACTORS, "static")
    assert (identity[a] != identity[b]).all()
    assert (LABELS["action"][a] != LABELS["action"][b]).all()
    assert (a != b).all()
    assert len(np.unique(pairs, axis=0)) == 300


def test_every_ordered_action_pair_gets_the_same_number():
    a, b = pair_list(LABELS, toy.FACTORS, 301).T
    table = np.zeros((3, 3), int)
    np.add.at(table, (LABELS["action"][a], LABELS["action"][b]), 1)
    counts = table[~np.eye(3, dtype=bool)]
    assert counts.sum() == 301
    assert counts.max() - counts.min() == 1


def test_is_a_function_of_labels_and_count_alone():
    np.random.seed(0)  # noqa: NPY002
    first = pair_list(LABELS, toy.FACTORS, 50)
    np.random.seed(1)  # noqa: NPY002
    assert np.array_equal(first, pair_list(dict(LABELS), list(toy.FACTORS), 50))


def test_the_list_is_this_one():
    """A change here changes published numbers: raise PAIRS_VERSION."""
    found = pair_list(LABELS, toy.FACTORS, 4)
    assert found.tolist() == [[25, 31], [30, 78], [74, 32], [40, 49]]


def test_takes_what_there_is_when_fewer_pairs_exist():
    labels = {
        "colour": np.array([0, 1]), "shape": np.array([0, 0]), "action": np.array([0, 1])
    }  # fmt: skip
    assert sorted(pair_list(labels, toy.FACTORS, 1000).tolist()) == [[0, 1], [1, 0]]


def test_pairs_differ_in_what_a_judge_can_tell_where_it_can_tell_anything():
    names = [f.name for f in telling_factors(toy.FACTORS, {"colour": "new"})]
    assert names == ["shape", "action"]
    for none in ({}, {"colour": "new", "shape": "new"}, {"action": "new"}):
        assert telling_factors(toy.FACTORS, none) == list(toy.FACTORS)


def test_same_identity_everywhere_is_refused():
    labels = {**LABELS, "colour": LABELS["colour"] * 0, "shape": LABELS["shape"] * 0}
    with pytest.raises(ProtocolError, match="identity and action"):
        pair_list(labels, toy.FACTORS, 10)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_kind_without_factors_is_refused(kind):
    factors = [factor for factor in toy.FACTORS if factor.kind != kind]
    with pytest.raises(ProtocolError, match=kind):
        pair_list(LABELS, factors, 10)


@pytest.mark.parametrize(
    "change",
    [
        {"colour": np.full(90, 3)},
        {"colour": np.full(90, -1)},
        {"colour": np.zeros(89, int)},
        {"colour": np.zeros(90)},
    ],
)
def test_bad_labels_are_a_data_error(change):
    with pytest.raises(DataError, match="colour|one label per clip"):
        pair_list({**LABELS, **change}, toy.FACTORS, 10)


def test_a_missing_factor_is_a_data_error():
    with pytest.raises(DataError, match="hat"):
        pair_list(LABELS, (*toy.FACTORS, Factor("hat", "static", ("a", "b"))), 10)


def test_chosen_clips_are_sorted_distinct_and_always_the_same():
    rows = choose_clips(1000, 100)
    assert np.array_equal(rows, np.unique(rows))
    assert np.array_equal(rows, choose_clips(1000, 100))
    assert rows.max() > 500
    assert np.array_equal(choose_clips(5, 100), np.arange(5))
