"""Pixel distances between real and regenerated clips: MSE, PSNR, SSIM."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vdsm_bench.contracts import (
    EvaluationRequest,
    Evaluator,
    Findings,
    Floats,
    Judge,
    MetricInfo,
    Outputs,
    Score,
    check_clip,
)
from vdsm_bench.errors import ContractError
from vdsm_bench.evaluators.outputs import batches
from vdsm_bench.evaluators.statistics import bootstrap_mean, identities

#: PSNR of a clip is cut off here (MSE 1e-10, below what 8-bit pixels can differ by): a mean over
#: clips stays finite when some are regenerated exactly
PSNR_CEILING = 100.0
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2

METRICS = (
    MetricInfo(
        "mse", "lower", 0.0, 1.0, "squared intensity", 2, "Mean squared error of regenerated clips."
    ),
    MetricInfo(
        "psnr",
        "higher",
        0.0,
        PSNR_CEILING,
        "dB",
        2,
        "Peak signal-to-noise ratio per clip, -10 log10 MSE, cut off at 100 dB; mean over clips.",
    ),
    MetricInfo(
        "ssim",
        "higher",
        -1.0,
        1.0,
        "index",
        2,
        "Structural similarity, 11 x 11 Gaussian window (sigma 1.5), mean over the clip.",
    ),
)


class Pixels(Evaluator):
    """MSE, PSNR and SSIM of the clips regenerated from their codes."""

    metrics: ClassVar[tuple[MetricInfo, ...]] = METRICS

    def evaluate(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge | None
    ) -> Findings:
        """Compares every test clip with what the subject regenerates from it."""
        reason = outputs.missing("reconstructions")
        if reason is not None:
            return Findings({m.name: Score(None, reason=reason) for m in METRICS})
        values: dict[str, list[Floats]] = {metric.name: [] for metric in METRICS}
        for rows in batches(len(request.test), request.batch_size):
            real = request.test.clips(rows).cpu()
            found = outputs.reconstructions(rows).cpu()
            errors = mse(real, found)
            values["mse"].append(errors)
            values["psnr"].append(psnr(errors))
            values["ssim"].append(ssim(real, found))
        return Findings(
            {
                name: bootstrap_mean(
                    np.concatenate(parts),
                    resamples=request.bootstrap,
                    seed=request.seed,
                    groups=identities(request),
                )
                for name, parts in values.items()
            }
        )


def mse(real: Tensor, found: Tensor) -> Floats:
    """Computes the mean squared error per clip ``[B]``; clips ``[B, T, C, H, W]`` in [0, 1].

    Raises:
        ContractError: unequal shapes, NaN, or values outside [0, 1].
    """
    _check(real, found)
    difference = (real.double() - found.double()).flatten(1)
    return difference.square().mean(1).numpy()


def psnr(errors: Floats) -> Floats:
    """Turns MSE per clip into dB for a peak of 1; equal clips get :data:`PSNR_CEILING`."""
    least = 10 ** (-PSNR_CEILING / 10)
    return -10 * np.log10(np.maximum(errors, least))


def ssim(real: Tensor, found: Tensor) -> Floats:
    """Computes the structural similarity per clip ``[B]`` (Wang et al. 2004).

    Statistics are taken per channel in every full 11 x 11 window inside the frame; smaller frames
    get the largest odd window that fits.

    Raises:
        ContractError: unequal shapes, NaN, or values outside [0, 1].
    """
    _check(real, found)
    batch, _, _, height, width = real.shape
    window = _gaussian(min(_WINDOW, (min(height, width) - 1) // 2 * 2 + 1))
    down, across = _sliding(window, height), _sliding(window, width)
    x = real.double().reshape(-1, height, width)
    y = found.double().reshape(-1, height, width)

    def smooth(pictures: Tensor) -> Tensor:  # the result lies on its side, which no mean minds
        return (pictures @ across).transpose(1, 2).contiguous() @ down

    mean_x, mean_y = smooth(x), smooth(y)
    var_x = smooth(x * x) - mean_x**2
    var_y = smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    index = ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)) / (
        (mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2)
    )
    return index.reshape(batch, -1).mean(1).numpy()


def _gaussian(size: int) -> Tensor:
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-(offsets**2) / (2 * math.pow(_SIGMA, 2)))
    return weights / weights.sum()


def _sliding(window: Tensor, size: int) -> Tensor:
    """Returns the matrix ``[size, places]`` that weighs a line at every place of the window."""
    places = size - len(window) + 1
    weights = torch.zeros(size, places, dtype=window.dtype)
    for place in range(places):
        weights[place : place + len(window), place] = window
    return weights


def _check(real: Tensor, found: Tensor) -> None:
    check_clip(real, "pixels, real clips")
    check_clip(found, "pixels, regenerated clips")
    if real.shape != found.shape:
        raise ContractError(
            f"pixels: real {list(real.shape)} and regenerated {list(found.shape)} clips differ in "
            "shape."
        )
