"""train.jsonl: one line per logged step and per look, cut back to the checkpoint on resume."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

from vdsm_bench.files import write_text

#: in a cell's folder
JOURNAL = "train.jsonl"


class Look(NamedTuple):
    """What a look at a model after an epoch found.

    Attributes:
        stage: that was trained.
        epoch: of the stage, from 0.
        figures: by name.
    """

    stage: str
    epoch: int
    figures: Mapping[str, Any]


def read_looks(path: Path) -> list[Look]:
    """Returns the looks of a ``train.jsonl``, in their order; none where there is no such file.

    What was cut short by a kill, and what stands behind it, is left out.
    """
    looks = []
    for line in _lines(path):
        if '"epoch_figures"' in line:
            try:
                entry = json.loads(line)
                epoch, figures = index(entry["epoch"]), dict(entry["epoch_figures"])
                looks.append(Look(entry["stage"], epoch, figures))
            except (ValueError, TypeError, KeyError):
                break
    return looks


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return text.splitlines()


class Journal:
    """Appends JSON lines; a line cut short by a kill is dropped when training resumes."""

    def __init__(self, path: Path, stages: list[str]) -> None:
        self._path = path
        self._order = {name: index for index, name in enumerate(stages)}

    def rewind(self, stage: str, step: int) -> None:
        """Drops what was logged at or after a position: those steps are taken again."""
        if not self._path.exists():
            return
        limit = (self._order[stage], step)
        kept = []
        for line in _lines(self._path):
            try:
                entry = json.loads(line)
                place = (self._order.get(entry["stage"], -1), entry["step"])
                if place >= limit:
                    break
            except (ValueError, TypeError, KeyError):
                break  # cut short by a kill, or damaged: nothing after it can be relied on
            kept.append(line)
        write_text(self._path, "".join(line + "\n" for line in kept))

    def looks(self, stage: str) -> list[Look]:
        """Returns the looks of a stage so far, in their order."""
        return [look for look in read_looks(self._path) if look.stage == stage]

    def write(self, stage: str, epoch: int, step: int, figures: Mapping[str, Any]) -> None:
        """Appends one line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        place = {"stage": stage, "epoch": epoch, "step": step}
        entry = {**place, **figures, **place}  # a term of the loss may be called like one of them
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def sync(self) -> None:
        """Puts the lines on the disk before a checkpoint that goes on behind them."""
        if self._path.exists():
            with self._path.open("ab") as file:
                os.fsync(file.fileno())
