"""CREMA-D, imported: 91 actors who say sentences in six emotions.

Nothing is downloaded: the clips lie in Git LFS, and no list of their checksums is published apart
from the pointers inside the repository, which Git itself checks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from vdsm_bench.contracts import DatasetCard, VideoDataset
from vdsm_bench.data.clip_files import VIDEOS, Strip
from vdsm_bench.data.clip_import import Found, import_clips
from vdsm_bench.data.cutting import Cut
from vdsm_bench.data.label_file import Odd, Row
from vdsm_bench.errors import DataError

#: clips per emotion in the whole set
CLIPS = {"ANG": 1271, "DIS": 1271, "FEA": 1271, "HAP": 1271, "NEU": 1087, "SAD": 1271}
ACTORS = 91
_NAMES = {
    "ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happiness", "NEU": "neutral",
    "SAD": "sadness",
}  # fmt: skip
_CLIP = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{2})")


class CremaD(VideoDataset):
    """CREMA-D: identity = actor, action = emotion.

    Args:
        size: height and width of the stored frames, pixels: the centre square of the picture.
        frame_rate: frames per second that are stored; at 10 the whole set takes about 2.5 GB.
        leave_out_odd: import the rest where a file is odd.
    """

    card = DatasetCard(
        name="crema-d",
        summary="CREMA-D, 91 actors x 6 emotions, talking faces.",
        licence="Open Database License 1.0 and Database Contents License 1.0",
        access="import",
        source="https://github.com/CheyneyComputerScience/CREMA-D (commit "
        "1658cd342dff90010aa843eaeebd53610a08b1dc, folder VideoFlash, Git LFS, about 2.5 GB). Not "
        "downloaded: checksums stand in its LFS pointers only, which git lfs pull checks",
        split="clips",
        frame_rate=10.0,
    )

    def __init__(
        self, *, size: int = 64, frame_rate: float = 10.0, leave_out_odd: bool = False
    ) -> None:
        self._size, self._frame_rate, self._leave_out = size, frame_rate, leave_out_odd

    def prepare(
        self,
        destination: Path,
        *,
        source: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Imports the clips ACTOR_SENTENCE_EMOTION_LEVEL.flv (or .mp4 ...) in a folder.

        Raises:
            DataError: there are none, or something is odd: all of it is named.
        """
        hint = f"vdsm-bench data prepare crema-d --from FOLDER   ({self.card.source})"
        if source is None:
            raise DataError("crema-d is imported from your files; say where they are.", hint=hint)
        inside = source / "VideoFlash"
        source = inside if inside.is_dir() else source
        found = _clips(source)
        if not found.rows:
            raise DataError(
                f"{source} holds no clip called ACTOR_SENTENCE_EMOTION_LEVEL.flv.", hint=hint
            )
        import_clips(
            destination,
            found,
            source=source,
            card=self.card,
            kinds={"identity": "static", "action": "dynamic"},
            cut=Cut(size=self._size, frame_rate=self._frame_rate),
            strip=Strip(),
            leave_out=self._leave_out,
            facts={},
            progress=progress,
        )


def _clips(source: Path) -> Found:
    rows, odd = [], []
    for path in sorted(source.iterdir()):
        if path.suffix.lower() not in VIDEOS or path.name.startswith("."):
            continue
        match = _CLIP.fullmatch(path.stem)
        if match is None or match[3] not in _NAMES:
            odd.append(Odd(path.name, "is not called ACTOR_SENTENCE_EMOTION_LEVEL"))
            continue
        rows.append(Row(path.name, {"identity": match[1], "action": _NAMES[match[3]]}))
    counts = Counter(row.labels["action"] for row in rows)
    actors = len({row.labels["identity"] for row in rows})
    lacking = [
        f"{_NAMES[code]} {counts[_NAMES[code]]} of {number}"
        for code, number in CLIPS.items()
        if counts[_NAMES[code]] != number
    ]
    notes = []
    if lacking or actors != ACTORS:
        notes.append(f"not the whole set: {actors} of {ACTORS} actors; {', '.join(lacking)}")
    return Found(rows, odd, notes)
