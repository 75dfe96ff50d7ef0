"""Pictures: transfer grids and reconstruction strips as PNG and GIF, with drawn labels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vdsm_bench.errors import ContractError
from vdsm_bench.files import write_bytes

Frames = npt.NDArray[np.uint8]
_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
#: cells are enlarged by a whole factor to at least this many pixels
_LEAST_SIDE = 96
_GAP = 2
_LABEL = 14
_PAPER, _INK = (255, 255, 255), (20, 20, 20)


def to_bytes(clips: npt.ArrayLike) -> Frames:
    """Turns clips ``[..., C, H, W]`` in [0, 1] into uint8 RGB frames ``[..., H, W, 3]``."""
    scaled = np.rint(np.asarray(clips, dtype=np.float64).clip(0, 1) * 255)
    frames: Frames = np.moveaxis(scaled.astype(np.uint8), -3, -1)
    return np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames


def write_transfer(
    folder: Path,
    name: str,
    *,
    identities: Frames,
    motions: Frames,
    swaps: Frames,
    motion_names: Sequence[str] | None = None,
) -> list[Path]:
    """Writes a swap grid as ``<name>.png`` (middle frames) and ``<name>.gif``.

    The first row holds the real clips whose identity is taken, the first column those whose motion
    is taken; cell (i, j) has the motion of row i and the identity of column j.

    Args:
        folder: where to.
        name: file name without ending.
        identities: ``[I, T, H, W, 3]``.
        motions: ``[M, T, H, W, 3]``.
        swaps: ``[M, I, T, H, W, 3]``.
        motion_names: what the motions are called; they are numbered if None.

    Raises:
        ContractError: shapes that do not fit together.
    """
    if swaps.shape != (len(motions), len(identities), *motions.shape[1:]):
        raise ContractError(
            f"transfer grid: swaps {list(swaps.shape)} do not fit {len(motions)} motions and "
            f"{len(identities)} identities of shape {list(motions.shape[1:])}."
        )
    blank = np.full_like(motions[0], 255)
    rows = [[blank, *identities]]
    rows += [[motion, *row] for motion, row in zip(motions, swaps, strict=True)]
    grid = np.stack([np.stack(row) for row in rows])
    columns = ["", *(f"identity {index + 1}" for index in range(len(identities)))]
    numbered = [f"motion {index + 1}" for index in range(len(motions))]
    lines = ["real", *(numbered if motion_names is None else motion_names)]
    pages = [draw_grid(grid[:, :, t], columns, lines) for t in range(grid.shape[2])]
    paths = [folder / f"{name}.png", folder / f"{name}.gif"]
    write_png(paths[0], pages[len(pages) // 2])
    write_gif(paths[1], pages)
    return paths


def write_strips(path: Path, *, real: Frames, regenerated: Frames) -> None:
    """Writes real clips above their reconstructions, frames across, as one PNG.

    Args:
        path: the file.
        real: ``[N, T, H, W, 3]``.
        regenerated: the same shape.

    Raises:
        ContractError: different shapes.
    """
    if real.shape != regenerated.shape:
        raise ContractError(
            f"reconstructions: {list(regenerated.shape)} does not fit {list(real.shape)}."
        )
    rows = [clip for pair in zip(real, regenerated, strict=True) for clip in pair]
    frames = [f"frame {index + 1}" for index in range(real.shape[1])]
    write_png(path, draw_grid(np.stack(rows), frames, ["real", "model"] * len(real)))


def draw_grid(cells: Frames, columns: Sequence[str], rows: Sequence[str]) -> Image.Image:
    """Draws pictures ``[R, K, H, W, 3]`` as a labelled grid, enlarged by a whole factor."""
    height, width = cells.shape[2:4]
    factor = max(1, -(-_LEAST_SIDE // min(height, width)))
    height, width = height * factor, width * factor
    font = ImageFont.load_default()
    margin = 8 + max((round(font.getlength(text)) for text in rows), default=0)
    sheet = Image.new(
        "RGB",
        (margin + len(columns) * (width + _GAP), _LABEL + len(rows) * (height + _GAP)),
        _PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    for column, text in enumerate(columns):
        place = (margin + column * (width + _GAP) + 2, 1)
        pen.text(place, _fit(text, width, font), fill=_INK, font=font)
    for row, text in enumerate(rows):
        top = _LABEL + row * (height + _GAP)
        pen.text((4, top + height // 2 - 6), text, fill=_INK, font=font)
        for column in range(len(columns)):
            picture = Image.fromarray(np.ascontiguousarray(cells[row, column]))
            enlarged = picture.resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (margin + column * (width + _GAP), top))
    return sheet


def _fit(text: str, width: int, font: _Font) -> str:
    """Shortens a column's name until it does not run into the next one."""
    while len(text) > 3 and font.getlength(text) > width:
        text = f"{text[:-3]}.."
    return text


def write_png(path: Path, picture: Image.Image) -> None:
    """Writes a PNG whole or not at all."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    write_bytes(path, stream.getvalue())


def write_gif(path: Path, pages: Sequence[Image.Image], *, frame_rate: float = 6.0) -> None:
    """Writes an endless GIF whole or not at all; one palette for all pages: colours hold still."""
    stream = io.BytesIO()
    palette = pages[len(pages) // 2].quantize(colors=255)
    drawn = [page.quantize(palette=palette, dither=Image.Dither.NONE) for page in pages]
    drawn[0].save(
        stream,
        format="GIF",
        save_all=True,
        append_images=drawn[1:],
        duration=round(1000 / frame_rate),
        loop=0,
    )
    write_bytes(path, stream.getvalue())
