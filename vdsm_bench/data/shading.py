"""Flat shapes with smooth edges: signed distances on the pixel grid, painted over each other.

Lengths are pixels of a 64 x 64 frame, x to the right and y downwards. A signed distance is
negative inside a shape; :func:`paint` turns it into the share of a pixel that is covered.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vdsm_bench.data.store import ByteArray

FloatArray = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.floating[Any]]
Colour = tuple[int, int, int]

SIZE = 64


def canvas(frames: int, colour: Colour) -> Pixels:
    """Returns empty frames ``[frames, 64, 64, 3]`` of one colour, in 0..255."""
    return np.full((frames, SIZE, SIZE, 3), colour, dtype=np.float32)


def local(centres: FloatArray, turns: FloatArray | float = 0.0) -> tuple[Pixels, Pixels]:
    """Returns every pixel's coordinates as a shape sees them.

    Args:
        centres: place of the shape per frame ``[T, 2]``.
        turns: how far it is turned per frame ``[T]``, radians, clockwise on the screen.

    Returns:
        x and y, ``[T, 64, 64]`` each.
    """
    middle = np.arange(SIZE, dtype=np.float32) + np.float32(0.5)
    places, angles = centres.astype(np.float32), np.broadcast_to(turns, len(centres))
    x = middle[None, None, :] - places[:, 0, None, None]
    y = middle[None, :, None] - places[:, 1, None, None]
    cosine = np.cos(angles).astype(np.float32)[:, None, None]
    sine = np.sin(angles).astype(np.float32)[:, None, None]
    return cosine * x + sine * y, cosine * y - sine * x


def disc(x: Pixels, y: Pixels, radius: Pixels | float) -> Pixels:
    """Signed distance to a disc round the origin."""
    distance: Pixels = np.sqrt(x * x + y * y) - radius
    return distance


def box(x: Pixels, y: Pixels, wide: Pixels | float, high: Pixels | float) -> Pixels:
    """Signed distance to a box round the origin with these half sides."""
    across, along = np.abs(x) - wide, np.abs(y) - high
    out_across, out_along = np.maximum(across, 0.0), np.maximum(along, 0.0)
    outside = np.sqrt(out_across**2 + out_along**2)
    distance: Pixels = outside + np.minimum(np.maximum(across, along), 0.0)
    return distance


def triangle(x: Pixels, y: Pixels, radius: Pixels | float) -> Pixels:
    """Signed distance (a bound outside) to the triangle with this inner radius, tip upwards."""
    slope = np.float32(np.sqrt(3.0) / 2.0)
    distance: Pixels = np.maximum(np.maximum(y, slope * x - y / 2), -slope * x - y / 2) - radius
    return distance


def paint(frames: Pixels, distance: Pixels, colour: Colour) -> None:
    """Paints a shape over frames in place; the edge is one pixel wide."""
    touched = distance < 0.5
    cover = np.minimum(0.5 - distance[touched], 1.0)[:, None]
    frames[touched] += cover * (np.asarray(colour, dtype=np.float32) - frames[touched])


def to_bytes(frames: Pixels, gain: float = 1.0) -> ByteArray:
    """Rounds painted frames, times a brightness, to uint8."""
    rounded: ByteArray = np.clip(frames * gain + 0.5, 0, 255).astype(np.uint8)
    return rounded
