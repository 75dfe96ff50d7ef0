"""MUG as people have it on disk: the release's npz pair, the licensor's tree, OpenFace's output.

Reading has two steps: listing, which finds everything that is wrong with names, labels and
lengths, and reading one clip at a time.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vdsm_bench.data.clip_files import OddFileError, entries, natural, open_image, pixel_scale
from vdsm_bench.data.safe_arrays import AnyArray, read_npz
from vdsm_bench.data.store import ByteArray, IntArray
from vdsm_bench.errors import DataError

#: side of an aligned face, and of the smallest image that is taken for one
FACE, SMALLEST = 112, 64
#: class index -> action code in the release's file; 2, 5 and 6 are left out, 7 and 8 take the
#: places of 2 and 5 (release, dataset loader). Which expression a code is, no source says.
STORED_CODES = (0, 1, 7, 3, 4, 8)
LEFT_OUT_CODES = (2, 5, 6)
#: the basic expressions; where a tree has them all, its other actions are left out
EXPRESSIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
SHORTEST = 2
_TREE = "IDENTITY/ACTION/TAKE/*.jpg|png|bmp"
#: highest number of an identity that is taken for one
_HIGHEST = 9999
_IMAGES = {".jpg", ".jpeg", ".png", ".bmp"}
#: OpenFace's folder of aligned faces, and what it writes beside it
_ALIGNED = "_aligned"
_BESIDE = re.compile(r"(\.csv|\.hog|\.avi|_of_details\.txt)$")
_SECOND_FACE = re.compile(r"^frame_det_(?!00_)\d+_")


@dataclass
class Source:
    """What a folder offers: clips in order, their labels, and the place each comes from.

    Attributes:
        layout: ``release``, ``tree`` or ``openface``.
        identities: class names.
        actions: class names.
        labels: identity and action ``[n, 2]``.
        lengths: frames of each clip, as many as will be read without a stride.
        places: where each clip is, for messages.
        items: what :attr:`read` reads one clip from.
        read: frames ``[T, 112, 112, 3]`` of one item; only every stride-th frame.
        on_disk: whether clips are still to be read, which another process can do too; otherwise
            they are in memory and have been looked at.
        left_out: clips and frames that are not taken, per reason.
        problems: what is wrong; nothing may be imported while there is any.
    """

    layout: str
    identities: tuple[str, ...]
    actions: tuple[str, ...]
    labels: IntArray
    lengths: list[int]
    places: list[str]
    items: Sequence[Any]
    read: Callable[..., ByteArray]
    on_disk: bool = False
    left_out: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def list_clips(source: Path) -> Source:
    """Lists the clips of a folder in any of the layouts.

    Raises:
        DataError: it is none of them, or so damaged that no clip can be told from another.
    """
    archives = sorted(source.glob("*.npz"))
    return _read_pair(source, archives) if archives else _scan_tree(source)


def _read_pair(source: Path, archives: Sequence[Path]) -> Source:
    """Reads the release's layout; the two files are told apart by what is in them."""
    if len(archives) != 2:
        raise DataError(
            f"{source} holds {len(archives)} npz files ({', '.join(p.name for p in archives)}); "
            f"the release's layout is two: clips and labels."
        )
    content = {path: read_npz(path) for path in archives}
    labelled = [path for path in archives if _is_labels(content[path])]
    if len(labelled) != 1:
        raise DataError(
            f"{source}: exactly one of {archives[0].name} and {archives[1].name} must hold "
            f"labels [n, 2] (identity, action); {len(labelled)} do."
        )
    label_path = labelled[0]
    clip_path = archives[1] if label_path == archives[0] else archives[0]
    (labels,) = content[label_path].values()
    clips = _as_clips(clip_path, content[clip_path])
    stored, problems = _check_labels(label_path, labels, len(clips))
    # the owner's labels are only read: the release wrote 7 -> 2 and 8 -> 5 back into them, and
    # met them as left-out classes when it looked a second time
    kept = np.flatnonzero(np.isin(stored[:, 1], STORED_CODES) & (stored[:, 0] >= 0))
    codes = np.unique(stored[kept, 0])
    problems += [text for index in kept if (text := _problem_of(clip_path, int(index), clips))]
    if len(codes) < 2 and not problems:
        raise DataError(f"{label_path}: {len(codes)} identities are left; two are needed.")
    place = {code: index for index, code in enumerate(STORED_CODES)}
    actions = np.array([place[code] for code in stored[kept, 1].tolist()], dtype=np.int64)
    return Source(
        layout="release",
        identities=tuple(f"subject-{code:02d}" for code in codes),
        actions=tuple(f"code-{code}" for code in STORED_CODES),
        labels=np.stack([np.searchsorted(codes, stored[kept, 0]), actions], axis=1),
        lengths=[len(np.atleast_1d(clips[index])) for index in kept],
        places=[f"{clip_path}, clip {index}" for index in kept],
        items=[clips[index] for index in kept],
        read=_as_bytes,
        left_out={
            f"code-{code}": count
            for code in LEFT_OUT_CODES
            if (count := int((stored[:, 1] == code).sum()))
        },
        problems=problems,
    )


