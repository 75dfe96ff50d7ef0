"""Transposed convolutions with one weight per clip, as batched matrix products.

A transposed convolution (kernel 4, stride 2, padding 1) is a product, which makes a 4 x 4 patch of
every pixel, and an overlap-add of the patches. Done for many clips at once it needs no loop and
no grouped convolution. The LeakyReLU in front and the bias belong to the same function, so
that the step keeps nothing but the layer's input for the way back. On a GPU the overlap-add is a
kernel of our own where Triton is there, as it is beside torch on Linux.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from vdsm_bench.kernels import kernels_for

#: patches made at a time on a CPU, in bytes: they are added up while they are in its cache
_CACHE_BYTES = 8 * 2**20
#: fewer channels than this are too short a run to add up channels-last; they are made as planes
_FEW_CHANNELS = 16


class _Upconvolution(torch.autograd.Function):
    """LeakyReLU, product, overlap-add and bias; pictures ``[G, N, H, W, C]``, channels last."""

    @staticmethod
    def forward(ctx: Any, pictures: Tensor, weight: Tensor, bias: Tensor, slope: float) -> Tensor:
        g, n, height, width, inside = pictures.shape
        outside = weight.shape[-1]
        ctx.save_for_backward(pictures, weight)
        ctx.slope = slope
        flat = weight.reshape(g, inside, 16 * outside)
        if (kernels := _kernels(pictures)) is not None:
            active = functional.leaky_relu(pictures, slope).flatten(1, 3)
            summed: Tensor = kernels.add_up(
                torch.bmm(active, flat), bias.contiguous(), (g, n, height, width)
            )
            return summed
        planes = outside < _FEW_CHANNELS
        result = pictures.new_empty(
            (g, outside, n, 2 * height, 2 * width)
            if planes
            else (g, n, 2 * height, 2 * width, outside)
        )
        for part in _parts(pictures, 16 * outside):
            active = functional.leaky_relu(pictures[part], slope).flatten(1, 3)
            if planes:
                patches = torch.bmm(flat[part].transpose(1, 2), active.transpose(1, 2))
                patches = patches.view(-1, 4, 4, outside, n, height, width)
                _add_planes(patches, bias[part], result[part])
            else:
                patches = torch.bmm(active, flat[part])
                patches = patches.view(-1, n, height, width, 4, 4, outside)
                _add_channels_last(patches, bias[part], result[part])
        return result.permute(0, 2, 3, 4, 1) if planes else result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pictures, weight = ctx.saved_tensors
        (grad,) = grads
        g, _, _, _, inside = pictures.shape
        outside = weight.shape[-1]
        kernels = _kernels(pictures)
        planes = kernels is None and outside < _FEW_CHANNELS
        flat = weight.reshape(g, inside, 16 * outside)
        wants_pictures, wants_weight, wants_bias, _ = ctx.needs_input_grad
        of_pictures = torch.empty_like(pictures) if wants_pictures else None
        of_weight = torch.empty_like(flat) if wants_weight else None
        for part in _parts(pictures, 16 * outside):
            if planes:
                patches = _patches_of_planes(grad[part].permute(0, 4, 1, 2, 3)).transpose(1, 2)
            elif kernels is not None:
                patches = kernels.cut(grad[part].contiguous())
            else:
                patches = _patches_channels_last(grad[part])  # [g, N H W, 16 C], as the others
            if of_pictures is not None:
                _leaky_gradient(
                    torch.bmm(patches, flat[part].transpose(1, 2)),
                    pictures[part],
                    ctx.slope,
                    of_pictures[part],
                )
            if of_weight is not None:
                active = functional.leaky_relu(pictures[part], ctx.slope).flatten(1, 3)
                torch.bmm(active.transpose(1, 2), patches, out=of_weight[part])
        of_bias = grad.sum((1, 2, 3), dtype=torch.float32 if grad.element_size() < 4 else None)
        return (
            of_pictures,
            None if of_weight is None else of_weight.view(weight.shape),
            of_bias if wants_bias else None,
            None,
        )


def _kernels(pictures: Tensor) -> ModuleType | None:
    """Returns the kernels for these pictures, or None where torch's operators have to do."""
    return kernels_for("vdsm_bench.decoders.overlap_kernels", pictures)


