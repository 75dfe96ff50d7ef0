"""Small models and batches for the trainer."""

import functools

import torch
from torch import nn

from tests.models.tiny import build
from vdsm_bench.config import StageSettings
from vdsm_bench.contracts import Codes, Losses, Player, Stage, VideoModel
from vdsm_bench.data.clips import to_unit

SETTINGS = {
    name: StageSettings(epochs=4, batches_per_epoch=3, batch_size=2)
    for name in ("pretrain", "sequence")
}


class Stop(Exception):
    """Stands for anything that ends a process between two steps."""


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


class Noise:
    """Batches of noise, a function of stage and step."""

    def __init__(self, frames=5, poison=None):
        self.frames, self.poison = frames, poison

    def batch(self, stage, step, batch_size, pairs, frames=None):
        generator = torch.Generator().manual_seed(step + 1000 * len(stage))
        clip = torch.rand(batch_size, frames or self.frames, 3, 16, 16, generator=generator)
        return clip * float("nan") if (stage, step) == self.poison else clip


class Held:
    """Batches of a few frames, all of which it knows."""

    def __init__(self, n=7, frames=5, device="cpu"):
        self.frames = frames
        generator = torch.Generator().manual_seed(n)
        pixels = torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8, generator=generator)
        self.pixels, self.n_frames = pixels.to(device), n

    def some_frames(self, first, end):
        return self.pixels[first:end]

    def rows(self, stage, step, batch_size, pairs, frames=None):
        generator = torch.Generator().manual_seed(step + 1000 * len(stage))
        shape = batch_size, frames or self.frames
        rows = torch.randint(0, self.n_frames, shape, generator=generator)
        return rows.to(self.pixels.device)

    def batch(self, *arguments):
        return to_unit(self.pixels[self.rows(*arguments)])


class Read:
    """The same batches, and no word on what frames there are."""

    def __init__(self, held):
        self.batch = held.batch


class Duel(VideoModel):
    """One stage of two players, as a GAN has."""

    capabilities = frozenset({"encode"})

    def __init__(self):
        super().__init__()
        self.generator = nn.Linear(2, 3)
        self.critic = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def stages(self):
        critic = Player("critic", list(self.critic.parameters()), self._critic_loss, (0.5, 0.999))
        generator = Player("generator", list(self.generator.parameters()), self._generator_loss)
        return (Stage("duel", (critic, generator)),)

    def _critic_loss(self, batch, progress):
        real = batch.clip.mean((1, 3, 4))
        fake = self.generator(self._noise(len(real))).detach()
        return Losses((self.critic(fake) - self.critic(real)).mean())

    def _generator_loss(self, batch, progress):
        return Losses(-self.critic(self.generator(self._noise(len(batch.clip)))).mean())

    def _noise(self, n):
        return torch.randn(n, 2, device=self.generator.weight.device)

    def encode(self, clip):
        return Codes(clip.mean((1, 2, 3, 4))[:, None], clip.mean((1, 2, 3, 4))[:, None])

    def generate(self, codes, n_frames):
        raise NotImplementedError


vdsm = functools.partial(build, identity_from="partner")
