"""How fast training batches come: the clip store against a plain DataLoader over npz files.

Both give uint8 batches ``[B, T, C, H, W]`` of random windows of the same frames, on the device that
trains; the cast to float32 costs the same behind any loader and has rows of its own. The
npz files are what people write first: one uncompressed file per clip, at the size that is trained.
Rounds alternate. On a CPU the clock counts the processor time of the process, of all its threads,
so that other work on the machine does not count; on a GPU it is the wall clock, after waiting for
the device::

    python -m benchmarks.loading
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks import machine
from benchmarks.history import describe, device_name, record, table
from vdsm_bench.contracts import DatasetCard, Factor
from vdsm_bench.data.clips import ClipSampler, downscale, to_unit
from vdsm_bench.data.store import ClipStore
from vdsm_bench.data.store_writer import StoreWriter
from vdsm_bench.devices import prepare_process
from vdsm_bench.errors import UsageError

STORED, LENGTH, BATCH = 64, 32, 20
_PLAIN, _CAST = "npz, DataLoader", ", cast to float32"


@dataclass(frozen=True)
class Case:
    """What is loaded: frames of this size, so many per clip, every stride-th."""

    name: str
    image_size: int
    frames: int
    stride: int


CASES = (Case("paper, MUG", 64, 20, 1), Case("small, MUG", 32, 10, 2))


class NpzClips(Dataset[Tensor]):
    """One npz file per clip."""

    def __init__(self, files: Sequence[Path], case: Case) -> None:
        self.files, self.case = files, case

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with np.load(self.files[index]) as archive:
            frames = archive["frames"]
        span = (self.case.frames - 1) * self.case.stride + 1
        start = np.random.randint(len(frames) - span + 1)
        window = frames[start : start + span : self.case.stride]
        return torch.from_numpy(np.ascontiguousarray(window.transpose(0, 3, 1, 2)))


def main() -> None:
    """Measures, prints, and adds the run to the history."""
    parser = machine.options(__doc__)
    parser.add_argument("--clips", type=int, default=400, help="clips in the set")
    parser.add_argument("--rounds", type=int, default=6, help="rounds per loader")
    parser.add_argument("--seconds", type=float, default=0.5, help="seconds per round and loader")
    given = parser.parse_args()
    machine.at_least("--clips", given.clips, BATCH)  # the npz loader drops what fills no batch
    machine.at_least("--rounds", given.rounds, 1)
    if not given.seconds > 0:  # nan too
        raise UsageError(f"--seconds {given.seconds}: must be above 0.", hint="--seconds 0.5")
    machine.prepare(given.device, given.threads)
    prepare_process()
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "noise", given.clips)
        rows = [
            row
            for case in CASES
            for row in measure(store, case, given, Path(folder) / f"npz-{case.image_size}")
        ]
    results = {"batch": BATCH, "clips": given.clips, "rows": rows}
    record("loading", results, about=machine.describe(given.device), out=given.out, render=render)


def write_store(folder: Path, count: int) -> ClipStore:
    """Writes a store of noise: content changes nothing, as nothing is compressed."""
    card = DatasetCard("noise", "noise", "MIT", "embedded", "drawn", "clips")
    draw = np.random.default_rng(0)
    factors = (
        Factor("identity", "static", ("a", "b")),
        Factor("action", "dynamic", ("x", "y")),
    )
    shape = (STORED, STORED, 3)
    with StoreWriter(
        folder,
        card=card,
        factors=factors,
        image_shape=shape,
        total_frames=count * LENGTH,
    ) as writer:
        for index in range(count):
            frames = draw.integers(0, 256, (LENGTH, *shape), dtype=np.uint8)
            writer.add(frames, {"identity": index % 2, "action": index // 2 % 2})
    return ClipStore.open(folder)


def measure(store: ClipStore, case: Case, given: argparse.Namespace, folder: Path) -> list[Any]:
    """Returns a row per loader: clips per second, and how many times faster the store is."""
    npz = NpzClips(write_npz(store, case, folder), case)
    resident = sampler(store, case, given.device, resident=True)
    streamed = sampler(store, case, given.device, resident=False)
    loaders = {
        "clip store, resident": forever(resident.load),
        "clip store, streamed": forever(streamed.load),
        _PLAIN: from_npz(npz, given.device),
        "clip store, resident" + _CAST: forever(resident.batch),
        _PLAIN + _CAST: map(to_unit, from_npz(npz, given.device)),
    }
    clock = time.perf_counter if given.device == "cuda" else time.process_time
    spent = dict.fromkeys(loaders, 0.0)
    loaded = dict.fromkeys(loaders, 0)
    for batches in loaders.values():
        next(batches)
    for _ in range(given.rounds):
        for name, batches in loaders.items():
            started = clock()
            while clock() - started < given.seconds:
                loaded[name] += len(next(batches))
            machine.synchronise(given.device)
            spent[name] += clock() - started
    speed = {name: loaded[name] / spent[name] for name in loaders}
    rows = []
    for name, value in speed.items():
        plain = speed[_PLAIN + (_CAST if name.endswith(_CAST) else "")]
        rows.append({
            "case": case.name, "image_size": case.image_size, "frames": case.frames,
            "loader": name, "clips_per_second": round(value), "times_npz": round(value / plain, 1),
        })  # fmt: skip
    return rows


def write_npz(store: ClipStore, case: Case, folder: Path) -> list[Path]:
    """Writes one npz file per clip, at the size of the case."""
    folder.mkdir()
    files = [folder / f"{index:05d}.npz" for index in range(len(store))]
    for index, file in enumerate(files):
        np.savez(file, frames=downscale(store.frames(index), case.image_size))
    return files


def sampler(store: ClipStore, case: Case, device: str, *, resident: bool) -> ClipSampler:
    """Returns the project's source of batches, from the device's memory or from the map."""
    return ClipSampler(
        store, np.arange(len(store)), frames=case.frames, stride=case.stride,
        image_size=case.image_size, seed=0, purpose="benchmark", device=device, resident=resident,
    )  # fmt: skip


def from_npz(data: NpzClips, device: str) -> Iterator[Tensor]:
    """Yields batches of torch's DataLoader, epoch after epoch."""
    loader = DataLoader(data, BATCH, shuffle=True, drop_last=True, pin_memory=device == "cuda")
    while True:
        for batch in loader:
            yield batch.to(device, non_blocking=True)