def _is_labels(arrays: dict[str, AnyArray]) -> bool:
    return len(arrays) == 1 and all(
        array.ndim == 2 and array.shape[1] == 2 for array in arrays.values()
    )


def _as_clips(path: Path, arrays: dict[str, AnyArray]) -> list[AnyArray]:
    """Returns the clips of one list or stack of clips, or of one array per clip."""
    if len(arrays) == 1:
        (only,) = arrays.values()
        if only.ndim >= 1 and (only.dtype == object or only.ndim == 5):
            return list(only)
    return [arrays[name] for name in sorted(arrays, key=natural)]


def _check_labels(path: Path, labels: AnyArray, clips: int) -> tuple[IntArray, list[str]]:
    """Returns labels ``[n, 2]``, -1 where there is none that could be, and what is wrong."""
    if len(labels) != clips:
        raise DataError(f"{path} has {len(labels)} labels for {clips} clips.")
    try:
        numbers = labels.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: labels are no numbers ({error}).") from error
    result, problems = np.full(numbers.shape, -1, dtype=np.int64), []
    for row, (who, what) in enumerate(numbers):
        if not (0 <= who <= _HIGHEST and who == int(who)):  # written so that NaN fails too
            problems.append(
                f"{path}, row {row}: identity {who:g} is no whole number from 0 to {_HIGHEST}"
            )
        elif what not in (*STORED_CODES, *LEFT_OUT_CODES):
            problems.append(
                f"{path}, row {row}: action {what:g} is none of the stored codes 0 to 8 "
                f"(columns: identity, action)"
            )
        else:
            result[row] = who, what
    return result, problems


def _problem_of(path: Path, index: int, clips: Sequence[Any]) -> str:
    where, clip = f"{path}, clip {index}", clips[index]
    if not isinstance(clip, np.ndarray) or clip.dtype.kind not in "uif":
        return f"{where} is no array of pixels"
    if clip.ndim != 4 or clip.shape[1:] != (FACE, FACE, 3) or not len(clip):
        return f"{where} has shape {list(clip.shape)}; expected [frames, {FACE}, {FACE}, 3]"
    try:
        pixel_scale(clip)
    except OddFileError as error:
        return f"{where} {error}"
    return ""


def _as_bytes(clip: AnyArray, stride: int) -> ByteArray:
    """Returns a checked clip as uint8; floats up to 1 count as [0, 1]."""
    return np.round(clip[::stride] * pixel_scale(clip)).astype(np.uint8)


@dataclass(frozen=True)
class _Take:
    """One clip of a tree: its images, without those in which OpenFace found no face."""

    identity: str
    action: str
    folder: Path
    images: tuple[Path, ...]
    faceless: int


def _scan_tree(source: Path) -> Source:
    """Lists a tree of images; whatever does not fit in is a problem, by name."""
    problems: list[str] = []
    if not entries(source):
        raise DataError(f"{source} is empty; expected two npz files or {_TREE}.")
    takes = [
        _list_take(identity.name, action.name, take, problems)
        for identity in _folders(source, problems)
        for action in _folders(identity, problems)
        for take in _folders(action, problems, beside=_BESIDE)
    ]
    named = {take.action.lower() for take in takes}
    chosen = set(EXPRESSIONS) if named >= set(EXPRESSIONS) else named
    spelt: dict[str, str] = {}  # one class however its folders' names are spelt
    for take in takes:
        spelt.setdefault(take.action.lower(), take.action)
    takes = [replace(take, action=spelt[take.action.lower()]) for take in takes]
    kept = [take for take in takes if take.action.lower() in chosen]
    identities = tuple(dict.fromkeys(take.identity for take in kept))
    actions = tuple(sorted({take.action for take in kept}))
    for what, found in (("identities", identities), ("actions", actions)):
        if len(found) < 2 and not problems:
            raise DataError(f"{source} holds {len(found)} {what}; at least two are needed.")
    labels = [(identities.index(take.identity), actions.index(take.action)) for take in kept]
    left_out = {
        action: sum(take.action == action for take in takes)
        for action in sorted({take.action for take in takes} - set(actions))
    }
    faceless = sum(take.faceless for take in kept)
    aligned = any(take.folder.name.endswith(_ALIGNED) for take in kept)
    raw = next((take.folder for take in kept if not take.folder.name.endswith(_ALIGNED)), None)
    if aligned and raw is not None:
        problems.append(
            f"{raw} is not aligned and others are ({_ALIGNED}); one take in both forms would be "
            "two clips"
        )
    return Source(
        layout="openface" if aligned else "tree",
        identities=identities,
        actions=actions,
        labels=np.array(labels, dtype=np.int64).reshape(-1, 2),
        lengths=[len(take.images) for take in kept],
        places=[str(take.folder) for take in kept],
        items=[take.images for take in kept],
        read=_read_take,
        on_disk=True,
        left_out={**left_out, **({"frames without a face": faceless} if faceless else {})},
        problems=problems,
    )


