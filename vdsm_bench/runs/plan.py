"""What a run would do, said without doing it and without importing torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vdsm_bench.registry import Registry
from vdsm_bench.runs.cell import Cell, KnownCells
from vdsm_bench.runs.folder import CellRecord

_ACTIONS = {"done": "reuse", "damaged": "continue (a file of it is damaged and made again)"}


def describe_plan(
    table: Registry, cells: Sequence[Cell], runs_dir: Path, *, precision: str, fresh: bool
) -> list[dict[str, Any]]:
    """Returns for every cell what would be done, JSON-able; no precision is measured.

    Whether a cell exists is told from its configuration alone: data that changed since makes it a
    new cell all the same. What ``auto`` will choose is not known here, so where there is a cell
    that was asked for in one precision, the action names it.
    """
    known = KnownCells(table, runs_dir)
    return [_describe(cell, known, precision, fresh) for cell in cells]


def _describe(cell: Cell, known: KnownCells, precision: str, fresh: bool) -> dict[str, Any]:
    record = known.find(cell.config, precision)
    action = _action(record, fresh)
    if record is not None and record.config is not None:
        precision = record.config["config"].get("precision", "32")
    elif precision == "auto" and (asked := known.find(cell.config, None)) is not None:
        chosen = (asked.config or {})["config"].get("precision", "32")
        action = f"new, but {_action(asked, fresh)} if auto chooses {chosen}"
    data = cell.config.data
    return {
        "cell": cell.label,
        "variant": cell.variant,
        "action": action,
        "folder": None if record is None else str(record.path),
        "image_size": data.image_size,
        "frames": data.frames,
        "stride": data.stride,
        "split": data.split,
        "precision": precision,
        "stages": {
            name: f"{stage.epochs} epochs x {stage.batches_per_epoch} batches x "
            f"{stage.batch_size} clips{' in identity pairs' if stage.pairs else ''}"
            for name, stage in cell.config.training.items()
        },
        "judge": f"{', '.join(choice.label for choice in cell.config.judge.choices)}, "
        f"{cell.config.judge.epochs} epochs, floor {cell.config.judge.floor}",
        "scored": f"{cell.config.evaluation.clips} {cell.config.evaluation.part} clips, "
        f"{cell.config.evaluation.pairs} pairs",
    }


def _action(record: CellRecord | None, fresh: bool) -> str:
    if record is None:
        return "new"
    if fresh:
        return "start over (the old folder is moved aside)"
    return _ACTIONS.get(record.state, "continue")
