import math
from dataclasses import replace

import pytest
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO

from benchmarks.naive import NaiveVDSM
from tests.models.tiny import CLIP, build
from vdsm_bench.contracts import Batch, Progress
from vdsm_bench.models.vdsm.annealing import Annealing
from vdsm_bench.models.vdsm.objective import elbo_terms, pixel_density, total
from vdsm_bench.models.vdsm.path import PosteriorPath, PriorPath

ANNEALING = Annealing(temperature=4.0, identity=0.3, pose=0.7, motion=0.2)


def _pair(vdsm, stage, clip):
    """Model and guide of a stage, and what they are given for a clip."""
    if stage == "pretrain":
        return vdsm.frame_model, vdsm.frame_guide, clip
    return vdsm.clip_model, vdsm.clip_guide, vdsm.see(clip)


def _noise(guide, given, n_clips):
    """Draws once from the guide; returns the noise behind it by the plain form's site names."""
    torch.manual_seed(3)
    nodes = poutine.trace(guide).get_trace(given, ANNEALING).nodes
    found = {}
    for name, site in nodes.items():
        if name in "sdz":
            of_path = isinstance(site["fn"], PosteriorPath)
            normal = site["fn"].steps(site["value"]) if of_path else site["fn"].base_dist
            found[name] = ((site["value"] - normal.loc) / normal.scale).detach()
    if "z" in found:
        z = found.pop("z")
        found |= {f"z_{t + 1}": z[:, t] for t in range(z.shape[1])}
    return {
        f"{name[0]}_{n}" + (f"_{int(name[2:]) - 1}" if name[1:] else ""): value[n : n + 1]
        for name, value in found.items()
        for n in range(n_clips)
    }


@pytest.mark.parametrize("stage", ["pretrain", "sequence"])
@pytest.mark.parametrize(
    ("n_clips", "frames", "experts"), [(3, 5, 4), (1, 5, 4), (2, 1, 4), (2, 3, 1), (1, 1, 1)]
)
def test_loss_and_gradients_equal_those_of_plain_loops(stage, n_clips, frames, experts):
    _equals_plain_loops(stage, n_clips, frames, experts, "cpu")


@pytest.mark.gpu
@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("stage", ["pretrain", "sequence"])
def test_loss_and_gradients_equal_those_of_plain_loops_on_a_gpu(stage):
    _equals_plain_loops(stage, 3, 5, 4, "cuda")


def _equals_plain_loops(stage, n_clips, frames, experts, device):
    vdsm = build(identity_dim=experts).to(device)
    clip = torch.rand(n_clips, frames, 3, 16, 16).to(device)
    model, guide, given = _pair(vdsm, stage, clip)
    naive = NaiveVDSM(vdsm).to(device)
    plain = naive.loss(clip, stage, ANNEALING, _noise(guide, given, n_clips))
    plain.backward()
    theirs = naive.gradients(vdsm)

    torch.manual_seed(3)
    scaled, _, _ = elbo_terms(model, guide, given, ANNEALING)
    ours = total(scaled) / n_clips
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)

    trained = _player(vdsm, stage).parameters
    gradients = torch.autograd.grad(ours, trained, allow_unused=True)
    assert len(trained) > 20
    for mine, parameter in zip(gradients, trained, strict=True):
        if theirs[parameter] is None:
            assert mine is None
        else:
            error = (mine - theirs[parameter]).norm()
            assert error <= 1e-4 * max(theirs[parameter].norm(), 1e-3), parameter.shape


def _player(vdsm, stage):
    return next(s for s in vdsm.stages() if s.name == stage).players[0]


@pytest.mark.parametrize("stage", ["pretrain", "sequence"])
def test_the_sum_of_terms_is_pyros_mean_field_elbo(stage):
    vdsm = build()
    clip = torch.rand(2, CLIP.frames, 3, 16, 16)
    model, guide, given = _pair(vdsm, stage, clip)
    torch.manual_seed(5)
    scaled, _, _ = elbo_terms(model, guide, given, ANNEALING)
    torch.manual_seed(5)
    reference = TraceMeanField_ELBO().differentiable_loss(model, guide, given, ANNEALING)
    assert total(scaled).item() == pytest.approx(reference.item(), rel=1e-6)


def test_weights_scale_their_own_term_alone():
    vdsm = build()
    seen = vdsm.see(torch.rand(2, CLIP.frames, 3, 16, 16))
    torch.manual_seed(1)
    scaled, plain, _ = elbo_terms(vdsm.clip_model, vdsm.clip_guide, seen, ANNEALING)
    assert scaled["s"].item() == pytest.approx(0.3 * plain["s"].item(), rel=1e-5)
    assert scaled["d"].item() == pytest.approx(0.2 * plain["d"].item(), rel=1e-5)
    assert scaled["z"].item() == pytest.approx(0.7 * plain["z"].item(), rel=1e-5)
    assert scaled["x"].item() == pytest.approx(plain["x"].item())


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous-bernoulli", "gaussian"])
def test_every_likelihood_prefers_the_clip_itself(likelihood):
    vdsm = build(likelihood=likelihood)
    clip = torch.rand(2, CLIP.frames, 3, 16, 16)
    losses = []
    for target in (clip, 1 - clip):
        vdsm.decoder.logits = lambda pose, weights, t=target: torch.logit(t.clamp(0.01, 0.99))
        torch.manual_seed(0)
        scaled, _, _ = elbo_terms(vdsm.frame_model, vdsm.frame_guide, clip, ANNEALING)
        losses.append(scaled["x"].item())
    assert losses[0] < losses[1]


