"""Known answers, scipy where it overlaps, and simulations of what is promised."""

import numpy as np
import pytest
from scipy import stats

from vdsm_bench.errors import ProtocolError
from vdsm_bench.significance import compare, enough_groups, holm, interval, ranks

#: how hard people are as identity and as source of the motion, from draws of their own for either
ROLES = {
    "none": lambda one, other: (0 * one, 0 * one),
    "identity alone": lambda one, other: (one, 0 * one),
    "apart": lambda one, other: (one, other),
    "the same in both": lambda one, other: (one, one),
}


def pairs_of(rng, identities, n):
    """Returns identities of A and B ``[n, 2]``, different in every pair."""
    first = rng.integers(identities, size=n)
    return np.stack([first, (first + rng.integers(1, identities, size=n)) % identities], axis=1)


def answers(rng, groups, identities, role):
    """Draws how well a subject does on every pair, around 0."""
    of_a, of_b = ROLES[role](*rng.normal(size=(2, identities)))
    return of_a[groups[:, 0]] + of_b[groups[:, 1]] + rng.normal(size=len(groups))


def test_groups_of_one_row_have_the_interval_of_student():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=12)
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert interval(values, np.arange(12), level=0.9) == pytest.approx((theirs.low, theirs.high))


def test_an_interval_stays_in_the_range_of_the_values():
    assert interval([0, 0, 1, 1], [5, 5, 9, 9]) == (0.0, 1.0)
    assert interval([0.1, 0.1, 0.1], [0, 1, 1]) == (0.1, 0.1)


def test_repeating_rows_of_an_identity_adds_nothing():
    rng = np.random.default_rng(1)
    once = rng.random(30)
    wide = interval(once, np.arange(30))
    repeated = interval(np.repeat(once, 50), np.repeat(np.arange(30), 50))
    assert repeated == pytest.approx(wide)


def test_a_second_column_without_effect_changes_little():
    rng = np.random.default_rng(2)
    groups = pairs_of(rng, 40, 800)
    values = (rng.random(40)[groups[:, 0]] > rng.random(800)).astype(float)
    one = np.diff(interval(values, groups[:, 0]))
    both = np.diff(interval(values, groups))
    assert 0.95 * one <= both <= 1.25 * one


def test_the_variance_over_pairs_is_the_dyadic_one():
    """Products of the residuals of all rows that share somebody, in whichever role."""
    rng = np.random.default_rng(3)
    groups = pairs_of(rng, 12, 90)
    values = answers(rng, groups, 12, "the same in both")
    residual = values - values.mean()
    shared = (groups[:, None, :, None] == groups[None, :, None, :]).any((2, 3))
    variance = residual @ shared @ residual / 90**2 * (12 * 11) / (10 * 9)
    reach = stats.t.ppf(0.975, 10) * np.sqrt(variance)
    assert interval(values, groups) == pytest.approx((values.mean() - reach, values.mean() + reach))


def test_the_dyadic_variance_is_right_on_average_from_four_identities_on():
    rng = np.random.default_rng(4)
    groups = np.array([(a, b) for a in range(4) for b in range(4) if a != b])
    drawn = [answers(rng, groups, 4, "the same in both") for _ in range(3000)]
    half = stats.t.ppf(0.975, 2)
    found = np.mean([np.square((compare(v, 0 * v, groups).high - v.mean()) / half) for v in drawn])
    # the floor, no less than clustered by dyad, adds a little
    assert 0.97 <= found / np.var([v.mean() for v in drawn]) <= 1.2


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("identities", [4, 7, 40])
def test_intervals_over_identities_cover_as_often_as_they_say(identities, role):
    rng = np.random.default_rng(5)
    hits, runs = 0, 400
    for _ in range(runs):
        groups = pairs_of(rng, identities, 500)
        low, high = interval(answers(rng, groups, identities, role), groups)
        hits += low <= 0 <= high
    assert hits / runs >= 0.92


def test_an_interval_over_rows_alone_would_not():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        group = rng.integers(40, size=300)
        values = rng.normal(size=40)[group] + rng.normal(size=300)
        low, high = interval(values, np.arange(300))
        hits += low <= 0 <= high
    assert hits / 200 < 0.8


def test_a_paired_comparison_is_the_paired_t_test_where_every_row_is_its_own_group():
    rng = np.random.default_rng(6)
    shared = rng.normal(scale=3.0, size=40)
    first, second = shared + rng.normal(0.3, 1, 40), shared + rng.normal(0.0, 1, 40)
    found = compare(first, second, np.arange(40))
    theirs = stats.ttest_rel(first, second)
    assert found.p == pytest.approx(theirs.pvalue)
    ends = theirs.confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.n == 40
    # unpaired, the shared difficulty would drown the difference
    assert found.high - found.low < 0.5 * np.ptp(
        stats.ttest_ind(first, second).confidence_interval()
    )


