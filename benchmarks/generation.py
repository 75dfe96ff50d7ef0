"""How long it takes to generate 20 clips, and to write them as GIFs.

``python -m benchmarks.generation`` draws identities and motions from the prior of VDSM at the
paper's settings and decodes 20 clips. The weights are fresh: how long that takes does not depend on
their values. How long saving takes does: fresh weights draw noise, which takes several times as
long to compress as clips of something. So the GIFs that are written are of as many clips of
``moving-shapes``, as long and as large. The paper names 0.2 s for generating and saving on a
2080 Ti.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks import machine
from benchmarks.forms import Task
from benchmarks.history import describe, device_name, record, table
from benchmarks.machine import at_least_once
from vdsm_bench.boards.figures import to_bytes, write_gif
from vdsm_bench.data.clips import downscale, to_unit
from vdsm_bench.data.moving_shapes import MovingShapes
from vdsm_bench.devices import prepare_process

CLIPS = 20


def shapes(frames: int, image_size: int) -> Tensor:
    """Returns clips of ``moving-shapes`` ``[CLIPS, frames, 3, image_size, image_size]``."""
    drawn, numbers = MovingShapes(), np.arange(frames)
    clips = [
        downscale(drawn.draw(index, index, numbers), image_size)
        for index in np.linspace(0, len(drawn) - 1, CLIPS, dtype=int).tolist()
    ]
    return to_unit(torch.from_numpy(np.stack(clips)).movedim(-1, -3))


def measure(task: Task, repeats: int) -> dict[str, Any]:
    """Times one setting; the first two rounds do not count."""
    vdsm = task.model().to(task.device).eval()
    frames = task.clip[1]
    saved = shapes(frames, task.clip[-1]).to(task.device)
    generating, saving = [], []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for _ in range(repeats + 2):
            machine.synchronise(task.device)
            started = time.perf_counter()
            vdsm.sample(CLIPS, frames)
            machine.synchronise(task.device)
            made = time.perf_counter()
            for index, clip in enumerate(to_bytes(saved.cpu())):
                pages = [Image.fromarray(frame) for frame in clip]
                write_gif(Path(folder) / f"{index:02d}.gif", pages)
            generating.append(made - started)
            saving.append(time.perf_counter() - made)
    made_and_saved = [sum(pair) for pair in zip(generating[2:], saving[2:], strict=True)]
    return {
        "setting": task.dataset,
        "preset": task.preset,
        "clips": [CLIPS, *task.clip[1:]],
        "saved": MovingShapes.card.name,
        "generating": _summary(generating[2:]),
        "with_gifs": _summary(made_and_saved),
    }


def _summary(seconds: Sequence[float]) -> dict[str, float]:
    found = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    return {name: round(value, 5) for name, value in found.items()}


def render(runs: Sequence[dict[str, Any]]) -> str:
    """Returns the page: a line for each setting of every run, the newest first."""
    rows = [
        (
            run["date"][:16], run["commit"], device_name(run["machine"]), run["machine"]["threads"],
            row["setting"], _span(row["generating"]), _span(row["with_gifs"]),
            row.get("saved", "what was generated"),
        )
        for run in runs for row in run["rows"]
    ]  # fmt: skip
    head = (
        "date", "commit", "device", "threads", "setting", "generated, s", "and saved, s", "saved",
    )  # fmt: skip
    return "\n".join([
        f"# {CLIPS} clips from the prior", "",
        f"`{runs[0]['command']}`; median, from min to max.", "",
        "Generated with fresh weights, whose values do not change how long that takes. What they "
        "draw is noise, which takes several times as long to compress as clips of something: what "
        "is saved is as many clips of `moving-shapes`, as long and as large.", "",
        describe(runs[0]), "", table(head, rows),
    ])  # fmt: skip


def _span(times: dict[str, float]) -> str:
    return f"{times['median']:.3g} ({times['min']:.3g}-{times['max']:.3g})"


def main() -> None:
    """Measures, prints, and adds the run to the history."""
    parser = machine.options(__doc__)
    parser.add_argument("--settings", default="sprites,mug", help="datasets, comma-separated")
    parser.add_argument("--preset", default="paper", help="of the sizes")
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    repeats = at_least_once(given.repeats)
    machine.prepare(given.device, given.threads)
    prepare_process()
    rows = [
        measure(Task(setting, "sequence", given.preset, device=given.device), repeats)
        for setting in given.settings.split(",")
    ]
    about = machine.describe(given.device)
    record("generation", {"rows": rows}, about=about, out=given.out, render=render)


if __name__ == "__main__":
    machine.run(main)
