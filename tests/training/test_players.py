"""Stages of several players: each moves its own parameters, whatever its loss is made of."""

import json

import torch

from tests.training.toys import Duel, Noise
from vdsm_bench.config import StageSettings
from vdsm_bench.contracts import Losses
from vdsm_bench.training.trainer import Trainer


def test_players_of_one_stage_each_move_their_own(tmp_path):
    model = Duel()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    settings = {"duel": StageSettings(epochs=2, batches_per_epoch=3, batch_size=8)}
    Trainer(model, settings, Noise(), folder=tmp_path, seed=0).train()
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert {"critic/loss", "generator/loss"} <= set(lines[0])
    moved = {n for n, p in model.named_parameters() if not torch.equal(before[n], p)}
    assert {"generator.weight", "critic.0.weight"} <= moved


class Penalised(Duel):
    """A critic whose loss is made of a gradient, as R1 and WGAN-GP are."""

    def _critic_loss(self, batch, progress):
        real = batch.clip.mean((1, 3, 4)).requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(real).sum(), real, create_graph=True)
        plain = super()._critic_loss(batch, progress)
        return Losses(plain.total + slope.square().sum(1).mean())


def test_a_loss_made_of_gradients_trains_to_the_end(tmp_path):
    settings = {"duel": StageSettings(epochs=2, batches_per_epoch=3, batch_size=8)}
    summary = Trainer(Penalised(), settings, Noise(), folder=tmp_path, seed=0).train()
    assert summary.steps == {"duel": 6}


class Selfish(Duel):
    """The critic's loss reaches the generator too, whose own asks for nothing."""

    def _critic_loss(self, batch, progress):
        fake = self.generator(self._noise(len(batch.clip)))
        return Losses((self.critic(fake) - self.critic(batch.clip.mean((1, 3, 4)))).mean())

    def _generator_loss(self, batch, progress):
        return Losses(0 * sum(p.sum() for p in self.generator.parameters()))


def test_a_player_moves_nobody_elses_parameters(tmp_path):
    model = Selfish()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    settings = {"duel": StageSettings(epochs=2, batches_per_epoch=3, batch_size=8)}
    Trainer(model, settings, Noise(), folder=tmp_path, seed=0).train()
    moved = {n for n, p in model.named_parameters() if not torch.equal(before[n], p)}
    assert moved
    assert all(name.startswith("critic.") for name in moved)
