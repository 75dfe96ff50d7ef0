"""Transposed convolutions with one weight per clip, as batched matrix products.

A transposed convolution is a product followed by an overlap-add. Done for all clips
at once it needs no loop and no grouped convolution, and it keeps frames channels-last,
so that neither step copies its operand.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _OverlapAdd(torch.autograd.Function):
    """Adds the 4 x 4 patches of a stride-2, padding-1 transposed convolution into the picture."""

    @staticmethod
    def forward(ctx: Any, patches: Tensor) -> Tensor:
        n, height, width, _, _, channels = patches.shape
        rows = patches.new_empty(n, height, 2, width, 4, channels)
        rows[:, :, 0] = patches[:, :, :, 1]
        rows[:, 1:, 0] += patches[:, :-1, :, 3]
        rows[:, :, 1] = patches[:, :, :, 2]
        rows[:, :-1, 1] += patches[:, 1:, :, 0]
        picture = patches.new_empty(n, height, 2, width, 2, channels)
        picture[..., 0, :] = rows[..., 1, :]
        picture[:, :, :, 1:, 0] += rows[:, :, :, :-1, 3]
        picture[..., 1, :] = rows[..., 2, :]
        picture[:, :, :, :-1, 1] += rows[:, :, :, 1:, 0]
        return picture.view(n, 2 * height, 2 * width, channels)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        n, height, width, channels = grad.shape
        padded = torch.nn.functional.pad(grad, (0, 0, 1, 1, 1, 1))
        stride = padded.stride()
        # patch (i, j) covers padded rows 2i .. 2i+3 and columns 2j .. 2j+3
        return padded.as_strided(
            (n, height // 2, width // 2, 4, 4, channels),
            (stride[0], 2 * stride[1], 2 * stride[2], stride[1], stride[2], stride[3]),
        ).contiguous()


def overlap_add(patches: Tensor) -> Tensor:
    """Sums 4 x 4 patches at stride 2 with padding 1.

    Args:
        patches: ``[N, H, W, 4, 4, C]``.

    Returns:
        ``[N, 2H, 2W, C]``.
    """
    picture: Tensor = _OverlapAdd.apply(patches)  # type: ignore[no-untyped-call]
    return picture


def upconvolve(pictures: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Doubles the size of pictures by a transposed convolution (kernel 4, stride 2, padding 1).

    Args:
        pictures: ``[B, T, H, W, C_in]``.
        weight: ``[G, C_in, 4, 4, C_out]``; G is B (one weight per clip) or 1 (shared).
        bias: ``[G, C_out]``.

    Returns:
        ``[B, T, 2H, 2W, C_out]``.
    """
    b, t, height, width, inside = pictures.shape
    g, outside = weight.shape[0], weight.shape[-1]
    columns = torch.bmm(pictures.reshape(g, -1, inside), weight.reshape(g, inside, 16 * outside))
    picture = overlap_add(columns.view(b * t, height, width, 4, 4, outside))
    return picture.view(b, t, 2 * height, 2 * width, outside) + bias.view(g, 1, 1, 1, outside)
