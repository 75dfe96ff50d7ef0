"""How long it takes to score a cell, and what is done once per judge: gates and controls.

``python -m benchmarks.evaluation`` draws mug-synthetic if need be, builds VDSM in the size of
preset ``small`` with fresh weights (time does not depend on them), trains a judge of the preset's
size for one epoch (``benchmarks.judge`` trains it to its end) and does what a run does after
training: the last look, every evaluator that scores by default, pictures. ``processor_seconds`` is
what the work costs on all threads together; where it is far below ``seconds`` times threads, the
machine was busy with other things.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks import machine
from benchmarks.history import describe, device_name, record, table
from vdsm_bench.devices import prepare_process
from vdsm_bench.evaluators.judge import NeuralJudge, Verdict
from vdsm_bench.evaluators.outputs import SubjectOutputs
from vdsm_bench.evaluators.suite import evaluate
from vdsm_bench.registry import registry
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.cell import plan_cells
from vdsm_bench.runs.controls import obtain_controls
from vdsm_bench.runs.datasets import open_store
from vdsm_bench.runs.folder import CellFolder
from vdsm_bench.runs.media import write_media
from vdsm_bench.runs.models import build_model
from vdsm_bench.runs.monitor import AT_THE_END, Monitor
from vdsm_bench.runs.protocol import ScoringProtocol
from vdsm_bench.runs.reporting import Silent

#: one epoch, and no floor that such a judge could miss
_ONE_EPOCH = {"epochs": 1, "floor": 0.0, "cells_floor": 0.0, "corruptions_floor": 0.0}
#: parts that are done once per judge, or after every epoch: not the scoring of a cell
_ASIDE = ("(judge: one epoch)", "(judge: gates)", "(controls)", "(a look after an epoch)")


class TimedJudge(NeuralJudge):
    """A judge that counts the processor seconds it is at work."""

    seconds = 0.0

    def __init__(self, judge: NeuralJudge) -> None:
        self.__dict__.update(vars(judge))

    def _verdicts(self, clips: Tensor) -> list[Verdict]:
        started = time.process_time()
        found = super()._verdicts(clips)
        self.seconds += time.process_time() - started
        return found


class Clock(Silent):
    """Seconds and processor seconds of every part, by its name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.work: dict[str, float] = {}
        self.trained = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times what is done inside."""
        started, worked = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = time.perf_counter() - started
        self.work[name] = time.process_time() - worked

    def progress(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Notes when the judge's epoch was over."""
        self.trained = time.process_time()


def measure(dataset: str, device: str, pairs: int) -> dict[str, Any]:
    """Scores a model of preset ``small`` once and returns the seconds it took."""
    catalogue, clock = registry(), Clock()
    layers = [{"evaluation": {"pairs": pairs}, "judge": _ONE_EPOCH}]
    (cell,) = plan_cells(
        catalogue, models=["vdsm"], datasets=[dataset], seeds=[0], preset="small", layers=layers
    )
    bench = Bench.of(open_store(catalogue, dataset, None, Silent()), cell.config.data)
    protocol = ScoringProtocol(catalogue, bench, cell.config, device)
    model = build_model(catalogue, bench, cell).to(device).eval()
    request = protocol.request
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.process_time()
        gated = protocol.obtain_judge(folder, clock)
        clock.work["(judge: one epoch)"] = clock.trained - started
        clock.work["(judge: gates)"] = time.process_time() - clock.trained
        (member,) = gated.judge.members
        judge = TimedJudge(member)
        with clock.part("(controls)"):
            obtain_controls(protocol, replace(gated, judge=judge), Silent())
        monitor = Monitor(bench, protocol, CellFolder(folder), device)
        monitor.look(model)  # reads the clips
        with clock.part("(a look after an epoch)"):
            monitor.look(model)
        judge.seconds = 0.0
        with clock.part("(the last look)"):
            Monitor(bench, protocol, CellFolder(folder), device, AT_THE_END).look(model)
        outputs = SubjectOutputs(model, request)
        with clock.part("(encoding test and training clips)"):
            outputs.codes("test")
            outputs.codes("train")
        for key, evaluator in protocol.evaluators.items():
            with clock.part(key):
                evaluate(outputs, judge, request, {key: evaluator})
        with clock.part("(pictures)"):
            write_media(folder, model, bench, device=device)
    work = sum(value for key, value in clock.work.items() if key not in _ASIDE)
    seconds = sum(value for key, value in clock.seconds.items() if key not in _ASIDE)
    return {
        "dataset": dataset,
        "transfers": len(request.pairs),
        "test_clips": len(request.test),
        "training_clips_for_probes": len(request.train) if request.train else 0,
        "clip": [bench.shape.frames, bench.shape.channels, bench.shape.height, bench.shape.width],
        "seconds": round(seconds, 2),
        "processor_seconds": round(work, 2),
        "judge_share": round(judge.seconds / work, 3),
        "processor_seconds_by_evaluator": {
            key: round(value, 2) for key, value in clock.work.items()
        },
    }


def render(runs: Sequence[dict[str, Any]]) -> str:
    """Returns the page: the newest run by evaluator, and a line for every run."""
    newest = runs[0]
    work = newest["processor_seconds_by_evaluator"]
    rows = [
        (
            run["date"][:16], run["commit"], device_name(run["machine"]), run["machine"]["threads"],
            run["dataset"], run["transfers"], f"{run['seconds']:.1f}",
            f"{run['processor_seconds']:.1f}", f"{run['judge_share']:.0%}",
        )
        for run in runs
    ]  # fmt: skip
    head = (
        "date", "commit", "device", "threads", "dataset", "transfers", "s", "processor, s",
        "share of the judge",
    )  # fmt: skip
    return "\n".join([
        "# Evaluation at preset small", "", f"`{newest['command']}`", "", describe(newest), "",
        table(("part", "processor, s"), [(k, f"{v:.2f}") for k, v in work.items()]), "",
        "## Every run", "", table(head, rows),
    ])  # fmt: skip


def main() -> None:
    """Measures, prints, and adds the run to the history."""
    parser = machine.options(__doc__)
    parser.add_argument("--dataset", default="mug-synthetic")
    parser.add_argument("--pairs", type=int, default=1000)
    given = parser.parse_args()
    machine.prepare(given.device, given.threads)
    prepare_process()
    result = measure(given.dataset, given.device, given.pairs)
    about = machine.describe(given.device)
    record("evaluation", result, about=about, out=given.out, render=render)


if __name__ == "__main__":
    machine.run(main)
