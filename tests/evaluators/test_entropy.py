import math

import numpy as np
import pytest
from scipy.stats import entropy as scipy_entropy

from vdsm_bench.errors import ContractError
from vdsm_bench.evaluators.entropy import balanced, entropies, entropy_scores


def logs(rows):
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(rows, dtype=float))


def test_a_perfect_sample_shows_every_class_surely():
    found = entropies(logs(np.eye(6)[np.arange(60) % 6]))
    assert found.h_y == pytest.approx(math.log(6))
    assert found.h_y_given_x == 0.0
    assert found.inception_score == pytest.approx(6.0)


def test_useless_samples_score_one():
    one_class = entropies(logs(np.eye(6)[np.zeros(20, int)]))
    assert (one_class.h_y, one_class.h_y_given_x) == (0.0, 0.0)
    assert one_class.inception_score == 1.0
    unsure = entropies(logs(np.full((20, 6), 1 / 6)))
    assert unsure.h_y == pytest.approx(math.log(6))
    assert unsure.h_y_given_x == pytest.approx(math.log(6))
    assert unsure.inception_score == pytest.approx(1.0)


def test_agrees_with_scipy_and_with_the_definition():
    p = np.random.default_rng(0).dirichlet(np.full(5, 0.4), size=200)
    found = entropies(logs(p))
    assert found.h_y == pytest.approx(scipy_entropy(p.mean(0)))
    assert found.h_y_given_x == pytest.approx(scipy_entropy(p, axis=1).mean())
    divergence = scipy_entropy(p, np.broadcast_to(p.mean(0), p.shape), axis=1).mean()
    assert found.inception_score == pytest.approx(math.exp(divergence))
    assert found.inception_score == pytest.approx(math.exp(found.h_y - found.h_y_given_x))


def test_duplicated_and_shuffled_samples_change_nothing():
    p = np.random.default_rng(1).dirichlet(np.ones(4), size=50)
    one = entropies(logs(p))
    for other in (np.concatenate([p, p]), p[::-1]):
        again = entropies(logs(other))
        assert again.h_y == pytest.approx(one.h_y)
        assert again.h_y_given_x == pytest.approx(one.h_y_given_x)
        assert again.inception_score == pytest.approx(one.inception_score)


@pytest.mark.parametrize(
    "rows",
    [
        np.full((3, 2), np.nan),
        np.log(np.full((3, 2), 0.3)),  # a softmax of a softmax sums to something else
        np.zeros((0, 3)),
        np.zeros(3),
    ],
)
def test_what_is_no_distribution_is_refused(rows):
    with pytest.raises(ContractError):
        entropies(rows)


def test_balanced_takes_the_first_of_every_class():
    labels = np.array([0, 0, 2, 0, 2, 5, 5, 5, 0])
    rows = balanced(labels)
    assert rows.tolist() == [0, 1, 2, 4, 5, 6]
    assert np.bincount(labels[rows]).tolist() == [2, 0, 2, 0, 0, 2]


def test_intervals_hold_the_value_and_stay_in_range():
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.full(30, 0.2), size=(3, 60))
    found = entropy_scores(logs(p), resamples=400)
    assert set(found) == {"H_y", "H_y_given_x", "inception_score"}
    for score in found.values():
        assert score.low < score.value < score.high
        assert score.n == 180
    assert found["H_y"].high <= math.log(30)
    assert found["inception_score"].value == pytest.approx(
        math.exp(found["H_y"].value - found["H_y_given_x"].value)
    )
    certain = entropy_scores(logs(np.eye(2)[np.zeros((1, 9), int)]))
    assert certain["inception_score"].low == certain["inception_score"].high == 1.0


def test_more_draws_of_the_same_clips_are_no_more_clips():
    p = np.random.default_rng(4).dirichlet(np.full(5, 0.4), size=(1, 80))
    once, often = entropy_scores(logs(p)), entropy_scores(logs(np.repeat(p, 20, axis=0)))
    for name, score in once.items():
        expected = (score.value, score.low, score.high)
        assert (often[name].value, often[name].low, often[name].high) == pytest.approx(expected)
        assert (score.n, often[name].n) == (80, 1600)


def test_the_interval_covers_what_a_larger_sample_says():
    rng = np.random.default_rng(3)
    hits = 0
    truth = entropies(logs(rng.dirichlet(np.full(8, 0.3), size=200_000))).inception_score
    for _ in range(60):
        score = entropy_scores(logs(rng.dirichlet(np.full(8, 0.3), size=(1, 300))), resamples=200)
        hits += score["inception_score"].low <= truth <= score["inception_score"].high
    assert hits >= 50
