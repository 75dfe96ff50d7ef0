"""The error tree: every refusal says what is wrong, where, and what to type next.

Each class owns one exit code of the command line. Code that meets bad input
raises one of these; nothing else in the package decides an exit code.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

#: libraries whose errors are of the network
_NETWORKED = ("socket", "urllib", "urllib3", "requests", "httpx", "huggingface_hub")


class VdsmBenchError(Exception):
    """An error the user can act on.

    Args:
        message: what is wrong, and where.
        hint: what to do next, usually a command to type.
    """

    exit_code = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  next: {self.hint}"


class CellError(VdsmBenchError):
    """A cell failed while running; what it had finished is kept (exit 1)."""

    exit_code = 1


class DivergedError(CellError):
    """A loss became NaN or infinite; the batch is saved beside the log (exit 1)."""


class CollapsedError(CellError):
    """Training was stopped because a code is made no use of (exit 1)."""


class UsageError(VdsmBenchError):
    """A name, key or value that cannot be right (exit 2)."""

    exit_code = 2


class DataError(VdsmBenchError):
    """Data that is missing, damaged or not what its labels say (exit 3)."""

    exit_code = 3


class MissingDependencyError(VdsmBenchError):
    """An optional dependency is missing or does not import (exit 4)."""

    exit_code = 4


class ContractError(VdsmBenchError):
    """A component does not do what its contract says (exit 5)."""

    exit_code = 5


class ProtocolError(VdsmBenchError):
    """The protocol refuses to score, for example because the judge failed its gate (exit 6)."""

    exit_code = 6


def disk_error(error: OSError) -> DataError:
    """Returns what the disk refused (read-only, full, no such folder) as an error to act on.

    So is what a network refused, and what libraries call an error of the system.
    """
    kind = f"{type(error).__name__}: {error}"
    if _is_of_network(error):
        return DataError(f"The network failed: {kind}.", hint="the same command with a network")
    if (error.errno or 0) <= 0:  # it comes from no call of the system
        return DataError(f"Something could not be read or written: {kind}.")
    where = f": {error.filename}" if error.filename is not None else ""
    return DataError(
        f"The disk refused: {error.strerror or error}{where}.",
        hint="vdsm-bench doctor   (free space, and what can be written; other folders: "
        "--runs-dir, --data-dir)",
    )


def refusal(error: Exception) -> VdsmBenchError | None:
    """Returns what the user can act on, or None where an error is a bug.

    That is an error of this package, a lack of memory (of the machine or of a GPU), or what the
    disk refused.
    """
    if isinstance(error, VdsmBenchError):
        return error
    if is_lack_of_memory(error):
        asked = re.search(r"(?:tried|unable) to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        more = f": no room for {asked[1]} more" if asked else ""
        return CellError(
            f"There is too little memory{more}.",
            hint="fewer clips at once: --set training.STAGE.batch_size=N (of all stages: "
            "'training.*.batch_size=N'); while judging judge.batch_size, while scoring "
            "evaluation.batch_size, of your own clips a smaller --size",
        )
    return disk_error(error) if isinstance(error, OSError) else None


def _is_of_network(error: OSError) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return not isinstance(error, BrokenPipeError)
    library = type(error).__module__.partition(".")[0]
    return library in _NETWORKED or error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)


def is_lack_of_memory(error: Exception) -> bool:
    """Says whether memory was lacking, of torch on a CPU by its words: it has no type for that."""
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Returns ``" (did you mean 'x'?)"`` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(wrong.lower(), list(known), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""
