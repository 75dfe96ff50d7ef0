"""Figures of the mixing weights, and the judgement whether codes are made use of."""

import math

import numpy as np
import pytest

from vdsm_bench.errors import ContractError, DataError
from vdsm_bench.evaluators.collapse import (
    code_directions,
    code_drift,
    code_information,
    idle_codes,
    mixing_figures,
    swap_gap,
)


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
    assert (found.clips, found.p) == (2, 0.25)  # of four ways that signs can fall, one


def test_a_swap_that_changes_nothing_or_nothing_surely_is_a_collapse():
    rng = np.random.default_rng(0)
    own = rng.uniform(0.5, 1.5, 64)
    assert swap_gap(own, own).collapsed
    assert swap_gap(own, 1.01 * own).collapsed  # sure, and too little
    assert swap_gap(own, own + rng.normal(0.03, 1.0, 64)).collapsed  # 3 % give or take 12
    assert not swap_gap(own, 1.05 * own).collapsed
    assert swap_gap(own, 0.5 * own).collapsed  # better with another clip's: no use of one's own


def test_one_swap_that_costs_a_hundred_times_the_others_hides_none_of_them():
    own = np.full(8, 0.01)
    rises = np.array([0.6, 21.2, 1.1, 2.4, 1.4, 4.9, 29.0, 0.1])  # on a dark ground, and on light
    found = swap_gap(own, own * (1 + rises))
    assert found.p == pytest.approx(0.5**8)
    assert not found.collapsed
    some_fall = swap_gap(own, own * (1 + rises * [1, -0.4, 1, -1, 1, -1, 1, -1]))
    assert some_fall.gap > 1
    assert some_fall.collapsed


@pytest.mark.parametrize(
    ("rises", "p", "collapsed"),
    [
        ([1, 2, 3, 4, 5, 6, -2.5, 7], 5 / 256, False),  # ranks up to a sum of 3: {}, 1, 2, 3, 1+2
        ([1, 2, 3, 4, 5, 6, -3.5, 7], 7 / 256, True),  # and 4, 1+3
        ([0, 0, 0, 1, 2, 3, 4, 5], 1 / 32, True),  # those that stay as they are do not count
        ([0, 0, 1, 2, 3, 4, 5, 6], 1 / 64, False),
        ([0, 1], 1 / 2, True),
        ([0, 1, 1], 1 / 4, True),
    ],
)
def test_what_is_sure_is_counted_out(rises, p, collapsed):
    found = swap_gap(np.ones(len(rises)), 1 + np.array(rises, dtype=float))
    assert found.p == pytest.approx(p)
    assert found.collapsed == collapsed


def test_of_few_clips_every_one_has_to_lose():
    own = np.ones(3)
    assert not swap_gap(own, np.array([1.1, 1.2, 1.4])).collapsed
    assert swap_gap(own, np.array([1.9, 1.2, 0.9])).collapsed


@pytest.mark.parametrize(
    ("own", "swapped"),
    [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, np.nan], [1.0, 2.0]), ([1.0, 2.0], [np.inf, 1.0])],
)
def test_errors_that_cannot_be_compared_are_refused(own, swapped):
    with pytest.raises(DataError, match="errors"):
        swap_gap(np.array(own), np.array(swapped))


def test_posteriors_that_are_the_same_tell_nothing_and_those_apart_tell_which_clip_it_is():
    one = np.full((40, 3), 0.7), np.full((40, 3), 0.2)
    assert code_information(*one) == pytest.approx(0.0, abs=1e-9)
    apart = np.arange(40.0)[:, None] * 100, np.ones((40, 1))
    assert code_information(*apart) == pytest.approx(math.log(40), abs=1e-9)
    pairs = np.repeat(apart[0], 2, axis=0), np.ones((80, 1))
    assert code_information(*pairs) == pytest.approx(math.log(40), abs=1e-9)


def test_information_is_the_integral_it_stands_for():
    """Two posteriors on a line, integrated numerically."""
    means, scales = np.array([[-0.4], [0.9]]), np.array([[0.5], [1.3]])
    x = np.linspace(-12, 12, 200_001)
    density = np.exp(-0.5 * ((x - means) / scales) ** 2) / (scales * math.sqrt(2 * math.pi))
    kl = (density * np.log(density / density.mean(0))).sum(1) * (x[1] - x[0])
    assert code_information(means, scales, draws=8_000) == pytest.approx(kl.mean(), abs=0.01)


