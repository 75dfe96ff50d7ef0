"""A cell's folder: its state, its files, and reading all of them without breaking on one."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from vdsm_bench.errors import DataError
from vdsm_bench.files import now, read_json, write_json

State = Literal[
    "planned",
    "training",
    "judging",
    "scoring",
    "done",
    "failed",
    "diverged",
    "collapsed",
    "interrupted",
]
STATES: tuple[str, ...] = get_args(State)
#: states of a process at work; if that process is gone, the cell was killed
ACTIVE = ("planned", "training", "judging", "scoring")
#: version of a row's fields; rows of another are not read
ROW_SCHEMA = 1


@dataclass(frozen=True)
class Status:
    """Where a cell stands.

    Attributes:
        state: one of :data:`STATES`.
        time: when this was written (UTC, ISO 8601).
        pid: the process that wrote it.
        host: the machine of that process.
        stage: stage being trained, if any.
        epoch: epochs done in that stage.
        note: reason of a failure, or a warning (for example that a code collapsed).
    """

    state: State
    time: str = field(default_factory=now)
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    stage: str | None = None
    epoch: int | None = None
    note: str | None = None

    def shown(self) -> str:
        """Returns the state, or ``killed`` where the process at work no longer lives."""
        if self.state in ACTIVE and self.host == socket.gethostname() and not _alive(self.pid):
            return "killed"
        return self.state


@dataclass(frozen=True)
class CellFolder:
    """The files of one cell."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved configuration and everything else the key is made of."""
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        """The row."""
        return self.path / "metrics.json"

    @property
    def checkpoint_file(self) -> Path:
        """Where its training stands."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def weights_file(self) -> Path:
        """The weights of the finished model."""
        return self.path / "checkpoints" / "model.safetensors"

    @property
    def media(self) -> Path:
        """The pictures."""
        return self.path / "media"

    @property
    def log_file(self) -> Path:
        """What was said while the cell ran, tracebacks included."""
        return self.path / "log.txt"

    def write_status(
        self,
        state: State,
        *,
        stage: str | None = None,
        epoch: int | None = None,
        note: str | None = None,
    ) -> None:
        """Writes status.json."""
        status = Status(state, stage=stage, epoch=epoch, note=note)
        write_json(self.path / "status.json", asdict(status))

    def read_status(self) -> Status:
        """Reads status.json.

        Raises:
            DataError: missing or damaged.
        """
        path = self.path / "status.json"
        content = read_json(path)
        if content.get("state") not in STATES:
            raise DataError(f"{path} is damaged: it has no known state.")
        known = set(Status.__dataclass_fields__)
        status = Status(**{key: value for key, value in content.items() if key in known})
        if not (isinstance(status.pid, int) and 0 < status.pid < 2**31):
            raise DataError(f"{path} is damaged: 'pid' is no process id.")
        if not isinstance(status.time, str):
            raise DataError(f"{path} is damaged: 'time' is no text.")
        return status

    def log(self, text: str) -> None:
        """Appends a line with its time to log.txt."""
        # a file's name need not be text
        with self.log_file.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{now()} {text}\n")

    def log_traceback(self) -> str:
        """Logs where the error at hand came from; says where to read it, if the disk takes it."""
        try:
            self.log(traceback.format_exc())
        except OSError:
            return ""
        return f" (traceback in {self.log_file})"


@dataclass(frozen=True)
class CellRecord:
    """What could be read of one cell folder.

    Attributes:
        path: the folder.
        config: config.json, or None where it does not read or the folder is a copy.
        status: status.json, or None where it does not read.
        metrics: metrics.json of a finished cell, or None.
        problem: what is damaged, or None.
    """

    path: Path
    config: dict[str, Any] | None
    status: Status | None
    metrics: dict[str, Any] | None
    problem: str | None

    @property
    def state(self) -> str:
        """The state as shown: one of :data:`STATES`, ``killed`` or ``damaged``."""
        if self.problem is not None or self.status is None:
            return "damaged"
        return self.status.shown()

    @property
    def slot(self) -> str:
        """How the row comes about: ``native``, or ``external`` where it is scored from a file."""
        return str((self.config or {}).get("slot", "native"))

    @property
    def label(self) -> str:
        """``dataset/model/preset-seed-hash``, as the folders are called."""
        return "/".join(self.path.parts[-3:])


def scan_cells(runs_dir: Path) -> list[CellRecord]:
    """Reads every cell under a runs folder; a damaged one is reported, never raised.

    So is a copy, which would count as one more seed: a folder whose name does not end in the key
    of its config.json, or the second one of a key.
    """
    found: list[CellRecord] = []
    cells: dict[str, Path] = {}
    for path in _cell_paths(runs_dir / "cells"):
        record = read_cell(path)
        if record.config is not None:
            key = record.config["key"]
            problem = None
            if not path.name.endswith(f"-{key}"):
                problem = f"{path} is a copy, or was renamed: its name does not end in -{key}."
            elif cells.setdefault(key, path) != path:
                problem = f"{path} is the same cell as {cells[key]}: one of them is a copy."
            if problem is not None:
                record = CellRecord(path, None, None, None, problem)
        found.append(record)
    return found


def read_cell(path: Path) -> CellRecord:
    """Reads one cell folder; what is damaged is named in ``problem``."""
    folder = CellFolder(path)
    config: dict[str, Any] | None = None
    status: Status | None = None
    metrics: dict[str, Any] | None = None
    try:
        found = read_json(folder.config_file)
        _check_config(found, folder.config_file)
        config = found
        status = folder.read_status()
        if status.state == "done":
            metrics = read_json(folder.metrics_file)
            check_metrics(metrics, folder.metrics_file)
    except DataError as error:
        return CellRecord(path, config, status, None, error.message)
    return CellRecord(path, config, status, metrics, None)


def check_metrics(metrics: dict[str, Any], where: Path) -> None:
    """Checks that a row has the fields the leaderboard reads.

    Raises:
        DataError: a field is missing or of the wrong kind, or the schema is another.
    """
    if metrics.get("schema") != ROW_SCHEMA:
        raise DataError(
            f"{where} is of another version: its schema is {metrics.get('schema')!r}, this version "
            f"reads {ROW_SCHEMA}."
        )
    wanted: dict[str, type | tuple[type, ...]] = {
        "slot": str, "dataset": str, "model": str, "preset": str, "seed": int, "split": str,
        "image_size": int, "frames": int, "supervision": str, "group": str, "protocol": dict,
        "scores": dict, "collapsed": (bool, type(None)), "judge": dict,
        "training_seconds": (int, float, type(None)),
    }  # fmt: skip
    for key, kind in wanted.items():
        if key not in metrics or not isinstance(metrics[key], kind):
            raise DataError(f"{where} is damaged: '{key}' is missing or of the wrong kind.")
    if not isinstance(metrics["protocol"].get("metrics", {}), dict):
        raise DataError(f"{where} is damaged: 'protocol.metrics' is no table.")
    texts = {
        "note": metrics.get("note"), "citation": metrics.get("citation"),
        "judge.weights": metrics["judge"].get("weights"),
        "protocol.judge": metrics["protocol"].get("judge"),
    }  # fmt: skip
    for key, text in texts.items():
        if not isinstance(text, (str, type(None))):
            raise DataError(f"{where} is damaged: '{key}' is no text.")
    if not isinstance(metrics["judge"].get("lowest_accuracy"), (int, float, type(None))):
        raise DataError(f"{where} is damaged: 'judge.lowest_accuracy' is no number.")
    lines = metrics.get("long", [])
    if not isinstance(lines, list):
        raise DataError(f"{where} is damaged: 'long' is no list.")
    for score in [*metrics["scores"].values(), *lines]:
        if not isinstance(score, dict) or not all(
            isinstance(score.get(key), (int, float, type(None))) for key in ("value", "low", "high")
        ):
            raise DataError(f"{where} is damaged: a score is no object with numbers.")
        if not isinstance(score.get("reason"), (str, type(None))):
            raise DataError(f"{where} is damaged: the reason of a score is no text.")
    if not all(isinstance(line.get("factor"), str) for line in lines):
        raise DataError(f"{where} is damaged: a score per factor names no factor.")


def _check_config(config: dict[str, Any], where: Path) -> None:
    for key, kind in {"config": dict, "instance": str, "key": str, "inputs": dict}.items():
        if not isinstance(config.get(key), kind):
            raise DataError(f"{where} is damaged: '{key}' is missing or of the wrong kind.")
    for key in ("data", "evaluation"):
        if not isinstance(config["config"].get(key, {}), dict):
            raise DataError(f"{where} is damaged: 'config.{key}' is no section.")
    hashed = config["inputs"].get("config")
    if not isinstance(hashed, dict):
        raise DataError(f"{where} is damaged: 'inputs.config' is missing or no section.")
    if not isinstance(hashed.get("seed"), int):
        raise DataError(f"{where} is damaged: 'inputs.config.seed' is no number.")


def _cell_paths(root: Path) -> Iterator[Path]:
    for path in sorted(root.glob("*/*/*")):
        if path.is_dir() and not path.name.startswith("."):
            yield path


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it lives, and is someone else's
    return True
