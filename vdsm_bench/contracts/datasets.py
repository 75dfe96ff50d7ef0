"""What a dataset is and how it becomes a clip store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class DatasetCard:
    """What a dataset is, before any file of it is read.

    Attributes:
        name: registry name.
        summary: one line.
        licence: the licence of the clips.
        access: ``embedded`` (drawn on demand), ``import`` (from the owner's files).
        source: where it comes from (citation or address).
        split: default split rule (``clips``, ``identities`` or ``cells``).
        frame_rate: frames per second at which its clips are shown.
    """

    name: str
    summary: str
    licence: str
    access: Literal["embedded", "import"]
    source: str
    split: Literal["clips", "identities", "cells"]
    frame_rate: float = 12.0


class VideoDataset(ABC):
    """A source of labelled clips that can write itself into a clip store."""

    card: DatasetCard

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
            source: the user's files, for ``import`` datasets.
            progress: called with (clips done, clips in all).

        Raises:
            DataError: the source is missing, damaged or mislabelled.
        """

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
