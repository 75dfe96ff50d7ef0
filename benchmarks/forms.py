"""The two forms of an optimisation step that are timed: the program's own, and plain loops.

Both start from the same weights and see the same random clips, which lie on the device.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.naive import NaiveVDSM, stock_adam
from vdsm_bench.config import PRECISIONS, CellConfig, Precision, StageSettings
from vdsm_bench.contracts import ClipShape, Progress
from vdsm_bench.data.clips import to_unit
from vdsm_bench.models.vdsm.model import VDSM
from vdsm_bench.registry import registry
from vdsm_bench.runs.cell import plan_cells
from vdsm_bench.seeding import derive_seed
from vdsm_bench.training.trainer import Trainer

#: takes one step: loss, gradients, optimiser
Step = Callable[[], None]


@dataclass(frozen=True)
class Task:
    """A step of one stage of VDSM.

    Attributes:
        dataset: whose settings are taken; its clips are not read.
        stage: ``pretrain`` or ``sequence``.
        preset: of the sizes.
        device: ``cpu`` or ``cuda``.
        changes: further layers of settings, as ``--set`` makes them.
    """

    dataset: str
    stage: str
    preset: str = "paper"
    device: str = "cpu"
    changes: tuple[Mapping[str, Any], ...] = field(default=())

    @property
    def config(self) -> CellConfig:
        """The resolved settings."""
        (cell,) = plan_cells(
            registry(), models=["vdsm"], datasets=[self.dataset], seeds=[0], preset=self.preset,
            layers=self.changes,
        )  # fmt: skip
        return cell.config

    @property
    def settings(self) -> StageSettings:
        """How the stage is trained."""
        return self.config.training[self.stage]

    @property
    def clip(self) -> tuple[int, ...]:
        """Shape of the batch: ``(B, T, C, H, W)``."""
        data, stage = self.config.data, self.settings
        source = registry().get("datasets", data.dataset).load()
        *_, channels = getattr(source, "image_shape", (3,))  # drawn ones say it
        side = data.image_size
        return stage.batch_size, stage.frames or data.frames, channels, side, side

    def model(self) -> VDSM:
        """Returns the model with fresh weights, on the CPU."""
        config = self.config
        _, frames, channels, height, width = self.clip
        shape = ClipShape(config.data.frames, channels, height, width)
        factory = registry().factory("models", config.model.name, config.model.arguments)
        torch.manual_seed(derive_seed(config.seed, "init"))
        vdsm: VDSM = factory(clip=shape)
        return vdsm

    def clips(self) -> Tensor:
        """Returns the batch, on the device."""
        generator = torch.Generator().manual_seed(1)
        pixels = torch.randint(0, 256, self.clip, dtype=torch.uint8, generator=generator)
        return to_unit(pixels.to(self.device))


class _SameClips:
    """A sampler that gives the same clips at every step."""

    def __init__(self, clips: Tensor) -> None:
        self.clips = clips
        self.n_frames = clips.shape[0] * clips.shape[1]
        self._rows = torch.arange(self.n_frames, device=clips.device).view(clips.shape[:2])

    def some_frames(self, first: int, end: int) -> Tensor:
        """Returns some of all frames."""
        return (255 * self.clips.flatten(0, 1)[first:end]).round().to(torch.uint8)

    def batch(
        self, stage: str, step: int, batch_size: int, pairs: bool, frames: int | None = None
    ) -> Tensor:
        """Returns the clips."""
        return self.clips

    def rows(
        self, stage: str, step: int, batch_size: int, pairs: bool, frames: int | None = None
    ) -> Tensor:
        """Returns the places of their frames."""
        return self._rows


def program_step(task: Task, precision: Precision = "32") -> Step:
    """Returns the program's step in a precision, as its trainer takes it."""
    folder = Path(tempfile.gettempdir(), "vdsm-bench-step")  # a step writes only if it diverges
    trainer = Trainer(
        task.model(), task.config.training, _SameClips(task.clips()), folder=folder, seed=0,
        device=task.device, precision=precision,
    )  # fmt: skip
    (stage,) = [stage for stage in trainer.stages if stage.name == task.stage]
    work = trainer.begin(stage)
    n = task.settings.epochs * task.settings.batches_per_epoch
    places = itertools.cycle(range(n // 2, n))  # in the middle nothing is shut any more

    def step() -> None:
        trainer.take(work, next(places))

    return step


def naive_step(task: Task, naive: NaiveVDSM | None = None) -> Step:
    """Returns the step of plain loops, with torch's own settings of its arithmetic.

    Args:
        task: what is stepped.
        naive: the plain form; one with the weights of the task's model if None.
    """
    vdsm = task.model()
    naive = (naive or NaiveVDSM(vdsm)).to(task.device).train()
    adam = stock_adam(naive, vdsm, task.stage, task.settings.learning_rate)
    annealing = vdsm.annealing(task.stage, Progress(0, task.settings.epochs, 0, 1))
    clips = task.clips()

    def step() -> None:
        set_by_program = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        adam.zero_grad()
        loss = naive.loss(clips, task.stage, annealing)
        loss.backward()
        adam.step()
        loss.item()
        torch.set_float32_matmul_precision(set_by_program)

    return step


#: plain loops take float32; the program's form is called by its precision
NAIVE = "naive"
FORMS: Mapping[str, Callable[[Task], Step]] = {
    NAIVE: naive_step,
    **{precision: partial(program_step, precision=precision) for precision in PRECISIONS},
}
