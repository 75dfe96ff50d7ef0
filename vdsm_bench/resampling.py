"""Resampling with replacement: intervals over identities, paired comparisons, Holm, ranks.

NumPy alone, so that the leaderboard needs no torch. A mean over clips hides that clips of one
identity rise and fall together; drawing whole identities does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from vdsm_bench.errors import ProtocolError
from vdsm_bench.seeding import generator

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
#: a family of comparisons is wrong somewhere at most this often
FAMILY_ERROR = 0.05


@dataclass(frozen=True)
class Comparison:
    """How two subjects differ on the same rows.

    Attributes:
        difference: mean of the first minus mean of the second.
        low: lower end of its 95 % interval.
        high: its upper end.
        p: how often a difference this large would come up if there were none (two-sided).
        n: rows behind it.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int


def deviations(
    values: npt.ArrayLike, groups: npt.ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> Floats:
    """Draws how far the mean over rows would stray on other identities, ``[resamples]``.

    Groups are drawn with replacement, each with all of its rows. Rows may belong to two groups,
    such as the identities of A and of B: then both are drawn, and the sum is scaled to the variance
    of two-way clustering (Cameron, Gelbach and Miller 2011), V_A + V_B - V_AB, at least either one.
    Variances are corrected for few groups by G / (G - 1).

    Args:
        values: ``[n]``.
        groups: group numbers ``[n]`` or ``[n, 2]``.
        resamples: number of draws.
        seed: seed of the draws; equal groups and seed give equal draws.

    Raises:
        ProtocolError: shapes that do not fit, NaN or infinity, or a column of a single group.
    """
    flat, columns = _checked(values, groups)
    residual = flat - flat.mean()
    parts = [
        _one_way(residual, column, resamples, seed, side) for side, column in enumerate(columns)
    ]
    if len(parts) == 1:
        return parts[0]
    both = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    sums = np.bincount(both, residual)
    shared = float(sums @ sums) / len(flat) ** 2 * len(sums) / max(len(sums) - 1, 1)
    first, second = (float(part.var()) for part in parts)
    if first + second == 0:
        return parts[0]
    wanted = max(first + second - shared, first, second)
    scaled: Floats = (parts[0] + parts[1]) * np.sqrt(wanted / (first + second))
    return scaled


def interval(
    values: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Computes the interval of the mean over other identities; see :func:`deviations`.

    It does not leave the range of the values.
    """
    flat = np.asarray(values, dtype=np.float64)
    strayed = deviations(flat, groups, resamples=resamples, seed=seed)
    low, high = flat.mean() + np.quantile(strayed, [(1 - level) / 2, (1 + level) / 2])
    return float(max(low, flat.min())), float(min(high, flat.max()))


def compare(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    resamples: int = 9999,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Compares two subjects on the same rows: paired, over identities and over training seeds.

    What both find hard cancels out, because the same draw serves both. Where a subject was trained
    several times, its seeds are drawn too.

    Args:
        first: values ``[n]``, or ``[seeds, n]``.
        second: the same of the other subject; its number of seeds may differ.
        groups: group numbers ``[n]`` or ``[n, 2]``.
        resamples: number of draws.
        seed: seed of the draws.
        level: coverage of the interval.

    Raises:
        ProtocolError: see :func:`deviations`.
    """
    one, other = (np.atleast_2d(np.asarray(v, dtype=np.float64)) for v in (first, second))
    if one.shape[1:] != other.shape[1:]:
        raise ProtocolError(
            f"A paired comparison needs the same rows, got {one.shape[1]} and {other.shape[1]}."
        )
    rows = one.mean(0) - other.mean(0)
    difference = float(rows.mean())
    strayed = deviations(rows, groups, resamples=resamples, seed=seed)
    for number, subject in enumerate((one, other)):
        if len(subject) > 1:
            means = subject.mean(1)
            strayed = strayed + _one_way(
                means - means.mean(), np.arange(len(means)), resamples, seed, 2 + number
            )
    low, high = difference + np.quantile(strayed, [(1 - level) / 2, (1 + level) / 2])
    # a hair below, so that a difference counts as no larger than itself after rounding
    beyond = np.count_nonzero(np.abs(strayed) >= abs(difference) * (1 - 1e-9))
    return Comparison(
        difference, float(low), float(high), (1 + beyond) / (1 + resamples), len(rows)
    )


def holm(p: npt.ArrayLike) -> Floats:
    """Adjusts p values ``[m]`` for m comparisons (Holm 1979): those at most alpha are real at once.

    The chance of a single false finding among all of them stays below alpha, whatever their
    dependence.
    """
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def ranks(
    subjects: Sequence[npt.ArrayLike],
    groups: npt.ArrayLike,
    *,
    resamples: int = 9999,
    alpha: float = FAMILY_ERROR,
) -> list[tuple[int, bool]]:
    """Ranks subjects scored on the same rows; higher is better.

    Args:
        subjects: values ``[n]`` or ``[seeds, n]`` of each.
        groups: group numbers ``[n]`` or ``[n, 2]``.
        resamples: draws of every comparison.
        alpha: chance that any two are told apart that are equal.

    Returns:
        For each: its rank, 1 + the number of subjects that are better beyond doubt (Holm over all
        pairs of subjects), and whether it is tied: some other one cannot be told apart from it.
    """
    count = len(subjects)
    couples = [(i, j) for i in range(count) for j in range(i + 1, count)]
    found = [compare(subjects[i], subjects[j], groups, resamples=resamples) for i, j in couples]
    better = np.zeros(count, dtype=np.int64)
    tied = np.zeros(count, dtype=bool)
    for (i, j), one, p in zip(couples, found, holm([one.p for one in found]), strict=True):
        if p > alpha:
            tied[[i, j]] = True
        else:
            better[j if one.difference > 0 else i] += 1
    return [(1 + int(n), bool(tie)) for n, tie in zip(better, tied, strict=True)]


def _one_way(residual: Floats, column: Integers, resamples: int, seed: int, side: int) -> Floats:
    numbers = np.unique(column, return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(numbers).astype(np.float64)
    counts = _counts(len(sizes), resamples, seed, side)
    strayed: Floats = (counts @ np.bincount(numbers, residual)) / (counts @ sizes)
    strayed *= np.sqrt(len(sizes) / (len(sizes) - 1))
    return strayed


@lru_cache(maxsize=8)
def _counts(groups: int, resamples: int, seed: int, side: int) -> Floats:
    """Returns how often each group is drawn, ``[resamples, groups]``; not to be written to."""
    rng = generator(seed, "groups", groups, side)
    drawn = rng.integers(groups, size=(resamples, groups))
    drawn += groups * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * groups).astype(np.float64)
    return counts.reshape(resamples, groups)


def _checked(values: npt.ArrayLike, groups: npt.ArrayLike) -> tuple[Floats, list[Integers]]:
    flat, table = np.asarray(values, dtype=np.float64), np.asarray(groups, dtype=np.int64)
    if table.ndim == 1:
        table = table[:, None]
    if flat.ndim != 1 or table.ndim != 2 or len(table) != len(flat) or table.shape[1] not in (1, 2):
        raise ProtocolError(
            f"Values [n] need groups [n] or [n, 2], got {list(flat.shape)} and {list(table.shape)}."
        )
    if not len(flat) or not np.isfinite(flat).all():
        raise ProtocolError("Values to resample must be finite, and at least one.")
    columns = list(table.T)
    if any(len(np.unique(column)) < 2 for column in columns):
        raise ProtocolError("Resampling over identities needs at least two of them.")
    return flat, columns
