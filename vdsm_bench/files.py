"""Files that appear whole or not at all, and locks that say who holds them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vdsm_bench.errors import CellError, DataError

#: ends the name of a file that is still being written
_UNFINISHED = ".part"


def now() -> str:
    """Returns the time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def write_whole(path: Path, write: Callable[[Path], object], *, make_folder: bool = True) -> None:
    """Writes a file whole or not at all: temporary file in the same folder, fsync, rename.

    Args:
        path: of the file.
        write: fills the temporary file, whose path it is given.
        make_folder: make its folder where there is none, rather than fail.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(_UNFINISHED, f".{path.name}.", path.parent)
        os.close(handle)
        written = Path(name)
        try:
            write(written)
            with written.open("rb") as stream:
                os.fsync(stream.fileno())
            written.chmod(0o644)  # mkstemp's 0600 would hide results from colleagues
            written.replace(path)
        except BaseException:
            written.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}.",
            hint="free disk space, or name another place for it   (vdsm-bench doctor says what "
            "can be written; cells and judges: --runs-dir)",
        ) from error


def is_unfinished(path: Path) -> bool:
    """Returns whether a killed :func:`write_whole` may have left a file, by its name."""
    return path.name.startswith(".") and path.name.endswith(_UNFINISHED)


def remove_unfinished(folder: Path) -> None:
    """Removes what killed writers have left in a folder that nobody else writes to now."""
    for left in folder.glob(f".*{_UNFINISHED}"):
        left.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, make_folder: bool = True) -> None:
    """Writes a file whole or not at all; see :func:`write_whole`."""
    write_whole(path, lambda temporary: temporary.write_bytes(content), make_folder=make_folder)


def write_text(path: Path, content: str) -> None:
    """Writes UTF-8 text whole or not at all; see :func:`write_whole`."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any, *, make_folder: bool = True) -> None:
    """Writes indented JSON whole or not at all; NaN and infinity are refused (ValueError)."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_bytes(path, text.encode(), make_folder=make_folder)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        DataError: missing, unreadable, damaged, or not an object; the message names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise DataError(f"{path} does not read: {error.strerror}.") from error
    except ValueError as error:  # bad JSON and bad UTF-8 alike
        raise DataError(f"{path} is damaged: {error}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: it holds no JSON object.")
    return content


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move_aside(folder: Path) -> Path:
    """Renames a folder to ``.<name>.old-<n>``, the first free n; returns its new place."""
    number = 1
    while (aside := folder.with_name(f".{folder.name}.old-{number}")).exists():
        number += 1
    folder.rename(aside)
    sync_folder(folder.parent)
    return aside


@contextlib.contextmanager
def hold(
    folder: Path, what: str, *, wait: bool = True, say: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Holds the lock of a folder; it lies beside the folder, which need not exist yet.

    Args:
        folder: what is locked.
        what: its name in messages.
        wait: wait for another process, or refuse.
        say: told once, before waiting, who holds the lock.

    Raises:
        CellError: another process holds it and ``wait`` is false.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    holder = folder.with_name(f".{folder.name}.holder.json")
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        owner = _describe(holder)
        if not wait:
            raise CellError(
                f"{what} is being worked on by {owner}.",
                hint="vdsm-bench status   (or leave out --no-wait to wait for it)",
            ) from None
        if say is not None:
            say(f"{what}: waiting for {owner}")
        lock.acquire()
    try:
        write_json(holder, {"pid": os.getpid(), "host": socket.gethostname(), "since": now()})
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _describe(holder: Path) -> str:
    try:
        content = read_json(holder)
    except DataError:
        return "another process"
    return f"process {content.get('pid')} on {content.get('host')} since {content.get('since')}"
