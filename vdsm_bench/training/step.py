"""One optimisation step of a stage: every player in turn, without waiting for the device."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from vdsm_bench.config import StageSettings
from vdsm_bench.contracts import Player, Stage
from vdsm_bench.errors import ContractError
from vdsm_bench.training.meter import Meter

#: what has to be finite in every step, as the log calls it
LOSS, GRADIENT = "loss", "gradient_norm"
WATCHED = (LOSS, GRADIENT)


def learning_rate(settings: StageSettings, step: int) -> float:
    """Returns the learning rate of a step: rising, constant, then falling over the cool-down."""
    n_steps = settings.epochs * settings.batches_per_epoch
    left = (n_steps - step) / (settings.cool_down * n_steps) if settings.cool_down else 1.0
    risen = (step + 1) / settings.warm_up if settings.warm_up else 1.0
    return settings.learning_rate * min(1.0, risen, max(left, 0.05))


class StageStep:
    """Takes the steps of one stage; their figures stay on the device, in ``meter``.

    Args:
        fabric: of the device.
        loss: the module that Fabric runs; see ``trainer.PlayerLoss``.
        stage: whose players take the step.
        settings: how they are trained.
    """

    def __init__(
        self, fabric: Fabric, loss: nn.Module, stage: Stage, settings: StageSettings
    ) -> None:
        self._fabric, self._loss, self.stage, self._settings = fabric, loss, stage, settings
        self.optimisers = {player.name: self._optimiser(player) for player in stage.players}
        self.meter = Meter(fabric.device)

    def take(self, clip: Tensor, place: tuple[int, int, int, int]) -> None:
        """Every player takes one optimisation step on the same batch.

        Args:
            clip: ``[B, T, C, H, W]``, on the device.
            place: epoch, epochs, step, steps.
        """
        figures: dict[str, Tensor] = {}
        watched: dict[str, Tensor] = {}
        alone = len(self.stage.players) == 1
        for player in self.stage.players:
            if not alone:
                self._free_only(player)
            optimiser = self.optimisers[player.name]
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(self._settings, place[2]) * player.rate
            optimiser.zero_grad(set_to_none=True)
            loss, terms = self._loss(
                clip, self._settings.pairs, self.stage.name, player.name, place
            )
            self._fabric.backward(loss)
            prefix = "" if alone else f"{player.name}/"
            figures |= {f"{prefix}{key}": value for key, value in terms.items()}
            watched[prefix + LOSS] = loss.detach()
            if self._settings.gradient_clip is not None:
                watched[prefix + GRADIENT] = self._clip(optimiser)
            optimiser.step()
        self.meter.record(figures, watched)

    def _clip(self, optimiser: Any) -> Tensor:
        """Returns the norm of a player's gradients, which are clipped if it is too large."""
        norm = self._fabric.clip_gradients(
            self._loss,
            optimiser,
            max_norm=self._settings.gradient_clip,
            error_if_nonfinite=False,  # to ask would mean to wait; the meter finds it
        )
        if norm is None:
            raise ContractError("Fabric clipped no gradient.")
        return norm

    def _free_only(self, player: Player) -> None:
        mine = {id(parameter) for parameter in player.parameters}
        for other in self.stage.players:
            for parameter in other.parameters:
                parameter.requires_grad_(id(parameter) in mine)

    def _optimiser(self, player: Player) -> Any:
        if not player.parameters:
            raise ContractError(f"Player '{player.name}' has no parameters to train.")
        adam = torch.optim.Adam(
            player.parameters,
            lr=self._settings.learning_rate * player.rate,
            betas=player.betas,
            fused=self._fabric.device.type in ("cpu", "cuda"),
        )
        return self._fabric.setup_optimizers(adam)
