"""Stages of several players: each moves its own parameters, whatever its loss is made of."""

import json

import pytest
import torch

from tests.training.toys import Duel, Noise, Stop, equal
from vdsm_bench.config import StageSettings
from vdsm_bench.contracts import Losses, Player, Stage
from vdsm_bench.errors import ContractError
from vdsm_bench.training import trainer as trainer_module
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


class Detached(Duel):
    """A critic that cuts its loss off from what it trains."""

    def _critic_loss(self, batch, progress):
        return Losses(super()._critic_loss(batch, progress).total.detach())


def test_a_loss_that_reaches_nothing_breaks_the_contract(tmp_path):
    settings = {"duel": StageSettings(epochs=2, batches_per_epoch=3, batch_size=8)}
    with pytest.raises(ContractError, match="player 'critic' of 'duel'"):
        Trainer(Detached(), settings, Noise(), folder=tmp_path, seed=0).train()


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


class Adaptive(Duel):
    """A generator whose adversarial weight is a ratio of gradients at its last layer, as VQGAN's.

    It comes before the critic, so that the critic's parameters are the last to ask for gradients.
    """

    def stages(self):
        critic = Player("critic", list(self.critic.parameters()), self._critic_loss)
        generator = Player("generator", list(self.generator.parameters()), self._generator_loss)
        return (Stage("duel", (generator, critic)),)

    def _generator_loss(self, batch, progress):
        fake = self.generator(self._noise(len(batch.clip)))
        near = (fake - batch.clip.mean((1, 3, 4))).square().mean()
        parts = (near, -self.critic(fake).mean())
        slopes = [
            torch.autograd.grad(part, self.generator.weight, retain_graph=True)[0].norm()
            for part in parts
        ]
        return Losses(parts[0] + (slopes[0] / (slopes[1] + 1e-4)).detach() * parts[1])


def test_a_loss_that_differentiates_by_its_own_weights_trains_to_the_end(tmp_path):
    settings = {"duel": StageSettings(epochs=2, batches_per_epoch=3, batch_size=8)}
    summary = Trainer(Adaptive(), settings, Noise(), folder=tmp_path, seed=0).train()
    assert summary.steps == {"duel": 6}


class Named(Duel):
    def stages(self):
        critic = Player("gan", list(self.critic.parameters()), self._critic_loss)
        generator = Player("gan/0", list(self.generator.parameters()), self._generator_loss)
        return (Stage("duel", (critic, generator)),)


def test_a_player_called_like_a_part_of_another_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trainer_module, "CHECKPOINT_REST", 0.0)
    settings = {"duel": StageSettings(epochs=2, batches_per_epoch=3, batch_size=8)}

    def train(folder, progress=None):
        torch.manual_seed(0)
        model = Named()
        Trainer(model, settings, Noise(), folder=folder, seed=0, progress=progress).train()
        return model.state_dict()

    def stop(task, done, total, detail):
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        train(tmp_path / "resumed", stop)
    assert equal(train(tmp_path / "whole"), train(tmp_path / "resumed"))