def _parts(pictures: Tensor, patch: int) -> Iterator[slice]:
    """Yields clips whose patches fit the cache together; all of them on an accelerator."""
    clips = pictures.shape[0]
    size = pictures[0, ..., 0].numel() * patch * pictures.element_size()
    step = max(1, _CACHE_BYTES // size) if pictures.is_cpu else clips
    for first in range(0, clips, step):
        yield slice(first, first + step)


def _add_channels_last(patches: Tensor, bias: Tensor, result: Tensor) -> None:
    """Adds ``[G, N, H, W, 4, 4, C]`` up to ``[G, N, 2H, 2W, C]``: rows first, then columns."""
    g, n, height, width, _, _, channels = patches.shape
    p = patches.flatten(0, 1)
    rows = p.new_empty(g * n, height, 2, width, 4, channels)
    torch.add(p[:, 1:, :, 1], p[:, :-1, :, 3], out=rows[:, 1:, 0])
    rows[:, 0, 0] = p[:, 0, :, 1]
    torch.add(p[:, :-1, :, 2], p[:, 1:, :, 0], out=rows[:, :-1, 1])
    rows[:, -1, 1] = p[:, -1, :, 2]
    # kernel columns 1 and 2 each reach every pixel of their parity once
    rows.view(g, -1, 4, channels)[:, :, 1:3] += bias.view(g, 1, 1, channels)
    y = result.view(g * n, height, 2, width, 2, channels)
    torch.add(rows[:, :, :, 1:, 1], rows[:, :, :, :-1, 3], out=y[:, :, :, 1:, 0])
    y[:, :, :, 0, 0] = rows[:, :, :, 0, 1]
    torch.add(rows[:, :, :, :-1, 2], rows[:, :, :, 1:, 0], out=y[:, :, :, :-1, 1])
    y[:, :, :, -1, 1] = rows[:, :, :, -1, 2]


def _add_planes(patches: Tensor, bias: Tensor, result: Tensor) -> None:
    """Adds ``[G, 4, 4, C, N, H, W]`` up to ``[G, C, N, 2H, 2W]``: rows first, then columns."""
    p = patches
    g, _, _, channels, n, height, width = p.shape
    rows = p.new_empty(g, 4, channels, n, height, 2, width)
    torch.add(p[:, 1, ..., 1:, :], p[:, 3, ..., :-1, :], out=rows[..., 1:, 0, :])
    rows[..., 0, 0, :] = p[:, 1, ..., 0, :]
    torch.add(p[:, 2, ..., :-1, :], p[:, 0, ..., 1:, :], out=rows[..., :-1, 1, :])
    rows[..., -1, 1, :] = p[:, 2, ..., -1, :]
    rows[:, 1:3] += bias.view(g, 1, channels, 1, 1, 1, 1)
    y = result.view(g, channels, n, height, 2, width, 2)
    torch.add(rows[:, 1, ..., 1:], rows[:, 3, ..., :-1], out=y[..., 1:, 0])
    y[..., 0, 0] = rows[:, 1, ..., 0]
    torch.add(rows[:, 2, ..., :-1], rows[:, 0, ..., 1:], out=y[..., :-1, 1])
    y[..., -1, 1] = rows[:, 2, ..., -1]


def _patches_channels_last(pictures: Tensor) -> Tensor:
    """Cuts ``[G, N, 2H, 2W, C]`` into the patches that were added up: ``[G, N H W, 16 C]``."""
    g, n, height, width, channels = pictures.shape
    # patch (i, j) covers rows 2i .. 2i+3 and columns 2j .. 2j+3 of the padded picture
    s = (padded := functional.pad(pictures, (0, 0, 1, 1, 1, 1))).stride()
    shape = (g, n, height // 2, width // 2, 4, 4, channels)
    patches = padded.as_strided(shape, (s[0], s[1], 2 * s[2], 2 * s[3], s[2], s[3], s[4]))
    return patches.reshape(g, -1, 16 * channels)


def _patches_of_planes(pictures: Tensor) -> Tensor:
    """Cuts ``[G, C, N, 2H, 2W]`` into the patches that were added up: ``[G, 16 C, N H W]``."""
    g, channels, n, height, width = pictures.shape
    s = (padded := functional.pad(pictures, (1, 1, 1, 1))).stride()
    shape = (g, 4, 4, channels, n, height // 2, width // 2)
    patches = padded.as_strided(shape, (s[0], s[3], s[4], s[1], s[2], 2 * s[3], 2 * s[4]))
    return patches.reshape(g, 16 * channels, -1)


def _leaky_gradient(grad: Tensor, before: Tensor, slope: float, result: Tensor) -> None:
    torch.ops.aten.leaky_relu_backward.grad_input(
        grad.view(before.shape), before, slope, False, grad_input=result
    )


def product_type(like: Tensor) -> torch.dtype:
    """Returns the type for products: autocast's where it is on, else that of the tensor."""
    kind = like.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else like.dtype


def upconvolve(pictures: Tensor, weight: Tensor, bias: Tensor, *, slope: float) -> Tensor:
    """LeakyReLU, then twice the size by a transposed convolution (kernel 4, stride 2, padding 1).

    Args:
        pictures: ``[B, T, H, W, C_in]``, before the LeakyReLU.
        weight: ``[G, C_in, 4, 4, C_out]`` of the same type; G is B (one weight per clip) or 1
            (shared).
        bias: ``[G, C_out]``.
        slope: of the LeakyReLU, below zero; 1 is none.

    Returns:
        ``[B, T, 2H, 2W, C_out]``.
    """
    b, t, height, width, inside = pictures.shape
    grouped = pictures.reshape(weight.shape[0], -1, height, width, inside)
    result: Tensor = _Upconvolution.apply(grouped, weight, bias, slope)  # type: ignore[no-untyped-call]
    return result.reshape(b, t, 2 * height, 2 * width, -1)
