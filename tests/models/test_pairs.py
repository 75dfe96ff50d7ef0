"""What s tells of the identity, against what is known of normal codes."""

import pytest
import torch

from tests.models.tiny import build
from vdsm_bench.contracts import Batch, Progress
from vdsm_bench.models.vdsm.pairs import log_determinant, pair_information


def _codes(n=20_000, k=3, people=2.0, clips=1.0, seed=0):
    """Codes of n pairs: people so far apart, their clips so far around them."""
    generator = torch.Generator().manual_seed(seed)
    own = people * torch.randn(n, k, generator=generator)
    return torch.cat([own, own]) + clips * torch.randn(2 * n, k, generator=generator)


def _nats(people, clips, noise, k=3):
    within = clips**2 + noise**2
    return k / 2 * torch.log(torch.tensor((people**2 + within) / within)).item()


@pytest.mark.parametrize(("clips", "noise"), [(1.0, 0.5), (0.0, 0.5), (1.0, 0.01), (5.0, 1.0)])
def test_information_of_normal_codes_is_that_of_the_channel(clips, noise):
    codes = _codes(clips=clips)
    found = pair_information(codes, torch.full_like(codes, noise))
    assert found.item() == pytest.approx(_nats(2.0, clips, noise), abs=0.03)


def test_what_two_clips_of_a_person_differ_in_tells_nothing():
    codes = _codes(people=0.0)
    assert abs(pair_information(codes, torch.full_like(codes, 0.1)).item()) < 0.01


def test_information_does_not_change_with_units_nor_with_a_place():
    codes = _codes(n=50)
    noise = torch.rand(100, 3, generator=torch.Generator().manual_seed(1)) + 0.1
    found = pair_information(codes, noise)
    torch.testing.assert_close(pair_information(7 * codes + 3, 7 * noise), found)


def test_a_direction_counts_by_its_ratio_to_the_noise_however_small_it_is():
    """The gradient of a faint direction is as much larger as the direction is fainter."""
    codes = _codes(n=200, clips=0.0) * torch.tensor([100.0, 1.0, 0.1])
    codes.requires_grad_()
    pair_information(codes, torch.full((400, 3), 0.01)).backward()
    pull = (codes.grad * codes.detach()).sum(0)  # what all of a direction's doubling would give
    torch.testing.assert_close(pull, torch.ones(3), rtol=0.02, atol=0)


def test_noise_is_given_no_reason_to_shrink():
    codes, noise = _codes(n=20).requires_grad_(), torch.full((40, 3), 0.1, requires_grad=True)
    pair_information(codes, noise).backward()
    assert noise.grad is None
    assert codes.grad.abs().max() > 0


def test_one_pair_tells_nothing():
    assert pair_information(torch.randn(2, 4), torch.ones(2, 4)).item() == 0.0


def test_a_code_far_away_from_all_others_hides_nothing_of_what_they_tell():
    """Codes 50,000 times the noise away come and go while s learns (a unit that wakes up)."""
    codes = _codes(n=20, k=40, people=0.3, clips=0.05)
    codes[[5, 25]] *= 1000
    codes[[10, 30]] *= 700
    codes.requires_grad_()
    noise = torch.full_like(codes, 0.003)
    found = pair_information(codes, noise)
    found.backward()
    exact = codes.detach().double().requires_grad_()
    one, other = (exact / noise).chunk(2)
    middle, difference = (one + other) / 2, one - other
    middle = middle - middle.mean(0)
    unit, of_clips = torch.eye(40, dtype=torch.float64), difference.t() @ difference / 40
    total = torch.logdet(unit + middle.t() @ middle / 19 + of_clips / 2)
    wanted = (total - torch.logdet(unit + of_clips)) / 2
    wanted.backward()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(codes.grad, exact.grad.float(), rtol=1e-3, atol=1e-4)


def test_rounding_cannot_make_a_log_determinant_diverge():
    rows = torch.randn(1, 12, 30, generator=torch.Generator().manual_seed(0))
    rows[:, :, 3] *= 1e6  # float32 keeps nothing of the others
    matrices = (torch.eye(12) + rows @ rows.mT).requires_grad_()
    log_determinant(matrices).sum().backward()
    assert matrices.grad.isfinite().all()
    assert matrices.grad.abs().max() < 10


@pytest.mark.parametrize("length", [0.0, 1.0, 1e3])
def test_log_determinants_and_their_gradients_are_lapacks(length):
    generator = torch.Generator().manual_seed(0)
    rows = length * torch.randn(2, 12, 30, generator=generator)
    matrices = (torch.eye(12) + rows @ rows.mT / 30).requires_grad_()
    found = log_determinant(matrices)
    exact = matrices.detach().double()
    torch.testing.assert_close(found, torch.logdet(exact).float())
    (gradient,) = torch.autograd.grad((found * torch.tensor([1.0, -3.0])).sum(), matrices)
    wanted = torch.linalg.inv(exact) * torch.tensor([1.0, -3.0]).view(2, 1, 1)
    torch.testing.assert_close(gradient, wanted.float(), rtol=1e-3, atol=1e-4 / max(length, 1) ** 2)


def _loss(model, pairs=True, stage=0):
    clip = torch.rand(4, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(2)
    return model.stages()[stage].players[0].loss(Batch(clip, pairs), Progress(0, 4, 0, 8))


@pytest.mark.parametrize("pose_shut", [0.0, 0.5])
def test_the_reward_is_for_s_read_off_a_partner(pose_shut):
    plain, paid = (
        _loss(build(identity_from="partner", pose_shut=pose_shut, identity_reward=weight))
        for weight in (0.0, 1000.0)
    )
    assert "identity_nats" not in plain.terms
    nats = paid.terms["identity_nats"].item()
    assert abs(nats) > 1e-3
    assert (plain.total - paid.total).item() == pytest.approx(1000 * nats, rel=1e-2)


@pytest.mark.parametrize(
    ("arguments", "paired", "idle"),
    [
        ({"identity_from": "partner", "pose_likeness": 50.0, "identity_reward": 0.1}, True, []),
        ({"pose_likeness": 50.0}, True, []),
        ({}, False, []),
        ({"identity_reward": 0.1}, True, ["identity_reward=0.1"]),
        ({"identity_from": "partner"}, False, ["identity_from=partner"]),
        ({"pose_likeness": 50.0, "identity_reward": 0.1}, False,
         ["pose_likeness=50", "identity_reward=0.1"]),
    ],
)  # fmt: skip
def test_what_can_do_nothing_is_named_and_does_nothing(arguments, paired, idle):
    model = build(**arguments)
    found = model.idle_arguments({"pretrain"} if paired else {"sequence"})
    assert [each.partition(" does nothing: ")[0] for each in found] == idle
    if idle:
        assert torch.equal(_loss(model, paired).total, _loss(build(), paired).total)


def test_where_there_are_no_two_codes_of_a_person_there_is_no_reward():
    for model, options in (
        (build(identity_from="partner", identity_reward=3.0), {"pairs": False}),
        (build(identity_from="partner", identity_reward=3.0), {"stage": 1}),
        (build(identity_from="clip", identity_reward=3.0), {}),
    ):
        assert "identity_nats" not in _loss(model, **options).terms
