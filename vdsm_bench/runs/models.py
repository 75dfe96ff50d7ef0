"""Building the model of a cell."""

from __future__ import annotations

import torch

from vdsm_bench.contracts import VideoModel
from vdsm_bench.registry import Registry
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.cell import Cell
from vdsm_bench.seeding import derive_seed


def build_model(table: Registry, bench: Bench, cell: Cell) -> VideoModel:
    """Builds the model of a cell with weights that depend on its seed alone."""
    factory = table.factory("models", cell.config.model.name, cell.config.model.arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(cell.config.seed, "init"))
        model: VideoModel = factory(clip=bench.shape)
    return model
