"""What a dataset looks like: a labelled grid of clips, identities down and actions across."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vdsm_bench.boards.figures import Frames, draw_grid, write_gif, write_png
from vdsm_bench.contracts import Integers
from vdsm_bench.data.check import combination_names
from vdsm_bench.data.clips import centre_starts
from vdsm_bench.data.store import ClipStore

#: what a cell without a clip is filled with
_NOTHING = 235


def write_preview(
    store: ClipStore, path: Path, *, identities: int = 12, actions: int = 12, frames: int = 24
) -> list[Path]:
    """Writes the grid as a PNG (middle frames) and as a GIF that moves, each whole or not at all.

    Args:
        store: the clips.
        path: the PNG; the GIF lies beside it.
        identities: rows, spread evenly over all identities, or over the classes that stand for
            them (:func:`rows_of`).
        actions: columns, spread evenly over all actions.
        frames: frames of the GIF, the middle of each clip; a shorter clip holds its last frame.

    Returns:
        Both files.
    """
    people, names = rows_of(store)
    who, what = _spread(people, identities), _spread(store.motions, actions)
    grid = preview_clips(store, people, who, what, frames=frames)
    moves = combination_names(store, "dynamic")
    columns, rows = [moves[index] for index in what], [names[index] for index in who]
    pages = [draw_grid(grid[:, :, time], columns, rows) for time in range(grid.shape[2])]
    files = [path.with_suffix(".png"), path.with_suffix(".gif")]
    write_png(files[0], pages[len(pages) // 2])
    write_gif(files[1], pages, frame_rate=store.frame_rate)
    return files


def rows_of(store: ClipStore) -> tuple[Integers, list[str]]:
    """Returns each clip's row ``[N]`` and the rows' names.

    A row is an identity. Where most identities are seen in few of the actions, as a handwritten
    digit is, it is a class of the static factor whose grid with the actions is fullest.
    """
    choices = [(store.identities, combination_names(store, "static"))]
    choices += [
        (store.labels[factor.name], list(factor.classes))
        for factor in store.factors
        if factor.kind == "static"
    ]
    filled = [_filled(people, store.motions) for people, _ in choices]
    return choices[0 if filled[0] >= 0.5 else int(np.argmax(filled))]


def _filled(people: Integers, moves: Integers) -> float:
    """Returns the share of the grid's cells that have a clip."""
    cells = np.unique(np.stack([people, moves]), axis=1).shape[1]
    return float(cells / (len(np.unique(people)) * len(np.unique(moves))))


def preview_clips(
    store: ClipStore, people: Integers, who: Integers, what: Integers, *, frames: int
) -> Frames:
    """Returns the first clip of every row and action, cut to its middle.

    Args:
        store: the clips.
        people: each clip's row, see :func:`rows_of`.
        who: rows ``[R]``.
        what: actions ``[K]``.
        frames: frames per clip; fewer, where no clip has so many.

    Returns:
        uint8 RGB ``[R, K, frames, H, W, 3]``; light grey where a row lacks an action.
    """
    frames = min(frames, int(store.lengths.max()))
    height, width, channels = store.image_shape
    grid = np.full((len(who), len(what), frames, height, width, 3), _NOTHING, np.uint8)
    for row, identity in enumerate(who):
        for column, action in enumerate(what):
            clips = np.flatnonzero((people == identity) & (store.motions == action))[:1]
            if len(clips):
                starts = centre_starts(store.lengths[clips], frames=frames, stride=1)
                (clip,) = store.windows(clips, starts, frames=frames)
                grid[row, column] = np.repeat(clip, 3, axis=-1) if channels == 1 else clip
    return grid


def _spread(values: Integers, count: int) -> Integers:
    everything = np.unique(values)
    chosen: Integers = everything[
        np.linspace(0, len(everything) - 1, min(count, len(everything))).round().astype(np.int64)
    ]
    return chosen
