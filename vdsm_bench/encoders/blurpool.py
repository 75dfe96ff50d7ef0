"""The paper's frame encoder: strided convolutions, each followed by a stride-1 BlurPool."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vdsm_bench.contracts import ClipShape, FrameEncoder
from vdsm_bench.encoders.blurred_stack import BlurredStack
from vdsm_bench.errors import UsageError
from vdsm_bench.initialisation import decorrelate_colours, keep_signal
from vdsm_bench.optional import import_optional

_PAPER = (32, 32, 32, 64, 64)


class BlurPoolEncoder(FrameEncoder):
    """Frames ``[N, C, H, W]`` to features ``[N, feature_dim]``; VDSM supplement, encoder table.

    Kernel 4 throughout; the first convolution has stride 1 and padding 1, the others
    stride 2 and none; LeakyReLU after each and BlurPool (filter 4, stride 1) after all
    but the last. At 64 x 64 with the paper's channels 32, 32, 32, 64, 64 the sides are 64,
    63, 30, 14, 6, 2 and ``feature_dim`` is 64 * 2 * 2 = 256.

    Args:
        clip: shape of the clips.
        channels: output channels of each convolution; by default the paper's, of which
            smaller frames take the last so many.
        start: ``kept-signal`` (:func:`vdsm_bench.initialisation.keep_signal`), or ``torch``,
            torch's own weights.
        first_colours: what the first convolution starts from, colours as they are (``rgb``) or
            ``decorrelated`` (:func:`vdsm_bench.initialisation.decorrelate_colours`) over the
            first batch.

    Deviation:
        The paper starts where torch does; ``start`` says why this does not, and
        ``first_colours`` why colours may start decorrelated.
    """

    def __init__(
        self,
        *,
        clip: ClipShape,
        channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None,
        start: Literal["kept-signal", "torch"] = "kept-signal",
        first_colours: Literal["rgb", "decorrelated"] = "rgb",
    ) -> None:
        super().__init__()
        self.first_colours = first_colours
        blur_pool = import_optional("antialiased_cnns", package="antialiased-cnns").BlurPool
        doublings = math.log2(min(clip.height, clip.width))
        channels = channels or _PAPER[-max(1, round(doublings) - 1) :]
        layers: list[nn.Module] = []
        height, width = clip.height, clip.width
        for index, (inside, outside) in enumerate(pairwise((clip.channels, *channels))):
            stride, padding = (1, 1) if index == 0 else (2, 0)
            height, width = ((side + 2 * padding - 4) // stride + 1 for side in (height, width))
            if height < 1 or width < 1:
                fitting = ",".join(map(str, _PAPER[-max(1, int(doublings) - 1) :]))
                raise UsageError(
                    f"encoders/blurpool: {clip.height} x {clip.width} frames are too small for "
                    f"{len(channels)} convolutions.",
                    hint=f"--set model.encoder.channels=[{fitting}]",
                )
            layers += [nn.Conv2d(inside, outside, 4, stride, padding), nn.LeakyReLU(inplace=True)]
            if index < len(channels) - 1:
                layers.append(blur_pool(outside, filt_size=4, stride=1))
        seen = torch.zeros(1, clip.channels, clip.height, clip.width)
        self.layers = BlurredStack(*layers, nn.Flatten(), frames=seen)
        if start == "kept-signal":
            keep_signal(self.layers)
        self.feature_dim = channels[-1] * height * width

    def meet(self, clip: Tensor) -> None:
        """Starts from the decorrelated colours of a batch, if that was asked for."""
        if self.first_colours == "decorrelated":
            first = next(layer for layer in self.layers if isinstance(layer, nn.Conv2d))
            decorrelate_colours(first, clip)

    def forward(self, frames: Tensor) -> Tensor:
        """Returns features ``[N, feature_dim]``."""
        features: Tensor = self.layers(frames)
        return features
