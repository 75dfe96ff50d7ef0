"""train.jsonl: one line per logged step and per epoch, cut back to the checkpoint on resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdsm_bench.files import write_text


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
        for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                place = (self._order.get(entry["stage"], -1), entry["step"])
                if place >= limit:
                    break
            except (ValueError, TypeError, KeyError):
                break  # cut short by a kill, or damaged: nothing after it can be relied on
            kept.append(line)
        write_text(self._path, "".join(line + "\n" for line in kept))

    def epoch_figures(self, stage: str) -> list[Mapping[str, Any]]:
        """Returns the figures of a stage's epochs so far, in their order."""
        if not self._path.exists():
            return []
        lines = self._path.read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines if '"epoch_figures"' in line]
        return [entry["epoch_figures"] for entry in entries if entry["stage"] == stage]

    def write(self, stage: str, epoch: int, step: int, figures: Mapping[str, Any]) -> None:
        """Appends one line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        entry = {"stage": stage, "epoch": epoch, "step": step, **figures}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
