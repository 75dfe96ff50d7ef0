"""``run --profile``: where a cell's steps go, found out on a copy that is thrown away."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from vdsm_bench.files import write_json, write_text
from vdsm_bench.registry import Registry
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.cell import Cell
from vdsm_bench.runs.environment import describe_environment
from vdsm_bench.runs.models import build_model
from vdsm_bench.training.profiler import profile_stage, table_of
from vdsm_bench.training.trainer import Trainer


def profile_cell(folder: Path, cell: Cell, *, table: Registry, bench: Bench, device: str) -> str:
    """Writes a trace of every stage, ``profile.json`` and ``profile.md``; trains nothing.

    The model is built anew, so no number of the cell changes, be it finished or not.

    Args:
        folder: where the files go.
        cell: whose steps are taken.
        table: the catalogue, to build the model.
        bench: its clips.
        device: where the steps are taken.

    Returns:
        The tables, as in ``profile.md``.
    """
    config = cell.config
    text, found = f"# Where a step of {cell.label} goes ({device}, {config.precision})\n", {}
    with tempfile.TemporaryDirectory() as place:
        trainer = Trainer(
            build_model(table, bench, cell, follow=True),
            config.training,
            bench.sampler(config.seed, device),
            folder=Path(place),
            seed=config.seed,
            device=device,
            precision=config.precision,
        )
        for stage in trainer.stages:
            trace = folder / f"{stage.name}.trace.json.gz"
            operations = profile_stage(trainer, stage, trace)
            found[stage.name] = [asdict(each) for each in operations]
            text += f"\n{table_of(stage.name, operations)}"
    content = {
        "precision": config.precision,
        "environment": describe_environment(device),
        "stages": found,
    }
    write_json(folder / "profile.json", content)
    write_text(folder / "profile.md", text)
    return text
