"""Known answers, scipy where it overlaps, and simulations of what the intervals promise."""

import numpy as np
import pytest
from scipy import stats

from vdsm_bench.errors import ProtocolError
from vdsm_bench.resampling import compare, deviations, holm, interval, ranks


def pairs_of(rng, identities, n):
    """Returns identities of A and B ``[n, 2]``, different in every pair."""
    first = rng.integers(identities, size=n)
    return np.stack([first, (first + rng.integers(1, identities, size=n)) % identities], axis=1)


def test_two_groups_by_hand():
    # Draws: the first twice, the second twice or one of each: -1, +1 or 0 from the mean, times
    # sqrt(2 / (2 - 1)) for two groups.
    found = deviations([0, 0, 2, 2], [5, 5, 9, 9], resamples=4000)
    values, counts = np.unique(np.round(found, 9), return_counts=True)
    assert values == pytest.approx([-np.sqrt(2), 0, np.sqrt(2)])
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_groups_of_one_row_are_the_plain_bootstrap_of_scipy():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=120)
    mine = interval(values, np.arange(120), resamples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert mine == pytest.approx((theirs.low, theirs.high), abs=0.03)


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
    one = np.diff(interval(values, groups[:, 0], resamples=4000))
    both = np.diff(interval(values, groups, resamples=4000))
    assert 0.95 * one <= both <= 1.25 * one


def test_variance_of_two_columns_is_that_of_cameron_gelbach_and_miller():
    rng = np.random.default_rng(3)
    groups = pairs_of(rng, 25, 400)
    values = rng.normal(size=25)[groups[:, 0]] + rng.normal(size=25)[groups[:, 1]]
    residual = values - values.mean()

    def clustered(labels):
        sums = np.array([residual[labels == label].sum() for label in np.unique(labels)])
        return (sums**2).sum() / 400**2 * len(sums) / (len(sums) - 1)

    wanted = sum(clustered(side) for side in groups.T) - clustered(groups @ [1000, 1])
    found = deviations(values, groups, resamples=10_000).var()
    assert found == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("effects", [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
def test_intervals_over_identities_cover_as_often_as_they_say(effects):
    rng = np.random.default_rng(4)
    hits, runs = 0, 200
    for _ in range(runs):
        groups = pairs_of(rng, 40, 300)
        hard = [
            strength * rng.normal(size=40)[side]
            for strength, side in zip(effects, groups.T, strict=True)
        ]
        values = np.sum(hard, axis=0) + rng.normal(size=300)
        low, high = interval(values, groups, resamples=300)
        hits += low <= 0 <= high
    assert 0.91 <= hits / runs <= 0.985


def test_an_interval_over_rows_alone_would_not():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        group = rng.integers(40, size=300)
        values = rng.normal(size=40)[group] + rng.normal(size=300)
        low, high = interval(values, np.arange(300), resamples=200)
        hits += low <= 0 <= high
    assert hits / 200 < 0.8


def test_a_paired_comparison_by_hand():
    # The second is wrong on one row more; nothing else differs.
    first, second = np.ones(4), np.array([1.0, 1.0, 1.0, 0.0])
    found = compare(first, second, np.arange(4), resamples=20_000)
    assert (found.difference, found.n) == (0.25, 4)
    # |k - 1| / 4 * sqrt(4 / 3) >= 1 / 4 for every k but 1, k binomial (4, 1/4) draws of that row
    assert found.p == pytest.approx(1 - stats.binom.pmf(1, 4, 0.25), abs=0.02)


def test_agrees_with_the_paired_t_test_on_many_rows():
    rng = np.random.default_rng(6)
    shared = rng.normal(scale=3.0, size=400)
    first, second = shared + rng.normal(0.1, 1, 400), shared + rng.normal(0.0, 1, 400)
    found = compare(first, second, np.arange(400))
    theirs = stats.ttest_rel(first, second)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.02)
    ends = theirs.confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=0.02)
    # unpaired, the shared difficulty would drown the difference
    assert found.high - found.low < 0.5 * np.ptp(
        stats.ttest_ind(first, second).confidence_interval()
    )


def test_equal_subjects_differ_by_nothing_and_opposite_ones_by_everything():
    values = np.random.default_rng(7).integers(2, size=50).astype(float)
    same = compare(values, values, np.arange(50))
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    far = compare(np.ones(50), np.zeros(50), np.arange(50), resamples=999)
    assert (far.difference, far.p) == (1.0, 1 / 1000)


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
    """The least p there can be, times as many pairs of subjects, has to stay below 5 %."""
    rng = np.random.default_rng(11)
    subjects = [(rng.random(200) < share).astype(float) for share in (0.98, *[0.02] * 39)]
    found = ranks(subjects, np.arange(200))
    assert found == [(1, False), *[(2, True)] * 39]


def test_equal_subjects_are_told_apart_as_seldom_as_the_family_error_says():
    rng = np.random.default_rng(10)
    wrong, runs = 0, 200
    for _ in range(runs):
        groups = pairs_of(rng, 40, 300)
        hard = rng.normal(size=(5, 40))  # every subject has identities of its own that it fails
        subjects = [(rng.normal(size=300) + own[groups[:, 0]] > 0).astype(float) for own in hard]
        wrong += any(not tied for _, tied in ranks(subjects, groups, resamples=499))
    # 5 % of 200 is 10; 99.9 % of such counts are below 21
    assert wrong <= 20


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        ([], []),
        ([1.0, 2.0], [3, 3]),
        ([1.0, np.nan], [0, 1]),
        ([1.0, 2.0], [0, 1, 2]),
        ([[1.0], [2.0]], [0, 1]),
        ([1.0, 2.0], [[0, 1, 2], [1, 2, 3]]),
    ],
)
def test_what_cannot_be_resampled_is_refused(values, groups):
    with pytest.raises(ProtocolError):
        deviations(values, groups)


def test_other_rows_are_no_pair():
    with pytest.raises(ProtocolError, match="do not go with 2 rows"):
        compare([1.0, 2.0], [1.0, 2.0, 3.0], [0, 1])
