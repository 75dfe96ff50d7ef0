"""Writing a clip store: streamed to disk, whole or not at all, one writer at a time."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock

from vdsm_bench.contracts import DatasetCard, Factor, check_unique
from vdsm_bench.data.store import (
    CARD,
    CARD_DIGEST,
    CLIPS,
    COLUMN,
    FRAMES,
    LABEL,
    SCHEMA,
    ByteArray,
    card_digest,
    content_digest,
    sha256_of,
)
from vdsm_bench.errors import DataError
from vdsm_bench.files import sync_folder

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def store_lock(folder: Path) -> FileLock:
    """Returns the lock that whoever makes or replaces a store holds; re-entrant in a process."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"The data folder {folder.parent} cannot be made: {error}.",
            hint="name another folder with --data-dir",
        ) from error
    return FileLock(folder.parent / f".{folder.name}.lock", is_singleton=True)


class StoreWriter:
    """Context manager that writes one store; leaving it without an error publishes the folder.

    Frames are streamed through a hidden sibling folder, synced and renamed. What a killed writer
    left there is removed by the next one.

    Args:
        folder: the store's final folder; must not exist.
        card: what the dataset is.
        factors: the labelled attributes.
        image_shape: ``(H, W, C)``.
        total_frames: frames of all clips together.
        columns: names of what ``add`` is told of every clip beside its labels (see ``store``).
        facts: what else the card has to say, JSON-able. What is under ``protocol`` enters the
            key of every cell and judge, and with it where the frames are cut into clips.

    Raises:
        DataError: the folder exists, the disk is too small or full, or what is added is not as
            announced (shape, labels, number of frames).
    """

    def __init__(
        self,
        folder: Path,
        *,
        card: DatasetCard,
        factors: Sequence[Factor],
        image_shape: tuple[int, int, int],
        total_frames: int,
        columns: Sequence[str] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        check_unique((factor.name for factor in factors), f"the factors of {card.name}")
        self._folder = folder
        self._partial = folder.parent / f".{folder.name}.partial"
        self._card = card
        self._factors = tuple(factors)
        self._image_shape = image_shape
        self._total = total_frames
        self._offsets = [0]
        self._labels: dict[str, list[int]] = {factor.name: [] for factor in factors}
        self._columns: dict[str, list[int]] = {name: [] for name in columns}
        self._facts = dict(facts or {})
        self._pixels = hashlib.sha256()
        self._whole_file = hashlib.sha256()
        self._lock = store_lock(folder)
        self._file: BinaryIO | None = None

    @property
    def bytes_needed(self) -> int:
        """Bytes of all frames together."""
        return self._total * int(np.prod(self._image_shape))

    @property
    def frames_sha256(self) -> str:
        """SHA-256 of the pixels added so far, as one C-ordered array."""
        return self._pixels.hexdigest()

    def __enter__(self) -> StoreWriter:
        self._lock.acquire()
        try:
            self._begin()
        except OSError as error:
            self._abandon()
            raise self._disk_error(error) from error
        except BaseException:
            self._abandon()
            raise
        return self

    def add(
        self,
        frames: ByteArray,
        labels: Mapping[str, int],
        columns: Mapping[str, int] | None = None,
    ) -> None:
        """Appends one clip.

        Args:
            frames: uint8 ``[T, H, W, C]``, T >= 1.
            labels: class index of every factor.
            columns: value of every column.

        Raises:
            DataError: wrong dtype, shape or labels, or the disk is full.
        """
        where = f"{self._card.name}, clip {len(self._offsets) - 1}"
        if frames.dtype != np.uint8 or frames.shape[1:] != self._image_shape or not len(frames):
            raise DataError(
                f"{where}: expected uint8 [T, {', '.join(map(str, self._image_shape))}], "
                f"got {frames.dtype} {list(frames.shape)}."
            )
        if set(labels) != set(self._labels):
            raise DataError(f"{where}: labels {sorted(labels)} instead of {sorted(self._labels)}.")
        for factor in self._factors:
            if not 0 <= labels[factor.name] < len(factor.classes):
                raise DataError(
                    f"{where}: {factor.name} = {labels[factor.name]} is none of its "
                    f"{len(factor.classes)} classes."
                )
            self._labels[factor.name].append(int(labels[factor.name]))
        for name, values in self._columns.items():
            values.append(int((columns or {})[name]))
        data = np.ascontiguousarray(frames).tobytes()
        self._pixels.update(data)
        self._write(data)
        self._offsets.append(self._offsets[-1] + len(frames))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            self._publish()
        except OSError as problem:
            raise self._disk_error(problem) from problem
        finally:
            self._abandon()

    def _begin(self) -> None:
        if self._folder.exists():
            raise DataError(
                f"{self._folder} exists already.",
                hint=f"vdsm-bench data check {self._folder.name}",
            )
        shutil.rmtree(self._partial, ignore_errors=True)
        free = shutil.disk_usage(self._folder.parent).free
        if free < self.bytes_needed:
            raise OSError(errno.ENOSPC, f"{free} bytes are free")
        self._partial.mkdir()
        self._file = (self._partial / FRAMES).open("wb")
        header = {
            "descr": "|u1",
            "fortran_order": False,
            "shape": (self._total, *self._image_shape),
        }
        np.lib.format.write_array_header_1_0(_Tee(self), header)

    def _write(self, data: bytes) -> None:
        if self._file is None:
            raise DataError(f"{self._folder}: the writer is not open.")
        self._whole_file.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise self._disk_error(error) from error

    def _publish(self) -> None:
        if self._offsets[-1] != self._total or self._file is None:
            raise DataError(
                f"{self._card.name}: {self._total} frames were announced, "
                f"{self._offsets[-1]} were written."
            )
        _sync(self._file)
        self._file.close()
        labels = {key: np.asarray(value, dtype=np.int64) for key, value in self._labels.items()}
        arrays: dict[str, Any] = {LABEL + key: value for key, value in labels.items()}
        for key, values in self._columns.items():
            arrays[COLUMN + key] = np.asarray(values, dtype=np.int64)
        with (self._partial / CLIPS).open("wb") as file:
            np.savez(file, offsets=np.asarray(self._offsets, dtype=np.int64), **arrays)
            _sync(file)
        factors = [
            {"name": one.name, "kind": one.kind, "classes": list(one.classes)}
            for one in self._factors
        ]
        facts = dict(self._facts)
        if "protocol" in facts:
            cuts = hashlib.sha256(np.asarray(self._offsets, dtype="<i8").tobytes()).hexdigest()
            facts["protocol"] = {**facts["protocol"], "cuts": cuts[:12]}
        card: dict[str, Any] = {
            "schema": SCHEMA,
            **facts,
            **asdict(self._card),
            "factors": factors,
            "identity": [factor.name for factor in self._factors if factor.kind == "static"],
            "clips": len(self._offsets) - 1,
            "frames": self._total,
            "image_shape": list(self._image_shape),
            "frames_sha256": self.frames_sha256,
            "content_sha256": content_digest(self.frames_sha256, factors, labels),
            "sha256": {
                FRAMES: self._whole_file.hexdigest(),
                CLIPS: sha256_of(self._partial / CLIPS),
            },
        }
        card[CARD_DIGEST] = card_digest(card)
        with (self._partial / CARD).open("wb") as file:
            file.write(json.dumps(card, indent=1).encode())
            _sync(file)
        sync_folder(self._partial)
        self._partial.rename(self._folder)
        sync_folder(self._folder.parent)

    def _abandon(self) -> None:
        """Closes, removes what was not published and lets the next writer in."""
        try:
            if self._file is not None:
                # flushing what a full disk refused would raise again and hide the cause
                try:
                    self._file.close()
                except OSError as error:
                    if error.errno not in _NO_SPACE:
                        raise
                self._file = None
            shutil.rmtree(self._partial, ignore_errors=True)
        finally:
            self._lock.release()

    def _disk_error(self, error: OSError) -> DataError:
        if error.errno in _NO_SPACE:
            return DataError(
                f"No space for {self._folder}: it needs {self.bytes_needed} bytes "
                f"({self.bytes_needed / 1e6:.0f} MB) and the disk is full ({error.strerror}).",
                hint="free some space, or name another folder with --data-dir",
            )
        return DataError(
            f"{self._folder} cannot be written: {error}.",
            hint="mend that, or name another folder with --data-dir",
        )


class _Tee:
    """The file NumPy writes its header to: everything passes through the writer's digest."""

    def __init__(self, writer: StoreWriter) -> None:
        self._writer = writer

    def write(self, data: bytes) -> int:
        self._writer._write(data)
        return len(data)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