@pytest.mark.parametrize(
    ("mean", "scale"),
    [
        (np.zeros((3, 2)), np.zeros((3, 2))),
        (np.zeros((3, 2)), np.ones((3, 1))),
        (np.full((3, 2), np.nan), np.ones((3, 2))),
        (np.zeros((0, 2)), np.ones((0, 2))),
    ],
)
def test_what_is_no_posterior_is_refused(mean, scale):
    with pytest.raises(ContractError, match="Posteriors"):
        code_information(mean, scale)
    with pytest.raises(ContractError, match="Posteriors"):
        code_directions(mean, scale)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"identity_information": 0.02, "swap_gap": 0.3}, "holds 0.02 nats"),
        ({"identity_information": 3.0, "swap_gap": 0.01}, "error changes by +1.0%"),
        ({"swap_gap": -0.4}, "error changes by -40.0%"),
        ({"identity_information": 3.0, "swap_gap": 0.03}, None),
        ({"swap_gap": 0.03, "collapsed": True}, None),  # 3 % give or take much is no ground
        ({"identity_information": 3.0}, None),
        ({}, None),
    ],
)
def test_a_code_is_idle_where_it_holds_nothing_or_changes_nothing(figures, said):
    found = idle_codes(figures, "motion")
    assert found == {} if said is None else said in found["identity"]


def test_the_code_of_the_movement_that_is_trained_is_the_one_that_counts():
    figures = {"identity_information": 3.0, "motion_information": 0.0, "pose_information": 0.09}
    assert list(idle_codes(figures, "pose")) == ["pose"]
    assert "pose code holds 0.09 nats" in idle_codes(figures, "pose")["pose"]
    assert "motion code holds 0.00 nats" in idle_codes(figures, "motion")["motion"]
    assert idle_codes({**figures, "pose_information": 0.11}, "pose") == {}
    assert set(idle_codes({**figures, "swap_gap": 0.0}, "pose")) == {"identity", "pose"}
    still = {"pose_information": 3.0, "swap_gap": 0.3, "motion_gap": 0.02}
    assert idle_codes(still, "pose") == {
        "pose": "with another clip's pose code the error changes by +2.0%"
    }
    assert idle_codes({**still, "motion_gap": 0.03}, "pose") == {}


def test_drift_is_nothing_where_codes_stay_and_two_where_they_are_strangers():
    codes = np.random.default_rng(0).normal(3.0, 2.0, (4000, 5))
    assert code_drift(codes, codes, codes) == 0.0
    assert code_drift(codes, codes[::-1], codes) == pytest.approx(2.0, abs=0.1)
    assert code_drift(codes, codes + 1.0, codes) == pytest.approx(1 / 4, rel=0.05)


@pytest.mark.parametrize(
    ("own", "swapped", "everyone"),
    [
        (np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((4, 2))),
        (np.zeros((3, 2)), np.zeros((4, 2)), np.zeros((4, 2))),
        (np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((4, 3))),
        (np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((1, 2))),
        (np.zeros(3), np.zeros(3), np.zeros(4)),
        (np.zeros((3, 2)), np.full((3, 2), np.nan), np.ones((4, 2))),
    ],
)
def test_drift_of_odd_codes_is_refused(own, swapped, everyone):
    with pytest.raises(DataError):
        code_drift(own, swapped, everyone)


def test_directions_are_counted_that_stand_out_of_the_noise_however_codes_are_turned():
    rng = np.random.default_rng(3)
    spread = np.array([9.0, 4.0, 4.0, 1.0, 0.1])  # in units of the noise
    turned, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    means = (rng.standard_normal((4000, 5)) * spread) @ turned
    scales = np.ones_like(means)
    assert code_directions(means, scales) == 3
    assert code_directions(means, scales, above=0.5) == 4
    assert code_directions(means * 100, scales * 100) == 3  # in whatever unit
    assert code_directions(means[:, :1] * [0.0, 1.0], scales[:, :2]) == 1  # the rest says nothing
