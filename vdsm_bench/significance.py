"""Whether differences are real: intervals over identities, paired comparisons, Holm, ranks.

No torch, for the leaderboard's sake. A mean over clips hides that clips of one identity rise and
fall together; variances clustered by identity do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from vdsm_bench.errors import ProtocolError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
#: a family of comparisons is wrong somewhere at most this often
FAMILY_ERROR = 0.05
#: groups needed where rows belong to one, and to two of them: of three, the pairs tell nothing
_LEAST = {1: 2, 2: 4}
#: standard errors are no smaller, so that equal means differ by nothing after rounding
_ROUNDING = 1e-12


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


def enough_groups(groups: npt.ArrayLike) -> bool:
    """Tells whether there are groups enough for :func:`interval`, :func:`compare`, :func:`ranks`.

    Args:
        groups: group numbers ``[n]``, of which two are needed, or ``[n, 2]``, of which four are.

    Raises:
        ProtocolError: another shape.
    """
    clusters = _Clusters.of(groups)
    return clusters.count >= _LEAST[len(clusters.columns)]


def interval(
    values: npt.ArrayLike, groups: npt.ArrayLike, *, level: float = 0.95
) -> tuple[float, float]:
    """Computes the interval of the mean over rows on other identities.

    It is Student's t with a variance clustered by group. Rows of ``[n, 2]`` lie between two groups,
    such as the identities of A and of B: any two rows that share one of them, in either role, may
    rise and fall together, so the variance is the dyadic one (Aronow, Samii and Assenova 2015), at
    least that clustered by dyad. Both are corrected for few groups, see :class:`_Clusters`.

    Args:
        values: ``[n]``.
        groups: group numbers ``[n]``, or ``[n, 2]`` from one numbering, two different ones a row.
        level: coverage.

    Returns:
        Lower and upper end, within the range of the values.

    Raises:
        ProtocolError: shapes that do not fit, NaN or infinity, or fewer than two groups, or four
            for ``[n, 2]``.
    """
    flat = np.asarray(values, dtype=np.float64)
    ends = _Subject.of(flat, _Clusters.enough(groups)).estimate().interval(level)
    low, high = np.clip(ends, flat.min(), flat.max())
    return float(low), float(high)


def compare(
    first: npt.ArrayLike, second: npt.ArrayLike, groups: npt.ArrayLike, *, level: float = 0.95
) -> Comparison:
    """Compares two subjects on the same rows: paired, over identities and over training seeds.

    What both find hard cancels out. Where a subject was trained several times, the variance of its
    seeds' mean is added, with Welch and Satterthwaite's degrees of freedom.

    Args:
        first: values ``[n]``, or ``[seeds, n]``.
        second: the same of the other subject; its number of seeds may differ.
        groups: group numbers ``[n]`` or ``[n, 2]``, see :func:`interval`.
        level: coverage of the interval.

    Raises:
        ProtocolError: see :func:`interval`.
    """
    clusters = _Clusters.enough(groups)
    one, other = (_Subject.of(values, clusters) for values in (first, second))
    found = one.less(other)
    return Comparison(found.value, *found.interval(level), found.p, clusters.rows)


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
    subjects: Sequence[npt.ArrayLike], groups: npt.ArrayLike, *, alpha: float = FAMILY_ERROR
) -> list[tuple[int, bool]]:
    """Ranks subjects scored on the same rows; higher is better.

    Args:
        subjects: values ``[n]`` or ``[seeds, n]`` of each.
        groups: group numbers ``[n]`` or ``[n, 2]``, see :func:`interval`.
        alpha: chance that any two are told apart that are equal.

    Returns:
        For each: its rank, 1 + the number of subjects that are better beyond doubt (Holm over all
        pairs of subjects), and whether it is tied: some other one cannot be told apart from it.

    Raises:
        ProtocolError: see :func:`interval`.
    """
    count = len(subjects)
    couples = [(i, j) for i in range(count) for j in range(i + 1, count)]
    clusters = _Clusters.enough(groups)
    known = [_Subject.of(values, clusters) for values in subjects]
    found = [known[i].less(known[j]) for i, j in couples]
    better = np.zeros(count, dtype=np.int64)
    tied = np.zeros(count, dtype=bool)
    for (i, j), one, p in zip(couples, found, holm([one.p for one in found]), strict=True):
        if p > alpha:
            tied[[i, j]] = True
        else:
            better[j if one.value > 0 else i] += 1
    return [(1 + int(n), bool(tie)) for n, tie in zip(better, tied, strict=True)]


@dataclass(frozen=True)
class _Estimate:
    """A mean or a difference of means, its variance, and how well that is known."""

    value: float
    variance: float
    freedom: float

    @property
    def error(self) -> float:
        return max(math.sqrt(self.variance), _ROUNDING)

    @property
    def p(self) -> float:
        return float(2 * stdtr(self.freedom, -abs(self.value) / self.error))

    def interval(self, level: float) -> tuple[float, float]:
        reach = float(stdtrit(self.freedom, (1 + level) / 2)) * math.sqrt(self.variance)
        return self.value - reach, self.value + reach


@dataclass(frozen=True)
class _Clusters:
    """Which groups each row belongs to, one or two of them, and which dyad: two in either order.

    Of rows in one group each, the dyads are the groups.
    """

    columns: tuple[Integers, ...]
    count: int
    dyads: Integers

    @classmethod
    def of(cls, groups: npt.ArrayLike) -> _Clusters:
        table = np.asarray(groups, dtype=np.int64)
        if table.ndim == 1:
            table = table[:, None]
        if table.ndim != 2 or table.shape[1] not in _LEAST:
            raise ProtocolError(f"Groups are [n] or [n, 2], got {list(table.shape)}.")
        names, numbers = np.unique(table, return_inverse=True)
        numbers = np.sort(numbers.reshape(table.shape), axis=1)
        codes = numbers @ len(names) ** np.arange(table.shape[1])
        dyads = np.unique(codes, return_inverse=True)[1].reshape(-1)
        return cls(tuple(numbers.T), len(names), dyads)

    @classmethod
    def enough(cls, groups: npt.ArrayLike) -> _Clusters:
        """Returns those of group numbers, or raises where there are too few groups."""
        found = cls.of(groups)
        least = _LEAST[len(found.columns)]
        if found.count < least:
            raise ProtocolError(f"Over {found.count} identities nothing is told; {least} needed.")
        return found

    @property
    def rows(self) -> int:
        return len(self.dyads)

    @property
    def freedom(self) -> int:
        """Degrees of freedom: G - 1, and of dyads G - 2, by which simulations keep the 5 %."""
        return min(self.count - len(self.columns), int(self.dyads.max()))

    def variance(self, by_group: Floats, by_dyad: Floats) -> float:
        """Returns the variance of a mean from what its residuals add up to, by group and by dyad.

        Residuals from a mean are too small. The factors make up for it: they are exact where every
        group meets every other equally often, whatever the effects of A, of B and of the dyad.
        """
        g, d = len(by_group), len(by_dyad)
        variance = float(by_dyad @ by_dyad) * d / (d - 1)
        if len(self.columns) == 2:
            shared = float(by_group @ by_group - by_dyad @ by_dyad)
            variance = max(variance, shared * g * (g - 1) / ((g - 2) * (g - 3)))
        return variance / self.rows**2


@dataclass(frozen=True)
class _Subject:
    """A subject: the mean of its rows, what they add up to by group and by dyad, its seeds."""

    clusters: _Clusters
    mean: float
    by_group: Floats
    by_dyad: Floats
    seeds: Floats

    @classmethod
    def of(cls, values: npt.ArrayLike, clusters: _Clusters) -> _Subject:
        table = np.atleast_2d(np.asarray(values, dtype=np.float64))
        if table.ndim != 2 or table.shape[1] != clusters.rows:
            raise ProtocolError(
                f"Values {list(table.shape)} do not go with {clusters.rows} rows of groups."
            )
        if not np.isfinite(table).all():
            raise ProtocolError("Values to compare must be finite.")
        rows = table.mean(0)
        residual = rows - rows.mean()
        sums = [np.bincount(side, residual, clusters.count) for side in clusters.columns]
        by_dyad = np.bincount(clusters.dyads, residual).astype(np.float64)
        return cls(clusters, float(rows.mean()), np.sum(sums, axis=0), by_dyad, table.mean(1))

    def estimate(self) -> _Estimate:
        """Returns its mean over identities alone."""
        variance = self.clusters.variance(self.by_group, self.by_dyad)
        return _Estimate(self.mean, variance, self.clusters.freedom)

    def less(self, other: _Subject) -> _Estimate:
        """Returns the mean difference to another, over identities (paired) and seeds."""
        paired = _Subject(
            self.clusters,
            self.mean - other.mean,
            self.by_group - other.by_group,
            self.by_dyad - other.by_dyad,
            self.seeds[:1],
        ).estimate()
        parts = [(paired.variance, paired.freedom)]
        for seeds in (self.seeds, other.seeds):
            if len(seeds) > 1:
                parts.append((float(seeds.var(ddof=1)) / len(seeds), len(seeds) - 1))
        variance = math.fsum(part for part, _ in parts)
        if variance == 0:
            return paired
        freedom = 1 / math.fsum((part / variance) ** 2 / free for part, free in parts)
        return _Estimate(paired.value, variance, freedom)
