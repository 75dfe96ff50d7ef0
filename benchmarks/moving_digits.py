"""Clips of another kind, for the folder importer: coloured digits of MNIST that move.

``python -m benchmarks.moving_digits path/to/mnist path/to/folder`` writes sixty handwritten digits,
each in a colour of its own, in six movements and five takes of each, with their ``labels.csv``:
real shapes that no data set of the catalogue shows, on which docs/recipe.md tries the preset.
"""

from __future__ import annotations

import argparse
import colorsys
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import affine_transform

from vdsm_bench.data.digits import SIDE, read_mnist
from vdsm_bench.data.store import ByteArray
from vdsm_bench.errors import DataError, disk_error

MOVEMENTS = ("turn_left", "turn_right", "grow", "shrink", "sway", "hop")
IDENTITIES, TAKES, FRAMES, SIZE = 60, 5, 14, 48
_SEED = 5
#: radians of a turn, the share by which a digit grows, and pixels of a sway or a hop
_TURN, _GROWTH, _WAY = 2.2, 0.9, 9.0


def draw_frame(
    picture: ByteArray, angle: float, zoom: float, dx: float, dy: float, colour: np.ndarray
) -> ByteArray:
    """Draws a digit turned, enlarged and moved; uint8 ``[SIZE, SIZE, 3]``."""
    cos, sin = np.cos(angle), np.sin(angle)
    back = np.array([[cos, sin], [-sin, cos]]) / zoom  # from the frame to the picture
    middle, place = (SIDE - 1) / 2, SIZE / 2 - 0.5 + np.array([dy, dx])
    grey = affine_transform(
        picture.astype(float),
        back,
        offset=middle - back @ place,
        output_shape=(SIZE, SIZE),
        order=1,
    )
    shaded: ByteArray = (grey[..., None] / 255 * colour * 255).clip(0, 255).astype(np.uint8)
    return shaded


def draw_take(
    picture: ByteArray, colour: np.ndarray, movement: str, draw: np.random.Generator
) -> ByteArray:
    """Draws one take; no two are equally fast, nor start in the same place.

    Args:
        picture: uint8 ``[28, 28]``.
        colour: red, green and blue, 0 to 1.
        movement: one of ``MOVEMENTS``.
        draw: what differs between takes comes from here.

    Returns:
        uint8 ``[FRAMES, SIZE, SIZE, 3]``.
    """
    speed, phase = draw.uniform(0.8, 1.2), draw.uniform(-0.3, 0.3)
    frames = []
    for frame in range(FRAMES):
        moment = frame / (FRAMES - 1)
        angle, zoom, dx, dy = 0.3 * phase, 1.2, draw.normal(0, 0.2), 0.0
        if movement == "turn_left":
            angle += moment * _TURN * speed
        elif movement == "turn_right":
            angle -= moment * _TURN * speed
        elif movement == "grow":
            zoom = 0.7 + moment * _GROWTH * speed
        elif movement == "shrink":
            zoom = 1.6 - moment * _GROWTH * speed
        elif movement == "sway":
            dx += _WAY * np.sin(2 * np.pi * moment * speed + phase)
        else:
            dy = -_WAY * abs(np.sin(2 * np.pi * moment * speed + phase))
        frames.append(draw_frame(picture, angle, zoom, dx, dy, colour))
    return np.stack(frames)


def draw_takes(pictures: ByteArray) -> Iterator[tuple[str, str, ByteArray]]:
    """Draws every take of sixty pictures chosen from ``[n, 28, 28]``; the same ones each time.

    Yields:
        Which digit, its movement, and uint8 ``[FRAMES, SIZE, SIZE, 3]``.
    """
    draw = np.random.default_rng(_SEED)
    for index, chosen in enumerate(draw.choice(len(pictures), IDENTITIES, replace=False)):
        colour = np.array(colorsys.hsv_to_rgb(draw.random(), 0.6, 1.0))
        for movement in MOVEMENTS:
            for _ in range(TAKES):
                yield f"d{index:02d}", movement, draw_take(pictures[chosen], colour, movement, draw)


def write(source: Path, folder: Path) -> int:
    """Writes the takes and their labels into a folder; returns how many there are.

    Raises:
        DataError: the MNIST files are missing, damaged or of another version; the folder is in use.
    """
    pictures = read_mnist(source, "train").images
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise DataError(f"{folder} is not empty.", hint="name a folder that does not exist yet")
    rows = []
    for number, (digit, movement, frames) in enumerate(draw_takes(pictures)):
        name = f"{digit}_{movement}_{number % TAKES}.npz"
        np.savez(folder / name, frames)
        rows.append((name, digit, movement))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "digit_image", "movement"), *rows])
    return len(rows)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moving_digits")
    parser.add_argument("mnist", type=Path, help="folder of the four original MNIST files")
    parser.add_argument("folder", type=Path, help="where the clips go")
    chosen = parser.parse_args(arguments)
    try:
        print(f"{write(chosen.mnist, chosen.folder)} clips in {chosen.folder}")
    except (DataError, OSError) as found:
        error = disk_error(found) if isinstance(found, OSError) else found
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
