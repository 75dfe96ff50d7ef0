"""The single-decoder ablation: one set of weights for every clip."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vdsm_bench.contracts import ClipShape, FrameDecoder
from vdsm_bench.decoders.stack import SLOPE, layer_shapes, mean_logit, start_scales, torch_bound
from vdsm_bench.decoders.upconvolution import product_type, upconvolve


class SingleDecoder(FrameDecoder):
    """One decoder; the identity weights reach it only beside the pose (VDSM supplement, section 6).

    Same layers as the mixture of experts, one copy of each.

    Args:
        clip: shape of the clips.
        pose_dim: width of the pose code.
        identity_dim: width of the identity weights.
        widths: channels at 4 x 4, 8 x 8 and so on; the paper's by default.
        start: ``own-scale``, Kaiming's rule with a small last layer, or ``torch``, as torch starts
            transposed convolutions.
        first_picture: what is drawn before anything is learnt, ``grey`` or the ``mean`` colour
            of the first batch, which the ``continuous-bernoulli`` likelihood
            draws nearer to grey (a deviation, see MixtureOfExpertsDecoder).
    """

    def __init__(
        self,
        *,
        clip: ClipShape,
        pose_dim: int,
        identity_dim: int,
        widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None,
        start: Literal["own-scale", "torch"] = "own-scale",
        first_picture: Literal["grey", "mean"] = "grey",
    ) -> None:
        super().__init__()
        self.first_picture = first_picture
        shapes = layer_shapes(
            clip=clip, inputs=pose_dim + identity_dim, widths=widths, owner="decoders/single"
        )
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(inside, 4, 4, outside) * scale)
            for scale, (inside, outside) in zip(start_scales(shapes), shapes, strict=True)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(outside)) for _, outside in shapes)
        if start == "torch":
            for weight in (*self.weights, *self.biases):
                bound = torch_bound(weight.shape[-1])
                nn.init.uniform_(weight, -bound, bound)

    def meet(self, clip: Tensor) -> None:
        """Starts at the mean colour of a batch, if that was asked for."""
        if self.first_picture == "mean":
            with torch.no_grad():
                self.biases[-1].copy_(mean_logit(clip))

    def logits(self, pose: Tensor, weights: Tensor) -> Tensor:
        """Returns pixel logits ``[B, T, C, H, W]``."""
        b, t, _ = pose.shape
        inputs = torch.cat([pose, weights.unsqueeze(1).expand(-1, t, -1)], dim=-1)
        kind = product_type(pose)
        picture = (inputs @ self.weights[0].flatten(1)).view(b, t, 4, 4, -1) + self.biases[0]
        picture = picture.to(kind)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            weight, bias = weight.unsqueeze(0), bias.unsqueeze(0)
            picture = upconvolve(picture, weight.to(kind), bias, slope=SLOPE)
        clip: Tensor = picture.permute(0, 1, 4, 2, 3)
        return clip
