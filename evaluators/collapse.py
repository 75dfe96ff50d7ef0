"""Whether codes say anything: what they hold, how experts mix, what a swap changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from vdsm_bench.contracts import Floats
from vdsm_bench.errors import ContractError, DataError
from vdsm_bench.seeding import generator

#: an exchange of codes that raises the error by no more than this share changes nothing
COLLAPSE_GAP = 0.02
#: a code with fewer nats than this about which clip it is of holds nothing
LEAST_INFORMATION = 0.1
#: largest p of the signed-rank test at which a gap is believed
_CHANCE = 0.025


def mixing_figures(weights: Floats) -> dict[str, float]:
    """Measures how clips mix a model's experts; entropies in nats.

    The figures are shown, and judge nothing: weights that are nearly the same for all clips say
    much where the experts lie far apart, and nothing where the experts are alike.

    Args:
        weights: mixing weights ``[N, K]``, each row a distribution.

    Returns:
        ``largest_weight``: mean over clips of the largest weight, 1/K when uniform.
        ``weight_entropy``: mean entropy of a clip's weights, 0 when every clip has one expert.
        ``weight_information``: entropy of the mean weights less that, the mutual information of
        clip and expert; 0 when the weights are the same for all clips.

    Raises:
        ContractError: no rows, NaN, negative entries, or rows that do not sum to 1.
    """
    w = np.asarray(weights, dtype=np.float64)
    if w.ndim != 2 or 0 in w.shape:
        raise ContractError(f"Mixing weights must be [N, K], got {list(w.shape)}.")
    sums = w.sum(1)
    if not (np.isfinite(w).all() and w.min() >= 0 and np.abs(sums - 1).max() < 1e-3):
        raise ContractError("Mixing weights must be distributions: non-negative, sum 1, no NaN.")
    own = float(_entropy(w).mean())
    return {
        "largest_weight": float(w.max(1).mean()),
        "weight_entropy": own,
        "weight_information": max(0.0, float(_entropy(w.mean(0))) - own),
    }


def code_information(mean: Floats, scale: Floats, *, draws: int = 8, seed: int = 0) -> float:
    """Estimates the mutual information of clip and code, in nats, from normal posteriors.

    I(n; s) = mean over n of KL(q(s | x_n) || mean over m of q(s | x_m)), by drawing from each
    posterior. It is 0 where all posteriors are the same and ln N where none touch; what N clips
    can show is at most ln N.

    Args:
        mean: of the posteriors ``[N, K]``.
        scale: their standard deviations ``[N, K]``.
        draws: codes drawn per clip.
        seed: of the draws.

    Raises:
        ContractError: no rows, shapes that do not fit, NaN, scales that are not positive.
    """
    m, s = _posteriors(mean, scale)
    count = len(m)
    noise = generator(seed, "information", *m.shape).standard_normal((draws, *m.shape))
    precision = 1 / s**2
    total = 0.0
    for code in m + s * noise:
        # ln q(code_n | x_m) up to a constant that all share, [N, N]
        distance = code**2 @ precision.T - 2 * code @ (m * precision).T + (m**2 * precision).sum(1)
        logs = -0.5 * distance - np.log(s).sum(1)
        top = logs.max(1)
        mixture = top + np.log(np.exp(logs - top[:, None]).sum(1)) - np.log(count)
        total += float((np.diagonal(logs) - mixture).mean())
    return max(0.0, total / draws)


def code_directions(mean: Floats, scale: Floats, *, above: float = 10.0) -> int:
    """Counts the directions in which clips lie apart by more than a code's noise.

    They are the eigenvalues above a bound of the means' covariance, every dimension measured in
    its posteriors' root mean square. What clips differ in needs as many as it has degrees of
    freedom: six kinds of a thing, where every kind has its own, five.

    Args:
        mean: of the posteriors ``[N, K]``.
        scale: their standard deviations ``[N, K]``.
        above: the variance, in that of the noise, from which on a direction counts.

    Raises:
        ContractError: no rows, shapes that do not fit, NaN, scales that are not positive.
    """
    m, s = _posteriors(mean, scale)
    apart = (m - m.mean(0)) / np.sqrt((s**2).mean(0))
    return int((np.linalg.svd(apart, compute_uv=False) ** 2 / len(apart) > above).sum())


def _posteriors(mean: Floats, scale: Floats) -> tuple[Floats, Floats]:
    m, s = np.asarray(mean, dtype=np.float64), np.asarray(scale, dtype=np.float64)
    if m.ndim != 2 or m.shape != s.shape or 0 in m.shape:
        raise ContractError(f"Posteriors must be [N, K] twice, got {m.shape} and {s.shape}.")
    if not (np.isfinite(m).all() and np.isfinite(s).all() and s.min() > 0):
        raise ContractError("Posteriors must be finite, with positive scales.")
    return m, s


def idle_codes(figures: Mapping[str, Any], moving: str) -> dict[str, str]:
    """Says which codes a look at a model shows to be of no use, and why.

    No label enters. A code is idle that holds nothing (``identity_information`` ...), or whose
    exchange changes nothing (``swap_gap`` and ``motion_gap`` themselves, sure or not). How the
    experts are mixed decides nothing, see :func:`mixing_figures`.

    Args:
        figures: of one look, as in train.jsonl; those that are absent are not held against a code.
        moving: the code of the movement that counts, ``motion`` or ``pose``.

    Returns:
        The reason by code, ``identity`` and the one that moves.
    """
    found = {}
    for code, exchange in (("identity", "swap_gap"), (moving, "motion_gap")):
        held = figures.get(f"{code}_information", math.inf)
        gap = figures.get(exchange, math.inf)
        if held < LEAST_INFORMATION:
            found[code] = f"the {code} code holds {held:.2f} nats about which clip it is of"
        elif gap <= COLLAPSE_GAP:
            found[code] = f"with another clip's {code} code the error changes by {gap:+.1%}"
    return found


@dataclass(frozen=True)
class SwapGap:
    """What clips lose when they are regenerated with another clip's code of one kind.

    Attributes:
        gap: mean rise of the error, as a share of the mean error with the clip's own code.
        clips: how many were compared.
        p: one-sided, of Wilcoxon's signed-rank test against errors that do not rise; clips whose
            error stays as it is do not count. Ranks, because a swap between backgrounds costs a
            hundred times what one between shades does, and one such clip among few drowns all
            others in the standard error of the mean.
    """

    gap: float
    clips: int
    p: float

    @property
    def collapsed(self) -> bool:
        """Whether the swap changes nothing: the decoder makes no use of the code.

        Fewer than six clips cannot be sure of anything; there the error has to rise for each.
        """
        return self.gap <= COLLAPSE_GAP or self.p > max(_CHANCE, 1.001 * 0.5**self.clips)


def swap_gap(own: Floats, swapped: Floats) -> SwapGap:
    """Compares regeneration with a clip's own code to that with another clip's.

    Args:
        own: mean squared error per clip ``[N]``, everything from the clip itself.
        swapped: the same with the identity code, or that of the movement, of another clip ``[N]``.

    Raises:
        DataError: fewer than two clips, shapes that do not fit, NaN.
    """
    if own.ndim != 1 or own.shape != swapped.shape or len(own) < 2:
        raise DataError(
            f"A swap gap needs two errors [N] of two clips or more, got {list(own.shape)} and "
            f"{list(swapped.shape)}."
        )
    if not (np.isfinite(own).all() and np.isfinite(swapped).all()):
        raise DataError("The errors of regenerated clips hold NaN or infinity.")
    rise = swapped - own
    gap = float(rise.mean()) / max(float(own.mean()), 1e-12)
    moved = rise[rise != 0]
    # exact, and zeros left out here: releases of SciPy differ in what they do with them
    test = wilcoxon(moved, alternative="greater", method="exact") if len(moved) else None
    return SwapGap(gap, len(rise), 1.0 if test is None else float(test.pvalue))


def code_drift(own: Floats, swapped: Floats, everyone: Floats) -> float:
    """Measures how far codes move when clips are drawn with another identity and read again.

    mean |swapped - own|^2 over the variance of everyone's codes: 0 where a motion is read alike on
    everybody, 2 where what is read on another has nothing to do with it.

    Args:
        own: codes read off clips that were regenerated from their own codes ``[N, K]``.
        swapped: the same with the identity code of another clip ``[N, K]``.
        everyone: codes of many clips ``[M, K]``.

    Raises:
        DataError: no rows, shapes that do not fit, NaN.
    """
    fits = own.ndim == everyone.ndim == 2 and own.shape == swapped.shape
    if not fits or 0 in own.shape or own.shape[1] != everyone.shape[1] or len(everyone) < 2:
        raise DataError(
            f"A drift needs codes [N, K] twice and [M, K], got {list(own.shape)}, "
            f"{list(swapped.shape)} and {list(everyone.shape)}."
        )
    if not all(np.isfinite(codes).all() for codes in (own, swapped, everyone)):
        raise DataError("The codes of regenerated clips hold NaN or infinity.")
    moved = float(((swapped - own) ** 2).sum(1).mean())
    return moved / max(float(everyone.var(0).sum()), 1e-12)


def _entropy(distributions: Floats) -> Floats:
    safe = np.where(distributions > 0, distributions, 1.0)
    return np.asarray(-(distributions * np.log(safe)).sum(-1), dtype=np.float64)
