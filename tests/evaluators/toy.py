"""A toy set for the evaluators: a coloured square (who) that moves one way (what)."""

from __future__ import annotations

import numpy as np
import torch

from vdsm_bench.contracts import Factor, LabelledClips

SIZE, FRAMES = 16, 4
FACTORS = (
    Factor("colour", "static", ("red", "green", "blue")),
    Factor("shape", "static", ("square", "bar")),
    Factor("action", "dynamic", ("right", "down", "left")),
)
_COLOURS = np.array([[0.9, 0.2, 0.1], [0.1, 0.8, 0.2], [0.2, 0.2, 0.9]])
_STEPS = np.array([[0, 2], [2, 0], [0, -2]])


def labels(n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f.name: rng.integers(len(f.classes), size=n) for f in FACTORS}


def draw(of: dict[str, np.ndarray], seed: int) -> torch.Tensor:
    """Draws the clips ``[N, T, C, H, W]``; the seed moves the start, which no label tells."""
    rng = np.random.default_rng(seed)
    n = len(of["colour"])
    clips = rng.uniform(0.0, 0.08, size=(n, FRAMES, 3, SIZE, SIZE))
    for i in range(n):
        height, width = (4, 4) if of["shape"][i] == 0 else (2, 7)
        step = _STEPS[of["action"][i]]
        start = rng.integers(4, 7, size=2) - np.minimum(step, 0) // 2
        for t in range(FRAMES):
            row, column = np.clip(start + (t - 1) * step, 0, [SIZE - height, SIZE - width])
            colour = _COLOURS[of["colour"][i]][:, None, None]
            clips[i, t, :, row : row + height, column : column + width] = colour
    return torch.as_tensor(clips, dtype=torch.float32)


def source(clips: torch.Tensor, of: dict[str, np.ndarray]) -> LabelledClips:
    return LabelledClips(lambda rows: clips[torch.as_tensor(rows)], of)


def make(n: int, seed: int) -> LabelledClips:
    of = labels(n, seed)
    return source(draw(of, seed), of)
