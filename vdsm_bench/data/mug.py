"""MUG facial expressions, imported from the owner's files; never downloaded.

Three layouts are read, see ``mug_files``: the npz pair of the VDSM authors' release (clips of
112 x 112 aligned faces and ``[n, 2]`` labels), a plain tree ``IDENTITY/ACTION/TAKE/*.jpg|png`` and
the same tree as OpenFace 2.0 leaves it, ``IDENTITY/ACTION/TAKE_aligned/frame_det_00_*.bmp``.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from vdsm_bench.contracts import DatasetCard, Factor, Report, VideoDataset
from vdsm_bench.data.check import count_cells
from vdsm_bench.data.mug_files import FACE, SHORTEST, Source, list_clips, resize
from vdsm_bench.data.parallel import in_order
from vdsm_bench.data.store import ByteArray
from vdsm_bench.data.store_writer import StoreWriter
from vdsm_bench.errors import DataError

Crop = Literal["as-released", "clean"]
#: stored size, and the size that the release crops the aligned faces "down" to
SIZE, RELEASED_CROP = 64, 160
#: store and every how many-th frame it keeps; MUG was filmed at 19 frames per second
_STORES: dict[Crop, tuple[str, int]] = {"as-released": ("mug", 2), "clean": ("mug-clean", 1)}
_FILMED_AT = 19.0
#: identities whose sequences the licensor gives out
_PUBLISHED = 52


class Mug(VideoDataset):
    """MUG, 52 identities x 6 expressions.

    Args:
        crop: ``as-released`` (the store ``mug``): every 2nd frame; the 112 x 112 face on a black
            160 x 160 square, resized to 64 x 64 (the face fills about 45 x 45 of it). ``clean``
            (the store ``mug-clean``): every frame, the face resized to 64 x 64. Both resize
            bilinearly with antialiasing.
    """

    def __init__(self, *, crop: Crop = "as-released") -> None:
        self._crop = crop
        name, self._stride = _STORES[crop]
        self.card = DatasetCard(
            name=name,
            summary=f"MUG facial expressions, 52 identities x 6 expressions, crop {crop}.",
            licence="MUG licence: for the licensee's own research only; not to be passed on",
            access="import",
            source="https://mug.ee.auth.gr/fed (N. Aifanti et al., WIAMIS 2010)",
            split="clips",
            frame_rate=_FILMED_AT / self._stride,
        )

    def prepare(
        self,
        destination: Path,
        *,
        source: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Imports what is found in ``source``.

        Raises:
            DataError: names the file that is missing, damaged, mis-shaped or mislabelled.
        """
        if source is None:
            raise DataError(
                "MUG is licensed and is imported from your own files; say where they are.",
                hint=f"vdsm-bench data prepare {self.card.name} --from FOLDER   "
                f"(licence: {self.card.source})",
            )
        found, problems = self._list(source)
        if problems:
            if len(problems) == 1:
                raise DataError(f"{problems[0]}.")
            raise DataError(
                f"{problems[0]}. And {len(problems) - 1} more faults.",
                hint=f"vdsm-bench data check {self.card.name} --from {shlex.quote(str(source))}   "
                "(lists them all)",
            )
        store = StoreWriter(
            destination,
            card=self.card,
            factors=(
                Factor("identity", "static", found.identities),
                Factor("action", "dynamic", found.actions),
            ),
            image_shape=(SIZE, SIZE, 3),
            total_frames=sum(map(self._kept, found.lengths)),
            facts={"protocol": {"crop": self._crop}, "layout": found.layout},
        )
        with store as writer, self._read(_cropped, found) as clips:
            for index, frames in enumerate(clips):
                who, what = found.labels[index].tolist()
                writer.add(frames, {"identity": who, "action": what})
                if progress is not None:
                    progress(index + 1, len(found.items))

    def survey(self, source: Path, *, progress: Callable[[int, int], None] | None = None) -> Report:
        """Reads everything that would be imported, and says what is there and what is missing."""
        found, problems = self._list(source)
        report = Report(problems=list(problems))
        if found.on_disk:
            with self._read(_problem_of, found) as texts:
                for index, text in enumerate(texts):
                    report.problems += [text] if text else []
                    if progress is not None:
                        progress(index + 1, len(found.items))
        frames = sum(map(self._kept, found.lengths))
        report.lines.append(
            f"{source}: layout {found.layout}, {len(found.items)} clips, {frames} frames for crop "
            f"{self._crop}, about {frames * SIZE * SIZE * 3 / 1e6:.0f} MB"
        )
        count_cells(report, found.identities, found.actions, found.labels)
        for what, count in found.left_out.items():
            report.notes.append(f"left out: {what} ({count})")
        if len(found.identities) != _PUBLISHED:
            report.notes.append(
                f"{len(found.identities)} identities; the published scores are over {_PUBLISHED}"
            )
        return report

    def _list(self, source: Path) -> tuple[Source, list[str]]:
        """Lists the clips, and all that is wrong with their names, labels and lengths."""
        found = list_clips(source)
        short = [
            f"{place} is too short: {length} frames, {self._kept(length)} with stride "
            f"{self._stride}; {SHORTEST} are needed"
            for place, length in zip(found.places, found.lengths, strict=True)
            if length >= SHORTEST and self._kept(length) < SHORTEST
        ]
        return found, [*found.problems, *short]

    def _read(self, what: Callable[..., Any], found: Source) -> Any:
        """Does something with every clip; clips that are in memory are not sent around."""
        return in_order(
            functools.partial(what, read=found.read, stride=self._stride, crop=self._crop),
            found.items,
            processes=self.processes if found.on_disk else 1,
        )

    def _kept(self, length: int) -> int:
        return -(-length // self._stride)


def crop_faces(frames: ByteArray, crop: Crop) -> ByteArray:
    """Crops aligned faces, uint8 ``[T, 112, 112, 3]``, to what is stored, ``[T, 64, 64, 3]``."""
    if crop == "as-released":
        border = (RELEASED_CROP - FACE) // 2
        frames = np.pad(frames, ((0, 0), (border, border), (border, border), (0, 0)))
    return np.stack([resize(Image.fromarray(frame), SIZE) for frame in frames])


def _cropped(
    item: Sequence[Any], *, read: Callable[..., ByteArray], stride: int, crop: Crop
) -> ByteArray:
    return crop_faces(read(item, stride), crop)


def _problem_of(
    item: Sequence[Any], *, read: Callable[..., ByteArray], stride: int, crop: Crop
) -> str:
    """Returns what keeps a clip from being read, every frame of it, or nothing."""
    try:
        if item:
            read(item, 1)
    except DataError as error:
        return error.message.rstrip(".")
    return ""
