"""How long the evaluation of 1,000 transfers takes, and the share of it that the judge takes.

``python -m benchmarks.evaluation`` draws mug-synthetic if need be, builds VDSM in the size of
preset ``small`` with fresh weights (time does not depend on them) and a judge of the preset's
size, and runs every evaluator that scores by default. ``processor_seconds`` is what the work costs
on all threads together; where it is far below ``seconds`` times threads, the machine was busy
with other things.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from benchmarks import machine
from benchmarks.history import describe, record, table
from vdsm_bench.config import JudgeSettings
from vdsm_bench.contracts import Evaluator
from vdsm_bench.devices import prepare_process
from vdsm_bench.evaluators.judge import NeuralJudge, Verdict
from vdsm_bench.evaluators.judge_training import train_judge
from vdsm_bench.evaluators.outputs import SubjectOutputs
from vdsm_bench.evaluators.suite import evaluate
from vdsm_bench.registry import registry
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.cell import plan_cells
from vdsm_bench.runs.datasets import open_store
from vdsm_bench.runs.models import build_model
from vdsm_bench.runs.protocol import ScoringProtocol
from vdsm_bench.runs.reporting import Silent


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


def measure(dataset: str, device: str, pairs: int) -> dict[str, Any]:
    """Scores a model of preset ``small`` once and returns the seconds it took."""
    catalogue = registry()
    layers = [{"evaluation": {"pairs": pairs}}]
    (cell,) = plan_cells(
        catalogue, models=["vdsm"], datasets=[dataset], seeds=[0], preset="small", layers=layers
    )
    config = cell.config
    bench = Bench.of(open_store(catalogue, dataset, None, Silent()), config.data)
    protocol = ScoringProtocol(catalogue, bench, config, device)
    model = build_model(catalogue, bench, cell).to(device).eval()
    settings = JudgeSettings(epochs=1, width=config.judge.width)
    judge = TimedJudge(
        train_judge(
            bench.validation,
            bench.test,
            factors=bench.store.factors,
            settings=settings,
            device=device,
        ).judge
    )
    request = protocol.request
    outputs = SubjectOutputs(model, request)
    by_evaluator: dict[str, float] = {}
    started, worked = time.perf_counter(), time.process_time()
    outputs.codes("test")
    outputs.codes("train")
    by_evaluator["(encoding test and training clips)"] = time.process_time() - worked
    evaluators: dict[str, Evaluator] = protocol.evaluators
    for name, evaluator in evaluators.items():
        begun = time.process_time()
        evaluate(outputs, judge, request, {name: evaluator})
        by_evaluator[name] = time.process_time() - begun
    total, work = time.perf_counter() - started, time.process_time() - worked
    return {
        "dataset": dataset,
        "transfers": len(request.pairs),
        "test_clips": len(request.test),
        "training_clips_for_probes": len(request.train) if request.train else 0,
        "clip": [bench.shape.frames, bench.shape.channels, bench.shape.height, bench.shape.width],
        "seconds": round(total, 2),
        "processor_seconds": round(work, 2),
        "judge_share": round(judge.seconds / work, 3),
        "processor_seconds_by_evaluator": {
            name: round(value, 2) for name, value in by_evaluator.items()
        },
    }


def render(runs: Sequence[dict[str, Any]]) -> str:
    """Returns the page: the newest run by evaluator, and a line for every run."""
    newest = runs[0]
    work = newest["processor_seconds_by_evaluator"]
    rows = [
        (
            run["date"][:16], run["commit"], run["machine"]["device"], run["machine"]["threads"],
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
        table(("evaluator", "processor, s"), [(k, f"{v:.2f}") for k, v in work.items()]), "",
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
