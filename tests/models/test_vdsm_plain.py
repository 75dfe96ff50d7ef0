"""What presets ``small`` and ``medium`` (that of sprites-1296) minimise, in plain loops."""

from dataclasses import asdict

import pytest
import torch

from tests.models.plain import PlainVDSM
from tests.models.tiny import CLIP, build
from vdsm_bench.config import preset_arguments
from vdsm_bench.contracts import Batch, Progress
from vdsm_bench.models.vdsm.annealing import Annealing
from vdsm_bench.registry import load_registry

TABLE = load_registry()
DATASETS = {"small": "pendula", "medium": "sprites-1296"}  # medium's pays s for what it tells
SIZES = {"encoder", "decoder", "pose_dim", "identity_dim", "motion_dim", "rnn_width"}
TRAINED = {
    "pretrain": {"encoder", "pose_encoder", "identity_head", "pose_head", "decoder"},
    "sequence": {"motion_encoder", "roll_out", "combiner", "transition", "first_pose"},
}


def _clip(n, frames):
    """Frames of noise that differ in brightness too: an encoder tells them apart."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(n, frames, 3, 16, 16, generator=generator)
    return pixels * torch.rand(n, frames, 1, 1, 1, generator=generator)


def _equals_plain_loops(preset, experts, stage, batch, n, frames, annealing, **changed):
    arguments = {**preset_arguments(TABLE, preset, "vdsm", DATASETS[preset]), **changed}
    kept = {name: value for name, value in arguments.items() if name not in SIZES}
    vdsm = build(identity_dim=experts, **kept)
    with torch.no_grad():  # biases and z_0 are zero at the start
        for parameter in vdsm.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    (player,) = next(each for each in vdsm.stages() if each.name == stage).players
    torch.manual_seed(3)
    losses = player.loss(batch, Progress(0, 1, 0, 1, scheduled=asdict(annealing)))

    torch.manual_seed(3)
    noise = {"s": torch.randn(n, vdsm.identity_dim)}
    if stage == "sequence":
        noise["d"] = torch.randn(n, vdsm.motion_dim)
    noise["z"] = torch.randn(n, frames, vdsm.pose_dim)
    plain = PlainVDSM(vdsm, arguments, CLIP.frames, noise)
    loss, terms = getattr(plain, stage)(batch.clip, annealing)

    assert losses.total.item() == pytest.approx(loss.item(), rel=1e-5)
    named = {k: v.item() for k, v in losses.terms.items() if "lambda" not in k}
    known = {name: term.item() for name, term in terms.items()}
    assert {name: named[name] for name in known} == pytest.approx(known, rel=1e-4, abs=1e-6)
    assert set(named) - set(known) <= {"temperature", "pose_match"}
    trained = {id(parameter) for parameter in player.parameters}
    names = (name for name, parameter in vdsm.named_parameters() if id(parameter) in trained)
    assert {name.partition(".")[0] for name in names} == TRAINED[stage]
    gradients = (
        torch.autograd.grad(each, player.parameters, allow_unused=True)
        for each in (losses.total, loss)
    )
    for mine, theirs in zip(*gradients, strict=True):
        if theirs is None:
            assert mine is None
        else:
            assert (mine - theirs).norm() <= 1e-4 * theirs.norm(), theirs.shape


@pytest.mark.parametrize("pose", [None, 0.7])
@pytest.mark.parametrize(
    ("preset", "n_pairs", "half", "experts"),
    [
        ("small", 3, 2, 4),
        ("medium", 3, 2, 4),
        ("small", 1, 2, 4),
        ("small", 2, 1, 4),
        ("small", 2, 3, 1),
        ("small", 1, 1, 1),
        ("small", 2, 6, 4),
    ],
)
def test_pairs_cost_what_plain_loops_say(preset, n_pairs, half, experts, pose):
    annealing = Annealing(temperature=4.0, identity=0.3, pose=pose, motion=0.0)
    batch = Batch(_clip(n_pairs, 2 * half), pairs=True)
    _equals_plain_loops(preset, experts, "pretrain", batch, 2 * n_pairs, half, annealing)


@pytest.mark.parametrize(("n_pairs", "experts"), [(3, 4), (6, 4), (1, 4), (2, 1)])
def test_the_reward_of_what_s_tells_is_what_plain_loops_say(n_pairs, experts):
    annealing = Annealing(temperature=4.0, identity=0.3, pose=None, motion=0.0)
    batch = Batch(_clip(n_pairs, 4), pairs=True)
    _equals_plain_loops(
        "small", experts, "pretrain", batch, 2 * n_pairs, 2, annealing, identity_reward=50.0
    )


@pytest.mark.parametrize("match", [None, 0.5])
@pytest.mark.parametrize(
    ("preset", "n", "frames", "experts"),
    [
        ("small", 3, 5, 4),
        ("medium", 3, 5, 4),
        ("small", 1, 5, 4),
        ("small", 2, 1, 4),
        ("small", 2, 3, 1),
        ("small", 1, 1, 1),
    ],
)
def test_sequences_cost_what_plain_loops_say(preset, n, frames, experts, match):
    annealing = Annealing(temperature=4.0, identity=0.3, pose=0.7, motion=0.2, match=match)
    batch = Batch(_clip(n, frames))
    _equals_plain_loops(preset, experts, "sequence", batch, n, frames, annealing)
