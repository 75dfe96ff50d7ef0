"""One optimisation step of a stage: every player in turn, without waiting for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.profiler import record_function

from vdsm_bench.config import StageSettings
from vdsm_bench.contracts import Batch, Player, Progress, Stage, VideoModel
from vdsm_bench.errors import ContractError
from vdsm_bench.training.meter import Meter
from vdsm_bench.training.recording import Recorder, Repeater

#: what has to be finite in every step, as the log calls it
LOSS, GRADIENT = "loss", "gradient_norm"
WATCHED = (LOSS, GRADIENT)
#: ranges of a step's work that a profiler sees, in turn
PHASES = FORWARD, BACKWARD, UPDATE = "loss", "backward", "clipping and optimiser"


def learning_rate(settings: StageSettings, step: int, begun: int = 0) -> float:
    """Returns the learning rate of a step: rising, constant, then falling over the cool-down.

    Args:
        settings: of the stage.
        step: of the stage.
        begun: the step at which it began to rise; see :func:`openings`.
    """
    n_steps = settings.epochs * settings.batches_per_epoch
    left = (n_steps - step) / (settings.cool_down * n_steps) if settings.cool_down else 1.0
    risen = (step - begun + 1) / settings.warm_up if settings.warm_up else 1.0
    return settings.learning_rate * min(1.0, risen, max(left, 0.05))


def openings(stage: Stage, settings: StageSettings) -> list[int]:
    """Returns the steps at which the learning rate begins to rise, the first one first.

    With ``warm_up_again`` those are also the first steps of epochs in which the schedule switches
    something on that was off.
    """
    found = [0]
    if settings.warm_up_again and stage.schedule is not None:
        n_steps, off = settings.epochs * settings.batches_per_epoch, set[str]()
        for epoch in range(settings.epochs):
            step = epoch * settings.batches_per_epoch
            numbers = stage.schedule(Progress(epoch, settings.epochs, step, n_steps))
            now = {name for name, number in numbers.items() if number is None}
            found += [step] if off - now else []
            off = now
    return found


def freeze(model: VideoModel, stage: Stage) -> None:
    """Lets only the stage's own parameters ask for gradients."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for player in stage.players:
        for parameter in player.parameters:
            parameter.requires_grad_(True)


