"""MUG facial expressions, imported from the owner's files; never downloaded.

Two layouts are read: the npz pair of the VDSM authors' release (clips of 112 x 112 aligned
faces and ``[n, 2]`` labels) and a plain tree ``IDENTITY/ACTION/TAKE/*.jpg|png``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from vdsm_bench.contracts import DatasetCard, Factor, VideoDataset
from vdsm_bench.data.safe_arrays import AnyArray, read_npz
from vdsm_bench.data.store import ByteArray, IntArray
from vdsm_bench.data.store_writer import StoreWriter
from vdsm_bench.errors import DataError

Crop = Literal["as-released", "clean"]
#: stored size, size of the aligned faces, size the release crops them "down" to
SIZE, FACE, RELEASED_CROP = 64, 112, 160
#: class index -> action code in the owner's file; 2, 5 and 6 are left out, 7 and 8 take the
#: places of 2 and 5 (release, dataset loader). Which expression a code is, no source says.
STORED_CODES = (0, 1, 7, 3, 4, 8)
_LEFT_OUT = (2, 5, 6)
_SHORTEST = 2
#: highest number of an identity that is taken for one
_HIGHEST = 9999
_IMAGES = {".jpg", ".jpeg", ".png"}
_CLUTTER = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class _Source:
    """What a layout offers: clips in order, their labels, and the place each comes from."""

    identities: tuple[str, ...]
    actions: tuple[str, ...]
    labels: IntArray
    lengths: list[int]
    places: list[str]
    clip: Callable[[int], ByteArray]


class Mug(VideoDataset):
    """MUG, 52 identities x 6 expressions.

    Args:
        crop: ``as-released``: every 2nd frame; the 112 x 112 face on a black 160 x 160 square,
            resized to 64 x 64 (the face fills about 45 x 45 of it). ``clean``: every frame, the
            face resized to 64 x 64. Both resize bilinearly with antialiasing.
    """

    card = DatasetCard(
        name="mug",
        summary="MUG facial expressions, 52 identities x 6 expressions.",
        licence="MUG licence: for the licensee's own research only; not to be passed on",
        access="import",
        source="https://mug.ee.auth.gr/fed (N. Aifanti et al., WIAMIS 2010)",
        split="clips",
        frame_rate=12.0,
    )

    def __init__(self, *, crop: Crop = "as-released") -> None:
        self._crop = crop
        self._stride = 2 if crop == "as-released" else 1

    def prepare(
        self,
        destination: Path,
        *,
        source: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Imports the npz pair or the image tree found in ``source``.

        Raises:
            DataError: names the file that is missing, damaged, mis-shaped or mislabelled.
        """
        if source is None:
            raise DataError(
                "MUG is licensed and is imported from your own files; say where they are.",
                hint=f"vdsm-bench data prepare mug --from FOLDER   (licence: {self.card.source})",
            )
        archives = sorted(source.glob("*.npz"))
        found = _read_pair(source, archives) if archives else _scan_tree(source)
        lengths = [-(-length // self._stride) for length in found.lengths]
        for index, length in enumerate(lengths):
            if length < _SHORTEST:
                raise DataError(
                    f"{found.places[index]} is too short: {found.lengths[index]} frames, "
                    f"{length} with stride {self._stride}; {_SHORTEST} are needed."
                )
        with StoreWriter(
            destination,
            card=self.card,
            factors=(
                Factor("identity", "static", found.identities),
                Factor("action", "dynamic", found.actions),
            ),
            image_shape=(SIZE, SIZE, 3),
            total_frames=sum(lengths),
        ) as writer:
            for index, (who, what) in enumerate(found.labels.tolist()):
                frames = found.clip(index)[:: self._stride]
                writer.add(crop_faces(frames, self._crop), {"identity": who, "action": what})
                if progress is not None:
                    progress(index + 1, len(lengths))


def crop_faces(frames: ByteArray, crop: Crop) -> ByteArray:
    """Crops aligned faces, uint8 ``[T, 112, 112, 3]``, to what is stored, ``[T, 64, 64, 3]``."""
    if crop == "as-released":
        border = (RELEASED_CROP - FACE) // 2
        frames = np.pad(frames, ((0, 0), (border, border), (border, border), (0, 0)))
    return np.stack([_resize(Image.fromarray(frame), SIZE) for frame in frames])


def _resize(image: Image.Image, size: int) -> ByteArray:
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)


def _read_pair(source: Path, archives: Sequence[Path]) -> _Source:
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
    stored = _check_labels(label_path, labels, len(clips))
    kept = np.flatnonzero(~np.isin(stored[:, 1], _LEFT_OUT))
    codes = np.unique(stored[kept, 0])
    if len(codes) < 2:
        raise DataError(f"{label_path}: {len(codes)} identities are left; two are needed.")
    place = {code: index for index, code in enumerate(STORED_CODES)}
    chosen = np.stack(
        [
            np.searchsorted(codes, stored[kept, 0]),
            np.array([place[code] for code in stored[kept, 1].tolist()], dtype=np.int64),
        ],
        axis=1,
    )
    for index in kept:  # all are looked at before anything is written
        _check_clip(clip_path, int(index), clips[index])
    return _Source(
        identities=tuple(f"subject-{code:02d}" for code in codes),
        actions=tuple(f"code-{code}" for code in STORED_CODES),
        labels=chosen,
        lengths=[len(clips[index]) for index in kept],
        places=[f"{clip_path}, clip {index}" for index in kept],
        clip=lambda index: _as_bytes(clip_path, int(kept[index]), clips[kept[index]]),
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
    return [arrays[name] for name in sorted(arrays, key=_natural)]


def _check_labels(path: Path, labels: AnyArray, clips: int) -> IntArray:
    if len(labels) != clips:
        raise DataError(f"{path} has {len(labels)} labels for {clips} clips.")
    try:
        numbers = labels.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: labels are no numbers ({error}).") from error
    known = (*STORED_CODES, *_LEFT_OUT)
    for row, (who, what) in enumerate(numbers):
        if not (0 <= who <= _HIGHEST and who == int(who)):  # written so that NaN fails too
            raise DataError(
                f"{path}, row {row}: identity {who:g} is no whole number from 0 to {_HIGHEST}."
            )
        if what not in known:
            raise DataError(
                f"{path}, row {row}: action {what:g} is none of the stored codes 0 to 8 "
                f"(columns: identity, action)."
            )
    return numbers.astype(np.int64)


def _check_clip(path: Path, index: int, clip: Any) -> None:
    where = f"{path}, clip {index}"
    if not isinstance(clip, np.ndarray) or clip.dtype.kind not in "uif":
        raise DataError(f"{where} is no array of pixels.")
    if clip.ndim != 4 or clip.shape[1:] != (FACE, FACE, 3) or not len(clip):
        raise DataError(
            f"{where} has shape {list(clip.shape)}; expected [frames, {FACE}, {FACE}, 3]."
        )
    low, high = clip.min(), clip.max()
    if not (low >= 0 and high <= 255):  # written so that NaN fails too
        raise DataError(f"{where}: pixels must lie in [0, 255], got [{low}, {high}].")


def _as_bytes(path: Path, index: int, clip: AnyArray) -> ByteArray:
    """Returns a checked clip as uint8; floats up to 1 count as [0, 1]."""
    if clip.dtype.kind == "f":
        scale = 255.0 if clip.max() <= 1 else 1.0
        return np.round(clip * scale).astype(np.uint8)
    return clip.astype(np.uint8)


def _scan_tree(source: Path) -> _Source:
    """Lists ``IDENTITY/ACTION/TAKE/*.jpg|png``; whatever does not fit in is refused by name."""
    takes: list[tuple[str, str, list[Path]]] = []
    places: list[str] = []
    for identity in _folders(source):
        for action in _folders(identity):
            for take in _folders(action):
                takes.append((identity.name, action.name, _images(take)))
                places.append(str(take))
    identities = tuple(dict.fromkeys(who for who, _, _ in takes))
    actions = tuple(sorted({what for _, what, _ in takes}))
    for what, found in (("identities", identities), ("actions", actions)):
        if len(found) < 2:
            raise DataError(f"{source} holds {len(found)} {what}; at least two are needed.")
    labels = [(identities.index(who), actions.index(what)) for who, what, _ in takes]
    return _Source(
        identities=identities,
        actions=actions,
        labels=np.array(labels, dtype=np.int64),
        lengths=[len(images) for _, _, images in takes],
        places=places,
        clip=lambda index: np.stack(list(_read_images(takes[index][2]))),
    )


def _folders(parent: Path) -> list[Path]:
    """Returns the folders of a folder in natural order; there must be some, and no files."""
    if not parent.is_dir():
        raise DataError(f"{parent} is no folder; the tree is IDENTITY/ACTION/TAKE/*.jpg|png.")
    entries = _entries(parent)
    for entry in entries:
        if not entry.is_dir():
            raise DataError(
                f"{entry} does not belong there; the tree is IDENTITY/ACTION/TAKE/*.jpg|png."
            )
    if not entries:
        raise DataError(
            f"{parent} is empty; expected two npz files or IDENTITY/ACTION/TAKE/*.jpg|png."
        )
    return entries


def _images(take: Path) -> list[Path]:
    entries = _entries(take)
    for entry in entries:
        if not entry.is_file() or entry.suffix.lower() not in _IMAGES:
            raise DataError(f"{entry} is no jpg or png image.")
    if len(entries) < _SHORTEST:
        raise DataError(f"{take} is too short: {len(entries)} images.")
    return entries


def _entries(folder: Path) -> list[Path]:
    return sorted(
        (
            entry
            for entry in folder.iterdir()
            if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER
        ),
        key=lambda entry: _natural(entry.name),
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns a sort key by which 2 comes before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _read_images(paths: Sequence[Path]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields faces ``[112, 112, 3]``: the centre square of each image, resized if it is larger."""
    first: tuple[int, int] | None = None
    for path in paths:
        try:
            with Image.open(path, formats=("JPEG", "PNG")) as image:
                size, picture = image.size, image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{path} does not read as an image: {error}.") from error
        first = first or size
        if size != first:
            raise DataError(
                f"{path} is {size[0]}x{size[1]}, the clip's first frame {first[0]}x{first[1]}."
            )
        side = min(size)
        if side < SIZE:
            raise DataError(f"{path} is {size[0]}x{size[1]}; at least {SIZE}x{SIZE} is needed.")
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        yield _resize(picture.crop((left, top, left + side, top + side)), FACE)
