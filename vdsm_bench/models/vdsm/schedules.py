"""VDSM's annealing schedules: functions of the epoch (supplement, figures 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.interpolate import interp1d

#: where the four given values of the pose schedule stand, as shares of the epochs
SPLINE_KNOTS = (0.0, 0.5, 0.8, 1.0)
SPLINE_RANGE = (0.005, 80.0)


def cosine_ramp(start: float, end: float, fraction: float, *, epoch: int, n_epochs: int) -> float:
    """Half-cosine ramp from ``start`` to ``end`` over the first ``1 / fraction`` of the epochs.

    With n = ceil(E / fraction), epoch e < n has the value
    ``start + (end - start) (cos(pi (n - 1 - e) fraction / E) + 1) / 2``; later epochs ``end``.

    Args:
        start: value the ramp leaves from.
        end: value it arrives at in epoch n - 1.
        fraction: 1 for all epochs, 2 for half of them, 3 for a third.
        epoch: e, from 0.
        n_epochs: E.
    """
    n = math.ceil(n_epochs / fraction)
    if epoch >= n:
        return end
    phase = math.cos(math.pi * (n - 1 - epoch) * fraction / n_epochs)
    return start + (end - start) * (phase + 1) / 2


def quadratic_spline(values: Sequence[float], *, epoch: int, n_epochs: int) -> float:
    """Quadratic spline through four values at 0, E/2, 0.8 E and E - 1, clipped to [0.005, 80].

    Args:
        values: the four values.
        epoch: e, from 0.
        n_epochs: E. With fewer than six epochs 0.8 E is not before E - 1: the knots then stand
            at their shares of E - 1.
    """
    last = n_epochs - 1
    if last == 0:
        return float(np.clip(values[-1], *SPLINE_RANGE))
    knots = [0.0, 0.5 * n_epochs, 0.8 * n_epochs, float(last)]
    if n_epochs < 6:
        knots = [share * last for share in SPLINE_KNOTS]
    return float(np.clip(interp1d(knots, values, kind="quadratic")(epoch), *SPLINE_RANGE))


def geometric(values: Sequence[float], *, epoch: int, n_epochs: int) -> float:
    """Geometric interpolation of four values at 0, 1/2, 4/5 and the last epoch.

    Args:
        values: the four values, positive.
        epoch: e, from 0.
        n_epochs: E.
    """
    share = epoch / max(n_epochs - 1, 1)
    return float(np.exp(np.interp(share, SPLINE_KNOTS, np.log(values))))
