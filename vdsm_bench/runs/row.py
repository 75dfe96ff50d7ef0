"""The fields of a row that say what was scored, on which clips, and what the model was told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsm_bench.config import CellConfig
from vdsm_bench.contracts import VideoModel
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.cell import CellKey
from vdsm_bench.runs.folder import ROW_SCHEMA


def describe_row(
    config: CellConfig, key: CellKey, bench: Bench, *, slot: str, model: str
) -> dict[str, Any]:
    """Returns the fields of a row that say what was scored, on which clips."""
    return {
        "schema": ROW_SCHEMA,
        "slot": slot,
        "dataset": bench.store.name,
        "model": model,
        "preset": config.preset,
        "seed": config.seed,
        "split": bench.splits.rule,
        "image_size": config.data.image_size,
        "frames": config.data.frames,
        "stride": config.data.stride,
        "key": key.key,
        "group": key.group,
    }


def supervision_of(model: VideoModel, training: Mapping[str, Any]) -> str:
    """Returns what a model is told beside pixels: its own declaration and identity pairs."""
    told = [] if model.supervision == "none" else [model.supervision]
    if any(stage.pairs for stage in training.values()):
        told.append("identity-pairs")
    return "+".join(told) or "none"