class StageStep:
    """Takes the steps of one stage; their figures stay on the device, in ``meter``.

    Args:
        fabric: of the device.
        loss: the module that Fabric runs; see ``trainer.PlayerLoss``.
        stage: whose players take the step.
        settings: how they are trained.
        recorder: of the device, if it has one. It is used where the stage has a schedule.
        tell: called with the reason where the step cannot be recorded.
    """

    def __init__(
        self,
        fabric: Fabric,
        loss: nn.Module,
        stage: Stage,
        settings: StageSettings,
        recorder: Recorder | None,
        tell: Callable[[str], None],
    ) -> None:
        self._fabric, self._loss, self.stage, self._settings = fabric, loss, stage, settings
        self._repeater: Repeater | None = None
        self._obstacle = "" if fabric.device.type == "cpu" else f"{fabric.device.type} has none"
        if recorder is not None and stage.schedule is not None:
            self._repeater = Repeater(self._work, recorder, tell)
        elif recorder is not None:
            self._obstacle = "the stage has no schedule"
            tell(self._obstacle)
        self.optimisers = {player.name: self._optimiser(player) for player in stage.players}
        self.meter = Meter(fabric.device)
        self._progress = Progress(-1, 0, -1, 0)
        self._rates: dict[str, float] = {}
        self._openings = openings(stage, settings)

    @property
    def manner(self) -> str:
        """How steps are taken: ``graph``, or ``eager``, with what stood in a graph's way."""
        obstacle = self._obstacle if self._repeater is None else self._repeater.obstacle
        if obstacle is None:
            return "graph"
        return f"eager ({obstacle})" if obstacle else "eager"

    @property
    def decided(self) -> bool:
        """Whether the manner is final; a recording takes a few steps to come about."""
        return self._repeater is None or self._repeater.decided

    def take(self, clip: Tensor, progress: Progress, features: Tensor | None = None) -> None:
        """Every player takes one optimisation step on the same batch.

        Args:
            clip: ``[B, T, C, H, W]``, on the device.
            progress: where the stage stands; its schedule is filled in here.
            features: of the frames ``[B, T, F]``, where they are known.
        """
        batch = (clip,) if features is None else (clip, features)
        self._proceed(progress)
        self._set_learning_rates(progress.step)
        if self._repeater is None:
            self._work(*batch)
            return
        scheduled = self._progress.scheduled
        self._repeater(batch, frozenset((name, scheduled[name] is None) for name in scheduled))

    def sound(self, clip: Tensor, features: Tensor | None = None) -> bool:
        """Returns whether a batch's losses are finite with the weights as they are now."""
        batch = Batch(clip, self._settings.pairs, features)
        losses = []
        for player in self.stage.players:  # with gradients, since a loss may be made of them
            if len(self.stage.players) > 1:
                self._free_only(player)
            loss, _ = self._loss(batch, self.stage.name, player.name, self._progress)
            losses.append(loss.detach())
        return bool(torch.stack(losses).isfinite().all())

    def _proceed(self, progress: Progress) -> None:
        """Moves on, and to the numbers of another epoch where one begins."""
        scheduled = self._progress.scheduled
        if self.stage.schedule is not None and progress.epoch != self._progress.epoch:
            begun = replace(progress, step=progress.epoch * self._settings.batches_per_epoch)
            numbers = self.stage.schedule(begun)
            scheduled = {name: self._place(name, numbers[name]) for name in numbers}
        self._progress = replace(progress, scheduled=scheduled)

    def _place(self, name: str, number: float | None) -> float | Tensor | None:
        """Returns a scheduled number as the losses get it: where a recording will look for it."""
        if number is None or self._repeater is None:
            return number
        place = self._progress.scheduled.get(name)
        if isinstance(place, Tensor):
            return place.fill_(number)
        return torch.full((), number, dtype=torch.float32, device=self._fabric.device)

    def _set_learning_rates(self, step: int) -> None:
        begun = max(first for first in self._openings if first <= step)
        for player in self.stage.players:
            rate = learning_rate(self._settings, step, begun) * player.rate
            if rate == self._rates.get(player.name):
                continue
            self._rates[player.name] = rate
            for group in self.optimisers[player.name].param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    def _work(self, clip: Tensor, features: Tensor | None = None) -> None:
        figures: dict[str, Tensor] = {}
        watched: dict[str, Tensor] = {}
        alone = len(self.stage.players) == 1
        for player in self.stage.players:
            if not alone:
                self._free_only(player)
            optimiser = self.optimisers[player.name]
            optimiser.zero_grad(set_to_none=True)
            with record_function(FORWARD):
                loss, terms = self._loss(
                    Batch(clip, self._settings.pairs, features), self.stage.name, player.name,
                    self._progress,
                )  # fmt: skip
            if not loss.requires_grad:
                raise ContractError(
                    f"player '{player.name}' of '{self.stage.name}': nothing that it trains has a "
                    "share in its loss.",
                    hint="return Losses(total, ...) with a total that is not detached",
                )
            with record_function(BACKWARD):
                self._fabric.backward(loss)
            prefix = "" if alone else f"{player.name}/"
            figures |= {f"{prefix}{key}": value for key, value in terms.items()}
            watched[prefix + LOSS] = loss.detach()
            with record_function(UPDATE):
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
        rate = self._settings.learning_rate * player.rate
        device = self._fabric.device
        adam = torch.optim.Adam(
            player.parameters,
            lr=rate if self._repeater is None else torch.full((), rate, device=device),
            betas=player.betas,
            fused=device.type in ("cpu", "cuda"),
            capturable=self._repeater is not None and device.type == "cuda",
        )
        return self._fabric.setup_optimizers(adam)
