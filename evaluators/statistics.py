"""Means over clips with bootstrap intervals (docs: every score has an interval and its n)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vdsm_bench.contracts import EvaluationRequest, Floats, Integers, Score
from vdsm_bench.errors import ProtocolError
from vdsm_bench.evaluators.pairs import joint_classes
from vdsm_bench.seeding import generator
from vdsm_bench.significance import enough_groups, interval

#: largest number of drawn indices held at once
_CHUNK = 4_000_000


def identities(request: EvaluationRequest) -> Integers:
    """Numbers the identities (all static factors together) of the test clips, ``[N]``."""
    return joint_classes(request.test.labels, request.factors, "static")


def bootstrap_mean(
    values: Floats,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: Integers | None = None,
) -> Score:
    """Computes the mean over clips and its percentile bootstrap interval.

    The resamples depend on the seed and on n alone, so two subjects scored on the same clips are
    resampled alike.

    Args:
        values: one value per clip or pair ``[n]``; booleans count as 0 and 1.
        resamples: number of resamples with replacement.
        seed: seed of the resamples.
        level: coverage of the interval.
        groups: identities behind every value, ``[n]`` or ``[n, 2]`` (of A and of B): then the
            interval over identities is computed too, where there are enough of them, see
            :func:`~vdsm_bench.significance.interval`.

    Returns:
        Mean, lower and upper end, n; and the interval over identities.

    Raises:
        ProtocolError: no values, more than one axis, NaN or infinity.
    """
    flat = np.asarray(values, dtype=np.float64)
    if flat.ndim != 1 or len(flat) == 0:
        raise ProtocolError(f"A mean needs values [n] with n >= 1, got shape {list(flat.shape)}.")
    if not np.isfinite(flat).all():
        bad = int(np.count_nonzero(~np.isfinite(flat)))
        raise ProtocolError(f"{bad} of {len(flat)} values are NaN or infinite; no mean is taken.")
    means = _resampled_means(flat, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    by_identity = None
    if groups is not None and enough_groups(groups):
        by_identity = interval(flat, groups, level=level)
    return Score(float(flat.mean()), float(low), float(high), len(flat), by_identity=by_identity)


def _resampled_means(flat: Floats, resamples: int, seed: int) -> Floats:
    """Computes the mean of every resample, ``[resamples]``."""
    n = len(flat)
    rows = _CHUNK // n
    if rows >= resamples:
        return np.asarray(_counts(n, resamples, seed) @ flat / n, dtype=np.float64)
    rng = generator(seed, "bootstrap", n)
    sizes = [min(max(1, rows), resamples - start) for start in range(0, resamples, max(1, rows))]
    return np.concatenate([flat[rng.integers(n, size=(size, n))].mean(1) for size in sizes])


@lru_cache(maxsize=8)
def _counts(n: int, resamples: int, seed: int) -> Floats:
    """Returns how often each value is drawn, ``[resamples, n]``; not to be written to."""
    drawn = generator(seed, "bootstrap", n).integers(n, size=(resamples, n))
    drawn += n * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * n)
    return counts.reshape(resamples, n).astype(np.float64)
