"""Training that another cell has done already: what no training reads is all they differ in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsm_bench.config import content_key
from vdsm_bench.errors import DataError
from vdsm_bench.files import write_bytes
from vdsm_bench.runs.cell import CellKey
from vdsm_bench.runs.folder import CellFolder, CellRecord, read_cell
from vdsm_bench.training.checkpoint import read_checkpoint

#: sections of the configuration that training never reads; ``preset`` is a name for the others
_NOT_TRAINED_ON = ("judge", "evaluation", "preset")
#: what is taken over; with the last of them a cell has been trained
_TAKEN = ("train.jsonl", "env.json", "checkpoints/last.safetensors")


def training_key(inputs: Mapping[str, Any]) -> str:
    """Returns the hash of what training depends on.

    Args:
        inputs: those of a :class:`~vdsm_bench.runs.cell.CellKey`.
    """
    config = {name: part for name, part in inputs["config"].items() if name not in _NOT_TRAINED_ON}
    return content_key({"config": config, "data": inputs["data"]})


def adopt_training(folder: CellFolder, key: CellKey) -> str | None:
    """Gives a cell that has no training yet that of one which differs in judge or scores alone.

    Only a training that ended is taken, with its figures and the description of its machine; the
    cells of one model and dataset are neighbours. One that is damaged is passed over.

    Args:
        folder: of the cell, which this process holds.
        key: of the cell.

    Returns:
        What the cell is called whose training it was, or None.
    """
    if (folder.path / _TAKEN[-1]).exists():
        return None
    wanted = training_key(key.inputs)
    for config in sorted(folder.path.parent.glob("[!.]*/config.json")):
        other = CellFolder(config.parent)
        record = read_cell(other.path)
        if other.path == folder.path or record.problem is not None:
            continue
        if _training_of(record) == wanted and _trained(other):
            for name in _TAKEN:
                write_bytes(folder.path / name, (other.path / name).read_bytes())
            return record.label
    return None


def _training_of(record: CellRecord) -> str | None:
    inputs = (record.config or {}).get("inputs")
    if not isinstance(inputs, dict) or not {"config", "data"} <= inputs.keys():
        return None
    return training_key(inputs)


def _trained(folder: CellFolder) -> bool:
    if not all((folder.path / name).exists() for name in (*_TAKEN, folder.weights_file)):
        return False
    try:
        read_checkpoint(folder.path / _TAKEN[-1])
    except DataError:
        return False
    return True
