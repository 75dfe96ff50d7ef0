"""The toy zoo with what can go wrong in it, as a catalogue."""

import torch

from tests.plugin.toy_zoo.encoder import ToyLinear
from tests.plugin.toy_zoo.model import ToyAutoencoder
from tests.plugin.toy_zoo.squares import ToySquares
from vdsm_bench.contracts import Codes, Losses
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


class Averaging(ToyAutoencoder):
    """Its identity code is the mean frame, its motion code half of how far each frame is off.

    Both are an eighth as large as the frames either way: probes of 15,000 numbers take minutes.
    """

    side = 8

    def _loss(self, batch, progress):
        return Losses(sum(parameter.square().sum() for parameter in self.parameters()))

    def encode(self, clip):
        small = clip.unflatten(-1, (-1, self.side)).unflatten(-3, (-1, self.side)).mean((-3, -1))
        mean = small.mean(1, keepdim=True)
        return Codes(mean.flatten(1), 0.5 * (small - mean).flatten(1))

    def generate(self, codes, n_frames):
        shape = self.clip_shape
        size = shape.channels, shape.height // self.side, shape.width // self.side
        frame = codes.identity.view(-1, 1, *size)
        change = codes.motion.view(-1, shape.frames, *size)
        small = (frame + change[:, torch.arange(n_frames) % shape.frames]).clamp(0, 1)
        return small.repeat_interleave(self.side, -1).repeat_interleave(self.side, -2)


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
        "averaging": Averaging,
        "encode-only": EncodeOnly,
        "told": Told,
    }.items():
        table.register("models", name)(model)
    return table