def test_equal_subjects_differ_by_nothing_and_opposite_ones_by_everything():
    values = np.random.default_rng(7).integers(2, size=50).astype(float)
    same = compare(values, values, np.arange(50))
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    far = compare(np.ones(50), np.zeros(50), np.arange(50))
    assert far.difference == 1.0
    assert far.p < 1e-9


def test_a_difference_of_rounding_is_none():
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1: equal seeds in another order are equal."""
    seeds = np.repeat([[0.1], [0.2], [0.3]], 50, axis=1)
    assert compare(seeds.mean(0), seeds[::-1].mean(0), np.arange(50)).p > 0.99


def test_differences_of_seeds_alone_have_the_p_of_welch():
    first, second = np.array([0.51, 0.49]), np.array([0.48, 0.46, 0.44])
    found = compare(*(np.repeat(each[:, None], 50, axis=1) for each in (first, second)), range(50))
    theirs = stats.ttest_ind(first, second, equal_var=False)
    assert found.p == pytest.approx(theirs.pvalue)
    ends = theirs.confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))


def test_several_seeds_widen_the_comparison_by_their_spread():
    rng = np.random.default_rng(8)
    base = rng.random(200)
    other = base - 0.2
    seeds = np.stack([base - 0.3, base, base + 0.3])
    alone = compare(base, other, np.arange(200))
    trained = compare(seeds, other, np.arange(200))
    assert trained.difference == pytest.approx(alone.difference)
    assert alone.p < 0.001
    assert trained.p > 0.05
    steady = compare(np.stack([base] * 3), other, np.arange(200))
    assert (steady.low, steady.high) == pytest.approx((alone.low, alone.high))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02])


def test_clear_differences_are_ranked_and_the_rest_is_tied():
    rng = np.random.default_rng(9)
    draw = rng.random(400)
    subjects = [(draw < share).astype(float) for share in (0.5, 0.9, 0.1)]
    assert ranks(subjects, np.arange(400)) == [(2, False), (1, False), (3, False)]
    noisy = [rng.permutation(subjects[0]) for _ in range(2)]  # equal shares on other rows
    assert ranks([*noisy, subjects[1]], np.arange(400)) == [(2, True), (2, True), (1, False)]
    assert ranks([noisy[0], noisy[0]], np.arange(400)) == [(1, True), (1, True)]
    assert ranks([noisy[0]], np.arange(400)) == [(1, False)]


def test_one_far_better_than_many_is_told_apart_from_each_of_them():
    """The p of each, times as many pairs of subjects, has to stay below 5 %."""
    rng = np.random.default_rng(11)
    subjects = [(rng.random(200) < share).astype(float) for share in (0.98, *[0.02] * 39)]
    found = ranks(subjects, np.arange(200))
    assert found == [(1, False), *[(2, True)] * 39]


@pytest.mark.parametrize("role", ["none", "the same in both"])
@pytest.mark.parametrize(
    ("identities", "seeds", "count"), [(4, 1, 2), (7, 1, 2), (40, 1, 2), (40, 1, 5), (40, 2, 2)]
)
def test_equal_subjects_are_told_apart_about_as_seldom_as_said(identities, seeds, count, role):
    rng = np.random.default_rng(10)
    wrong, runs = 0, 300
    for _ in range(runs):
        groups = pairs_of(rng, identities, 500)
        subjects = []
        for _ in range(count):
            own = answers(rng, groups, identities, role)  # every subject fails people of its own
            luck = 0.3 * rng.normal(size=(seeds, 1)) * (seeds > 1)
            subjects.append((own + luck + rng.normal(size=(seeds, 500)) > 0).astype(float))
        wrong += any(not tied for _, tied in ranks(subjects, groups))
    # 5 % of 300 is 15; 99.9 % of such counts are below 28
    assert wrong <= 27


@pytest.mark.parametrize(
    ("groups", "enough"),
    [([3, 3], False), ([3, 5], True), ([[0, 1], [1, 2], [2, 0]], False), ([[0, 1], [3, 2]], True)],
)
def test_two_identities_or_four_in_pairs_are_enough(groups, enough):
    assert enough_groups(groups) is enough
    values = np.arange(len(groups), dtype=float)
    if enough:
        assert len(interval(values, groups)) == 2
    else:
        with pytest.raises(ProtocolError, match="needed"):
            ranks([values, -values], groups)


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        ([], []),
        ([1.0, 2.0], [3, 3]),
        ([1.0, np.nan], [0, 1]),
        ([1.0, 2.0], [0, 1, 2]),
        ([[[1.0, 2.0]]], [0, 1]),
        ([1.0, 2.0], [[0, 1, 2], [1, 2, 3]]),
    ],
)
def test_what_cannot_be_compared_is_refused(values, groups):
    with pytest.raises(ProtocolError):
        interval(values, groups)


def test_other_rows_are_no_pair():
    with pytest.raises(ProtocolError, match="do not go with 2 rows"):
        compare([1.0, 2.0], [1.0, 2.0, 3.0], [0, 1])
