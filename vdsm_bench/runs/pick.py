"""Finding one finished cell among many. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vdsm_bench.config import resolve
from vdsm_bench.errors import CellError, UsageError, VdsmBenchError
from vdsm_bench.registry import Registry
from vdsm_bench.runs.folder import CellRecord, read_cell, scan_cells


def pick_cell(
    table: Registry,
    runs_dir: Path,
    *,
    cell: Path | None = None,
    model: str | None = None,
    dataset: str | None = None,
    preset: str | None = None,
    seed: int | None = None,
) -> CellRecord:
    """Returns the one finished cell that fits.

    Args:
        table: the catalogue.
        runs_dir: where cells live.
        cell: its folder, or the last parts of its path.
        model: instance, written in any way that ``run`` takes for it; or the name of a row.
        dataset: name.
        preset: name.
        seed: the seed.

    Raises:
        UsageError: no cell fits, or several do.
        CellError: the cell is not finished.
    """
    wanted = {"dataset": dataset, "preset": preset, "seed": seed}
    found = _by_folder(runs_dir, cell) if cell is not None else scan_cells(runs_dir)
    fitting = [record for record in found if _fits(record, wanted)]
    if model is not None:
        fitting = [record for record in fitting if _is_of(table, record, model)]
    done = [record for record in fitting if record.state == "done"]
    native = [record for record in done if record.slot == "native"]
    if len(native) == 1:
        return native[0]
    if done and not native:
        raise UsageError(
            f"{done[0].label} was scored from a file: there is no model behind it.",
            hint=f"its pictures lie in {done[0].path / 'media'}",
        )
    if native:
        labels = "\n  ".join(record.label for record in native)
        raise UsageError(f"Several finished cells fit:\n  {labels}", hint="--cell FOLDER")
    if fitting:
        record = fitting[0]
        reason = f" ({record.problem})" if record.problem else ""
        raise CellError(
            f"The cell {record.label} is not finished: {record.state}{reason}.",
            hint="vdsm-bench run ...   (the same command as before continues it)",
        )
    if model is not None:  # a slip in it is told with what was meant
        known = dataset or table.names("datasets")[0]
        resolve(table, model=model, dataset=known, preset=preset or "small")
    told = {"model": model, **wanted}
    given = ", ".join(f"{key} {value}" for key, value in told.items() if value is not None)
    raise UsageError(
        f"No cell fits under {runs_dir}{f' ({given})' if given else ''}.",
        hint="vdsm-bench status   (lists the cells; vdsm-bench run makes them)",
    )


def _by_folder(runs_dir: Path, cell: Path) -> list[CellRecord]:
    if (cell / "config.json").is_file():
        return [read_cell(cell.absolute())]
    tail = cell.parts
    return [each for each in scan_cells(runs_dir) if each.path.parts[-len(tail) :] == tail]


def _fits(record: CellRecord, wanted: dict[str, Any]) -> bool:
    content = record.config
    config = content.get("config", {}) if content is not None else {}
    data = config.get("data", {})
    known = {
        "dataset": data.get("dataset") if isinstance(data, dict) else None,
        "preset": config.get("preset"),
        "seed": config.get("seed"),
    }
    return all(value is None or known[key] == value for key, value in wanted.items())


def _is_of(table: Registry, record: CellRecord, model: str) -> bool:
    """Tells whether a cell is one of the instance that a text means under its preset."""
    if record.config is None:
        return False
    instance, config = record.config["instance"], record.config["config"]
    if instance == model:  # also where nothing of that name is in the catalogue
        return True
    try:
        meant = resolve(
            table, model=model, dataset=config["data"]["dataset"], preset=config["preset"]
        )
        return record.slot == "native" and meant.instance(table) == instance
    except (VdsmBenchError, LookupError, TypeError):
        return False
