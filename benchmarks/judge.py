"""How long a judge takes: trained, gated and kept, as the first cell of a protocol has it done.

``python -m benchmarks.judge`` draws mug-synthetic if need be and trains the judge of preset
``small`` in a temporary folder.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.history import describe, device_name, record, table
from vdsm_bench.config import resolve
from vdsm_bench.registry import registry
from vdsm_bench.runs.judging import open_protocol
from vdsm_bench.runs.reporting import Silent


def measure(dataset: str, preset: str, device: str) -> dict[str, Any]:
    """Trains the judges of a protocol once."""
    config = resolve(registry(), model="vdsm", dataset=dataset, preset=preset)
    protocol = open_protocol(registry(), config, data_dir=None, device=device, reporter=Silent())
    clips = len(protocol.bench.splits.train)
    with tempfile.TemporaryDirectory() as folder:
        started, worked = time.perf_counter(), time.process_time()
        judge = protocol.obtain_judge(Path(folder), Silent())
        seconds, work = time.perf_counter() - started, time.process_time() - worked
    return {
        "dataset": dataset,
        "preset": preset,
        "training_clips": clips,
        "epochs": config.judge.epochs,
        "judges": len(protocol.judge_keys),
        "seconds": round(seconds, 2),
        "processor_seconds": round(work, 2),
        "judge": judge.summary(),
    }


def render(runs: Sequence[dict[str, Any]]) -> str:
    """Returns the page: a line for every run, the newest first."""
    rows = [
        (
            run["date"][:16], run["commit"], device_name(run["machine"]), run["machine"]["threads"],
            f"{run['dataset']} ({run['preset']})", run["training_clips"], run["epochs"],
            run["judges"], f"{run['seconds']:.1f}", f"{run['processor_seconds']:.1f}",
        )
        for run in runs
    ]  # fmt: skip
    head = (
        "date", "commit", "device", "threads", "dataset", "clips", "epochs", "judges", "s",
        "processor, s",
    )  # fmt: skip
    return "\n".join([
        "# Training and gating the judge", "", f"`{runs[0]['command']}`", "",
        describe(runs[0]), "", table(head, rows),
    ])  # fmt: skip


def main() -> None:
    """Measures, prints, and adds the run to the history."""
    parser = machine.options(__doc__)
    parser.add_argument("--dataset", default="mug-synthetic")
    parser.add_argument("--preset", default="small")
    given = parser.parse_args()
    machine.prepare(given.device, given.threads)
    result = measure(given.dataset, given.preset, given.device)
    about = machine.describe(given.device)
    record("judge", result, about=about, out=given.out, render=render)


if __name__ == "__main__":
    machine.run(main)
