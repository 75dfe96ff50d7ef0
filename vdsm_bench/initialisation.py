"""How weights start: shared by components, because a lost signal at the start is lost for long."""

from __future__ import annotations

from torch import nn


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
