"""The one trainer: stages in order, players in turn, resumable to the bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save
from torch import Tensor, nn

from vdsm_bench.config import StageSettings
from vdsm_bench.contracts import Batch, Player, Progress, Stage, VideoModel
from vdsm_bench.devices import launch_fabric
from vdsm_bench.errors import ContractError, DivergedError, UsageError
from vdsm_bench.files import write_bytes
from vdsm_bench.seeding import derive_seed
from vdsm_bench.training.checkpoint import (
    Position,
    read_checkpoint,
    restore_model,
    restore_optimiser,
    save_weights,
    write_checkpoint,
)
from vdsm_bench.training.journal import Journal

#: every LOG_EVERY-th step is logged, and the first
LOG_EVERY = 10
#: seconds between two checkpoints; how often they are written changes no number
CHECKPOINT_SECONDS = 20.0
LAST, WEIGHTS = "last.safetensors", "model.safetensors"

EpochHook = Callable[[str, int, VideoModel], Mapping[str, Any]]


class Sampler(Protocol):
    """Where batches come from: a pure function of stage and step."""

    def batch(
        self, stage: str, step: int, batch_size: int, pairs: bool, frames: int | None = None
    ) -> Tensor:
        """Returns clips ``[batch_size, frames, C, H, W]`` in [0, 1]."""


@dataclass(frozen=True)
class TrainingSummary:
    """What training did: steps per stage, seconds over all sessions, the last epoch's figures."""

    steps: Mapping[str, int]
    seconds: float
    figures: Mapping[str, Any] = field(default_factory=dict)


def learning_rate(settings: StageSettings, step: int) -> float:
    """Returns the learning rate of a step: rising, constant, then falling over the cool-down."""
    n_steps = settings.epochs * settings.batches_per_epoch
    left = (n_steps - step) / (settings.cool_down * n_steps) if settings.cool_down else 1.0
    risen = (step + 1) / settings.warm_up if settings.warm_up else 1.0
    return settings.learning_rate * min(1.0, risen, max(left, 0.05))


