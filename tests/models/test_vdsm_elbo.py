import warnings

import pytest
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO

from tests.models.naive_vdsm import NaiveVDSM
from tests.models.tiny import CLIP, build
from vdsm_bench.models.vdsm.model import Annealing
from vdsm_bench.models.vdsm.objective import elbo_terms, total

ANNEALING = Annealing(temperature=4.0, identity=0.3, pose=0.7, motion=0.2)


def _pair(vdsm, stage):
    if stage == "pretrain":
        return vdsm.frame_model, vdsm.frame_guide
    return vdsm.clip_model, vdsm.clip_guide


def _noise(guide, clip):
    """Draws once from the guide; returns each clip's values by the naive model's site names."""
    torch.manual_seed(3)
    trace = poutine.trace(guide).get_trace(clip, ANNEALING)
    values = {n: s["value"] for n, s in trace.nodes.items() if n in "sdz" or n[:2] == "z_"}
    if "z" in values:
        z = values.pop("z")
        values |= {f"z_{t + 1}": z[:, t] for t in range(z.shape[1])}
    return [{name: value[b] for name, value in values.items()} for b in range(len(clip))]


@pytest.mark.parametrize("stage", ["pretrain", "sequence"])
@pytest.mark.parametrize("n_clips", [1, 3])
def test_elbo_equals_a_naive_per_site_per_clip_model(stage, n_clips):
    vdsm = build()
    clip = torch.rand(n_clips, CLIP.frames, 3, 16, 16)
    model, guide = _pair(vdsm, stage)
    noise = _noise(guide, clip)
    torch.manual_seed(3)
    scaled, _ = elbo_terms(model, guide, clip, ANNEALING)
    ours = total(scaled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pyro on sites that are replayed
        naive = NaiveVDSM(vdsm, ANNEALING).loss(clip, stage, noise)
    assert ours.item() == pytest.approx(naive.item(), rel=1e-5)

    trained = [p for p in _player(vdsm, stage).parameters]
    ours_gradients = torch.autograd.grad(ours, trained, allow_unused=True)
    naive_gradients = torch.autograd.grad(naive, trained, allow_unused=True)
    largest = max(g.abs().max() for g in naive_gradients if g is not None)
    for a, b in zip(ours_gradients, naive_gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=float(1e-5 * largest))


def _player(vdsm, stage):
    return next(s for s in vdsm.stages() if s.name == stage).players[0]


@pytest.mark.parametrize("stage", ["pretrain", "sequence"])
def test_the_sum_of_terms_is_pyros_mean_field_elbo(stage):
    vdsm = build()
    clip = torch.rand(2, CLIP.frames, 3, 16, 16)
    model, guide = _pair(vdsm, stage)
    torch.manual_seed(5)
    scaled, _ = elbo_terms(model, guide, clip, ANNEALING)
    torch.manual_seed(5)
    reference = TraceMeanField_ELBO().differentiable_loss(model, guide, clip, ANNEALING)
    assert total(scaled).item() == pytest.approx(reference.item(), rel=1e-6)


def test_weights_scale_their_own_term_alone():
    vdsm = build()
    clip = torch.rand(2, CLIP.frames, 3, 16, 16)
    torch.manual_seed(1)
    scaled, plain = elbo_terms(vdsm.clip_model, vdsm.clip_guide, clip, ANNEALING)
    assert scaled["s"].item() == pytest.approx(0.3 * plain["s"].item(), rel=1e-5)
    assert scaled["d"].item() == pytest.approx(0.2 * plain["d"].item(), rel=1e-5)
    assert scaled["z_1"].item() == pytest.approx(0.7 * plain["z_1"].item(), rel=1e-5)
    assert scaled["x"].item() == pytest.approx(plain["x"].item())


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous-bernoulli", "gaussian"])
def test_every_likelihood_prefers_the_clip_itself(likelihood):
    vdsm = build(likelihood=likelihood)
    clip = torch.rand(2, CLIP.frames, 3, 16, 16)
    losses = []
    for target in (clip, 1 - clip):
        vdsm.decoder.logits = lambda pose, weights, t=target: torch.logit(t.clamp(0.01, 0.99))
        torch.manual_seed(0)
        scaled, _ = elbo_terms(vdsm.frame_model, vdsm.frame_guide, clip, ANNEALING)
        losses.append(scaled["x"].item())
    assert losses[0] < losses[1]