def test_the_continuous_bernoulli_is_a_density_of_grey_values_and_the_bernoulli_is_none():
    grey, logits = torch.linspace(0, 1, 1001)[:, None], torch.tensor([-5.0, -0.5, 0.0, 0.3, 4.0])
    proper, relaxed = (
        pixel_density(name, logits, 0.1).log_prob(grey)
        for name in ("continuous-bernoulli", "bernoulli")
    )
    areas = [torch.trapezoid(each.exp(), grey, dim=0) for each in (proper, relaxed)]
    torch.testing.assert_close(areas[0], torch.ones(5), rtol=1e-4, atol=0.0)
    assert areas[1].max() < 0.7
    torch.testing.assert_close(proper - relaxed, -areas[1].log().expand(1001, 5), rtol=1e-3, atol=0)


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous-bernoulli", "gaussian"])
def test_clips_are_drawn_as_the_mean_of_their_likelihood(likelihood):
    vdsm = build(likelihood=likelihood).eval()
    logits = torch.tensor([-60.0, -5.0, -0.5, -1e-4, 0.0, 0.3, 4.0, 60.0])
    vdsm.decoder.logits = lambda pose, _: logits.repeat(2).expand(*pose.shape[:2], 3, 16, 16)
    drawn = vdsm.regenerate(vdsm.encode(torch.rand(1, CLIP.frames, 3, 16, 16)), 3, "pretrain")
    if likelihood == "bernoulli":
        expected = torch.sigmoid(logits)
    else:  # by quadrature, which knows no closed form
        grey = torch.linspace(0, 1, 200_001, dtype=torch.float64)[:, None]
        bounds = grey if likelihood == "continuous-bernoulli" else 12 * grey - 6
        density = pixel_density(likelihood, logits.double(), 0.1).log_prob(bounds).exp()
        area = torch.trapezoid(density, bounds, dim=0)
        expected = (torch.trapezoid(bounds * density, bounds, dim=0) / area).float()
    every = expected.repeat(2).expand(1, 3, 3, 16, 16)
    torch.testing.assert_close(drawn, every, rtol=1e-3, atol=1e-4)


def test_the_continuous_bernoulli_is_exact_at_large_logits_where_torchs_has_no_gradient():
    logits = torch.tensor([-300.0, -40.0, -17.0, -0.05, 0.0, 0.05, 17.0, 40.0]).requires_grad_()
    grey = torch.tensor([0.0, 0.3, 0.97, 1.0])[:, None]
    found = pixel_density("continuous-bernoulli", logits, 0.1).log_prob(grey)
    l = logits.detach().double()  # noqa: E741
    safe = torch.where(l == 0, 1.0, l)
    # the integral of exp(x l) over [0, 1] is (exp(l) - 1) / l
    area = torch.where(l == 0, 0.0, torch.log((torch.exp(-l.abs()) - 1) / -safe.abs()) + l.relu())
    torch.testing.assert_close(found.double(), grey.double() * l - area, rtol=1e-5, atol=1e-5)
    (slope,) = torch.autograd.grad(found[-1].sum(), logits)
    mean = pixel_density("continuous-bernoulli", logits, 0.1).mean
    torch.testing.assert_close(slope, 1 - mean.detach(), rtol=1e-3, atol=1e-5)
    assert slope[-1].item() == pytest.approx(1 / 40, rel=1e-3)


def test_matching_adds_the_poses_that_the_frames_show_as_an_observation_of_the_path():
    vdsm = build()
    clip = torch.rand(2, CLIP.frames, 3, 16, 16)
    seen = vdsm.see(clip)
    torch.manual_seed(1)
    plain, _, _ = elbo_terms(vdsm.clip_model, vdsm.clip_guide, seen, ANNEALING)
    torch.manual_seed(1)
    path = poutine.trace(vdsm.clip_guide).get_trace(seen, ANNEALING).nodes
    torch.manual_seed(1)
    matching = replace(ANNEALING, match=0.5)
    scaled, _, _ = elbo_terms(vdsm.clip_model, vdsm.clip_guide, seen, matching)

    loc, scale = vdsm.pose_head(vdsm.encoder(clip.flatten(0, 1)))
    drawn = path["z"]["value"]
    error = (loc.view_as(drawn) - drawn) / scale.view_as(drawn)
    cost = 0.5 * error.square() + scale.view_as(drawn).log() + 0.5 * math.log(2 * math.pi)
    assert scaled.pop("pose").item() == pytest.approx(0.5 * cost.sum().item(), rel=1e-5)
    assert {k: v.item() for k, v in scaled.items()} == {k: v.item() for k, v in plain.items()}


