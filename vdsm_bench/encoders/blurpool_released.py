"""The frame encoder of the authors' release: unit-stride convolutions, BlurPool halves the size."""

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
from vdsm_bench.initialisation import keep_signal
from vdsm_bench.optional import import_optional

_RELEASED = (32, 32, 64, 64)


class ReleasedBlurPoolEncoder(FrameEncoder):
    """Frames ``[N, C, H, W]`` to features ``[N, features]`` in the released shapes.

    Blocks of convolution (kernel 4, stride 1, padding 1), LeakyReLU and BlurPool (filter 4,
    stride 2), then a kernel-4 convolution to 1 x 1. Every block halves the side; 64 x 64
    takes the four default blocks, 32 x 32 takes three.

    Deviation:
        The release passes True as LeakyReLU's slope, so its convolution stack is an affine
        map. ``activation="leaky-relu"`` is the real one (slope 0.01);
        ``activation="as-released"`` keeps slope 1 for its checkpoints.

    Args:
        clip: shape of the clips; sides are 4 times 2 to the number of blocks.
        block_channels: output channels of each block; by default the release's, of which smaller
            frames take the last so many. Not ``channels``, which another encoder in whose place
            this one comes would hand over: as many of those are for frames of another size.
        features: output features.
        activation: see above.
        start: ``kept-signal``, as in :class:`~vdsm_bench.encoders.blurpool.BlurPoolEncoder`, or
            ``torch``, as released.
    """

    def __init__(
        self,
        *,
        clip: ClipShape,
        block_channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None,
        features: PositiveInt = 256,
        activation: Literal["leaky-relu", "as-released"] = "leaky-relu",
        start: Literal["kept-signal", "torch"] = "kept-signal",
    ) -> None:
        super().__init__()
        # rounded down: larger frames than the clips have nobody can give
        blocks = max(1, int(math.log2(clip.height / 4)))
        channels = block_channels or _RELEASED[-blocks:]
        side = 4 * 2 ** len(channels)
        if (clip.height, clip.width) != (side, side):
            near, fewer = 4 * 2**blocks, "--set model.encoder.block_channels=[...]"
            hint = f"give {blocks} of them: {fewer}"
            if (clip.height, clip.width) != (near, near):
                hint = f"--set data.image_size={near}"
                hint += "" if blocks == len(channels) else f", and {blocks} blocks: {fewer}"
            raise UsageError(
                f"encoders/blurpool-released: {len(channels)} blocks take {side} x {side} frames, "
                f"not {clip.height} x {clip.width}.",
                hint=hint,
            )
        blur_pool = import_optional("antialiased_cnns", package="antialiased-cnns").BlurPool
        slope = 0.01 if activation == "leaky-relu" else 1.0
        layers: list[nn.Module] = []
        for inside, outside in pairwise((clip.channels, *channels)):
            layers += [
                nn.Conv2d(inside, outside, 4, padding=1),
                nn.LeakyReLU(slope),
                blur_pool(outside, filt_size=4, stride=2),
            ]
        layers += [nn.Conv2d(channels[-1], features, 4), nn.Flatten()]
        seen = torch.zeros(1, clip.channels, clip.height, clip.width)
        self.layers = BlurredStack(*layers, frames=seen)
        if start == "kept-signal":
            keep_signal(self.layers)
        self.feature_dim = features

    def forward(self, frames: Tensor) -> Tensor:
        """Returns features ``[N, feature_dim]``."""
        features: Tensor = self.layers(frames)
        return features
