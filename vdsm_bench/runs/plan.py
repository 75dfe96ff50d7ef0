"""What a run would do, said without doing it and without importing torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vdsm_bench.runs.cell import Cell, find_folder
from vdsm_bench.runs.folder import read_cell

_ACTIONS = {"done": "reuse", "damaged": "start over (its files are damaged)"}


def describe_plan(cells: Sequence[Cell], runs_dir: Path, *, fresh: bool) -> list[dict[str, Any]]:
    """Returns for every cell what would be done, JSON-able.

    Whether a cell exists is told from its configuration alone: data that changed since makes it a
    new cell all the same.
    """
    return [_describe(cell, runs_dir, fresh) for cell in cells]


def _describe(cell: Cell, runs_dir: Path, fresh: bool) -> dict[str, Any]:
    folder = find_folder(runs_dir, cell)
    data = cell.config.data
    return {
        "cell": cell.label,
        "action": _action(None if folder is None else folder.path, fresh),
        "folder": None if folder is None else str(folder.path),
        "image_size": data.image_size,
        "frames": data.frames,
        "stride": data.stride,
        "split": data.split,
        "stages": {
            name: f"{stage.epochs} epochs x {stage.batches_per_epoch} batches x "
            f"{stage.batch_size} clips{' in identity pairs' if stage.pairs else ''}"
            for name, stage in cell.config.training.items()
        },
        "judge": f"{', '.join(choice.label for choice in cell.config.judge.choices)}, "
        f"{cell.config.judge.epochs} epochs, floor {cell.config.judge.floor}",
        "scored": f"{cell.config.evaluation.clips} clips, {cell.config.evaluation.pairs} pairs",
    }


def _action(folder: Path | None, fresh: bool) -> str:
    if folder is None:
        return "new"
    if fresh:
        return "start over (the old folder is moved aside)"
    return _ACTIONS.get(read_cell(folder).state, "continue")
