"""Resampling with replacement: intervals over identities, paired comparisons, Holm, ranks.

NumPy alone, so that the leaderboard needs no torch. A mean over clips hides that clips of one
identity rise and fall together; drawing whole identities does not.
"""

from __future__ import annotations

import math
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
#: draws of a comparison, and the most that :func:`ranks` makes where there are many
_RESAMPLES, _MOST_RESAMPLES = 9999, 200_000


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
    clusters = _Clusters.of(groups)
    residual = clusters.residual(values)
    return clusters.joined(clusters.strayed(residual, resamples, seed), residual)


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
    resamples: int = _RESAMPLES,
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
    clusters = _Clusters.of(groups)
    one, other = (_Drawn.of(values, clusters, resamples, seed) for values in (first, second))
    difference, strayed = one.less(other, clusters, resamples, seed)
    low, high = difference + np.quantile(strayed, [(1 - level) / 2, (1 + level) / 2])
    p = _chance_of(difference, strayed)
    return Comparison(difference, float(low), float(high), p, len(one.rows))


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
    resamples: int | None = None,
    seed: int = 0,
    alpha: float = FAMILY_ERROR,
) -> list[tuple[int, bool]]:
    """Ranks subjects scored on the same rows; higher is better.

    Args:
        subjects: values ``[n]`` or ``[seeds, n]`` of each.
        groups: group numbers ``[n]`` or ``[n, 2]``.
        resamples: draws of every comparison. The least p that can come out is one over them, which
            Holm multiplies by the number of pairs of subjects: by default so many that it stays
            below alpha, for up to 141 subjects.
        seed: seed of the draws.
        alpha: chance that any two are told apart that are equal.

    Returns:
        For each: its rank, 1 + the number of subjects that are better beyond doubt (Holm over all
        pairs of subjects), and whether it is tied: some other one cannot be told apart from it.

    Raises:
        ProtocolError: see :func:`deviations`.
    """
    count = len(subjects)
    couples = [(i, j) for i in range(count) for j in range(i + 1, count)]
    enough = min(math.ceil(2 * len(couples) / alpha), _MOST_RESAMPLES)
    draws = resamples or max(_RESAMPLES, enough)
    clusters = _Clusters.of(groups)
    drawn = [_Drawn.of(values, clusters, draws, seed) for values in subjects]
    differences, p_values = [], []
    for i, j in couples:
        difference, strayed = drawn[i].less(drawn[j], clusters, draws, seed)
        differences.append(difference)
        p_values.append(_chance_of(difference, strayed))
    better = np.zeros(count, dtype=np.int64)
    tied = np.zeros(count, dtype=bool)
    for (i, j), difference, p in zip(couples, differences, holm(p_values), strict=True):
        if p > alpha:
            tied[[i, j]] = True
        else:
            better[j if difference > 0 else i] += 1
    return [(1 + int(n), bool(tie)) for n, tie in zip(better, tied, strict=True)]


@dataclass(frozen=True)
class _Clusters:
    """Which groups each row belongs to: one column of numbers, or two and their combinations."""

    columns: tuple[Integers, ...]
    both: Integers

    @classmethod
    def of(cls, groups: npt.ArrayLike) -> _Clusters:
        table = np.asarray(groups, dtype=np.int64)
        if table.ndim == 1:
            table = table[:, None]
        if table.ndim != 2 or table.shape[1] not in (1, 2):
            raise ProtocolError(f"Groups are [n] or [n, 2], got {list(table.shape)}.")
        columns = tuple(np.unique(column, return_inverse=True)[1].reshape(-1) for column in table.T)
        if any(column.max(initial=0) < 1 for column in columns):
            raise ProtocolError("Resampling over identities needs at least two of them.")
        both = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
        return cls(columns, both)

    def residual(self, values: npt.ArrayLike) -> Floats:
        """Returns values ``[n]`` less their mean."""
        flat = np.asarray(values, dtype=np.float64)
        if flat.shape != self.both.shape:
            raise ProtocolError(
                f"Values {list(flat.shape)} do not go with {len(self.both)} rows of groups."
            )
        if not np.isfinite(flat).all():
            raise ProtocolError("Values to resample must be finite, and at least one.")
        residual: Floats = flat - flat.mean()
        return residual

    def strayed(self, residual: Floats, resamples: int, seed: int) -> list[Floats]:
        """Returns how far the mean strays on other groups of either column; linear in the rows."""
        return [
            _one_way(residual, column, resamples, seed, side)
            for side, column in enumerate(self.columns)
        ]

    def joined(self, parts: Sequence[Floats], residual: Floats) -> Floats:
        """Joins the draws of two columns at the variance of two-way clustering."""
        if len(parts) == 1:
            return parts[0]
        sums = np.bincount(self.both, residual)
        shared = float(sums @ sums) / len(residual) ** 2 * len(sums) / max(len(sums) - 1, 1)
        first, second = (float(part.var()) for part in parts)
        if first + second == 0:
            return parts[0]
        wanted = max(first + second - shared, first, second)
        scaled: Floats = (parts[0] + parts[1]) * np.sqrt(wanted / (first + second))
        return scaled


@dataclass(frozen=True)
class _Drawn:
    """A subject: its rows (means over its seeds), its seeds' means, how its mean strays."""

    rows: Floats
    means: Floats
    parts: list[Floats]

    @classmethod
    def of(cls, values: npt.ArrayLike, clusters: _Clusters, resamples: int, seed: int) -> _Drawn:
        table = np.atleast_2d(np.asarray(values, dtype=np.float64))
        rows = table.mean(0)
        parts = clusters.strayed(clusters.residual(rows), resamples, seed)
        return cls(rows, table.mean(1), parts)

    def less(
        self, other: _Drawn, clusters: _Clusters, resamples: int, seed: int
    ) -> tuple[float, Floats]:
        """Returns the mean difference to another, and how far it strays: paired, on equal draws."""
        rows = self.rows - other.rows
        parts = [mine - theirs for mine, theirs in zip(self.parts, other.parts, strict=True)]
        strayed = clusters.joined(parts, rows - rows.mean())
        for number, means in enumerate((self.means, other.means)):
            if len(means) > 1:
                strayed = strayed + _one_way(
                    means - means.mean(), np.arange(len(means)), resamples, seed, 2 + number
                )
        return float(rows.mean()), strayed


def _chance_of(difference: float, strayed: Floats) -> float:
    """Returns how often a difference this large would come up if there were none (two-sided)."""
    # a hair below, so that a difference counts as no larger than itself after rounding
    beyond = np.count_nonzero(np.abs(strayed) >= abs(difference) * (1 - 1e-9))
    return float((1 + beyond) / (1 + len(strayed)))


def _one_way(residual: Floats, column: Integers, resamples: int, seed: int, side: int) -> Floats:
    sizes = np.bincount(column).astype(np.float64)
    counts = _counts(len(sizes), resamples, seed, side)
    strayed: Floats = (counts @ np.bincount(column, residual)) / (counts @ sizes)
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
