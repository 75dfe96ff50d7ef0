"""Means over clips with bootstrap intervals (docs: every score has an interval and its n)."""

from __future__ import annotations

import numpy as np

from vdsm_bench.contracts import Floats, Score
from vdsm_bench.errors import ProtocolError
from vdsm_bench.seeding import generator

#: largest number of drawn indices held at once
_CHUNK = 4_000_000


def bootstrap_mean(
    values: Floats, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Score:
    """Computes the mean over clips and its percentile bootstrap interval.

    The resamples depend on the seed and on n alone, so two subjects scored on the same clips are
    resampled alike.

    Args:
        values: one value per clip or pair ``[n]``; booleans count as 0 and 1.
        resamples: number of resamples with replacement.
        seed: seed of the resamples.
        level: coverage of the interval.

    Returns:
        Mean, lower and upper end, n.

    Raises:
        ProtocolError: no values, more than one axis, NaN or infinity.
    """
    flat = np.asarray(values, dtype=np.float64)
    if flat.ndim != 1 or len(flat) == 0:
        raise ProtocolError(f"A mean needs values [n] with n >= 1, got shape {list(flat.shape)}.")
    if not np.isfinite(flat).all():
        bad = int(np.count_nonzero(~np.isfinite(flat)))
        raise ProtocolError(f"{bad} of {len(flat)} values are NaN or infinite; no mean is taken.")
    rng = generator(seed, "bootstrap", len(flat))
    rows = max(1, _CHUNK // len(flat))
    means = np.concatenate(
        [
            flat[rng.integers(len(flat), size=(min(rows, resamples - start), len(flat)))].mean(1)
            for start in range(0, resamples, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Score(float(flat.mean()), float(low), float(high), len(flat))
