"""Entropies of a judge's answers and the inception score, from one and the same sample.

With p_i the judge's distribution for clip i of a sample and p the mean of the p_i (nats):
H(y) = H(p), how many classes the sample shows; H(y|x) = mean_i H(p_i), how sure the judge is of
each; IS = exp(mean_i KL(p_i || p)). Then IS = exp(H(y) - H(y|x)), always; it is asserted. Papers
disagree on which of the two is called inter- and which intra-entropy, so neither name is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vdsm_bench.contracts import Floats, Integers, Score
from vdsm_bench.errors import ContractError, ProtocolError
from vdsm_bench.seeding import generator

#: how far ln IS may lie from H(y) - H(y|x), nats
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Entropies:
    """Entropies in nats and the inception score of one sample."""

    h_y: float
    h_y_given_x: float
    inception_score: float


def entropies(log_probabilities: Floats) -> Entropies:
    """Computes H(y), H(y|x) and the inception score of one sample.

    Args:
        log_probabilities: ``[N, C]``, natural logarithms; each row a distribution.

    Raises:
        ContractError: no rows, NaN, or rows that are no distributions.
        ProtocolError: the inception score is not exp(H(y) - H(y|x)).
    """
    logs = _checked(log_probabilities)
    p = np.exp(logs)
    log_mean = _log(p.mean(0))
    finite = np.where(p > 0, logs, 0.0)
    h_y = float(-(p.mean(0) * log_mean).sum())
    h_y_given_x = float(-(p * finite).sum(1).mean())
    divergence = float((p * (finite - log_mean)).sum(1).mean())
    if abs(divergence - (h_y - h_y_given_x)) > _TOLERANCE:
        raise ProtocolError(
            f"ln IS is {divergence:.8f} but H(y) - H(y|x) is {h_y - h_y_given_x:.8f}: they do not "
            "come from one sample."
        )
    return Entropies(h_y, h_y_given_x, math.exp(divergence))


def balanced(labels: Integers) -> Integers:
    """Picks the first n clips of every class, n the count of the rarest class there is.

    Args:
        labels: ``[N]``.

    Returns:
        Row numbers in ascending order; the same number of every class that occurs.
    """
    values, counts = np.unique(labels, return_counts=True)
    rows = [np.flatnonzero(labels == value)[: counts.min()] for value in values]
    return np.sort(np.concatenate(rows)).astype(np.int64)


def entropy_scores(
    log_probabilities: Floats, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Score]:
    """Computes the three figures with bootstrap intervals over clips.

    Args:
        log_probabilities: ``[R, N, C]``: R draws for each of N clips; all R x N are one sample,
            and a resample takes a clip with all its draws.
        resamples: number of resamples.
        seed: seed of the resamples.

    Returns:
        ``H_y``, ``H_y_given_x`` and ``inception_score``; n is R x N. Percentile intervals, shifted
        by the bootstrap's own bias: a resample shows fewer classes than the sample it is from.
    """
    draws, n, size = log_probabilities.shape
    whole = entropies(log_probabilities.reshape(-1, size))
    p = np.exp(log_probabilities)
    own = -(p * np.where(p > 0, log_probabilities, 0.0)).sum(2).mean(0)
    rng = generator(seed, "bootstrap", n)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n
    means = weights @ p.mean(0)
    h_y, h_y_given_x = -(means * _log(means)).sum(1), weights @ own
    most = math.log(size)
    return {
        "H_y": _interval(whole.h_y, h_y, 0.0, most, draws * n),
        "H_y_given_x": _interval(whole.h_y_given_x, h_y_given_x, 0.0, most, draws * n),
        "inception_score": _interval(
            whole.inception_score, np.exp(h_y - h_y_given_x), 1.0, size, draws * n
        ),
    }


def _interval(value: float, resampled: Floats, least: float, most: float, n: int) -> Score:
    low, high = np.quantile(resampled, [0.025, 0.975]) + (value - resampled.mean())
    return Score(value, float(np.clip(low, least, value)), float(np.clip(high, value, most)), n)


def _log(values: Floats) -> Floats:
    return np.asarray(np.log(np.where(values > 0, values, 1.0)), dtype=np.float64)


def _checked(log_probabilities: Floats) -> Floats:
    logs = np.asarray(log_probabilities, dtype=np.float64)
    if logs.ndim != 2 or 0 in logs.shape:
        raise ContractError(f"Log-probabilities must be [N, C], got {list(logs.shape)}.")
    sums = np.exp(logs).sum(1)
    if not (np.abs(sums - 1) < 1e-4).all():  # written so that NaN fails too
        raise ContractError(
            f"Rows of log-probabilities must be distributions; their sums lie in "
            f"[{sums.min():.4g}, {sums.max():.4g}]."
        )
    return logs
