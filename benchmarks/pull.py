"""What the codes say before the first step, and which one the frames pull at, by variant.

``python -m benchmarks.pull`` builds the models of suite ``recipe`` with their first weights, draws
s and z_1 .. z_T of stage ``pretrain`` for some training clips, and measures the gradient of the
frames' negative log likelihood: how many nats a step of one standard deviation of the prior along
it would save, to first order. The pose counts as if it were open, whatever the variant says. Beside
it stands what a decoder could learn from either code at first: how far apart the means of q lie, in
units of its noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor

from benchmarks import machine
from benchmarks.history import describe, record, table
from vdsm_bench.contracts import Progress
from vdsm_bench.models.vdsm.model import VDSM
from vdsm_bench.registry import registry
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.cell import Cell
from vdsm_bench.runs.datasets import open_store
from vdsm_bench.runs.models import build_model
from vdsm_bench.runs.reporting import Silent
from vdsm_bench.runs.suites import BASE, load_suite, plan_suite
from vdsm_bench.seeding import derive_seed, generator

VARIANTS = (
    "published", "start-torch", "start-heads", "start-own", "start-kept", BASE, "heat-1-10",
    "heat-20-20", "experts-8", "experts-40", "bernoulli",
)  # fmt: skip
#: frames of a clip that a model is shown, as many as the preset trains with
FRAMES = 4


def pulls(model: VDSM, clips: Tensor) -> dict[str, float]:
    """Measures the pull at both codes, in nats per clip.

    Args:
        model: in any state.
        clips: ``[B, T, C, H, W]``.

    Returns:
        ``s`` and ``z``: the mean over clips of the gradient's length, times the prior's standard
        deviation (1/K_s and 1); that of z over the poses of all T frames.
    """
    annealing = replace(model.annealing("pretrain", Progress(0, 1000, 0, 1000)), pose=1.0)
    with pyro.validation_enabled(False):
        drawn = poutine.trace(model.frame_guide).get_trace(clips, annealing)
        codes = {name: drawn.nodes[name]["value"].detach().requires_grad_() for name in "sz"}
        for name, value in codes.items():
            drawn.nodes[name]["value"] = value
        shown = poutine.trace(poutine.replay(model.frame_model, trace=drawn))
        site = shown.get_trace(clips, annealing).nodes["x"]
        loss = -site["fn"].log_prob(site["value"]).sum()
    by_s, by_z = torch.autograd.grad(loss, [codes["s"], codes["z"]])
    return {
        "s": float(by_s.flatten(1).norm(dim=1).mean()) / model.identity_dim,
        "z": float(by_z.flatten(1).norm(dim=1).mean()),
    }


def signals(model: VDSM, clips: Tensor) -> dict[str, float]:
    """Measures what the codes say, as signal to noise.

    Args:
        model: in any state.
        clips: ``[B, T, C, H, W]``, of more than one clip.

    Returns:
        ``s_signal`` and ``z_signal``: the standard deviation of q's means over clips, for z over
        all frames, as a share of q's standard deviation; the mean over dimensions.
    """
    model.eval()
    with torch.no_grad():
        loc, scale = model.posteriors(clips)
    assert loc.pose is not None
    assert scale.pose is not None
    codes = {"s": (loc.identity, scale.identity), "z": (loc.pose.flatten(0, 1), scale.pose)}
    return {
        f"{name}_signal": float((mean.std(0) / noise.flatten(0, -2).mean(0)).mean())
        for name, (mean, noise) in codes.items()
    }


def measure(cell: Cell, bench: Bench, clips: int, device: str) -> dict[str, Any]:
    """Builds the model of a cell and measures it on some training clips."""
    model = build_model(registry(), bench, cell).to(device)
    assert isinstance(model, VDSM)
    splits = bench.splits.train
    chosen = generator(0, "pull", clips).permutation(len(splits))[:clips]
    shown = bench.clips(splits[chosen]).clips(np.arange(len(chosen)))
    frames = np.linspace(0, shown.shape[1] - 1, FRAMES).round().astype(int)
    torch.manual_seed(derive_seed(0, "pull"))
    some = shown[:, frames].to(device)
    found = pulls(model, some) | signals(model, some)
    return {
        "dataset": cell.config.data.dataset,
        "variant": cell.variant or BASE,
        **{name: float(f"{value:.4g}") for name, value in found.items()},
    }


def render(runs: Sequence[dict[str, Any]]) -> str:
    """Returns the page: a line for every variant of the newest run."""
    rows = [
        (row["dataset"], row["variant"], f"{row['s']:.3g}", f"{row['z']:.3g}",
         f"{row['s'] / row['z']:.2g}" if row["z"] else "",
         *(f"{row[name]:.2g}" for name in ("s_signal", "z_signal")))
        for row in runs[0]["rows"]
    ]  # fmt: skip
    return "\n".join([
        "# The pull of the frames at s and at the pose, before the first step", "",
        f"`{runs[0]['command']}`; {runs[0]['clips']} training clips, {FRAMES} frames each.",
        "Pull in nats; what a code says is the spread of its means over clips or frames, in",
        "units of its noise.",
        "", describe(runs[0]), "",
        table(
            ("dataset", "variant", "at s", "at z_1 .. z_T", "s to z", "s says", "z says"), rows
        ),
    ])  # fmt: skip


def main() -> None:
    """Measures, prints, and adds the run to the history."""
    parser = machine.options(__doc__)
    parser.add_argument("--datasets", default="mug-synthetic", help="comma-separated; prepared")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="patterns, comma-separated")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--data-dir", type=Path, default=None)
    given = parser.parse_args()
    machine.at_least("--clips", given.clips, 2)  # what a code says is a spread over clips
    machine.prepare(given.device, given.threads)
    suite = load_suite(registry(), "recipe")
    rows = []
    for dataset in given.datasets.split(","):
        only = suite.model_copy(update={"datasets": [dataset], "preset": given.preset})
        cells = plan_suite(registry(), only, only=given.variants.split(","))
        store = open_store(registry(), dataset, given.data_dir, Silent())
        rows += [
            measure(cell, Bench.of(store, cell.config.data), given.clips, given.device)
            for cell in cells
        ]
    about = machine.describe(given.device)
    results = {"rows": rows, "clips": given.clips}
    record("pull", results, about=about, out=given.out, render=render)


if __name__ == "__main__":
    machine.run(main)
