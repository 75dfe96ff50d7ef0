"""The clip store: one folder per dataset, memory-mapped frames, labels and a card.

``frames.npy`` (uint8 ``[frames of all clips, H, W, C]``), ``clips.npz`` (offsets and one label
array per factor) and ``card.json`` appear together or not at all: a writer fills a hidden
sibling folder and renames it. Nothing in a store is unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vdsm_bench.contracts import Factor
from vdsm_bench.data.safe_arrays import DAMAGE
from vdsm_bench.errors import DataError
from vdsm_bench.files import is_unfinished, read_json, write_json

SCHEMA = 1
FRAMES, CLIPS, CARD = "frames.npy", "clips.npz", "card.json"
#: written after the fact, where the frames have been read against their checksum
PASSED = ".passed.json"
LABEL, COLUMN = "label.", "column."
CARD_DIGEST = "card_sha256"
#: columns that a store may have beside its labels
RECORDING, PART = "recording", "part"
#: values of the column ``part``, in this order
PARTS = ("train", "validation", "test")
_CHUNK = 1 << 24

IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]


class ClipStore:
    """The clips of one dataset, read-only; frames stay on disk until they are asked for.

    Attributes:
        folder: where it lies.
        name: dataset name, as on its card.
        card: the whole card, as JSON.
        factors: the labelled attributes.
        lengths: frames per clip, int64 ``[n]``.
        labels: class index per factor, int64 ``[n]`` each.
        identities: index of the combination of all static factors, consecutive, int64 ``[n]``.
        motions: index of the combination of all dynamic factors, consecutive, int64 ``[n]``.
        recordings: index of the file a clip was cut from, int64 ``[n]``: clips of one recording
            overlap or touch, so no split takes them apart. Every clip its own where not told.
        parts: index into :data:`PARTS` as the owner gave it, int64 ``[n]``, or None.
        image_shape: ``(H, W, C)`` as stored.
        frame_rate: frames per second.
        content_hash: short hex digest of frames, labels and factors.
    """

    def __init__(
        self,
        folder: Path,
        card: dict[str, Any],
        offsets: IntArray,
        labels: dict[str, IntArray],
        columns: Mapping[str, IntArray],
    ) -> None:
        self.folder = folder
        self.card = card
        self.name: str = card["name"]
        self.factors = tuple(
            Factor(item["name"], item["kind"], tuple(item["classes"])) for item in card["factors"]
        )
        self.lengths: IntArray = np.diff(offsets)
        self.labels = labels
        self.identities = self._combinations("static")
        self.motions = self._combinations("dynamic")
        self.recordings: IntArray = columns.get(RECORDING, np.arange(len(self.lengths)))
        self.parts: IntArray | None = columns.get(PART)
        height, width, channels = card["image_shape"]
        self.image_shape: tuple[int, int, int] = (height, width, channels)
        self.frame_rate = float(card["frame_rate"])
        self.content_hash: str = card["content_sha256"][:12]
        self._offsets = offsets
        self._frames: ByteArray = np.load(folder / FRAMES, mmap_mode="r", allow_pickle=False)

    @classmethod
    def open(cls, folder: Path) -> ClipStore:
        """Opens a store after cheap checks: schema, sizes, labels; no checksum of the frames.

        Raises:
            DataError: missing or damaged; the message names the file.
        """
        card = _read_card(folder)
        try:
            arrays = read_arrays(folder / CLIPS)
            offsets = arrays["offsets"]
            labels = {item["name"]: arrays[LABEL + item["name"]] for item in card["factors"]}
            columns = {
                name: arrays[COLUMN + name] for name in (RECORDING, PART) if COLUMN + name in arrays
            }
            problem = _problem_of_frames(folder / FRAMES, card) or _problem_of_clips(
                card, offsets, labels, columns
            )
            if not problem:
                problem = _problem_of_checksums(folder, card, labels)
            if not problem:
                return cls(folder, card, offsets, labels, columns)
        except DAMAGE as error:
            problem = f"{type(error).__name__}: {error}"
        raise _damaged(folder, problem)

    def __len__(self) -> int:
        return len(self.lengths)

    def frames(self, index: int) -> ByteArray:
        """Returns the frames of one clip, a read-only uint8 view ``[T_i, H, W, C]``."""
        if not 0 <= index < len(self):
            raise DataError(f"{self.name} has {len(self)} clips; there is no clip {index}.")
        return self._frames[self._offsets[index] : self._offsets[index + 1]]

    def windows(
        self, indices: npt.ArrayLike, starts: npt.ArrayLike, *, frames: int, stride: int = 1
    ) -> ByteArray:
        """Cuts one window from each clip; past the end of a clip its last frame is repeated.

        Args:
            indices: clips ``[B]``.
            starts: first frame of each window ``[B]``.
            frames: frames per window.
            stride: every stride-th frame is taken.

        Returns:
            uint8 ``[B, frames, H, W, C]``.
        """
        which = np.asarray(indices, dtype=np.int64)[:, None]
        inside = np.asarray(starts, dtype=np.int64)[:, None] + stride * np.arange(frames)
        return self.frames_at(which, np.minimum(inside, self.lengths[which] - 1))

    def frames_at(self, indices: IntArray, inside: IntArray) -> ByteArray:
        """Returns single frames by clip and place in it ``[...]``, uint8 ``[..., H, W, C]``."""
        frames: ByteArray = self._frames[self._offsets[indices] + inside]
        return frames

    def digest_of(self, index: int) -> bytes:
        """Returns a digest of one clip's pixels, to find duplicates."""
        return hashlib.blake2b(self.frames(index).tobytes(), digest_size=16).digest()

    def verify(self, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Reads everything and compares checksums.

        Args:
            progress: called with (bytes read, bytes in all).

        Raises:
            DataError: a file is not what the card says; the message names it.
        """
        if sha256_of(self.folder / FRAMES, progress) != self.card["sha256"][FRAMES]:
            raise _damaged(self.folder, f"{FRAMES} does not match its checksum")
        problem = _problem_of_checksums(self.folder, self.card, self.labels)
        if problem:
            raise _damaged(self.folder, problem)

    def verify_once(self) -> None:
        """Reads the frames against their checksum, unless this very file has passed before.

        What passed is remembered beside it by size, time of change and inode, so that the check
        costs nothing the next time. :meth:`verify` also finds what changed behind all three.

        Raises:
            DataError: the frames are not what the card says.
        """
        frames, passed = self.folder / FRAMES, self.folder / PASSED
        found = frames.stat()
        facts = {
            "sha256": self.card["sha256"][FRAMES],
            "size": found.st_size,
            "mtime_ns": found.st_mtime_ns,
            "inode": found.st_ino,
        }
        with contextlib.suppress(DataError):
            if read_json(passed) == facts:
                return
        if sha256_of(frames) != facts["sha256"]:
            raise _damaged(self.folder, f"{FRAMES} does not match its checksum")
        # others' stores may not be written to, and this one may have been set aside meanwhile
        with contextlib.suppress(DataError):
            write_json(passed, facts, make_folder=False)

    def _combinations(self, kind: str) -> IntArray:
        columns = [self.labels[factor.name] for factor in self.factors if factor.kind == kind]
        if not columns:
            return np.zeros(len(self), dtype=np.int64)
        _, inverse = np.unique(np.stack(columns, 1), axis=0, return_inverse=True)
        return inverse.reshape(-1).astype(np.int64)


def read_arrays(path: Path) -> dict[str, IntArray]:
    """Reads all int64 arrays of an npz file, refusing pickles."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    for key, value in arrays.items():
        if value.dtype != np.int64 or value.ndim != 1:
            raise ValueError(f"{key} is {value.dtype} {list(value.shape)}, not int64 [n]")
    return arrays


def sha256_of(path: Path, progress: Callable[[int, int], None] | None = None) -> str:
    """Returns the SHA-256 of a file, read in pieces; tells how many bytes of how many are read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
            if progress is not None:
                progress(file.tell(), path.stat().st_size)
    return digest.hexdigest()


def content_digest(
    frames_sha256: str, factors: list[dict[str, Any]], labels: Mapping[str, IntArray]
) -> str:
    """Returns the digest of what a store holds, whatever the file format around it."""
    digest = hashlib.sha256(frames_sha256.encode())
    digest.update(json.dumps(factors, sort_keys=True).encode())
    for item in factors:
        digest.update(np.ascontiguousarray(labels[item["name"]], dtype="<i8").tobytes())
    return digest.hexdigest()


def check_nothing_else(folder: Path) -> None:
    """Refuses a folder that holds anything but a store, whole or not: it is no one's to replace.

    Raises:
        DataError: names what lies there.
    """
    ours = {FRAMES, CLIPS, CARD, PASSED, ".DS_Store", "Thumbs.db", "desktop.ini"}
    lying = folder.iterdir() if folder.is_dir() else [folder]
    others = sorted(
        entry.name
        for entry in lying
        if entry.name not in ours and not entry.name.startswith("._") and not is_unfinished(entry)
    )
    if others:
        shown = ", ".join(others[:5]) + (" ..." if len(others) > 5 else "")
        raise DataError(
            f"In the place of the clip store {folder} lies something else: {shown}.",
            hint="another name, another data folder (--data-dir), or move them away; they would "
            "be lost",
        )


def _read_card(folder: Path) -> dict[str, Any]:
    if folder.exists() and not (folder / CARD).is_file():
        check_nothing_else(folder)
        raise _damaged(folder, f"there is no {CARD}")
    if not folder.exists():
        raise DataError(
            f"There is no clip store in {folder}.", hint=f"vdsm-bench data prepare {folder.name}"
        )
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise _damaged(folder, f"{CARD} does not read ({error})") from error
    if not isinstance(card, dict) or card.get("schema") != SCHEMA:
        raise _damaged(folder, f"{CARD} is not of schema {SCHEMA}")
    missing = {"name", "factors", "clips", "frames", "image_shape", "frame_rate", "sha256",
               "frames_sha256", "content_sha256"} - card.keys()  # fmt: skip
    if missing:
        raise _damaged(folder, f"{CARD} lacks {', '.join(sorted(missing))}")
    if card.get("split", "clips") not in ("clips", "identities", "cells", "given"):
        raise _damaged(folder, f"{CARD} names an unknown split rule '{card['split']}'")
    return card


def _problem_of_frames(path: Path, card: Mapping[str, Any]) -> str:
    """Compares header and size before mapping: a short file would end in SIGBUS later."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            return f"{FRAMES} has an unknown header"
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
    expected = (card["frames"], *card["image_shape"])
    if shape != expected or fortran or dtype != np.uint8:
        return f"{FRAMES} holds {dtype} {list(shape)}, the card says uint8 {list(expected)}"
    need, have = start + int(np.prod(expected)), path.stat().st_size
    return "" if need == have else f"{FRAMES} has {have} bytes instead of {need}"


def _problem_of_clips(
    card: Mapping[str, Any],
    offsets: IntArray,
    labels: Mapping[str, IntArray],
    columns: Mapping[str, IntArray],
) -> str:
    if len(offsets) != card["clips"] + 1 or card["clips"] < 1:
        return f"{CLIPS} holds {len(offsets) - 1} clips, the card says {card['clips']}"
    if offsets[0] != 0 or offsets[-1] != card["frames"] or np.diff(offsets).min() < 1:
        return f"{CLIPS}: the offsets do not cut the frames into clips"
    for item in card["factors"]:
        values = labels[item["name"]]
        if item["kind"] not in ("static", "dynamic"):
            return f"{CARD}: factor {item['name']} is of unknown kind '{item['kind']}'"
        if len(values) != card["clips"]:
            return f"{CLIPS}: {item['name']} has {len(values)} labels for {card['clips']} clips"
        wrong = np.flatnonzero((values < 0) | (values >= len(item["classes"])))
        if len(wrong):
            return (
                f"{CLIPS}: {item['name']} has labels outside its {len(item['classes'])} classes, "
                f"for example clip {wrong[0]}: {values[wrong[0]]}"
            )
    for name, values in columns.items():
        if len(values) != card["clips"]:
            return f"{CLIPS}: {name} has {len(values)} values for {card['clips']} clips"
    if PART in columns and not np.isin(columns[PART], range(len(PARTS))).all():
        return f"{CLIPS}: {PART} has values that are no part of a split"
    return ""


def card_digest(card: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of everything a card says but this digest itself."""
    said = {key: value for key, value in card.items() if key != CARD_DIGEST}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _problem_of_checksums(
    folder: Path, card: Mapping[str, Any], labels: Mapping[str, IntArray]
) -> str:
    """Compares all but the frames, which take long to read."""
    if card.get(CARD_DIGEST) not in (None, card_digest(card)):
        return f"{CARD} does not match its checksum"
    if sha256_of(folder / CLIPS) != card["sha256"][CLIPS]:
        return f"{CLIPS} does not match its checksum"
    content = content_digest(card["frames_sha256"], card["factors"], labels)
    return "" if content == card["content_sha256"] else f"{CARD} does not match the labels"


def _damaged(folder: Path, problem: str) -> DataError:
    return DataError(
        f"The clip store {folder} is damaged: {problem}.",
        hint=f"vdsm-bench data prepare {folder.name} --replace   (and --from FOLDER, where it is "
        "made from files that you have)",
    )
