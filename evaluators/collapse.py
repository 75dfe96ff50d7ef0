"""Whether the identity code still says anything: how experts are mixed, and what a swap changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vdsm_bench.contracts import Floats
from vdsm_bench.errors import ContractError, DataError

#: a swap of identity codes that raises the error by no more than this share changes nothing
COLLAPSE_GAP = 0.02
#: standard errors by which the gap must lie above nothing
_MARGIN = 2.0


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


@dataclass(frozen=True)
class SwapGap:
    """What clips lose when they are regenerated with another clip's identity code.

    Attributes:
        gap: mean rise of the error, as a share of the mean error with the clip's own code.
        error: its standard error over clips.
    """

    gap: float
    error: float

    @property
    def collapsed(self) -> bool:
        """Whether the swap changes nothing: the decoder makes no use of the identity code."""
        return self.gap <= max(COLLAPSE_GAP, _MARGIN * self.error)


def swap_gap(own: Floats, swapped: Floats) -> SwapGap:
    """Compares regeneration with a clip's own identity code to that with another clip's.

    Args:
        own: mean squared error per clip ``[N]``, everything from the clip itself.
        swapped: the same with the identity code of another clip ``[N]``.

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
    share = (swapped - own) / max(float(own.mean()), 1e-12)
    return SwapGap(float(share.mean()), float(share.std(ddof=1) / np.sqrt(len(share))))


def _entropy(distributions: Floats) -> Floats:
    safe = np.where(distributions > 0, distributions, 1.0)
    return np.asarray(-(distributions * np.log(safe)).sum(-1), dtype=np.float64)
