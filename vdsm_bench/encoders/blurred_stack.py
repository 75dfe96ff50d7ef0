"""Convolutions with BlurPools between them, in the form that suits the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

#: products in one batch: cuBLAS has taken no more of them at once
_TOGETHER = 65_535


class BlurredStack(nn.Sequential):
    """Layers of which some are BlurPools; on a GPU each of those is two matrix products.

    A blur is linear and takes rows and columns in turn, edges included: R x C^T for every channel.
    On a GPU, whose depthwise convolution and reflected edges take most of an encoder's time, the
    products take little; on a CPU they gain nothing, and at 64 x 64 they take longer.

    Args:
        layers: in turn; a BlurPool is told by its filter.
        frames: any pictures ``[N, C, H, W]`` of the size that the layers are to see.
    """

    def __init__(self, *layers: nn.Module, frames: Tensor) -> None:
        super().__init__(*layers)
        with torch.no_grad():
            for index, layer in enumerate(self):
                if _is_blur(layer):
                    rows, columns = (along(layer, side) for side in frames.shape[2:])
                    # not in checkpoints: they follow from the filter
                    self.register_buffer(f"rows_{index}", rows, persistent=False)
                    self.register_buffer(f"columns_{index}", columns, persistent=False)
                frames = layer(frames)

    def forward(self, input: Tensor) -> Tensor:
        """Returns what the layers make of pictures ``[N, C, H, W]``, channels last in memory."""
        # channels last: half the time on a CPU, where the blur's depthwise convolution dominates
        seen = input.contiguous(memory_format=torch.channels_last)
        for index, layer in enumerate(self):
            if seen.is_cuda and _is_blur(layer):
                rows = self.get_buffer(f"rows_{index}")
                seen = blur(seen, rows, self.get_buffer(f"columns_{index}"))
            else:
                seen = layer(seen)
        return seen


def _is_blur(layer: nn.Module) -> bool:
    return isinstance(getattr(layer, "filt", None), Tensor)


def along(pool: Any, side: int) -> Tensor:
    """Returns what a BlurPool does to a row or column of ``side`` pixels: ``[shorter, side]``."""
    # the filter's sum over columns, moved down the rows of the identity; its padded columns go
    taps = pool.filt[:1].sum(3, keepdim=True)
    before = pool.pad_sizes[0]
    padded = pool.pad(torch.eye(side).to(taps).view(1, 1, side, side))
    blurred = functional.conv2d(padded, taps, stride=(pool.stride, 1))
    return blurred[0, 0, :, before : before + side].contiguous()


def blur(pictures: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Computes rows x columns^T for every channel x of ``[N, C, H, W]``, channels last in memory.

    Args:
        pictures: the x.
        rows: ``[H', H]``.
        columns: ``[W', W]``.

    Returns:
        ``[N, C, H', W']``.
    """
    x = pictures.permute(0, 2, 3, 1).contiguous()
    n, height, width, channels = x.shape
    some = [
        torch.bmm(columns.expand(len(part), -1, -1), part)
        for part in torch.split(x.view(n * height, width, channels), _TOGETHER)
    ]
    x = some[0] if len(some) == 1 else torch.cat(some)
    x = torch.bmm(rows.expand(n, -1, -1), x.view(n, height, -1))
    return x.view(n, len(rows), len(columns), channels).permute(0, 3, 1, 2)
