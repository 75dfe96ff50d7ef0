"""Pictures of one trained model: a swap grid and reconstructions, of fixed held-out clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vdsm_bench.boards.figures import (
    draw_grid,
    to_bytes,
    write_png,
    write_strips,
    write_transfer,
)
from vdsm_bench.contracts import EvaluationRequest, Integers, Outputs, VideoModel
from vdsm_bench.runs.bench import Bench

_SIDE = 5
_PAIRS = 4


def write_media(folder: Path, model: VideoModel, bench: Bench, *, device: str) -> list[Path]:
    """Writes ``transfer.png``, ``transfer.gif`` and ``reconstructions.png``, as far as it can.

    Args:
        folder: where to.
        model: trained, on ``device``.
        bench: whose scored clips are shown.
        device: where the model is.

    Returns:
        The files; none for a model that can neither encode nor generate.
    """
    if not {"encode", "generate"} <= model.capabilities:
        return []
    identities, motions = chosen_clips(bench)
    who = bench.scored.clips(identities)
    what = bench.scored.clips(motions)
    count = len(what), len(who)
    # not inference mode: a model that fits its codes by gradient descent could not leave it again
    with torch.no_grad():
        swaps = model.transfer(
            who.repeat(count[0], 1, 1, 1, 1).to(device),
            what.repeat_interleave(count[1], 0).to(device),
        ).cpu()
        regenerated = model.reconstruct(what.to(device)).cpu()
    paths = write_transfer(
        folder,
        "transfer",
        identities=to_bytes(who),
        motions=to_bytes(what),
        swaps=to_bytes(swaps.reshape(*count, *swaps.shape[1:])),
        motion_names=[_motion_name(bench, int(row)) for row in motions],
    )
    strips = folder / "reconstructions.png"
    write_strips(strips, real=to_bytes(what[:4]), regenerated=to_bytes(regenerated[:4]))
    return [*paths, strips]


def write_pair_strips(folder: Path, request: EvaluationRequest, outputs: Outputs) -> list[Path]:
    """Writes ``pairs.png`` where there are transfers: A, B and their transfer, frames across."""
    if outputs.missing("transfers") is not None:
        return []
    rows = np.arange(min(_PAIRS, len(request.pairs)), dtype=np.int64)
    pairs = request.pairs[rows]
    parts = [
        to_bytes(clips)
        for clips in (
            request.test.clips(pairs[:, 0]),
            request.test.clips(pairs[:, 1]),
            outputs.transfers(rows),
        )
    ]
    cells = np.stack(parts, axis=1)
    frames = [f"frame {index + 1}" for index in range(cells.shape[2])]
    lines = ["A: identity", "B: motion", "transfer"] * len(rows)
    path = folder / "pairs.png"
    write_png(path, draw_grid(cells.reshape(-1, *cells.shape[2:]), frames, lines))
    return [path]


def chosen_clips(bench: Bench) -> tuple[Integers, Integers]:
    """Returns rows of scored clips, always the same: different identities, different motions."""
    identities = bench.store.identities[bench.scored_indices]
    motions = bench.store.motions[bench.scored_indices]
    who = _spread(identities, np.unique(identities, return_index=True)[1])
    left = np.flatnonzero(~np.isin(identities, identities[who]))
    rest = left if len(np.unique(motions[left])) > 1 else np.arange(len(motions))
    what = _spread(motions, rest[np.unique(motions[rest], return_index=True)[1]])
    return who, what


def _motion_name(bench: Bench, row: int) -> str:
    """Returns what a scored clip does, in the words of its labels."""
    clip = bench.scored_indices[row]
    factors = [factor for factor in bench.store.factors if factor.kind == "dynamic"]
    return " ".join(f.classes[int(bench.store.labels[f.name][clip])] for f in factors)


def _spread(values: Integers, rows: Integers) -> Integers:
    """Takes at most five rows, evenly over the classes."""
    ordered = rows[np.argsort(values[rows])]
    count = min(_SIDE, len(ordered))
    chosen: Integers = ordered[np.linspace(0, len(ordered) - 1, count).round().astype(np.int64)]
    return chosen
