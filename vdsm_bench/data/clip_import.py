"""Importing clips from a user's files: everything is read and looked at before a store begins.

Small frames are collected in a hidden file beside the store. Where anything is odd the whole list
is told and nothing is imported, unless what is odd may be left out.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vdsm_bench.contracts import DatasetCard, Factor, FactorKind
from vdsm_bench.data.clip_files import (
    VIDEOS,
    OddFileError,
    Strip,
    frames_of,
    natural,
    require_video_reader,
)
from vdsm_bench.data.cutting import Cut
from vdsm_bench.data.label_file import Odd, Row
from vdsm_bench.data.store import PART, PARTS, RECORDING, ByteArray
from vdsm_bench.data.store_writer import StoreWriter, store_lock
from vdsm_bench.errors import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Found:
    """What was found in a folder.

    Attributes:
        rows: the labelled clips.
        odd: what is odd already, before any clip has been read.
        notes: what the owner may want to know.
    """

    rows: Sequence[Row]
    odd: Sequence[Odd] = ()
    notes: Sequence[str] = ()


@dataclass
class _Collected:
    """The frames that will be stored, in a file; what they belong to, in memory."""

    rows: list[Row] = field(default_factory=list)
    recordings: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    small: list[str] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


def import_clips(
    destination: Path,
    found: Found,
    *,
    source: Path,
    card: DatasetCard,
    kinds: Mapping[str, FactorKind],
    cut: Cut,
    strip: Strip,
    leave_out: bool,
    facts: Mapping[str, Any],
    progress: Progress | None,
) -> None:
    """Writes a clip store from a user's files, whole or not at all.

    Args:
        destination: folder of the store; does not exist yet.
        found: the clips and their labels.
        source: the folder that the rows' files lie in.
        card: what the dataset is.
        kinds: the factors, in order, and whether they say who or what they do.
        cut: how files become clips.
        strip: how frames lie in an image.
        leave_out: leave out what is odd and write it on the card, instead of refusing.
        facts: what else the card has to say.
        progress: called with (files read, files in all).

    Raises:
        DataError: something is odd (all of it is named), nothing is left, or the disk is full.
        MissingDependencyError: there are videos, and PyAV is not installed.
    """
    if any(Path(row.file).suffix.lower() in VIDEOS for row in found.rows):
        require_video_reader()
    spool = destination.parent / f".{destination.name}.spool"
    odd = list(found.odd)
    with store_lock(destination):
        try:
            with _disk_errors(spool, destination), spool.open("wb") as stream:
                taken = _collect(stream.write, found.rows, source, cut, strip, odd, progress)
            if odd and not leave_out:
                raise refusal(card.name, odd)
            if not taken.lengths:
                raise DataError(
                    f"{card.name}: no clip is left of {source}."
                    + "".join(f"\n  {one}" for one in odd)
                )
            notes = [*found.notes, *_notes(taken, cut)]
            card = replace(card, frame_rate=_shown_at(taken, cut, card.frame_rate))
            more = {**facts, "left_out": [str(one) for one in odd], "notes": notes}
            _write(destination, spool, taken, card, kinds, cut, more)
        finally:
            spool.unlink(missing_ok=True)


def refusal(name: str, odd: Sequence[Odd]) -> DataError:
    """Returns the error that names everything odd."""
    return DataError(
        f"{name}: {len(odd)} {'thing is' if len(odd) == 1 else 'things are'} odd; nothing was "
        "imported.\n" + "\n".join(f"  {one}" for one in odd),
        hint="mend them and type the command again; or add --leave-out-odd to import the rest "
        "(labels that are right though they look odd: --trust-labels)",
    )


def _collect(
    write: Callable[[bytes], Any],
    rows: Sequence[Row],
    source: Path,
    cut: Cut,
    strip: Strip,
    odd: list[Odd],
    progress: Progress | None,
) -> _Collected:
    taken = _Collected()
    twins: dict[bytes, str] = {}
    for number, row in enumerate(rows):
        if progress is not None:
            progress(number, len(rows))
        try:
            clip = cut.clip(_watched(row, source, strip, cut, taken))
        except (OddFileError, OSError) as error:
            odd.append(Odd(row.file, str(error)))
            continue
        windows = cut.windows(clip)
        twin = _twin(twins, row.file, clip, windows, cut.window_step or len(windows[0]))
        if twin:
            odd.append(Odd(row.file, twin))
            continue
        for window in windows:
            write(np.ascontiguousarray(window).tobytes())
            taken.rows.append(row)
            taken.recordings.append(len(taken.names))
            taken.lengths.append(len(window))
        taken.names.append(row.file)
    if progress is not None:
        progress(len(rows), len(rows))
    return taken


def _twin(
    seen: dict[bytes, str], file: str, clip: ByteArray, windows: Sequence[ByteArray], step: int
) -> str:
    """Says which file shows the same, as a whole or in a window; remembers a file that is new.

    A window that two files share could be trained on and tested on.
    """
    mine = {_digest(clip): ("", file)}
    for number, window in enumerate(windows):
        frames = f"frames {number * step} to {number * step + len(window) - 1}"
        mine.setdefault(_digest(window), (f" in its {frames}", f"{frames} of {file}"))
    for digest, (where, _) in mine.items():
        if digest in seen:
            return f"shows{where} the same as {seen[digest]}, pixel for pixel"
    seen.update({digest: name for digest, (_, name) in mine.items()})
    return ""


def _digest(frames: ByteArray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(frames).data, digest_size=16).digest()


def _watched(row: Row, source: Path, strip: Strip, cut: Cut, taken: _Collected) -> Iterator[Any]:
    """Passes the frames of a file on; remembers its frame rate, and whether it is small."""
    first: float | None = None
    number, time = 0, None
    for number, frame in enumerate(frames_of(source / row.file, strip)):
        if number == 0:
            first = frame.time
            if min(frame.picture.size) < cut.size:
                width, height = frame.picture.size
                taken.small.append(f"{row.file} ({width}x{height})")
        time = frame.time
        yield frame
    if first is not None and time is not None and time > first:
        taken.rates.append(number / (time - first))


def _notes(taken: _Collected, cut: Cut) -> list[str]:
    notes = []
    if taken.small:
        shown = ", ".join(taken.small[:5]) + (" ..." if len(taken.small) > 5 else "")
        notes.append(
            f"{len(taken.small)} files are smaller than {cut.size} pixels and enlarged: {shown}"
        )
    if cut.frame_rate is None and taken.rates and max(taken.rates) > 1.05 * min(taken.rates):
        notes.append(
            f"the files have {min(taken.rates):.3g} to {max(taken.rates):.3g} frames per second; "
            "--frame-rate brings them to one"
        )
    return notes


def _shown_at(taken: _Collected, cut: Cut, otherwise: float) -> float:
    """Returns the frames per second at which the stored clips are shown."""
    rate = cut.frame_rate or (float(np.median(taken.rates)) if taken.rates else None)
    return otherwise if rate is None else round(rate / cut.stride, 3)


def _write(
    destination: Path,
    spool: Path,
    taken: _Collected,
    card: DatasetCard,
    kinds: Mapping[str, FactorKind],
    cut: Cut,
    facts: Mapping[str, Any],
) -> None:
    factors = [
        Factor(name, kind, tuple(sorted({row.labels[name] for row in taken.rows}, key=natural)))
        for name, kind in kinds.items()
    ]
    places = {one.name: {label: i for i, label in enumerate(one.classes)} for one in factors}
    given = all(row.part is not None for row in taken.rows)
    pixels = int(np.prod(cut.image_shape))
    with (
        StoreWriter(
            destination,
            card=card,
            factors=factors,
            image_shape=cut.image_shape,
            total_frames=sum(taken.lengths),
            columns=(RECORDING, PART) if given else (RECORDING,),
            facts={"protocol": {}, **facts, "recordings": taken.names},
        ) as writer,
        spool.open("rb") as stream,
    ):
        for row, recording, length in zip(taken.rows, taken.recordings, taken.lengths, strict=True):
            columns = {RECORDING: recording}
            if row.part is not None:
                columns[PART] = PARTS.index(row.part)
            frames: ByteArray = np.frombuffer(stream.read(length * pixels), dtype=np.uint8)
            writer.add(
                frames.reshape(length, *cut.image_shape),
                {name: places[name][row.labels[name]] for name in kinds},
                columns,
            )


@contextlib.contextmanager
def _disk_errors(spool: Path, destination: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            size = spool.stat().st_size if spool.exists() else 0
            raise DataError(
                f"No space for {destination}: the disk is full after {size} bytes "
                f"({size / 1e6:.0f} MB); nothing was imported. While clips are imported they take "
                "their room twice.",
                hint="free some space, or name another folder with --data-dir",
            ) from error
        raise
