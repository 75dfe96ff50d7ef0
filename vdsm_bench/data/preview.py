"""Contact sheets: what a dataset looks like, identities down and actions across."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from vdsm_bench.data.store import ByteArray, ClipStore
from vdsm_bench.files import write_bytes

_GAP = 2


def contact_sheet(
    store: ClipStore, *, identities: int = 12, frames: int = 1, zoom: int = 1
) -> ByteArray:
    """Composes a grid: one row per identity, per action its first clip.

    Args:
        store: the clips.
        identities: rows, spread evenly over all identities.
        frames: frames per clip side by side, spread evenly around the middle (1: the middle one).
        zoom: every pixel is repeated this often.

    Returns:
        uint8 ``[height, width, 3]``; a cell without a clip stays grey.
    """
    height, width, channels = store.image_shape
    everyone = np.unique(store.identities)
    rows = everyone[np.linspace(0, len(everyone) - 1, min(identities, len(everyone))).astype(int)]
    columns = np.unique(store.motions)
    sheet = np.full(
        (len(rows) * (height + _GAP), len(columns) * (width * frames + _GAP), 3), 64, np.uint8
    )
    for row, who in enumerate(rows):
        for column, what in enumerate(columns):
            clips = np.flatnonzero((store.identities == who) & (store.motions == what))
            if not len(clips):
                continue
            clip = store.frames(int(clips[0]))
            numbers = ((np.arange(frames) + 0.5) / frames * len(clip)).astype(int)
            strip = np.concatenate(list(clip[numbers]), axis=1)
            if channels == 1:
                strip = np.repeat(strip, 3, axis=2)
            top, left = row * (height + _GAP), column * (width * frames + _GAP)
            sheet[top : top + height, left : left + width * frames] = strip
    return sheet.repeat(zoom, axis=0).repeat(zoom, axis=1)


def write_preview(
    store: ClipStore, path: Path, *, identities: int = 12, frames: int = 1, zoom: int = 1
) -> None:
    """Writes :func:`contact_sheet` as a PNG, whole or not at all."""
    image = Image.fromarray(contact_sheet(store, identities=identities, frames=frames, zoom=zoom))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())
