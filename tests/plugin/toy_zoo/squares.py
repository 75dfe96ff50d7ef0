"""Coloured squares that move."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vdsm_bench.contracts import DatasetCard, Factor, VideoDataset
from vdsm_bench.data.store_writer import StoreWriter

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 60, 230), "grey": (120,) * 3}
MOVES = {"right": (0, 2), "down": (2, 0), "still": (0, 0)}
SIZE, FRAMES = 32, 6


class ToySquares(VideoDataset):
    """Squares of four colours and two sizes that move right, move down or stay."""

    def __init__(self, *, takes: int = 8) -> None:
        self.takes = takes
        self.card = DatasetCard(
            name="toy-squares",
            summary="Squares that move.",
            licence="MIT",
            access="embedded",
            source="drawn",
            split="clips",
        )

    def prepare(
        self,
        destination: Path,
        *,
        source: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        factors = (
            Factor("colour", "static", tuple(COLOURS)),
            Factor("size", "static", ("small", "large")),
            Factor("action", "dynamic", tuple(MOVES)),
        )
        rng = np.random.default_rng(0)
        clips = [
            (c, s, a, start)
            for c in range(len(COLOURS))
            for s in range(2)
            for a in range(len(MOVES))
            for start in rng.choice(81, self.takes, replace=False)  # no clip twice
        ]
        with StoreWriter(
            destination,
            card=self.card,
            factors=factors,
            image_shape=(SIZE, SIZE, 3),
            total_frames=len(clips) * FRAMES,
        ) as writer:
            for colour, size, action, start in clips:
                frames = self._draw(colour, size, action, np.array(divmod(start, 9)))
                writer.add(frames, {"colour": colour, "size": size, "action": action})

    def _draw(self, colour: int, size: int, action: int, start: np.ndarray) -> np.ndarray:
        frames = np.full((FRAMES, SIZE, SIZE, 3), 10, np.uint8)
        step, side = np.array(list(MOVES.values())[action]), (7, 12)[size]
        for index, frame in enumerate(frames):
            top, left = start + index * step
            frame[top : top + side, left : left + side] = list(COLOURS.values())[colour]
        return frames
