"""How weights start: shared by components, because a lost signal at the start is lost for long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

#: colours that vary less than this share of what varies most are not made more of
_LEAST_VARIANCE = 1e-3
_FOLLOWED: ContextVar[bool] = ContextVar("followed", default=False)


@contextmanager
def weights_follow(follow: bool) -> Iterator[None]:
    """Builds components meanwhile whose weights are replaced, if ``follow``, as by saved ones."""
    token = _FOLLOWED.set(follow)
    try:
        yield
    finally:
        _FOLLOWED.reset(token)


def weights_count() -> bool:
    """Returns whether a component starts from its own weights: else it need not download any."""
    return not _FOLLOWED.get()


def keep_signal(*modules: nn.Module) -> None:
    """Draws the weights of convolutions and linear layers with Kaiming's rule, biases zero.

    torch's default shrinks the signal by about 0.4 per layer; through an encoder and the
    four layers behind it, what tells two clips apart would start three orders of magnitude
    below the noise of s, and the decoder would learn to live without s.
    """
    for root in modules:
        for module in root.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, a=0.01, nonlinearity="leaky_relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def decorrelate_colours(convolution: nn.Conv2d, clip: Tensor) -> None:
    """Lets a first convolution see colours decorrelated and equally varied, by its weights.

    W becomes W L, L = C^(-1/2) sqrt(tr C / K), where C ``[K, K]`` is the covariance of the K
    colour channels over all pixels (ZCA whitening); what all channels vary by together stays.
    Channels of pictures mostly say the same, how bright it is, and features that begin as random
    sums of them all but lose what tells two equally bright colours apart.

    Args:
        convolution: its weights ``[C_out, K, h, w]`` are changed in place.
        clip: ``[B, T, K, H, W]``.
    """
    # at home in float64, which not every device has
    pixels = clip.detach().cpu().double().movedim(2, -1).flatten(0, -2)
    covariance = torch.cov(pixels.t()).view(clip.shape[2], clip.shape[2])
    variances, directions = torch.linalg.eigh(covariance)
    if variances[-1] <= 0:  # one colour everywhere: none to tell apart
        return
    floor = variances.clamp(min=_LEAST_VARIANCE * float(variances[-1]))
    whiten = directions / floor.sqrt() @ directions.t() * variances.mean().sqrt()
    weight = convolution.weight.detach().cpu().double()
    with torch.no_grad():
        convolution.weight.copy_(torch.einsum("oihw,ij->ojhw", weight, whiten))