def forever(load: Callable[..., Tensor]) -> Iterator[Tensor]:
    """Yields the batches of step 0, 1, 2 ..."""
    for step in itertools.count():
        yield load("load", step, BATCH, pairs=False)


def render(runs: Sequence[dict[str, Any]]) -> str:
    """Returns the page: the newest run, and the resident store's speed in every run."""
    newest = runs[0]
    rows = [
        (_case(row), row["loader"], f"{row['clips_per_second']:.0f}", f"{row['times_npz']:.1f}")
        for row in newest["rows"]
    ]
    lines = [
        "# Clip loading",
        "",
        f"`{newest['command']}`: {newest['clips']} clips, batches of {newest['batch']}, "
        "uint8 on the device unless the row says more.",
        "",
        describe(newest),
        "",
        table(("case", "loader", f"clips a {_second(newest)}", "times the npz loader"), rows),
    ]
    if len(runs) > 1:
        found = [
            (
                run["date"][:16], run["commit"], device_name(run["machine"]),
                run["machine"]["threads"], _case(row),
                f"{row['clips_per_second']:.0f} a {_second(run)}",
            )
            for run in runs for row in run["rows"] if row["loader"] == "clip store, resident"
        ]  # fmt: skip
        head = ("date", "commit", "device", "threads", "case", "resident store, clips")
        lines += ["", "## Every run", "", table(head, found)]
    return "\n".join(lines)


def _second(run: dict[str, Any]) -> str:
    return "processor second" if run["machine"]["device"] == "cpu" else "second"


def _case(row: dict[str, Any]) -> str:
    return f"{row['case']} ({row['frames']} frames, {row['image_size']} px)"


if __name__ == "__main__":
    machine.run(main)