def _folders(
    parent: Path, problems: list[str], *, beside: re.Pattern[str] | None = None
) -> list[Path]:
    """Returns the folders of a folder in natural order; there must be some, and no files.

    Args:
        parent: the folder.
        problems: gets what is wrong.
        beside: files that may lie beside an OpenFace folder.
    """
    if not parent.is_dir():
        raise DataError(f"{parent} is no folder; the tree is {_TREE}.")
    found = entries(parent)
    folders = [entry for entry in found if entry.is_dir()]
    aligned = any(folder.name.endswith(_ALIGNED) for folder in folders)
    for entry in found:
        if not entry.is_dir() and not (aligned and beside and beside.search(entry.name)):
            problems.append(f"{entry} does not belong there; the tree is {_TREE}")
    if not found:
        problems.append(f"{parent} is empty; the tree is {_TREE}")
    return folders


def _list_take(identity: str, action: str, take: Path, problems: list[str]) -> _Take:
    images = []
    for entry in entries(take):
        if not entry.is_file() or entry.suffix.lower() not in _IMAGES:
            problems.append(f"{entry} is no jpg, png or bmp image")
        elif _SECOND_FACE.match(entry.name):
            problems.append(f"{entry} is a second face; track one face per video")
        else:
            images.append(entry)
    failed = _failed_frames(take, problems)
    found = tuple(path for path in images if _frame_number(path) not in failed)
    if len(found) < SHORTEST:
        problems.append(f"{take} is too short: {len(found)} images")
    return _Take(identity, action, take, found, len(images) - len(found))


def _failed_frames(take: Path, problems: list[str]) -> set[int]:
    """Returns the frames in which OpenFace found no face, by the table beside its folder."""
    if not take.name.endswith(_ALIGNED):
        return set()
    table = take.with_name(f"{take.name[: -len(_ALIGNED)]}.csv")
    if not table.is_file():
        return set()
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = [
                {(key or "").strip(): value for key, value in row.items()}
                for row in csv.DictReader(file)
            ]
        return {int(row["frame"]) for row in rows if float(row["success"]) == 0}
    except (OSError, KeyError, TypeError, ValueError) as error:
        problems.append(f"{table} is no table of OpenFace ({type(error).__name__}: {error})")
        return set()


def _frame_number(path: Path) -> int:
    """Returns the frame number that OpenFace writes at the end of an image's name."""
    digits = re.search(r"(\d+)$", path.stem)
    return int(digits[1]) if digits else -1


def _read_take(images: Sequence[Path], stride: int) -> ByteArray:
    return np.stack(list(_read_images(images[::stride])))


def _read_images(paths: Sequence[Path]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields faces ``[112, 112, 3]``: the centre square of each image, resized where it differs."""
    first: tuple[int, int] | None = None
    for path in paths:
        try:
            picture = open_image(path)
        except OddFileError as error:
            raise DataError(f"{path} {error}.") from error
        size = picture.size
        first = first or size
        if size != first:
            raise DataError(
                f"{path} is {size[0]}x{size[1]}, the clip's first frame {first[0]}x{first[1]}."
            )
        side = min(size)
        if side < SMALLEST:
            raise DataError(
                f"{path} is {size[0]}x{size[1]}; at least {SMALLEST}x{SMALLEST} is needed."
            )
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        yield resize(picture.crop((left, top, left + side, top + side)), FACE)


def resize(image: Image.Image, size: int) -> ByteArray:
    """Resizes to a square, bilinearly with antialiasing, uint8 ``[size, size, 3]``."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)