class PlayerLoss(nn.Module):
    """Gives Fabric one module whose forward is a player's loss, whatever the model calls it."""

    def __init__(self, model: VideoModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, clip: Tensor, pairs: bool, stage: str, player: str, place: tuple[int, int, int, int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and its terms; ``place`` is epoch, epochs, step, steps."""
        (chosen,) = [
            one
            for each in self.model.stages()
            if each.name == stage
            for one in each.players
            if one.name == player
        ]
        losses = chosen.loss(Batch(clip, pairs), Progress(*place))
        return losses.total, dict(losses.terms)


class Trainer:
    """Trains one model through its stages.

    Two runs with the same model, seed and sampler give the same weights on the same machine,
    however often one of them was stopped and resumed: batches and noise are functions of
    (seed, stage, step), and a checkpoint holds weights, moments and position.

    Args:
        model: freshly built, on the CPU.
        settings: how each stage is trained.
        sampler: where batches come from.
        folder: of the cell; gets ``train.jsonl`` and ``checkpoints/``.
        seed: the cell's seed.
        device: ``cpu``, ``cuda`` or ``mps``.
        on_epoch: called after every epoch with stage, epoch and the model in evaluation
            mode; its figures are logged and shown, and decide nothing.
        progress: called with task, steps done, steps in all, and the figures to show.
    """

    def __init__(
        self,
        model: VideoModel,
        settings: Mapping[str, StageSettings],
        sampler: Sampler,
        *,
        folder: Path,
        seed: int,
        device: str = "cpu",
        on_epoch: EpochHook | None = None,
        progress: Callable[[str, int, int, str], None] | None = None,
    ) -> None:
        self.stages = list(model.stages())
        missing = [stage.name for stage in self.stages if stage.name not in settings]
        if missing:
            raise UsageError(
                f"No training settings for stage '{missing[0]}' of {type(model).__name__}.",
                hint="give it in the registry entry's 'stages', or in default_stages",
            )
        self.settings, self.sampler, self.folder, self.seed = settings, sampler, folder, seed
        self._on_epoch, self._progress = on_epoch, progress
        self.fabric = launch_fabric(device)
        self.model = model
        self._loss = self.fabric.setup_module(PlayerLoss(model))
        self._journal = Journal(folder / "train.jsonl", [stage.name for stage in self.stages])
        self._checkpoints = folder / "checkpoints"
        self._seconds, self._figures = 0.0, dict[str, Any]()

    def train(self) -> TrainingSummary:
        """Trains to the end, from the last checkpoint where there is one; writes the weights.

        Raises:
            DivergedError: a loss became NaN or infinite.
            DataError: the checkpoint is damaged.
        """
        saved, position = self._resume()
        begun = [stage.name for stage in self.stages].index(position.stage)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            for stage in self.stages[begun:]:
                resumed = stage.name == position.stage
                self._train_stage(stage, position.step if resumed else 0, saved if resumed else {})
        save_weights(self._checkpoints / WEIGHTS, self.model)
        return TrainingSummary(
            steps={name: self._n_steps(name) for name in (stage.name for stage in self.stages)},
            seconds=self._seconds,
            figures=self._figures,
        )

    def _n_steps(self, stage: str) -> int:
        return self.settings[stage].epochs * self.settings[stage].batches_per_epoch

    def _resume(self) -> tuple[dict[str, Tensor], Position]:
        path = self._checkpoints / LAST
        if not path.exists():
            position = Position(self.stages[0].name, 0, 0.0)
            self._journal.rewind(position.stage, 0)
            return {}, position
        tensors, position = read_checkpoint(path)
        restore_model(self.model, tensors, path)
        self._journal.rewind(position.stage, position.step)
        self._seconds = position.seconds
        return tensors, position

    def _train_stage(self, stage: Stage, first: int, saved: Mapping[str, Tensor]) -> None:
        settings, n_steps = self.settings[stage.name], self._n_steps(stage.name)
        self._freeze(stage)
        optimisers = {player.name: self._optimiser(player, settings) for player in stage.players}
        for name, optimiser in optimisers.items():
            restore_optimiser(optimiser, saved, name)
        started = written = time.monotonic()
        spent = self._seconds
        self._training_mode()
        for step in range(first, n_steps):
            terms = self._step(stage, step, settings, optimisers)
            epoch, inside = divmod(step, settings.batches_per_epoch)
            if step == 0 or (step + 1) % LOG_EVERY == 0:
                self._journal.write(stage.name, epoch, step, terms)
            if inside == settings.batches_per_epoch - 1:
                self._end_epoch(stage.name, epoch, step)
            self._seconds = spent + time.monotonic() - started
            if time.monotonic() - written > CHECKPOINT_SECONDS or step == n_steps - 1:
                position = Position(stage.name, step + 1, self._seconds)
                write_checkpoint(self._checkpoints / LAST, self.model, optimisers, position)
                written = time.monotonic()
            if self._progress is not None:
                detail = f"epoch {epoch + 1}/{settings.epochs} {self._detail(terms)}"
                self._progress(f"train {stage.name}", step + 1, n_steps, detail)

    def _step(
        self,
        stage: Stage,
        step: int,
        settings: StageSettings,
        optimisers: Mapping[str, Any],
    ) -> dict[str, float]:
        """Every player takes one optimisation step on the same batch; returns the logged terms."""
        torch.manual_seed(derive_seed(self.seed, "train", stage.name, step))
        clip = self.sampler.batch(
            stage.name, step, settings.batch_size, settings.pairs, settings.frames
        ).to(self.fabric.device)
        epoch = step // settings.batches_per_epoch
        place = (epoch, settings.epochs, step, self._n_steps(stage.name))
        logged: dict[str, float] = {}
        for player in stage.players:
            if len(stage.players) > 1:
                self._free_only(stage, player)
            optimiser = optimisers[player.name]
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(settings, step) * player.rate
            optimiser.zero_grad(set_to_none=True)
            loss, terms = self._loss(clip, settings.pairs, stage.name, player.name, place)
            prefix = "" if len(stage.players) == 1 else f"{player.name}/"
            figures = {f"{prefix}{key}": value.item() for key, value in terms.items()}
            figures[f"{prefix}loss"] = loss.item()
            if not math.isfinite(figures[f"{prefix}loss"]):
                self._diverge(stage.name, step, clip, figures)
            self.fabric.backward(loss)
            if settings.gradient_clip is not None:
                self.fabric.clip_gradients(self._loss, optimiser, max_norm=settings.gradient_clip)
            optimiser.step()
            logged.update(figures)
        return logged

    def _diverge(self, stage: str, step: int, clip: Tensor, figures: Mapping[str, float]) -> None:
        path = self.folder / "diverged-batch.safetensors"
        header = {"stage": stage, "step": str(step)}
        write_bytes(path, save({"clip": clip.cpu().contiguous()}, metadata=header))
        bad = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        raise DivergedError(
            f"The loss of stage '{stage}' is not finite at step {step} ({bad}); "
            f"its batch is in {path}.",
            hint=f"--set training.{stage}.learning_rate=<smaller> or "
            f"--set training.{stage}.gradient_clip=1.0",
        )

    def _end_epoch(self, stage: str, epoch: int, step: int) -> None:
        if self._on_epoch is None:
            return
        self.model.eval()
        with torch.no_grad():
            self._figures = dict(self._on_epoch(stage, epoch, self.model))
        self._training_mode()
        if self._figures:
            self._journal.write(stage, epoch, step, {"epoch_figures": self._figures})

    def _detail(self, terms: Mapping[str, float]) -> str:
        shown = {key: value for key, value in terms.items() if key.endswith("loss")}
        numbers = {k: v for k, v in self._figures.items() if isinstance(v, int | float)}
        return " ".join(f"{key} {value:.3g}" for key, value in {**shown, **numbers}.items())

    def _freeze(self, stage: Stage) -> None:
        """Lets only the stage's own parameters ask for gradients."""
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for player in stage.players:
            for parameter in player.parameters:
                parameter.requires_grad_(True)

    def _free_only(self, stage: Stage, player: Player) -> None:
        mine = {id(parameter) for parameter in player.parameters}
        for other in stage.players:
            for parameter in other.parameters:
                parameter.requires_grad_(id(parameter) in mine)

    def _training_mode(self) -> None:
        """Training mode, but not for frozen modules: their running statistics must not move."""
        self.model.train()
        for module in self.model.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()

    def _optimiser(self, player: Player, settings: StageSettings) -> Any:
        if not player.parameters:
            raise ContractError(f"Player '{player.name}' has no parameters to train.")
        adam = torch.optim.Adam(
            player.parameters,
            lr=settings.learning_rate * player.rate,
            betas=player.betas,
            fused=self.fabric.device.type in ("cpu", "cuda"),
        )
        return self.fabric.setup_optimizers(adam)
