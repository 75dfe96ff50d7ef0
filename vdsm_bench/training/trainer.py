"""The one trainer: stages in order, players in turn, resumable to the bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save
from torch import Tensor, nn

from vdsm_bench.config import Precision, StageSettings
from vdsm_bench.contracts import Batch, Progress, Stage, VideoModel, check_losses
from vdsm_bench.devices import launch_fabric
from vdsm_bench.errors import ContractError, DataError, DivergedError, UsageError, VdsmBenchError
from vdsm_bench.files import remove_unfinished, write_bytes
from vdsm_bench.seeding import derive_seed
from vdsm_bench.training.checkpoint import (
    LAST,
    WEIGHTS,
    Position,
    check_position,
    read_checkpoint,
    restore_model,
    restore_optimisers,
    save_weights,
    write_checkpoint,
)
from vdsm_bench.training.features import KnownFeatures, autocast, known_features
from vdsm_bench.training.journal import JOURNAL, Journal, Look
from vdsm_bench.training.meter import Meter
from vdsm_bench.training.recording import recorder_for
from vdsm_bench.training.step import GRADIENT, WATCHED, StageStep, freeze
from vdsm_bench.training.stopping import StopBetweenSteps

#: every LOG_EVERY-th step is logged, and the first; no step goes unchecked for longer
LOG_EVERY = 10
#: seconds between two checkpoints; how often they are written changes no number
CHECKPOINT_SECONDS = 20.0
#: and no fewer than so many times the seconds that the last one took: 2 % of the time at most
CHECKPOINT_REST = 50.0
#: so many looks at most at a stage, evenly spread, and one at its end: on a GPU a look takes as
#: long as 15 steps of the paper's, whose epochs have 50, and a stage 300 of them
LOOKS = 100

EpochHook = Callable[[str, int, VideoModel], Mapping[str, Any]]
Alarm = Callable[[str, Sequence[Look]], VdsmBenchError | None]


class Sampler(Protocol):
    """Where batches come from: a pure function of stage and step."""

    def batch(
        self, stage: str, step: int, batch_size: int, pairs: bool, frames: int | None = None
    ) -> Tensor:
        """Returns clips ``[batch_size, frames, C, H, W]`` in [0, 1]."""


@dataclass(frozen=True)
class TrainingSummary:
    """What training did, over all sessions.

    Attributes:
        steps: per stage.
        seconds: spent in all.
        manners: how each stage took its steps; see ``StageStep.manner``.
    """

    steps: Mapping[str, int]
    seconds: float
    manners: Mapping[str, str]


def stages_of(model: VideoModel, settings: Mapping[str, StageSettings]) -> list[Stage]:
    """Returns the stages of a model.

    Raises:
        UsageError: one of them has no settings.
    """
    stages = list(model.stages())
    missing = [stage.name for stage in stages if stage.name not in settings]
    if missing:
        raise UsageError(
            f"No training settings for stage '{missing[0]}' of {type(model).__name__}.",
            hint="give it in the registry entry's 'stages', or in default_stages",
        )
    return stages


def is_looked_at(epoch: int, settings: StageSettings) -> bool:
    """Returns whether the model is looked at after an epoch, counted from 0.

    Of a stage of at most ``LOOKS`` epochs after each; of a longer one after every second, third
    and so on, and after the last.
    """
    every = math.ceil(settings.epochs / LOOKS)
    return (epoch + 1) % every == 0 or epoch == settings.epochs - 1


class PlayerLoss(nn.Module):
    """Gives Fabric one module whose forward is a player's loss, whatever the model calls it.

    Args:
        model: whose losses.
        precision: with ``bf16`` the loss runs under autocast: products and convolutions in
            bfloat16, from float32 weights; the sum that is differentiated is float32.
    """

    def __init__(self, model: VideoModel, precision: Precision = "32") -> None:
        super().__init__()
        self.model, self.precision = model, precision

    def forward(
        self, batch: Batch, stage: str, player: str, progress: Progress
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and its terms."""
        (chosen,) = [
            one
            for each in self.model.stages()
            if each.name == stage
            for one in each.players
            if one.name == player
        ]
        with autocast(batch.clip.device, self.precision):
            losses = check_losses(chosen.loss(batch, progress), f"player '{player}' of '{stage}'")
        return losses.total.float(), dict(losses.terms)


