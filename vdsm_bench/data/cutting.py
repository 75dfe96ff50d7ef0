"""From the frames of a file to the clips that are stored: rate, stride, size, colour, windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from vdsm_bench.data.clip_files import Frame, OddFileError
from vdsm_bench.data.store import ByteArray

Fit = Literal["crop", "pad", "stretch"]
Colour = Literal["rgb", "grey"]
#: fewer frames are no clip
SHORTEST = 2
_SAME_TIME = 1e-6


@dataclass(frozen=True)
class Cut:
    """How files become clips; steps are taken in this order.

    Attributes:
        frame_rate: frames per second to bring files to that say when their frames are shown
            (videos, GIFs): the frame shown at each instant is taken. None: as they are.
        stride: every stride-th frame is kept.
        size: height and width of the stored frames, pixels.
        fit: how another shape becomes a square: the centre (``crop``), the whole on black
            (``pad``) or squeezed (``stretch``).
        colour: ``rgb`` or ``grey``.
        window: clips of so many frames are cut out of each file; None: the file is the clip.
        window_step: frames from the start of one window to the next; the window's length if None.
    """

    frame_rate: float | None = None
    stride: int = 1
    size: int = 64
    fit: Fit = "crop"
    colour: Colour = "rgb"
    window: int | None = None
    window_step: int | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)`` of the stored frames."""
        return self.size, self.size, 3 if self.colour == "rgb" else 1

    def clip(self, frames: Iterator[Frame]) -> ByteArray:
        """Returns what is stored of one file before it is cut into windows, ``[T, H, W, C]``.

        Raises:
            OddFileError: too few frames are left.
        """
        timed = frames if self.frame_rate is None else _at_rate(frames, self.frame_rate)
        kept = [
            self._frame(frame.picture)
            for number, frame in enumerate(timed)
            if number % self.stride == 0
        ]
        need = self.window or SHORTEST
        if len(kept) < need:
            raise OddFileError(f"is too short: {_count(len(kept))}, {need} are needed")
        return np.stack(kept)

    def windows(self, clip: ByteArray) -> list[ByteArray]:
        """Returns the clips to store; what is left over at the end is not used."""
        if self.window is None:
            return [clip]
        step = self.window_step or self.window
        starts = range(0, len(clip) - self.window + 1, step)
        return [clip[start : start + self.window] for start in starts]

    def _frame(self, picture: Image.Image) -> ByteArray:
        if self.colour == "grey":
            picture = picture.convert("L")
        pixels = np.asarray(_fitted(picture, self.size, self.fit), dtype=np.uint8)
        return pixels.reshape(self.image_shape)


def _fitted(picture: Image.Image, size: int, fit: Fit) -> Image.Image:
    """Resizes bilinearly with antialiasing; a picture of the right size keeps every pixel."""
    width, height = picture.size
    if (width, height) == (size, size):
        return picture
    if fit == "pad":
        scale = size / max(width, height)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        canvas = Image.new(picture.mode, (size, size))
        small = picture.resize(inner, Image.Resampling.BILINEAR)
        canvas.paste(small, ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return canvas
    box = (0, 0, width, height)
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _at_rate(frames: Iterator[Frame], rate: float) -> Iterator[Frame]:
    """Yields at every instant of the new rate the frame that is shown then."""
    start: float | None = None
    shown: Frame | None = None
    due = 0
    for frame in frames:
        if frame.time is None:
            yield frame
            continue
        start = frame.time if start is None else start
        while shown is not None and start + due / rate < frame.time - _SAME_TIME:
            yield shown
            due += 1
        shown = frame
    if shown is None or shown.time is None or start is None:
        return
    end = shown.time + max(shown.duration or 0.0, 2 * _SAME_TIME)
    while start + due / rate < end - _SAME_TIME:
        yield shown
        due += 1


def _count(frames: int) -> str:
    return f"{frames} frame{'' if frames == 1 else 's'}"
