import numpy as np
import pytest
from scipy import stats

from vdsm_bench.errors import ProtocolError
from vdsm_bench.evaluators import statistics
from vdsm_bench.evaluators.statistics import bootstrap_mean
from vdsm_bench.seeding import generator


def test_agrees_with_scipy():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=120)
    mine = bootstrap_mean(values, resamples=20_000)
    # unseeded, as the seed's keyword depends on SciPy's version
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile"
    ).confidence_interval
    assert mine.value == pytest.approx(values.mean())
    # the Monte Carlo error of an end at 20,000 resamples is about 0.005 here
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)
    assert mine.n == 120


def test_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        score = bootstrap_mean(rng.random(60) < 0.3, resamples=200)
        hits += score.low <= 0.3 <= score.high
    assert 0.90 <= hits / 300 <= 0.98


def test_same_seed_same_interval_and_another_seed_another():
    values = np.random.default_rng(2).random(50)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1).low != bootstrap_mean(values, seed=2).low


def test_does_not_depend_on_how_many_resamples_are_held_at_once(monkeypatch):
    values = np.random.default_rng(3).random(50)
    whole = bootstrap_mean(values, resamples=100)
    for most in (7 * 50, 1):
        monkeypatch.setattr(statistics, "_CHUNK", most)
        parts = bootstrap_mean(values, resamples=100)
        assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), rel=1e-12)


def test_resamples_are_what_the_seed_s_generator_draws():
    values = np.random.default_rng(4).random(40)
    drawn = generator(6, "bootstrap", 40).integers(40, size=(300, 40))
    expected = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    score = bootstrap_mean(values, resamples=300, seed=6)
    assert (score.low, score.high) == pytest.approx(tuple(expected), rel=1e-12)


@pytest.mark.parametrize("values", [[], [[1.0]], [1.0, np.nan], [np.inf, 0.0]])
def test_refuses_what_has_no_mean(values):
    with pytest.raises(ProtocolError):
        bootstrap_mean(np.array(values))


def test_booleans_and_constants():
    assert bootstrap_mean(np.array([True, False])).value == 0.5
    score = bootstrap_mean(np.ones(9))
    assert (score.value, score.low, score.high) == (1.0, 1.0, 1.0)


def test_identities_widen_the_interval_where_their_clips_rise_and_fall_together():
    hard = np.repeat(np.arange(20) % 2, 30).astype(float)  # an identity is right always or never
    score = bootstrap_mean(hard, groups=np.repeat(np.arange(20), 30))
    assert score.by_identity is not None
    low, high = score.by_identity
    # over 600 clips +-0.04, over 20 identities +-0.22
    assert score.high - score.low < 0.1
    assert 0.35 < high - low < 0.55
    assert score.as_json() == {
        "value": 0.5, "low": score.low, "high": score.high, "n": 600,
        "identity_low": low, "identity_high": high,
    }  # fmt: skip


def test_one_identity_has_no_interval_over_identities():
    score = bootstrap_mean(np.array([0.0, 1.0]), groups=np.array([[1, 2], [3, 2]]))
    assert score.by_identity is None
    assert "identity_low" not in score.as_json()
