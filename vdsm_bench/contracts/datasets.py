"""What a dataset is and how it becomes a clip store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class DatasetCard:
    """What a dataset is, before any file of it is read.

    Attributes:
        name: registry name.
        summary: one line.
        licence: the licence of the clips.
        access: ``embedded`` (drawn on demand), ``import`` (from the owner's files), ``download``
            (fetched when it is prepared, or from the owner's files).
        source: where it comes from (citation or address).
        split: default split rule (``clips``, ``identities`` or ``cells``; ``given`` where the
            owner says of every clip which part it is in).
        frame_rate: frames per second at which its clips are shown.
        megabytes: about how large its store gets; None: it depends on the files it is made from.
    """

    name: str
    summary: str
    licence: str
    access: Literal["embedded", "import", "download"]
    source: str
    split: Literal["clips", "identities", "cells", "given"]
    frame_rate: float = 12.0
    megabytes: int | None = None


@dataclass
class Report:
    """What was found in a store, or in the files that one is made from.

    Attributes:
        lines: what is as it should be.
        notes: what forbids nothing, but should be known.
        problems: faults; nothing should be trained or scored on this store.
        counts: clips per class and factor.
        cells: clips per identity (rows) and motion (columns), by name.
    """

    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    cells: dict[str, dict[str, int]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Returns everything, JSON-able."""
        return dict(vars(self))


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded.

    Attributes:
        name: its path in the folder that ``VideoDataset.prepare`` is given as ``source``.
        urls: where it lies, mirrors of the same bytes, tried in this order.
        checksum: ``sha256:HEX`` or ``md5:HEX``; a file that has another is never kept.
        size: bytes.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str
    size: int


class VideoDataset(ABC):
    """A source of labelled clips that can write itself into a clip store.

    Attributes:
        card: what it is.
        downloads: what the frame fetches where the user names no folder (access ``download``);
            ``prepare`` then gets the folder they lie in as ``source``.
        downloads_of: the dataset under whose name they are kept, where several are made from the
            same files; its own name if empty.
        processes: how many processes ``prepare`` may use; the bytes it writes are the same.
    """

    card: DatasetCard
    downloads: Sequence[RemoteFile] = ()
    downloads_of: str = ""
    processes: int = 1

    @abstractmethod
    def prepare(
        self,
        destination: Path,
        *,
        source: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Writes the clip store, whole or not at all.

        Args:
            destination: folder of the store; does not exist yet.
            source: the user's files, or the downloaded ones; None for ``embedded`` datasets.
            progress: called with (clips done, clips in all).

        Raises:
            DataError: the source is missing, damaged or mislabelled.
        """

    def survey(
        self, source: Path, *, progress: Callable[[int, int], None] | None = None
    ) -> Report | None:
        """Says what the user's files hold and what is wrong with them; writes nothing.

        Args:
            source: the files, as for :meth:`prepare`.
            progress: called with (clips read, clips in all).

        Returns:
            What ``prepare`` would take, leave out and refuse, or None: it can only try.

        Raises:
            DataError: the files are not of this dataset at all.
        """
        return None

    def render_transfer(
        self,
        identity_of: npt.ArrayLike,
        motion_of: npt.ArrayLike,
        *,
        frames: int,
        stride: int,
        image_size: int,
    ) -> npt.NDArray[np.uint8] | None:
        """The label oracle of a drawn dataset: the true transfer, rendered from drawing parameters.

        Args:
            identity_of: clip indices (A) ``[B]``: who is drawn.
            motion_of: clip indices (B) ``[B]``: what they do, when and how strongly, and the
                nuisances; the window is the one evaluation cuts from these clips.
            frames: frames per clip.
            stride: every stride-th frame is used.
            image_size: height and width in pixels.

        Returns:
            uint8 ``[B, frames, image_size, image_size, C]``, or None: the dataset is not drawn.
        """
        return None

    def render_continuation(
        self, clips: npt.ArrayLike, *, window: int, frames: int, stride: int, image_size: int
    ) -> npt.NDArray[np.uint8] | None:
        """How clips truly go on, past what is stored of them: ground truth for long generation.

        Args:
            clips: clip indices ``[B]``.
            window: frames of the windows that evaluation cuts from these clips; there it starts.
            frames: frames to render; the first ``window`` of them are the evaluation window.
            stride: every stride-th frame is used.
            image_size: height and width in pixels.

        Returns:
            uint8 ``[B, frames, image_size, image_size, C]``, or None: it is not known.

        Raises:
            UsageError: the window is longer than a stored clip.
        """
        return None
