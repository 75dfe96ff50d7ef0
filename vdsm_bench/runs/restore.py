"""Finished cells brought back: their model with its weights, and pictures from it."""

from __future__ import annotations

from pathlib import Path

from vdsm_bench.config import CellConfig, validate
from vdsm_bench.contracts import VideoModel
from vdsm_bench.devices import choose_device
from vdsm_bench.errors import CellError, DataError, UsageError
from vdsm_bench.registry import Registry
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.cell import Cell, complete
from vdsm_bench.runs.datasets import open_store
from vdsm_bench.runs.folder import CellFolder, CellRecord
from vdsm_bench.runs.media import write_media
from vdsm_bench.runs.models import build_model
from vdsm_bench.runs.reporting import Reporter
from vdsm_bench.training.checkpoint import load_weights


def restore_cell(
    table: Registry, record: CellRecord, *, data_dir: Path | None, reporter: Reporter
) -> tuple[VideoModel, Bench]:
    """Rebuilds the model of a finished cell, in evaluation mode, and its bench.

    Raises:
        DataError: damaged configuration or weights; clips, or the model, that changed since.
    """
    if record.config is None:
        raise DataError(record.problem or f"{record.path} holds no configuration.")
    where = record.path / "config.json"
    try:
        config = validate(CellConfig, record.config["config"], "it")
    except UsageError as error:  # nobody typed it: the file is damaged, or of another version
        raise DataError(
            f"{where} is damaged, or of another version: {error.message}",
            hint="vdsm-bench run ...   (trains a new cell)",
        ) from error
    store = open_store(table, config.data.dataset, data_dir, reporter)
    bench = Bench.of(store, config.data, config.evaluation.part)
    inputs = record.config["inputs"]
    if inputs["config"].get("model") != complete(table, config)["model"]:
        raise DataError(
            f"{record.label} was trained by another version of its model than this one.",
            hint="vdsm-bench run ...   (trains a new cell)",
        )
    if inputs.get("data") != bench.key:
        raise DataError(
            f"{record.label} was trained on other clips than {store.folder} holds now.",
            hint="vdsm-bench run ...   (trains a new cell on these clips)",
        )
    model = build_model(table, bench, Cell(config, record.config["instance"]), follow=True)
    load_weights(CellFolder(record.path).weights_file, model)
    return model.eval(), bench


def render_media(
    table: Registry,
    record: CellRecord,
    *,
    data_dir: Path | None,
    device: str,
    out: Path | None,
    reporter: Reporter,
) -> list[Path]:
    """Writes the pictures of a finished cell.

    Raises:
        CellError: its model cannot encode or cannot generate.
    """
    chosen = choose_device(device)
    model, bench = restore_cell(table, record, data_dir=data_dir, reporter=reporter)
    folder = out if out is not None else CellFolder(record.path).media
    paths = write_media(folder, model.to(chosen), bench, device=chosen)
    if not paths:
        raise CellError(
            f"{record.label}: the model cannot swap; it can: {', '.join(model.capabilities)}.",
            hint=f"vdsm-bench show models/{record.config['config']['model']['name']}"
            if record.config
            else None,
        )
    return paths
