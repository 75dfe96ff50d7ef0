"""The shapes both decoders share: a 4 x 4 start, then doublings up to the frame size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vdsm_bench.contracts import ClipShape
from vdsm_bench.errors import UsageError

#: LeakyReLU slope between the layers
SLOPE = 0.01
_PAPER = (512, 256, 128, 64)


def layer_shapes(
    *, clip: ClipShape, inputs: int, widths: tuple[int, ...] | None, owner: str
) -> list[tuple[int, int]]:
    """Returns (in, out) channels of each layer.

    The first layer makes 4 x 4 pictures, each further one doubles the side (VDSM, decoder table).

    Args:
        clip: shape of the clips.
        inputs: width of the input ``[z_t, w]``.
        widths: channels at 4 x 4, 8 x 8 and so on, up to half the frame size; by default the
            paper's, of which smaller frames take the last so many.
        owner: registry name, for the message.

    Raises:
        UsageError: frames that are not square, or not 4 times a power of two for these widths.
    """
    # rounded down: larger frames than the clips have nobody can give
    doublings = max(1, int(math.log2(clip.height / 4)))
    widths = widths or _PAPER[-doublings:]
    side = 4 * 2 ** len(widths)
    if (clip.height, clip.width) != (side, side):
        near, wider = 4 * 2**doublings, f"give {doublings} widths: --set model.decoder.widths=[...]"
        hint = wider
        if (clip.height, clip.width) != (near, near):
            hint = f"--set data.image_size={near}"
            hint += "" if doublings == len(widths) else f", and {wider}"
        raise UsageError(
            f"{owner}: {len(widths)} widths make {side} x {side} frames, "
            f"not {clip.height} x {clip.width}.",
            hint=hint,
        )
    channels = [inputs, *widths, clip.channels]
    return list(zip(channels[:-1], channels[1:], strict=True))


def torch_bound(outside: int) -> float:
    """Returns b of U(-b, b), from which torch draws a transposed convolution (kernel 4).

    It is 1 / sqrt(16 C_out), for weights and biases.
    """
    return 1 / math.sqrt(16 * outside)


def mean_logit(clip: Tensor) -> Tensor:
    """Returns the logit ``[C]`` of a batch's mean colour; black and white are taken for nearly so.

    Args:
        clip: ``[B, T, C, H, W]`` in [0, 1].
    """
    return torch.logit(clip.float().mean((0, 1, 3, 4)), eps=0.01)


def start_scales(shapes: list[tuple[int, int]]) -> list[float]:
    """Returns the standard deviation of each layer's starting weights.

    Kaiming's rule with the fan-in of one expert: a pixel of the first layer sees its inputs,
    a pixel of a stride-2 kernel-4 layer sees 2 x 2 taps of each channel. The last layer starts
    ten times smaller: logits of unit variance are confident and wrong in every pixel, and
    unlearning them costs a thousand steps before anything else is learnt.
    """
    gain = math.sqrt(2 / (1 + SLOPE**2))
    scales = [
        gain / math.sqrt(inside if n == 0 else 4 * inside) for n, (inside, _) in enumerate(shapes)
    ]
    scales[-1] *= 0.1
    return scales
