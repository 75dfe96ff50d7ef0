"""Weizmann actions, imported: the 64 x 64 strips that MoCoGAN ships, or the original videos.

Nothing is downloaded: neither has published checksums. In the strips' file names only numbers
stand; that eight consecutive ones are one person is read from their pattern, no source says it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from vdsm_bench.contracts import DatasetCard, VideoDataset
from vdsm_bench.data.clip_files import Strip, entries
from vdsm_bench.data.clip_import import Found, import_clips
from vdsm_bench.data.cutting import Cut
from vdsm_bench.data.label_file import Odd, Row
from vdsm_bench.errors import DataError

ACTORS = ("daria", "denis", "eli", "ido", "ira", "lena", "lyova", "moshe", "shahar")
ACTIONS = ("bend", "jack", "jump", "pjump", "run", "side", "skip", "walk", "wave1", "wave2")
#: folders of the strips; which action each is, no source says
_STRIP_FOLDERS = ("0", "1", "3", "4")
_PER_PERSON = 8
_VIDEO = re.compile(r"([a-z]+)_([a-z]+[12]?)\.avi")


class Weizmann(VideoDataset):
    """Weizmann actions: 9 people x 4 actions (strips) or x 10 actions (videos).

    Args:
        size: height and width of the stored frames, pixels; the strips have 64.
        leave_out_odd: import the rest where a file is odd.
    """

    card = DatasetCard(
        name="weizmann",
        summary="Weizmann actions, 9 people x 4 actions in strips of 64 x 64, or x 10 in videos.",
        licence="none stated; cite L. Gorelick et al., Actions as Space-Time Shapes (PAMI 2007)",
        access="import",
        source="strips: folder data/actions of https://github.com/sergeytulyakov/mocogan (commit "
        "937a99de73a3385fe0c0d1cde65dfa8a2c4177ec); videos: "
        "http://www.wisdom.weizmann.ac.il/~vision/SpaceTimeActions.html. Not downloaded: no "
        "checksums are published",
        split="clips",
        frame_rate=12.0,
    )

    def __init__(self, *, size: int = 64, leave_out_odd: bool = False) -> None:
        self._size, self._leave_out = size, leave_out_odd

    def prepare(
        self,
        destination: Path,
        *,
        source: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Imports the strips (folders 0, 1, 3, 4) or the videos (ACTOR_ACTION.avi) in a folder.

        Raises:
            DataError: neither is there, or something is odd: all of it is named.
        """
        hint = f"vdsm-bench data prepare weizmann --from FOLDER   ({self.card.source})"
        if source is None:
            raise DataError("weizmann is imported from your files; say where they are.", hint=hint)
        inside = source / "data" / "actions"
        source = inside if inside.is_dir() else source
        if any((source / name).is_dir() for name in _STRIP_FOLDERS):
            found = _strips(source)
        else:
            found = _videos(source)
        if not found.rows:
            raise DataError(
                f"{source} holds neither the strips (folders {', '.join(_STRIP_FOLDERS)} of jpg "
                "images) nor the videos (ACTOR_ACTION.avi).",
                hint=hint,
            )
        import_clips(
            destination,
            found,
            source=source,
            card=self.card,
            kinds={"identity": "static", "action": "dynamic"},
            cut=Cut(size=self._size, fit="pad"),
            strip=Strip("horizontal"),
            leave_out=self._leave_out,
            facts={},
            progress=progress,
        )


def _strips(source: Path) -> Found:
    rows, odd = [], []
    for folder in entries(source):
        if not folder.is_dir() or folder.name not in _STRIP_FOLDERS:
            odd.append(Odd(folder.name, f"is none of the folders {', '.join(_STRIP_FOLDERS)}"))
            continue
        for path in entries(folder):
            name = f"{folder.name}/{path.name}"
            if not (path.stem.isdecimal() and path.suffix.lower() == ".jpg"):
                odd.append(Odd(name, "is no strip; they are called like 00000002.jpg"))
                continue
            person = f"person-{int(path.stem) // _PER_PERSON}"
            rows.append(Row(name, {"identity": person, "action": f"folder-{folder.name}"}))
    return Found(rows, odd)


def _videos(source: Path) -> Found:
    rows, odd = [], []
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() != ".avi" or path.name.startswith("."):
            continue
        name = path.relative_to(source).as_posix()
        match = _VIDEO.fullmatch(path.name.lower())
        actor, action = match.groups() if match else ("", "")
        if action not in ACTIONS:  # lena runs, skips and walks twice: run1, run2 ...
            action = action[:-1]
        if actor not in ACTORS or action not in ACTIONS:
            odd.append(Odd(name, "is not called ACTOR_ACTION.avi with a known actor and action"))
            continue
        rows.append(Row(name, {"identity": actor, "action": action}))
    return Found(rows, odd)
