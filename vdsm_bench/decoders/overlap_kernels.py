"""A transposed convolution's overlap-add and its way back as one kernel each, in Triton.

The patches are made by a product (:mod:`vdsm_bench.decoders.upconvolution`). With torch's operators
they are added up, and cut out of a gradient, in several passes over memory; here each of the two
reads and writes once. Sums are float32 whatever the type of the patches.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

#: numbers that one program writes
_BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator]
def _add_up(patches, bias, result, clip_rows, H, W: tl.constexpr, C: tl.constexpr, N: tl.constexpr):  # type: ignore[no-untyped-def]
    # a program writes a stretch of one row Y of a picture; pixel Y is reached by the kernel's row
    # i = Y + 1 - 2 y of the patches y at (Y + 1) // 2 and one above it
    row, at = tl.program_id(0), tl.program_id(1) * N + tl.arange(0, N)
    inside = at < 2 * W * C
    X, c = at // C, at % C
    Y, picture = row % (2 * H), row // (2 * H)
    y, i = (Y + 1) // 2, (Y + 1) % 2
    x, j = (X + 1) // 2, (X + 1) % 2
    total = tl.load(bias + (row // clip_rows) * C + c, mask=inside, other=0.0).to(tl.float32)
    for above in tl.static_range(2):
        first = patches + (picture.to(tl.int64) * H + y - above) * (W * 16 * C)
        for left in tl.static_range(2):
            tap = (i + 2 * above) * 4 + j + 2 * left
            there = (y - above >= 0) & (y - above < H) & (x - left >= 0) & (x - left < W)
            place = first + ((x - left) * 16 + tap) * C + c
            total += tl.load(place, mask=inside & there, other=0.0).to(tl.float32)
    tl.store(result + row.to(tl.int64) * (2 * W * C) + at, total, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _cut(pictures, patches, H, W: tl.constexpr, C: tl.constexpr, N: tl.constexpr):  # type: ignore[no-untyped-def]
    # a program writes a stretch of the patches of one row y; kernel row i of a patch is a run of
    # four pixels in the picture too
    row, at = tl.program_id(0), tl.program_id(1) * N + tl.arange(0, N)
    inside = at < W * 16 * C
    x, i, run = at // (16 * C), (at // (4 * C)) % 4, at % (4 * C)
    picture = row // H
    Y, X = 2 * (row % H) + i - 1, 2 * x - 1 + run // C
    there = (Y >= 0) & (Y < 2 * H) & (X >= 0) & (X < 2 * W)
    first = pictures + picture.to(tl.int64) * (4 * H * W * C)
    value = tl.load(first + (Y * 2 * W + 2 * x - 1) * C + run, mask=inside & there, other=0.0)
    tl.store(patches + row.to(tl.int64) * (W * 16 * C) + at, value, mask=inside)


def _grid(rows: int, length: int) -> tuple[Any, int]:
    size = min(_BLOCK, triton.next_power_of_2(length))
    return (rows, triton.cdiv(length, size)), size


def add_up(patches: Tensor, bias: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Adds patches up to pictures of twice the size, and a bias.

    Args:
        patches: ``[G, N H W, 16 C]``, contiguous.
        bias: ``[G, C]``, contiguous.
        shape: G, N, H and W.

    Returns:
        ``[G, N, 2H, 2W, C]``.
    """
    g, n, height, width = shape
    channels = bias.shape[1]
    result = patches.new_empty(g, n, 2 * height, 2 * width, channels)
    grid, size = _grid(2 * g * n * height, 2 * width * channels)
    _add_up[grid](patches, bias, result, 2 * n * height, height, W=width, C=channels, N=size)
    return result


def cut(pictures: Tensor) -> Tensor:
    """Cuts ``[G, N, 2H, 2W, C]``, contiguous, into the patches that were added up.

    Returns:
        ``[G, N H W, 16 C]``.
    """
    g, n, height, width, channels = pictures.shape
    height, width = height // 2, width // 2
    patches = pictures.new_empty(g, n * height * width, 16 * channels)
    grid, size = _grid(g * n * height, 16 * width * channels)
    _cut[grid](pictures, patches, height, W=width, C=channels, N=size)
    return patches


def check(device: torch.device) -> None:
    """Sees whether kernels run and sum what they should.

    Raises:
        ArithmeticError: they run, and their sums are wrong.
    """
    ones = torch.ones(1, 1, 16, device=device)
    summed = add_up(ones, ones[0, :, :1].contiguous(), (1, 1, 1, 1))
    if summed.sum().item() != 8 or cut(summed).sum().item() != 8:
        raise ArithmeticError("its sums are wrong")