def test_matching_ends_halfway_through_the_sequence_stage():
    vdsm = build(pose_match=[2.0, 0.0])
    weights = [vdsm.annealing("sequence", Progress(e, 10, e, 10)).match for e in range(10)]
    assert weights[0] > weights[1] > weights[2] > weights[3] > 0.0
    assert weights[4:] == [None] * 6
    assert build().annealing("sequence", Progress(0, 10, 0, 10)).match is None


@pytest.mark.parametrize("stage", ["pretrain", "sequence"])
@pytest.mark.parametrize(
    ("clips", "frames", "experts"),
    [(3, CLIP.frames, 4), (1, CLIP.frames, 4), (3, 1, 4), (3, CLIP.frames, 1)],
)
def test_bfloat16_products_leave_loss_and_gradients_near_and_the_latents_float32(
    stage, clips, frames, experts
):
    vdsm = build(identity_dim=experts)
    clip = torch.rand(clips, frames, 3, 16, 16)
    player = _player(vdsm, stage)

    def measure():
        torch.manual_seed(3)
        loss = player.loss(Batch(clip), Progress(3, 4, 3, 4)).total
        return loss, torch.autograd.grad(loss, player.parameters, allow_unused=True)

    exact, exact_gradients = measure()
    with torch.autocast("cpu", torch.bfloat16):
        near, near_gradients = measure()
        model, guide, given = _pair(vdsm, stage, clip)
        sites = poutine.trace(guide).get_trace(given, ANNEALING).nodes
    drawn = [site for name, site in sites.items() if name in "sdz"]
    assert {site["value"].dtype for site in drawn} == {torch.float32}
    assert near.dtype is torch.float32
    assert near.item() != exact.item()
    assert near.item() == pytest.approx(exact.item(), rel=5e-3)
    for a, b in zip(near_gradients, exact_gradients, strict=True):
        if b is not None:
            assert (a - b).norm() <= 0.2 * b.norm()  # of every parameter by itself


def test_a_path_is_scored_at_once_as_step_by_step():
    vdsm = build()
    d = torch.randn(3, vdsm.motion_dim)
    messages = vdsm.combiner.messages(vdsm.roll_out(d, 4), d)
    first = torch.randn(vdsm.pose_dim)
    posterior = PosteriorPath(first, vdsm.combiner, messages)
    prior = PriorPath(vdsm.transition, d, 4, vdsm.pose_dim)
    path = torch.randn(3, 4, vdsm.pose_dim)
    one, other, before = 0, 0, None
    for t in range(4):
        loc, scale = vdsm.combiner(
            first.expand(3, -1) if before is None else before, messages[:, t]
        )
        one = one + torch.distributions.Normal(loc, scale).log_prob(path[:, t]).sum(1)
        loc, scale = (
            (torch.zeros(3, vdsm.pose_dim), torch.ones(3, vdsm.pose_dim))
            if before is None
            else vdsm.transition(before, d)
        )
        other = other + torch.distributions.Normal(loc, scale).log_prob(path[:, t]).sum(1)
        before = path[:, t]
    torch.testing.assert_close(posterior.log_prob(path), one)
    torch.testing.assert_close(prior.log_prob(path), other)

    drawn = posterior.rsample()  # what drawing remembers is what scoring the draw finds
    again = PosteriorPath(first, vdsm.combiner, messages).steps(drawn)
    torch.testing.assert_close(posterior.steps(drawn).loc, again.loc)
    torch.testing.assert_close(posterior.steps(drawn).scale, again.scale)


def test_drawn_prior_paths_have_the_moments_of_the_transition():
    vdsm = build()
    d = torch.randn(1, vdsm.motion_dim).expand(4000, -1)
    torch.manual_seed(0)
    path = PriorPath(vdsm.transition, d, 2, vdsm.pose_dim).sample()
    assert path[:, 0].mean(0).abs().max() < 0.1
    assert (path[:, 0].std(0) - 1).abs().max() < 0.1
    loc, scale = vdsm.transition(path[:, 0], d)
    noise = (path[:, 1] - loc) / scale
    assert noise.mean(0).abs().max() < 0.1
    assert (noise.std(0) - 1).abs().max() < 0.1


def test_pixels_of_one_scale_have_the_density_of_a_normal_to_the_digit():
    generator = torch.Generator().manual_seed(0)
    logits, clip = (torch.randn(2, 3, 3, 8, 8, generator=generator) for _ in range(2))
    found, wanted = (logits.clone().requires_grad_() for _ in range(2))
    mine = pixel_density("gaussian", found, 0.3).log_prob(clip)
    plain = torch.distributions.Normal(torch.sigmoid(wanted), torch.tensor(0.3)).log_prob(clip)
    assert torch.equal(mine, plain)
    for density in (mine, plain):
        density.sum().backward()
    assert torch.equal(found.grad, wanted.grad)
