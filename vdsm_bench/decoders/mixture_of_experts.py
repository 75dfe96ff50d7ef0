"""VDSM's decoder: one set of weights per clip, blended from experts by the identity weights."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vdsm_bench.contracts import ClipShape, FrameDecoder
from vdsm_bench.decoders.stack import SLOPE, layer_shapes, mean_logit, start_scales, torch_bound
from vdsm_bench.decoders.upconvolution import product_type, upconvolve


class MixtureOfExpertsDecoder(FrameDecoder):
    """Blends ``identity_dim`` copies of every weight and bias per clip: W(clip) = sum_k w_k W_k.

    Input of the first layer is ``[z_t, w]``, w repeated over the frames. Widths 512, 256,
    128, 64 are the paper's at 64 x 64 (46.9 M weights with 15 experts, 133 M with 40).

    Deviation:
        The release draws the experts with the fan-in of the whole bank and lets blending
        shrink them once more by the square root of their number, so that its decoder
        answers 0.5 everywhere at first. Here every expert has its own fan-in, and ``start``
        says what an even blend of them looks like. ``first_picture`` "mean" puts the last bias at
        the logit of the mean colour. From grey, pictures that are mostly black are learnt to be
        all black first; no gradient passes there, and codes lose what they told at the start.

    Args:
        clip: shape of the clips.
        pose_dim: width of the pose code.
        identity_dim: number of experts.
        widths: channels at 4 x 4, 8 x 8 and so on; the paper's by default.
        start: ``own-scale``, independent experts, whose blend shrinks; ``kept-scale``,
            independent experts the square root of ``identity_dim`` larger, whose even blend
            has the scale of one decoder; ``shared-base``, one decoder common to all plus an
            own part of the same scale, so that a pose means much the same to every identity;
            ``torch``, every expert as torch starts a transposed convolution, last layer and
            biases included.
        first_picture: what is drawn before anything is learnt, ``grey`` or the ``mean`` colour
            of the first batch, which the ``continuous-bernoulli`` likelihood
            draws nearer to grey.
    """

    def __init__(
        self,
        *,
        clip: ClipShape,
        pose_dim: int,
        identity_dim: int,
        widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None,
        start: Literal["own-scale", "kept-scale", "shared-base", "torch"] = "kept-scale",
        first_picture: Literal["grey", "mean"] = "grey",
    ) -> None:
        super().__init__()
        self.pose_dim, self.first_picture = pose_dim, first_picture
        shapes = layer_shapes(
            clip=clip,
            inputs=pose_dim + identity_dim,
            widths=widths,
            owner="decoders/mixture-of-experts",
        )
        gain = math.sqrt(identity_dim) if start == "kept-scale" else 1.0
        base = 1.0 if start == "shared-base" else 0.0
        self.weights = nn.ParameterList()
        for scale, (inside, outside) in zip(start_scales(shapes), shapes, strict=True):
            own = gain * torch.randn(identity_dim, inside, 4, 4, outside)
            common = base * torch.randn(inside, 4, 4, outside)
            # experts last: all three products of a blend then run along memory
            bank = (scale * (common + own)).movedim(0, -1).contiguous()
            self.weights.append(nn.Parameter(bank))
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(outside, identity_dim)) for _, outside in shapes
        )
        if start == "torch":
            for bank in (*self.weights, *self.biases):
                bound = torch_bound(bank.shape[-2])  # [.., C_out, K]
                nn.init.uniform_(bank, -bound, bound)

    def meet(self, clip: Tensor) -> None:
        """Starts at the mean colour of a batch, if that was asked for."""
        if self.first_picture == "mean":
            with torch.no_grad():
                self.biases[-1].copy_(mean_logit(clip).unsqueeze(1))  # weights of a blend sum to 1

    def blend(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns every layer's weight ``[B, C_in, 4, 4, C_out]`` and bias ``[B, C_out]``.

        Blending is float32 also where products are not: it is a small share of the work.
        """
        with torch.autocast(weights.device.type, enabled=False):
            w = weights.float() if weights.dtype is torch.bfloat16 else weights
            return [
                ((w @ bank.flatten(0, -2).t()).view(-1, *bank.shape[:-1]), w @ bias.t())
                for bank, bias in zip(self.weights, self.biases, strict=True)
            ]

    def logits(self, pose: Tensor, weights: Tensor) -> Tensor:
        """Returns pixel logits ``[B, T, C, H, W]``."""
        b, t, _ = pose.shape
        kind = product_type(pose)
        (first, bias), *others = self.blend(weights)
        inputs = torch.cat([pose, weights.unsqueeze(1).expand(-1, t, -1)], dim=-1)
        picture = torch.bmm(inputs, first.flatten(2)).view(b, t, 4, 4, -1).to(kind)
        picture = picture + bias.view(b, 1, 1, 1, -1).to(kind)
        for layer_weight, layer_bias in others:
            picture = upconvolve(picture, layer_weight.to(kind), layer_bias, slope=SLOPE)
        return picture.permute(0, 1, 4, 2, 3)
