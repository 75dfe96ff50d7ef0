"""Sets that are drawn: every clip is a function of who is in it and of what they do.

So the true transfer of one clip's motion to another clip's identity can be rendered, and where the
law of the motion is known, how a clip would have gone on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vdsm_bench.contracts import Factor, VideoDataset
from vdsm_bench.data.clips import centre_starts, downscale
from vdsm_bench.data.parallel import in_order
from vdsm_bench.data.store import ByteArray, IntArray
from vdsm_bench.data.store_writer import StoreWriter
from vdsm_bench.errors import DataError, UsageError
from vdsm_bench.seeding import generator


class DrawnDataset(VideoDataset):
    """A set whose clips are drawn from labels and a seed.

    Attributes:
        factors: the labelled attributes.
        image_shape: ``(H, W, C)`` as stored.
        endless: whether :meth:`draw` can draw frames past the end of a stored clip.
        parallel: whether a clip takes longer to draw than to send from another process.
    """

    factors: tuple[Factor, ...]
    image_shape: ClassVar[tuple[int, int, int]] = (64, 64, 3)
    endless: ClassVar[bool] = False
    parallel: ClassVar[bool] = True

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of clips."""

    @abstractmethod
    def labels(self, index: int) -> dict[str, int]:
        """Returns the class of every factor of one clip."""

    @abstractmethod
    def length(self, index: int) -> int:
        """Returns the stored frames of one clip."""

    @abstractmethod
    def draw(self, who: int, what: int, frames: IntArray) -> ByteArray:
        """Draws the identity of one clip doing what happens in another.

        Args:
            who: index of the clip whose identity is drawn.
            what: index of the clip whose motion and nuisances are drawn; the same index gives the
                clip itself.
            frames: which frames of it, counted from 0.

        Returns:
            uint8 ``[len(frames), H, W, C]``.
        """

    def prepare(
        self,
        destination: Path,
        *,
        source: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Draws all clips; ``source`` must be None."""
        if source is not None:
            raise DataError(
                f"{self.card.name} is drawn, not imported; {source} is not read.",
                hint=f"vdsm-bench data prepare {self.card.name}",
            )
        self.write(destination, progress)

    def write(self, destination: Path, progress: Callable[[int, int], None] | None) -> None:
        """Draws all clips into a store."""
        store = StoreWriter(
            destination,
            card=self.card,
            factors=self.factors,
            image_shape=self.image_shape,
            total_frames=sum(self.length(index) for index in range(len(self))),
        )
        processes = self.processes if self.parallel else 1
        drawn = in_order(self.draw_clip, range(len(self)), processes=processes)
        with store as writer, drawn as clips:
            for index, frames in enumerate(clips):
                writer.add(frames, self.labels(index))
                if progress is not None:
                    progress(index + 1, len(self))

    def draw_clip(self, index: int) -> ByteArray:
        """Draws one clip as it is stored, uint8 ``[T, H, W, C]``."""
        return self.draw(index, index, np.arange(self.length(index)))

    def render_transfer(
        self,
        identity_of: npt.ArrayLike,
        motion_of: npt.ArrayLike,
        *,
        frames: int,
        stride: int,
        image_size: int,
    ) -> ByteArray | None:
        """Draws the identities of clips A in the motions of clips B, in B's evaluation windows."""
        clips = []
        for who, what in zip(np.atleast_1d(identity_of), np.atleast_1d(motion_of), strict=True):
            length = self.length(int(what))
            start = int(centre_starts([length], frames=frames, stride=stride)[0])
            window = np.minimum(start + stride * np.arange(frames), length - 1)
            clips.append(downscale(self.draw(int(who), int(what), window), image_size))
        return np.stack(clips)

    def render_continuation(
        self, clips: npt.ArrayLike, *, window: int, frames: int, stride: int, image_size: int
    ) -> ByteArray | None:
        """Draws what follows on the evaluation windows of clips, as far as asked for."""
        if not self.endless:
            return None
        drawn = []
        for index in np.atleast_1d(clips):
            length = self.length(int(index))
            if (window - 1) * stride >= length:
                raise UsageError(
                    f"{self.card.name}: a window of {window} frames at stride {stride} is longer "
                    f"than its clips of {length} frames; there is nothing to go on from."
                )
            start = int(centre_starts([length], frames=window, stride=stride)[0])
            numbers = start + stride * np.arange(frames)
            drawn.append(downscale(self.draw(int(index), int(index), numbers), image_size))
        return np.stack(drawn)


class CrossedDataset(DrawnDataset):
    """A drawn set that has every combination of its factors' classes, equally often.

    Args:
        takes: clips per combination.
        seed: of the takes.
    """

    #: stored frames of every clip
    frames: ClassVar[int] = 16

    def __init__(self, *, takes: int, seed: int) -> None:
        if takes < 1:
            raise DataError(f"{self.card.name}: takes must be at least 1, not {takes}.")
        self._seed = seed
        self._shape = (*(len(factor.classes) for factor in self.factors), takes)

    def __len__(self) -> int:
        """Returns the number of clips."""
        return int(np.prod(self._shape))

    def length(self, index: int) -> int:
        """Returns the stored frames of one clip."""
        return self.frames

    def labels(self, index: int) -> dict[str, int]:
        """Returns the class of every factor of one clip."""
        place = np.unravel_index(index, self._shape)
        return {factor.name: int(place[axis]) for axis, factor in enumerate(self.factors)}

    def chance(self, index: int) -> np.random.Generator:
        """Returns the random numbers of one clip, the same however many takes there are."""
        place = (int(number) for number in np.unravel_index(index, self._shape))
        return generator(self._seed, self.card.name, "take", *place)
