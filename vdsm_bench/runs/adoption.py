"""Training that another cell has done already: what no training reads is all they differ in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdsm_bench.config import content_key
from vdsm_bench.errors import DataError
from vdsm_bench.files import read_json, write_bytes, write_json
from vdsm_bench.runs.cell import CellKey
from vdsm_bench.runs.folder import CellFolder, read_cell
from vdsm_bench.training.checkpoint import read_checkpoint
from vdsm_bench.training.journal import JOURNAL

#: sections of the configuration that training never reads; ``preset`` is a name for the others
_NOT_TRAINED_ON = ("judge", "evaluation", "preset")
#: whose training a cell took over, and the machine that it was done on
_ADOPTED = "adopted.json"


def training_key(inputs: Mapping[str, Any]) -> str:
    """Returns the hash of what training depends on.

    Args:
        inputs: those of a :class:`~vdsm_bench.runs.cell.CellKey`.
    """
    config = {name: part for name, part in inputs["config"].items() if name not in _NOT_TRAINED_ON}
    return content_key({"config": config, "data": inputs["data"]})


def adopt_training(folder: CellFolder, key: CellKey) -> str | None:
    """Gives a cell that has no training yet that of one which differs in judge or scores alone.

    Only a training that ended is taken, and none where the cell was begun to start over. The cells
    of one dataset are neighbours, for what an option of one model spells out may be what another
    has by its preset; one that is damaged or goes away is passed over.

    Args:
        folder: of the cell, which this process holds.
        key: of the cell.

    Returns:
        What the cell is called whose training it was, or None.

    Raises:
        DataError: the cell's own folder cannot be written.
    """
    if folder.checkpoint_file.exists() or read_json(folder.config_file).get("fresh"):
        return None
    wanted = training_key(key.inputs)
    for config in sorted(folder.path.parent.parent.glob("[!.]*/[!.]*/config.json")):
        if config.parent == folder.path:
            continue
        try:
            found = _ended_training(config.parent, wanted)
        except (DataError, OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # whatever is wrong with a neighbour: this cell is trained by itself
        if found is not None:
            adopted, journal, last = found
            write_json(folder.path / _ADOPTED, adopted)
            write_bytes(folder.path / JOURNAL, journal)
            write_bytes(folder.checkpoint_file, last)  # with this one the cell has been trained
            return str(adopted["trained_as"])
    (folder.path / _ADOPTED).unlink(missing_ok=True)  # a copy was cut short and its donor is gone
    return None


def trained_as(folder: CellFolder) -> str | None:
    """Returns what the cell is called whose training this one took over, or None."""
    path = folder.path / _ADOPTED
    return str(read_json(path)["trained_as"]) if path.exists() else None


def _ended_training(path: Path, wanted: str) -> tuple[dict[str, Any], bytes, bytes] | None:
    """Reads the training of a neighbour, if it is the wanted one and ended."""
    record = read_cell(path)
    if record.config is None or training_key(record.config["inputs"]) != wanted:
        return None
    folder = CellFolder(path)
    if not folder.weights_file.exists():
        return None
    read_checkpoint(folder.checkpoint_file)
    journal, last = (path / JOURNAL).read_bytes(), folder.checkpoint_file.read_bytes()
    for line in journal.splitlines():
        json.loads(line)
    known = path / _ADOPTED
    if known.exists():
        return read_json(known), journal, last
    return {"trained_as": record.label, "env": read_json(path / "env.json")}, journal, last
