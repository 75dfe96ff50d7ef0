"""Which precision a cell is trained in: as asked, or as was measured once on this machine.

A choice is part of what the numbers depend on, so it is made once for a model's sizes on a kind
of machine, written to ``<runs>/precision/`` and read from there ever after.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vdsm_bench.config import PRECISIONS, Precision, content_key
from vdsm_bench.contracts import VideoModel
from vdsm_bench.devices import describe_device, has_bf16
from vdsm_bench.errors import CellError, DataError, is_lack_of_memory
from vdsm_bench.files import hold, read_json, write_json
from vdsm_bench.registry import Registry
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.cell import Cell, auto_reason
from vdsm_bench.runs.folder import CellFolder, read_cell
from vdsm_bench.runs.models import build_model
from vdsm_bench.runs.reporting import Reporter

#: bfloat16 has to be so many times faster: less is not worth its rounding. On an AMD EPYC it is
#: 1.25 to 1.29 times so at preset small, 1.40 to 1.42 at medium, 1.6 at the paper's size: between
#: those a choice does not hang on a measurement's noise
LEAST_GAIN = 1.35


@dataclass(frozen=True)
class Choice:
    """A precision and how it came about; stands in ``config.json``.

    Attributes:
        asked: ``auto``, ``32`` or ``bf16``.
        used: what training computes in.
        reason: in words.
    """

    asked: str
    used: Precision
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Returns everything, JSON-able."""
        return asdict(self)


def choose_precision(
    asked: str,
    cell: Cell,
    *,
    table: Registry,
    bench: Bench,
    device: str,
    runs_dir: Path,
    folders: Mapping[Precision, CellFolder],
    reporter: Reporter,
) -> Choice:
    """Chooses the precision of a cell.

    ``auto`` stays with the folder that it began before, where there is one; else it takes what
    was measured for these sizes on such a machine, or measures.

    Args:
        asked: ``auto``, ``32`` or ``bf16``.
        cell: the cell.
        table: the catalogue, to build the model that is measured.
        bench: its clips.
        device: where it is to be trained.
        runs_dir: where what was measured is kept.
        folders: where the cell would live, by precision.
        reporter: told what happens.
    """
    if asked == "32":
        return Choice(asked, "32", "as asked")
    if asked == "bf16":
        slow = "" if has_bf16(device) else f"; this {device} has no bf16 instructions: it is slow"
        return Choice(asked, "bf16", f"as asked{slow}")
    for precision in PRECISIONS:
        content = read_cell(folders[precision].path).config
        begun = None if content is None else auto_reason(content)
        if begun is not None:
            return Choice("auto", precision, begun)
    if not has_bf16(device):
        return Choice("auto", "32", f"this {device} has no bf16 instructions")
    model = build_model(table, bench, cell, follow=True)
    sizes = _sizes(model, cell, bench, device)
    path = runs_dir / "precision" / f"{content_key(sizes)}.json"
    with hold(path, f"the precision of {cell.label}", say=reporter.say):
        found = _read(path)
        if found is None:
            try:
                found = _measure(model, cell, bench, device)
            except Exception as error:
                if is_lack_of_memory(error):  # for now: the next seed of this row may have enough
                    raise CellError(
                        f"There is too little memory to measure which precision is faster: {error}",
                        hint="the same command when there is more, or --precision 32",
                    ) from error
                # training meets all else, too, and has a folder to say it in
                return Choice("auto", "32", f"not measured: {type(error).__name__}: {error}")
            write_json(path, {**found, "sizes": sizes})
    return Choice("auto", found["precision"], found["reason"])


def _sizes(model: VideoModel, cell: Cell, bench: Bench, device: str) -> dict[str, Any]:
    """Returns all that a step's time depends on: device, weights, clips and batches."""
    from vdsm_bench.training.measure import longest_stage

    return {
        "device": describe_device(device),
        "stage": longest_stage(model, cell.config.training).name,
        "model": cell.config.model.name,
        "weights": {name: list(value.shape) for name, value in model.named_parameters()},
        "clip": asdict(bench.shape),
        "stages": {
            name: stage.model_dump(include={"batch_size", "frames", "pairs"})
            for name, stage in cell.config.training.items()
        },
    }


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except DataError:
        return None
    return found if found.get("precision") in PRECISIONS and "reason" in found else None


def _measure(model: VideoModel, cell: Cell, bench: Bench, device: str) -> dict[str, Any]:
    from vdsm_bench.training.measure import time_precisions

    timing = time_precisions(model, cell.config.training, bench.shape, device=device)
    full, low = timing.seconds["32"], timing.seconds["bf16"]
    if not math.isfinite(low):
        said = f"stage '{timing.stage}' cannot be computed in bf16"
    else:
        said = (
            f"measured: a step of stage '{timing.stage}' takes {1e3 * full:.1f} ms in 32 and "
            f"{1e3 * low:.1f} ms in bf16, which has to be {LEAST_GAIN} times faster"
        )
    return {
        "precision": "bf16" if full >= LEAST_GAIN * low else "32",
        "reason": said,
        "seconds": {name: taken for name, taken in timing.seconds.items() if math.isfinite(taken)},
    }
