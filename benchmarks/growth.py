"""How the time of a step grows with clips, frames, experts and the side of the picture.

``python -m benchmarks.growth`` times the program's step of both stages at reduced width, with one
size changed at a time, the others as in :data:`BASE`. The exponent is the slope of the straight
line through (log size, log least time): 1 is proportional, 0 does not grow. Picture sides change
the number of layers too, since all are as wide; pixels grow with the square of the side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.forms import Task, program_step
from benchmarks.history import describe, device_name, record, table
from benchmarks.machine import at_least_once, known
from benchmarks.step import STAGES
from benchmarks.worker import WARM_UP, block, timed
from vdsm_bench.devices import prepare_process

BASE = {"clips": 8, "frames": 8, "experts": 16, "side": 32}
VALUES = {
    "clips": (4, 8, 16, 32),
    "frames": (4, 8, 16, 32),
    "experts": (4, 16, 64, 256),
    "side": (16, 32, 64, 128),
}
WIDTHS = {"decoder": 64, "encoder": 16, "rnn": 64}


def task_of(sizes: dict[str, int], stage: str, device: str) -> Task:
    """Returns a step of these sizes at :data:`WIDTHS`."""
    doublings = sizes["side"].bit_length() - 3  # 4 x 4 first, then twice the side at each layer
    change = {
        "model": {
            "encoder": {"name": "blurpool", "channels": [WIDTHS["encoder"]] * (doublings + 1)},
            "decoder": {"name": "mixture-of-experts", "widths": [WIDTHS["decoder"]] * doublings},
            "identity_dim": sizes["experts"],
            "rnn_width": WIDTHS["rnn"],
            "rnn_layers": 1,
        },
        "data": {"image_size": sizes["side"], "frames": sizes["frames"]},
        "training": {"*": {"batch_size": sizes["clips"]}},
    }
    return Task("mug", stage, device=device, changes=(change,))


def measure(stage: str, size: str, device: str, repeats: int) -> dict[str, Any]:
    """Times a stage at every value of one size, in turn, and fits the exponent."""
    values = VALUES[size]
    steps = {value: program_step(task_of({**BASE, size: value}, stage, device)) for value in values}
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    least = dict.fromkeys(values, float("inf"))
    for _ in range(repeats):
        for value, step in steps.items():
            took = timed(step, device, block(device))
            least[value] = min(least[value], took.seconds)
    return {
        "stage": stage,
        "size": size,
        "seconds": {str(value): round(seconds, 6) for value, seconds in least.items()},
        "exponent": round(exponent(list(values), list(least.values())), 3),
    }


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Returns the slope of log seconds over log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def render(runs: Sequence[dict[str, Any]]) -> str:
    """Returns the page: a line for each stage and size of every run, the newest first."""
    rows = [
        (
            run["date"][:16], run["commit"], device_name(run["machine"]), row["stage"], row["size"],
            ", ".join(f"{at}: {_milliseconds(each)}" for at, each in row["seconds"].items()),
            f"{row['exponent']:.2f}",
        )
        for run in runs for row in run["rows"]
    ]  # fmt: skip
    head = ("date", "commit", "device", "stage", "size", "least time of a step, ms", "exponent")
    base = ", ".join(f"{key} {value}" for key, value in runs[0]["base"].items())
    widths = ", ".join(f"{key} {value}" for key, value in runs[0]["widths"].items())
    return "\n".join([
        "# Growth of a step", "",
        f"`{runs[0]['command']}`; what is not changed is {base}; widths {widths}.", "",
        describe(runs[0]), "", table(head, rows),
    ])  # fmt: skip


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.{0 if seconds >= 0.1 else 1}f}"


def main() -> None:
    """Measures, prints, and adds the run to the history."""
    parser = machine.options(__doc__)
    parser.add_argument("--sizes", default=",".join(VALUES), help="comma-separated")
    parser.add_argument("--stages", default=",".join(STAGES), help="comma-separated")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    stages, sizes = known("--stages", given.stages, STAGES), known("--sizes", given.sizes, VALUES)
    repeats = at_least_once(given.repeats)
    machine.prepare(given.device, given.threads)
    prepare_process()
    rows = [measure(stage, size, given.device, repeats) for stage in stages for size in sizes]
    results = {"base": BASE, "widths": WIDTHS, "rows": rows}
    about = machine.describe(given.device)
    record("growth", results, about=about, out=given.out, render=render)


if __name__ == "__main__":
    machine.run(main)