class Trainer:
    """Trains one model through its stages.

    Two runs with the same model, seed and sampler give the same weights on the same machine,
    however often one of them was stopped and resumed: batches and noise are functions of
    (seed, stage, step), and a checkpoint holds weights, moments and position. On a GPU that holds
    while known features (:mod:`vdsm_bench.training.features`) find room in its memory each time,
    or never.

    Args:
        model: freshly built, on the CPU.
        settings: how each stage is trained.
        sampler: where batches come from.
        folder: of the cell; gets ``train.jsonl`` and ``checkpoints/``.
        seed: the cell's seed.
        device: ``cpu``, ``cuda`` or ``mps``.
        precision: what losses are computed in; evaluation mode is float32 always.
        on_epoch: looks at the model, called after epochs (:func:`is_looked_at`) with stage, epoch
            and the model in evaluation mode; its figures are logged and shown.
        alarm: called after every look with the stage and its looks so far; an error that it
            returns stops training, which can be resumed without it.
        progress: called with task, steps done, steps in all, and the figures to show.
        say: called with what is worth a line.
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
        precision: Precision = "32",
        on_epoch: EpochHook | None = None,
        alarm: Alarm | None = None,
        progress: Callable[[str, int, int, str], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.stages = stages_of(model, settings)
        self.settings, self.sampler, self.folder, self.seed = settings, sampler, folder, seed
        self._on_epoch, self._progress, self._say = on_epoch, progress, say
        self._alarm = alarm
        self.fabric = launch_fabric(device)
        #: where the device is the processor itself, looking at a step costs nothing
        self._looks_always = self.fabric.device.type == "cpu"
        self.model, self.precision = model, precision
        self._known: KnownFeatures | None = None
        self._loss = self.fabric.setup_module(PlayerLoss(model, precision))
        self._journal = Journal(folder / JOURNAL, [stage.name for stage in self.stages])
        self._checkpoints = folder / "checkpoints"
        self._seconds, self._figures = 0.0, dict[str, Any]()
        self._manners: dict[str, str] = {}

    def train(self) -> TrainingSummary:
        """Trains to the end, from the last checkpoint where there is one; writes the weights.

        Raises:
            DivergedError: a loss became NaN or infinite.
            DataError: the checkpoint is damaged.
            VdsmBenchError: what the alarm returned.
        """
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            saved, position = self._resume()
            begun = [stage.name for stage in self.stages].index(position.stage)
            for stage in self.stages[begun:]:
                resumed = stage.name == position.stage
                self._train_stage(stage, position.step if resumed else 0, saved)
        save_weights(self._checkpoints / WEIGHTS, self.model)
        return TrainingSummary(
            steps=self._steps,
            seconds=self._seconds,
            manners=self._manners,
        )

    def begin(self, stage: Stage) -> StageStep:
        """Lets the stage's own parameters be trained, and no others; returns its step."""
        freeze(self.model, stage)
        self._training_mode(stage)
        recorder = recorder_for(self.fabric.device)
        settings = self.settings[stage.name]
        self._known = known_features(
            stage, settings, self.sampler, self.fabric.device, self.precision
        )
        return StageStep(
            self.fabric, self._loss, stage, settings, recorder, partial(self._tell, stage)
        )

    def _tell(self, stage: Stage, obstacle: str) -> None:
        if self._say is not None:
            self._say(
                f"stage '{stage.name}' takes its steps one by one, which is slower than "
                f"repeating a CUDA graph: {obstacle}"
            )

    def take(self, work: StageStep, step: int) -> None:
        """Takes one step of the stage that was begun last, without waiting for the device."""
        name = work.stage.name
        settings = self.settings[name]
        torch.manual_seed(derive_seed(self.seed, "train", name, step))
        epoch = step // settings.batches_per_epoch
        progress = Progress(epoch, settings.epochs, step, self._n_steps(name))
        clip = self._batch(name, step)
        features = None if self._known is None else self._known.batch(step)
        work.take(clip, progress, features)

    @property
    def _steps(self) -> dict[str, int]:
        return {stage.name: self._n_steps(stage.name) for stage in self.stages}

    def _n_steps(self, stage: str) -> int:
        return self.settings[stage].epochs * self.settings[stage].batches_per_epoch

    def _resume(self) -> tuple[dict[str, Tensor], Position]:
        remove_unfinished(self._checkpoints)  # as long as a checkpoint each
        path = self._checkpoints / LAST
        if not path.exists():
            position = Position(self.stages[0].name, 0, 0.0)
            (self._checkpoints / WEIGHTS).unlink(missing_ok=True)  # they stand for an end
            self._journal.rewind(position.stage, 0)
            torch.manual_seed(derive_seed(self.seed, "meet"))
            self.model.meet(self._batch(position.stage, 0))
            return {}, position
        tensors, position = read_checkpoint(path)
        check_position(position, self._steps, path)
        restore_model(self.model, tensors, path)
        self._journal.rewind(position.stage, position.step)
        self._seconds, self._manners = position.seconds, dict(position.manners)
        moments = {name: value for name, value in tensors.items() if not name.startswith("model/")}
        return moments, position

    def _train_stage(self, stage: Stage, first: int, saved: dict[str, Tensor]) -> None:
        settings, n_steps = self.settings[stage.name], self._n_steps(stage.name)
        started = written = time.monotonic()
        work = self.begin(stage)
        restore_optimisers(work.optimisers, saved, self._checkpoints / LAST)
        saved.clear()  # of this stage, and at full width gigabytes
        pause = CHECKPOINT_SECONDS
        spent = self._seconds
        looks = self._journal.looks(stage.name)
        alarm = self._heed(stage.name, looks)
        if alarm is not None and (first < n_steps or stage is not self.stages[-1]):
            raise alarm
        with StopBetweenSteps() as stop:
            for step in range(first, n_steps):
                self.take(work, step)
                stops = stop.asked  # a signal that comes later waits for the next step
                epoch, inside = divmod(step, settings.batches_per_epoch)
                logs = step == 0 or (step + 1) % LOG_EVERY == 0
                ends = inside == settings.batches_per_epoch - 1 and is_looked_at(epoch, settings)
                due = step == n_steps - 1 or time.monotonic() - written > pause
                if not (self._looks_always or logs or ends or due or stops):
                    continue
                figures = self._look(stage.name, work.meter, first, step + 1)
                if logs:
                    self._journal.write(stage.name, epoch, step, figures)
                if step == n_steps - 1:
                    self._check_update(work, step, figures)
                if ends:
                    try:
                        looks.append(Look(stage.name, epoch, self._end_epoch(stage, epoch, step)))
                    except (ContractError, DataError):  # of numbers that are none
                        self._check_update(work, step, figures)
                        raise
                    if step < n_steps - 1 or stage is not self.stages[-1]:  # else it saves nothing
                        alarm = self._heed(stage.name, looks)
                self._seconds = spent + time.monotonic() - started
                if work.decided or stage.name not in self._manners:  # or as it was before a stop
                    self._manners[stage.name] = work.manner
                if due or alarm is not None or stops:
                    begun = time.monotonic()
                    position = Position(stage.name, step + 1, self._seconds, self._manners)
                    self._journal.sync()
                    write_checkpoint(
                        self._checkpoints / LAST, self.model, work.optimisers, position
                    )
                    written = time.monotonic()
                    pause = max(CHECKPOINT_SECONDS, CHECKPOINT_REST * (written - begun))
                if self._progress is not None:
                    detail = f"epoch {epoch + 1}/{settings.epochs} {self._detail(figures)}"
                    self._progress(f"train {stage.name}", step + 1, n_steps, detail)
                if alarm is not None:
                    raise alarm
                if stops:
                    stop.heed()
        self.model.zero_grad(set_to_none=True)
        self._known = None  # a gibibyte, that judging and scoring can use

    def _batch(self, stage: str, step: int) -> Tensor:
        """Returns a step's batch, on the device."""
        settings = self.settings[stage]
        clip = self.sampler.batch(stage, step, settings.batch_size, settings.pairs, settings.frames)
        return clip.to(self.fabric.device)

    def _look(self, stage: str, meter: Meter, begun: int, done: int) -> Mapping[str, float]:
        """Waits for the device; returns the last step's figures.

        Raises:
            DivergedError: one of the steps from ``begun`` up to ``done`` was not finite.
        """
        reading = meter.read()
        if reading.sound < done - begun:
            self._diverge(stage, begun + reading.sound, reading.figures)
        return reading.figures

    def _check_update(self, work: StageStep, step: int, figures: Mapping[str, float]) -> None:
        """Sees what the next loss would: a sound step may leave weights that are of no use."""
        features = None if self._known is None else self._known.batch(step)
        self.model.eval()  # running statistics must not move
        sound = work.sound(self._batch(work.stage.name, step), features)
        self._training_mode(work.stage)
        if not sound:
            self._diverge(work.stage.name, step, figures)

    def _diverge(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        path = self.folder / "diverged-batch.safetensors"
        header = {"stage": stage, "step": str(step)}
        clip = self._batch(stage, step).cpu().contiguous()
        write_bytes(path, save({"clip": clip}, metadata=header))
        bad = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        odd = [key.rpartition("/")[2] for key, value in figures.items() if not math.isfinite(value)]
        wrong = [name for name in odd if name in WATCHED]
        bound = "gradient" if wrong[:1] == [GRADIENT] else "loss"
        what = f"The {bound} of stage '{stage}' is not finite at step {step}"
        if not wrong:
            what = f"Step {step} of stage '{stage}' leaves weights whose loss is not finite"
        raise DivergedError(
            f"{what} ({bad}); its batch is in {path}.",
            hint=f"--set training.{stage}.learning_rate=<smaller> or "
            f"--set training.{stage}.gradient_clip=1.0",
        )

    def _heed(self, stage: str, looks: Sequence[Look]) -> VdsmBenchError | None:
        return None if self._alarm is None else self._alarm(stage, looks)

    def _end_epoch(self, stage: Stage, epoch: int, step: int) -> Mapping[str, Any]:
        if self._on_epoch is None:
            return {}
        self.model.eval()
        with torch.no_grad():
            self._figures = dict(self._on_epoch(stage.name, epoch, self.model))
        self._training_mode(stage)
        if self._figures:
            self._journal.write(stage.name, epoch, step, {"epoch_figures": self._figures})
        return self._figures

    def _detail(self, terms: Mapping[str, float]) -> str:
        shown = {key: value for key, value in terms.items() if key.endswith("loss")}
        numbers = {k: v for k, v in self._figures.items() if isinstance(v, int | float)}
        return " ".join(f"{key} {value:.3g}" for key, value in {**shown, **numbers}.items())

    def _training_mode(self, stage: Stage) -> None:
        """Training mode, but not for frozen modules: their running statistics must not move.

        Frozen is what no player of the stage owns; between steps of several players only the last
        one's parameters ask for gradients.
        """
        trained = {id(each) for player in stage.players for each in player.parameters}
        self.model.train()
        for module in self.model.modules():
            parameters = list(module.parameters())
            if parameters and not any(id(each) in trained for each in parameters):
                module.eval()
