"""The toy zoo with what can go wrong in it, as a catalogue."""

import torch

from tests.plugin.toy_zoo.encoder import ToyLinear
from tests.plugin.toy_zoo.model import ToyAutoencoder
from tests.plugin.toy_zoo.squares import ToySquares
from vdsm_bench.contracts import Codes
from vdsm_bench.registry import load_registry


class Diverging(ToyAutoencoder):
    """Its loss is NaN in the second epoch."""

    def _loss(self, batch, progress):
        losses = super()._loss(batch, progress)
        factor = float("nan") if progress.epoch == 1 else 1.0
        return type(losses)(losses.total * factor)


class Broken(ToyAutoencoder):
    """It has a bug."""

    def _loss(self, batch, progress):
        raise ZeroDivisionError("a bug in the model")


class Collapsed(ToyAutoencoder):
    """Its identity code says nothing."""

    def encode(self, clip):
        codes = super().encode(clip)
        return Codes(torch.zeros_like(codes.identity), codes.motion)


class EncodeOnly(ToyAutoencoder):
    """It cannot generate."""

    capabilities = frozenset({"encode"})


class Told(ToyAutoencoder):
    """It is told the action."""

    supervision = "action-labels"


def toy_table():
    """Returns the built-in catalogue with the toys added."""
    table = load_registry()
    table.register("encoders", "toy-linear")(ToyLinear)
    table.register("datasets", "toy-squares")(ToySquares)
    for name, model in {
        "toy": ToyAutoencoder,
        "diverging": Diverging,
        "broken": Broken,
        "collapsed": Collapsed,
        "encode-only": EncodeOnly,
        "told": Told,
    }.items():
        table.register("models", name)(model)
    return table
