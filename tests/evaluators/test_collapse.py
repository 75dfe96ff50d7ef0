"""Figures of the mixing weights, and the judgement whether the identity code is made use of."""

import math

import numpy as np
import pytest

from vdsm_bench.errors import ContractError, DataError
from vdsm_bench.evaluators.collapse import mixing_figures, swap_gap


@pytest.mark.parametrize(
    ("weights", "largest"),
    [(np.full((50, 8), 1 / 8), 1 / 8), (np.eye(8)[np.zeros(50, int)], 1.0)],
    ids=["uniform", "one expert"],
)
def test_weights_that_do_not_depend_on_the_clip_carry_no_information(weights, largest):
    figures = mixing_figures(weights)
    assert figures["weight_information"] == pytest.approx(0.0, abs=1e-12)
    assert figures["largest_weight"] == pytest.approx(largest)


def test_one_expert_per_clip_carries_all_of_it():
    assert mixing_figures(np.eye(8)[np.arange(80) % 8]) == pytest.approx(
        {"largest_weight": 1.0, "weight_entropy": 0.0, "weight_information": math.log(8)}
    )


@pytest.mark.parametrize(
    "weights",
    [
        np.ones((3, 4)),
        np.array([[1.5, -0.5]]),
        np.full((2, 2), np.nan),
        np.ones(3),
        np.ones((0, 3)),
    ],
)
def test_what_is_no_distribution_is_refused(weights):
    with pytest.raises(ContractError, match="Mixing weights"):
        mixing_figures(weights)


def test_the_gap_is_the_rise_of_the_error_as_a_share_of_it():
    own, swapped = np.array([1.0, 3.0]), np.array([2.0, 6.0])
    found = swap_gap(own, swapped)
    assert found.gap == pytest.approx(4 / 4)
    assert found.error == pytest.approx(np.std([0.5, 1.5], ddof=1) / math.sqrt(2))


def test_a_swap_that_changes_nothing_or_nothing_surely_is_a_collapse():
    rng = np.random.default_rng(0)
    own = rng.uniform(0.5, 1.5, 64)
    assert swap_gap(own, own).collapsed
    assert swap_gap(own, 1.01 * own).collapsed  # sure, and too little
    assert swap_gap(own, own + rng.normal(0.03, 1.0, 64)).collapsed  # 3 % give or take 12
    assert not swap_gap(own, 1.05 * own).collapsed
    assert swap_gap(own, 0.5 * own).collapsed  # better with another clip's: no use of one's own


@pytest.mark.parametrize(
    ("own", "swapped"),
    [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, np.nan], [1.0, 2.0]), ([1.0, 2.0], [np.inf, 1.0])],
)
def test_errors_that_cannot_be_compared_are_refused(own, swapped):
    with pytest.raises(DataError, match="errors"):
        swap_gap(np.array(own), np.array(swapped))
