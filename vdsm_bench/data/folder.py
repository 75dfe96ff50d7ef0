"""A user's own clips: a folder of videos, GIFs, strips, frame folders or arrays, and labels.csv.

What the user asked for stands on the store's card, so the dataset is known by its store alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vdsm_bench.contracts import DatasetCard, FactorKind, VideoDataset
from vdsm_bench.data.clip_files import Direction, Strip
from vdsm_bench.data.clip_import import Found, import_clips
from vdsm_bench.data.cutting import Colour, Cut, Fit
from vdsm_bench.data.label_file import read_labels, unlabelled
from vdsm_bench.data.locate import FOLDER, KIND, MADE_WITH
from vdsm_bench.errors import DataError, UsageError

#: frames per second that a file can be brought to
_FASTEST = 1000


@dataclass(eq=False, kw_only=True)
class FolderDataset(VideoDataset):
    """A dataset made from a user's own clips.

    Attributes:
        name: what it is called; no name of the catalogue.
        static: columns of the labels file that say who is in a clip.
        dynamic: columns that say what they do.
        labels: the labels file, beside the clips (or an absolute path).
        size: height and width of the stored frames, pixels.
        fit: how other shapes become square, see ``Cut``.
        colour: ``rgb`` or ``grey``.
        window: cut clips of so many frames; None: a file is a clip.
        window_step: frames between the starts of two windows.
        stride: every stride-th frame is kept.
        frame_rate: frames per second to bring timed files to, at most 1000.
        strip: along which side frames lie in an image.
        strip_frames: how many they are; None: as many as squares fit.
        split: what is held out; None: ``given`` where there is a column ``split``, else clips.
        licence: licence of the clips.
        leave_out_odd: import the rest where something is odd.
        trust_labels: take labels that look like slips of the pen as they are.
    """

    name: str
    static: tuple[str, ...]
    dynamic: tuple[str, ...]
    labels: str = "labels.csv"
    size: int = 64
    fit: Fit = "crop"
    colour: Colour = "rgb"
    window: int | None = None
    window_step: int | None = None
    stride: int = 1
    frame_rate: float | None = None
    strip: Direction = "auto"
    strip_frames: int | None = None
    split: Literal["clips", "identities", "cells", "given"] | None = None
    licence: str = "not stated"
    leave_out_odd: bool = False
    trust_labels: bool = False

    def __post_init__(self) -> None:
        if not self.static or not self.dynamic:
            raise UsageError(
                f"{self.name} needs at least one factor that says who is in a clip and one that "
                "says what they do.",
                hint=f"vdsm-bench data prepare {self.name} --from FOLDER --static person "
                "--dynamic action   (names of columns of labels.csv)",
            )
        if len({*self.static, *self.dynamic}) != len(self.static) + len(self.dynamic):
            raise UsageError(f"{self.name}: a factor is named once, as static or as dynamic.")
        if self.frame_rate is not None and not 0 < self.frame_rate <= _FASTEST:  # nor NaN
            raise UsageError(
                f"{self.name}: a frame rate of {self.frame_rate:g} is none; above 0 and up to "
                f"{_FASTEST} frames per second.",
                hint="--frame-rate 25",
            )
        self.card = DatasetCard(
            name=self.name,
            summary=f"Own clips; who: {', '.join(self.static)}; what: {', '.join(self.dynamic)}.",
            licence=self.licence,
            access="import",
            source="the owner's files",
            split=self.split or "clips",
        )

    def prepare(
        self,
        destination: Path,
        *,
        source: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Imports the folder.

        Raises:
            DataError: no labels file, or something is odd: all of it is named.
            UsageError: a factor that is no column.
        """
        name = self.name
        if source is None:
            raise DataError(
                f"{name} is made from your own files; say where they are.",
                hint="the same command with --from FOLDER",
            )
        path = source / self.labels
        kinds: dict[str, FactorKind] = {
            **dict.fromkeys(self.static, "static"),
            **dict.fromkeys(self.dynamic, "dynamic"),
        }
        labels = read_labels(path, source, tuple(kinds), self.trust_labels)
        extra, others = unlabelled(source, labels.listed, path)
        notes = []
        if labels.unused:
            notes.append(f"columns that are no factor: {', '.join(labels.unused)}")
        if others:
            shown = ", ".join(others[:20]) + (" ..." if len(others) > 20 else "")
            notes.append(f"{len(others)} files are no clips: {shown}")
        card = self.card
        if self.split == "given" and not any(row.part for row in labels.rows):
            raise UsageError(
                f"{path} has no column 'split', so {name} cannot be split as given.",
                hint="add the column (train, validation or test), or: --split clips",
            )
        if self.split is None and any(row.part is not None for row in labels.rows):
            card = dataclasses.replace(card, split="given")
        import_clips(
            destination,
            Found(labels.rows, (*labels.odd, *extra), notes),
            source=source,
            card=card,
            kinds=kinds,
            cut=Cut(
                frame_rate=self.frame_rate,
                stride=self.stride,
                size=self.size,
                fit=self.fit,
                colour=self.colour,
                window=self.window,
                window_step=self.window_step,
            ),
            strip=Strip(self.strip, self.strip_frames),
            leave_out=self.leave_out_odd,
            facts={KIND: FOLDER, MADE_WITH: dataclasses.asdict(self)},
            progress=progress,
        )
