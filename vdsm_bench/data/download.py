"""Downloads, through pooch: to the platform's cache, from mirrors, resumed where they were cut.

A file is in its place only with the right checksum. What has come of a file so far lies beside
it as ``.NAME.part`` and is gone on with by the next mirror, the next try or the next command.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from vdsm_bench.contracts import RemoteFile
from vdsm_bench.errors import DataError

if TYPE_CHECKING:
    import requests

#: seconds without a byte after which a connection counts as cut
TIMEOUT = 30.0
#: at most so many files are named one by one in a message; the others stand in MISSING
_NAMED = 20
MISSING = "missing.txt"
_CHUNK = 1 << 16
_PARTIAL, _OUT_OF_RANGE = 206, 416
_UNREACHED = "no connection"

Progress = Callable[[int, int], None]


class _WrongFileError(Exception):
    """The server sent something else than the file."""


class _CutError(Exception):
    """The connection ended before the file did; what came is kept."""


def cache_folder(dataset: str) -> Path:
    """Returns where a dataset's files are downloaded to, in the cache folder of the platform."""
    from platformdirs import user_cache_path

    return user_cache_path("vdsm-bench") / "downloads" / dataset


def fetch(
    dataset: str,
    files: Sequence[RemoteFile],
    folder: Path | None = None,
    *,
    progress: Progress | None = None,
) -> Path:
    """Downloads what is not there yet; two processes that do so take turns.

    Args:
        dataset: its name, for messages and for the folder.
        files: what to fetch.
        folder: where to; the dataset's cache folder if None.
        progress: called with (bytes done, bytes in all).

    Returns:
        The folder, in which every file has its checksum.

    Raises:
        DataError: no network, or a file that no mirror has, or the disk is full; says which files
            are missing and where to put them by hand.
    """
    folder = cache_folder(dataset) if folder is None else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            _fetch_all(dataset, files, folder, progress or _show_nothing)
    except OSError as error:
        full = " (the disk is full)" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise DataError(
            f"{dataset} cannot be downloaded to {folder}: {error}{full}.",
            hint="free some space, or choose another cache folder with XDG_CACHE_HOME, and type "
            "the command again: it goes on where it stopped",
        ) from error
    return folder


def _fetch_all(dataset: str, files: Sequence[RemoteFile], folder: Path, progress: Progress) -> None:
    total, done, offline = sum(file.size for file in files), 0, False
    failures: dict[str, str] = {}
    for file in files:

        def show(have: int, before: int = done) -> None:
            progress(before + have, total)

        if not _is_there(file, folder):
            reasons = ["not tried"] if offline else _fetch_one(file, folder, show)
            if reasons:
                failures[file.name] = "\n    ".join(reasons)
                offline = offline or all(reason.endswith(_UNREACHED) for reason in reasons)
        done += file.size
        progress(done, total)
    missing = [file for file in files if file.name in failures]
    if missing:
        raise _not_downloaded(dataset, files, missing, failures, folder)
    (folder / MISSING).unlink(missing_ok=True)


def _is_there(file: RemoteFile, folder: Path) -> bool:
    import pooch

    path, (algorithm, _, digest) = folder / file.name, file.checksum.partition(":")
    return path.is_file() and pooch.file_hash(str(path), alg=algorithm) == digest.lower()


def _fetch_one(file: RemoteFile, folder: Path, show: Callable[[int], None]) -> list[str]:
    """Tries the mirrors in turn; returns what went wrong with each, or nothing: it is there."""
    import logging

    import pooch
    import requests

    pooch.get_logger().setLevel(logging.ERROR)  # progress and errors are the frame's to tell
    reasons = []
    for url in file.urls:
        download = _Resuming(file, folder, show)
        while True:
            try:
                pooch.retrieve(url, file.checksum, file.name, folder, downloader=download)
                return []
            except (requests.RequestException, _CutError) as error:
                if download.gained:  # a cut connection: there is more where this came from
                    continue
                problem = _reason(error)
            except (ValueError, _WrongFileError) as error:
                if download.resumed:  # the piece may have been another server's: from the start
                    continue
                wrong = isinstance(error, _WrongFileError)
                problem = str(error) if wrong else "the file has another checksum"
            reasons.append(f"{url}: {problem}")
            break
    return reasons


@dataclass
class _Resuming:
    """A pooch downloader that goes on where the last one stopped.

    Attributes:
        gained: whether the last call left more of the file than it found.
        resumed: whether the last call went on with an older piece.
    """

    file: RemoteFile
    folder: Path
    show: Callable[[int], None]
    gained: bool = False
    resumed: bool = False

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Downloads to the piece beside the file, and hands it over when it is whole."""
        path = self.folder / self.file.name
        part = path.with_name(f".{path.name}.part")
        have = _size_of(part)
        if have > self.file.size:
            part.unlink()
            have = 0
        self.gained, self.resumed = False, have > 0
        try:
            if have < self.file.size:
                self._receive(url, part, have)
        except _WrongFileError:
            part.unlink(missing_ok=True)
            raise
        finally:
            self.gained = _size_of(part) > have
        os.replace(part, output_file)

    def _receive(self, url: str, part: Path, have: int) -> None:
        import requests

        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == _OUT_OF_RANGE:
                raise _WrongFileError("the server's file is shorter")
            response.raise_for_status()
            self.resumed = response.status_code == _PARTIAL
            if self.resumed:
                place = response.headers.get("Content-Range", "")
                if not place.startswith(f"bytes {have}-"):
                    raise _WrongFileError("the server went on at another place")
            size = self._write(response, part, have if self.resumed else 0)
            if size < self.file.size and "Content-Length" not in response.headers:
                raise _CutError("the connection was cut")
            if size != self.file.size:
                sizes = "more" if size > self.file.size else f"{size}"
                raise _WrongFileError(f"{sizes} bytes instead of {self.file.size}")

    def _write(self, response: requests.Response, part: Path, size: int) -> int:
        """Appends what comes to the first ``size`` bytes; returns how many there are then."""
        with part.open("ab" if size else "wb") as stream:
            for piece in response.iter_content(_CHUNK):
                stream.write(piece)
                size += len(piece)
                if size > self.file.size:
                    break
                self.show(size)
        return size


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return _UNREACHED
    return str(error) or type(error).__name__


def _not_downloaded(
    dataset: str,
    files: Sequence[RemoteFile],
    missing: Sequence[RemoteFile],
    failures: dict[str, str],
    folder: Path,
) -> DataError:
    (folder / MISSING).write_text(
        "".join(f"{file.name}\t{file.size}\t{file.checksum}\t{file.urls[0]}\n" for file in missing),
        encoding="utf-8",
    )
    lines = [
        f"  {file.name}  ({file.size} bytes, {file.checksum})\n    {failures[file.name]}"
        for file in missing[:_NAMED]
    ]
    if len(missing) > _NAMED:
        lines.append(f"  and {len(missing) - _NAMED} more, all in {folder / MISSING}")
    return DataError(
        f"{dataset}: {len(missing)} of {len(files)} files could not be downloaded:\n"
        + "\n".join(lines),
        hint=f"vdsm-bench data prepare {dataset}   (goes on where it stopped). Or fetch these "
        f"files by hand, put them into {folder} and type it; or, where all lie elsewhere: "
        f"vdsm-bench data prepare {dataset} --from FOLDER",
    )


def _show_nothing(done: int, total: int) -> None:
    """Shows nothing."""
