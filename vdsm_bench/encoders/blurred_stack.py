"""Convolutions with BlurPools between them, in the form that suits the device."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from vdsm_bench.kernels import kernels_for


class Band(NamedTuple):
    """Where a matrix ``[O, L]`` may differ from zero.

    Row i may in ``width`` columns, of which the first is ``i * step // per - before``, moved inside
    the matrix.
    """

    step: int
    per: int
    before: int
    width: int

    @classmethod
    def of(cls, matrix: Tensor) -> Band:
        """Returns the narrowest band that climbs as the matrix does."""
        rows, columns = matrix.shape
        ratio = round(max(rows, columns) / min(rows, columns))
        step, per = (ratio, 1) if columns > rows else (1, ratio)
        used = (matrix != 0).int()
        first, last = used.argmax(1), columns - 1 - used.flip(1).argmax(1)
        diagonal = torch.arange(rows, device=matrix.device) * step // per
        for width in range(int((last - first).max()) + 1, columns):
            # rows at the edges are moved into the matrix, and bind nothing
            least = (diagonal - first)[first < columns - width].tolist()
            most = (diagonal - last + width - 1)[last >= width].tolist()
            before = max(least, default=min(most, default=0))
            if before <= min(most, default=before):
                return cls(step, per, before, width)
        return cls(step, per, 0, columns)


class Side(NamedTuple):
    """What a BlurPool does along one side: a matrix ``[O, L]``, its band and that of its transpose.

    The gradient is the transpose's.
    """

    matrix: Tensor
    band: Band
    back: Band


class BlurredStack(nn.Sequential):
    """Layers of which some are BlurPools; on a GPU those are a kernel of our own.

    A GPU's depthwise convolution and reflected edges take most of an encoder's time. Where the
    kernel cannot do it (:func:`vdsm_bench.kernels.kernels_for`, or pictures of another size than
    the stack was built for), a BlurPool is the layer it is.

    Args:
        layers: in turn; a BlurPool is told by its filter.
        frames: any pictures ``[N, C, H, W]`` of the size that the layers are to see.
    """

    def __init__(self, *layers: nn.Module, frames: Tensor) -> None:
        super().__init__(*layers)
        self._bands: dict[str, tuple[Band, Band]] = {}
        with torch.no_grad():
            for index, layer in enumerate(self):
                if _is_blur(layer):
                    for name, side in zip(("rows", "columns"), frames.shape[2:], strict=True):
                        matrix = along(layer, side)
                        # not in checkpoints: they follow from the filter
                        self.register_buffer(f"{name}_{index}", matrix, persistent=False)
                        self._bands[f"{name}_{index}"] = Band.of(matrix), Band.of(matrix.t())
                frames = layer(frames)

    def forward(self, input: Tensor) -> Tensor:
        """Returns what the layers make of pictures ``[N, C, H, W]``, channels last in memory."""
        # channels last: half the time on a CPU, where the blur's depthwise convolution dominates
        seen = input.contiguous(memory_format=torch.channels_last)
        for index, layer in enumerate(self):
            if not _is_blur(layer):
                seen = layer(seen)
                continue
            rows, columns = self._side(f"rows_{index}"), self._side(f"columns_{index}")
            known = seen.shape[2:] == (rows.matrix.shape[1], columns.matrix.shape[1])
            kernels = _kernels(seen) if known else None
            seen = blur(seen, rows, columns, kernels) if kernels else _pooled(layer, seen)
        return seen

    def _side(self, name: str) -> Side:
        return Side(self.get_buffer(name), *self._bands[name])


def _is_blur(layer: nn.Module) -> bool:
    return isinstance(getattr(layer, "filt", None), Tensor)


def _pooled(pool: Any, pictures: Tensor) -> Tensor:
    """Returns what a BlurPool makes of pictures, all of it in their own precision.

    Autocast would reflect a CPU's edges in float32, with a copy of every picture there and back.
    """
    with torch.autocast(pictures.device.type, enabled=False):
        return functional.conv2d(
            pool.pad(pictures), pool.filt.to(pictures), stride=pool.stride, groups=len(pool.filt)
        )


def _kernels(pictures: Tensor) -> ModuleType | None:
    """Returns the kernels for these pictures, or None where a BlurPool itself has to do."""
    return kernels_for("vdsm_bench.encoders.blur_kernels", pictures)


def along(pool: Any, side: int) -> Tensor:
    """Returns what a BlurPool does to a row or column of ``side`` pixels: ``[blurred, side]``.

    It is linear and takes rows and columns in turn, edges included: R x C^T for every channel x.
    """
    # the filter's sum over columns, moved down the rows of the identity; its padded columns go
    taps = pool.filt[:1].sum(3, keepdim=True)
    before = pool.pad_sizes[0]
    padded = pool.pad(torch.eye(side).to(taps).view(1, 1, side, side))
    blurred = functional.conv2d(padded, taps, stride=(pool.stride, 1))
    return blurred[0, 0, :, before : before + side].contiguous()


def blur(pictures: Tensor, rows: Side, columns: Side, kernels: ModuleType) -> Tensor:
    """Computes R x C^T for every channel x of ``[N, C, H, W]``, channels last in memory.

    Sums are float32; what is bfloat16 is rounded between columns and rows too.

    Args:
        pictures: the x.
        rows: R ``[H', H]``.
        columns: C ``[W', W]``.
        kernels: :mod:`vdsm_bench.encoders.blur_kernels`.

    Returns:
        ``[N, C, H', W']``.
    """
    blurred: Tensor = _Blur.apply(pictures, rows, columns, kernels)  # type: ignore[no-untyped-call]
    return blurred


class _Blur(torch.autograd.Function):
    """Columns in turn, then rows; on the way back the same with transposes."""

    @staticmethod
    def forward(
        ctx: Any, pictures: Tensor, rows: Side, columns: Side, kernels: ModuleType
    ) -> Tensor:
        ctx.rows, ctx.columns, ctx.kernels = rows, columns, kernels
        return _both(pictures, rows[:2], columns[:2], kernels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns = ((side.matrix.t(), side.back) for side in (ctx.rows, ctx.columns))
        return _both(grads[0], rows, columns, ctx.kernels), None, None, None


def _both(
    pictures: Tensor, rows: tuple[Tensor, Band], columns: tuple[Tensor, Band], kernels: ModuleType
) -> Tensor:
    x = pictures.permute(0, 2, 3, 1).contiguous()
    n, height, width, channels = x.shape
    x = kernels.band_product(x.view(n * height, width, channels), *columns)
    blurred = len(rows[0]), len(columns[0])
    x = kernels.band_product(x.view(n, height, blurred[1] * channels), *rows)
    made: Tensor = x.view(n, *blurred, channels).permute(0, 3, 1, 2)
    return made
