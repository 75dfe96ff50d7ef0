import itertools

import numpy as np
import pytest
import torch
from pyro import get_param_store

from tests.models.tiny import CLIP, build
from vdsm_bench.contracts import Batch, Codes, Progress, check_clip
from vdsm_bench.errors import ContractError
from vdsm_bench.models.vdsm.pairs import pair_likeness
from vdsm_bench.models.vdsm.parts import IdentityHead, features_of

PROGRESS = Progress(epoch=0, n_epochs=4, step=0, n_steps=8)


def _clips(n=3):
    return torch.rand(n, CLIP.frames, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_codes_and_clips_have_their_shapes():
    vdsm = build().eval()
    codes = vdsm.encode(_clips())
    assert codes.identity.shape == (3, 4)
    assert codes.motion.shape == (3, 6)
    assert codes.pose.shape == (3, CLIP.frames, 5)
    for clip in (vdsm.reconstruct(_clips()), vdsm.transfer(_clips(), _clips()), vdsm.sample(3, 5)):
        assert check_clip(clip, "vdsm", frames=5).shape == (3, 5, 3, 16, 16)


@pytest.mark.parametrize("n_frames", [1, 60])
def test_generation_of_other_lengths_than_the_training_clips(n_frames):
    vdsm = build().eval()
    with torch.no_grad():
        clip = vdsm.generate(vdsm.encode(_clips()), n_frames)
        drawn = vdsm.sample(2, n_frames)
    assert check_clip(clip, "vdsm", frames=n_frames).shape[0] == 3
    assert check_clip(drawn, "vdsm", frames=n_frames).shape[0] == 2
    shorter = vdsm.generate(vdsm.encode(_clips()), min(n_frames, 5))
    torch.testing.assert_close(clip[:, : shorter.shape[1]], shorter)


def test_generation_reads_identity_and_motion_alone():
    vdsm = build().eval()
    codes = vdsm.encode(_clips())
    with_pose = vdsm.generate(codes, 5)
    torch.testing.assert_close(with_pose, vdsm.generate(Codes(codes.identity, codes.motion), 5))


def test_transfer_takes_identity_of_one_and_motion_of_the_other():
    vdsm = build().eval()
    a, b = _clips()[:1], _clips()[1:2]
    codes_a, codes_b = vdsm.encode(a), vdsm.encode(b)
    expected = vdsm.generate(Codes(codes_a.identity, codes_b.motion), 5)
    torch.testing.assert_close(vdsm.transfer(a, b), expected)


def test_clips_do_not_see_each_other():
    vdsm = build().eval()
    together = vdsm.reconstruct(_clips())
    for b in range(3):
        torch.testing.assert_close(vdsm.reconstruct(_clips()[b : b + 1])[0], together[b])


def test_the_transition_starts_as_the_identity_where_the_gate_is_shut():
    transition = build().transition
    torch.nn.init.constant_(transition.gate[-1].bias, -100.0)
    z, d = torch.randn(3, 5), torch.randn(3, 6)
    loc, scale = transition(z, d)
    torch.testing.assert_close(loc, z)
    assert (scale > 0).all()


def test_sampling_draws_the_codes_that_are_not_given():
    vdsm = build().eval()
    identity = torch.randn(6, 4)
    weights, driven = [], []
    decode, move = vdsm.decoder.logits, vdsm.transition.forward
    vdsm.decoder.logits = lambda pose, w: (weights.append(w), decode(pose, w))[1]
    vdsm.transition.forward = lambda z, d: (driven.append(d), move(z, d))[1]
    vdsm.sample(6, 2, identity=identity)
    vdsm.sample(6, 2)
    torch.testing.assert_close(weights[0], vdsm.mixing_weights(identity))
    assert weights[1].std(0).min() > 0.01
    assert all(d.std(0).min() > 0.01 for d in driven)
    assert (driven[0] != driven[1]).all()


def test_a_kept_motion_code_is_shown_as_transfers_show_it():
    """A path of the prior would begin with any pose: p(z_1) = N(0, I) does not see d."""
    vdsm = build().eval()
    motion = torch.randn(6, 6)
    weights, poses = [], []
    decode = vdsm.decoder.logits
    vdsm.decoder.logits = lambda z, w: (poses.append(z), weights.append(w), decode(z, w))[2]
    vdsm.sample(6, 4, motion=motion)
    vdsm.generate(Codes(torch.randn(6, 4), motion), 4)
    torch.testing.assert_close(poses[0], poses[1])
    assert weights[0].std(0).min() > 0.01


def test_a_look_while_the_temperature_rises_is_at_the_temperature_of_the_last_step():
    vdsm = build(temperature=[1.0, 10.0]).eval()
    identity = 0.1 * torch.randn(3, 4)

    def expected(temperature):
        return torch.softmax(temperature * identity, dim=-1)

    torch.testing.assert_close(vdsm.mixing_weights(identity), expected(10.0))
    (pretrain,), (sequence,) = (stage.players for stage in vdsm.stages())
    warm = vdsm.annealing("pretrain", Progress(3, 40, 3, 40)).temperature
    assert 1.0 < warm < 5.0
    pretrain.loss(Batch(_clips()), Progress(3, 40, 3, 40))
    torch.testing.assert_close(vdsm.mixing_weights(identity), expected(warm))
    sequence.loss(Batch(_clips()), Progress(0, 4, 0, 4))
    torch.testing.assert_close(vdsm.mixing_weights(identity), expected(10.0))


@pytest.mark.parametrize("stage", [0, 1])
def test_every_parameter_of_a_stage_gets_a_gradient(stage):
    vdsm = build()
    (player,) = vdsm.stages()[stage].players
    player.loss(Batch(_clips()), PROGRESS).total.backward()
    for parameter in player.parameters:
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.any()


def test_sequence_training_leaves_encoder_decoder_and_pose_head_alone():
    vdsm = build()
    (player,) = vdsm.stages()[1].players
    trained = {id(p) for p in player.parameters}
    for frozen in (vdsm.encoder, vdsm.decoder, vdsm.pose_head):
        assert not any(id(p) in trained for p in frozen.parameters())
    for free in (vdsm.identity_head, vdsm.transition, vdsm.motion_encoder):
        assert all(id(p) in trained for p in free.parameters())


def test_both_stages_together_train_every_parameter():
    vdsm = build()
    trained = {id(p) for stage in vdsm.stages() for p in stage.players[0].parameters}
    assert trained == {id(p) for p in vdsm.parameters()}


def test_nothing_is_left_in_pyros_parameter_store():
    vdsm = build()
    vdsm.stages()[0].players[0].loss(Batch(_clips()), PROGRESS)
    assert len(get_param_store()) == 0


def test_partner_identity_comes_from_the_other_clip_of_the_pair():
    """Swapping in another first half must change the second half's identity, and not its own."""
    vdsm = build(identity_from="partner")
    seen = {}

    def remember(features):
        seen["features"] = features
        return torch.zeros(len(features), 4), torch.ones(len(features), 4)

    vdsm.identity_head.forward = remember
    clip = _clips(2)[:, :4]
    vdsm.stages()[0].players[0].loss(Batch(clip, pairs=True), PROGRESS)
    own = features_of(vdsm.encoder, torch.cat(clip.chunk(2, dim=1)))
    torch.testing.assert_close(seen["features"], own[[2, 3, 0, 1]])


@pytest.mark.parametrize(
    ("identity_from", "pairs", "frames", "share"),
    [
        ("partner", True, 4, 2 / 5),  # two frames of each clip
        ("partner", True, 10, 1.0),
        ("partner", True, 12, 1.0),
        ("clip", True, 4, 4 / 5),  # one s for both clips
        ("clip", True, 10, 1.0),
        ("clip", False, 2, 2 / 5),
        ("clip", False, 5, 1.0),
    ],
)
def test_a_part_of_a_clip_pays_a_part_of_its_identity(identity_from, pairs, frames, share):
    vdsm = build(identity_from=identity_from, identity_kl=[3.0, 3.0])
    batch = Batch(torch.rand(2, frames, 3, 16, 16), pairs=pairs)
    losses = vdsm.stages()[0].players[0].loss(batch, PROGRESS)
    terms = losses.terms
    paid = losses.total - terms["nll"] - terms["lambda_z"] * terms["kl_z"]
    torch.testing.assert_close(paid, 3.0 * share * terms["kl_s"], rtol=1e-3, atol=0.0)


def test_a_shut_pose_is_neither_paid_for_nor_seen():
    vdsm = build(pose_shut=0.5)
    (player,) = vdsm.stages()[0].players
    seen = {}
    real = vdsm.decoder.logits
    vdsm.decoder.logits = lambda pose, w: seen.setdefault(bool(pose.any()), real(pose, w))
    shut = player.loss(Batch(_clips()), Progress(0, 4, 0, 8))
    assert set(seen) == {False}
    assert "kl_z" not in shut.terms
    opened = player.loss(Batch(_clips()), Progress(2, 4, 4, 8))
    assert set(seen) == {False, True}
    assert opened.terms["kl_z"] > 0


def test_the_loss_terms_are_named_and_finite():
    vdsm = build()
    terms = vdsm.stages()[1].players[0].loss(Batch(_clips()), PROGRESS).terms
    assert {"nll", "kl_s", "kl_d", "kl_z", "lambda_s", "lambda_z", "lambda_d"} <= set(terms)
    assert all(torch.isfinite(value) for value in terms.values())


def test_a_frozen_identity_head_is_no_part_of_the_sequence_stage():
    vdsm = build(identity_frozen=True)
    trained = {id(p) for p in vdsm.stages()[1].players[0].parameters}
    assert not any(id(p) in trained for p in vdsm.identity_head.parameters())
    assert all(id(p) in trained for p in vdsm.transition.parameters())


def test_the_slope_of_the_identity_loc_lets_it_be_negative():
    features = torch.randn(200, 1, 8)
    locs = {}
    for slope in (0.01, 1.0):
        torch.manual_seed(0)
        head = IdentityHead(8, 4, slope)
        locs[slope], _ = head(features)
    negative = locs[1.0] < 0
    assert 0.2 < negative.float().mean() < 0.8
    torch.testing.assert_close(locs[0.01][~negative], locs[1.0][~negative])
    torch.testing.assert_close(locs[0.01][negative], 0.01 * locs[1.0][negative])


def test_the_model_passes_its_slope_on_to_the_identity():
    lowest = [build(identity_slope=s).encode(_clips(8)).identity.min() for s in (0.01, 1.0)]
    assert lowest[1] < 20 * lowest[0] < 0  # a hundredth of it, but for the mean over the frames


def _likeness(first, second):
    """The same from its definition, clip by clip and frame by frame."""
    clips = np.concatenate([first, second]).astype(float)
    n, t, _ = clips.shape

    def far(i, j, a, b):
        return ((clips[i, a] - clips[j, b]) ** 2).sum()

    everything = list(itertools.product(range(n), range(n), range(t), range(t)))
    typical = np.mean([far(*each) for each in everything])

    def near(i, j):
        return np.mean([
            np.exp(-far(i, j, a, b) / typical / width)
            for a in range(t) for b in range(t) for width in (0.1, 0.3, 1.0)
        ])  # fmt: skip

    half = n // 2
    pairs = np.mean([near(i, half + i) for i in range(half)])
    others = np.mean([near(i, j) for i in range(n) for j in range(n) if (i - j) % half])
    return (pairs - others) / (np.mean([near(i, i) for i in range(n)]) - others)


@pytest.mark.parametrize("identity_from", ["clip", "partner"])
def test_likeness_is_paid_for_pairs_while_the_pose_is_open(identity_from):
    """From the definition, over the poses that the decoder was given."""
    vdsm, free = (
        build(pose_likeness=weight, identity_from=identity_from, pose_shut=0.5)
        for weight in (3.0, 0.0)
    )
    given, logits = [], vdsm.decoder.logits
    vdsm.decoder.logits = lambda pose, w: (given.append(pose), logits(pose, w))[1]
    clip, late = _clips(3)[:, :4], Progress(2, 4, 4, 8)

    def loss(model, progress=late, pairs=True):
        torch.manual_seed(2)
        return model.stages()[0].players[0].loss(Batch(clip, pairs), progress)

    paid = loss(vdsm)
    poses = given[0].detach().reshape(-1, 2, 5).numpy()
    order = [0, 1, 2, 3, 4, 5] if identity_from == "partner" else [0, 2, 4, 1, 3, 5]
    expected = _likeness(*np.split(poses[order], 2))
    assert paid.terms["pose_likeness"].item() == pytest.approx(expected, rel=1e-4)
    frames_per_item = 2 if identity_from == "partner" else 4
    unpaid = loss(free)
    assert unpaid.terms["pose_likeness"].item() == pytest.approx(expected, rel=1e-4)
    difference = (paid.total - unpaid.total).item()
    assert difference == pytest.approx(3.0 * frames_per_item * expected, rel=1e-3)
    assert "pose_likeness" not in loss(vdsm, Progress(0, 4, 0, 8)).terms
    assert "pose_likeness" not in loss(vdsm, pairs=False).terms


def _codes(of_identity, spread=1.0):
    """Codes of 2 x 200 clips of 4 frames, each an identity's own plus noise of a spread."""
    noise = torch.randn(400, 4, 3, generator=torch.Generator().manual_seed(0))
    return torch.cat([of_identity, of_identity]) + spread * noise


def test_likeness_is_one_for_codes_of_identity_and_none_for_codes_of_chance():
    own = torch.randn(200, 1, 3, generator=torch.Generator().manual_seed(1))
    assert pair_likeness(_codes(own, 0.0)).item() == pytest.approx(1.0)
    assert pair_likeness(_codes(0 * own)).item() == pytest.approx(0.0, abs=0.05)
    found = pair_likeness(_codes(own)).item()
    assert 0.3 < found < 0.9
    for other in (100 * _codes(own), 0.01 * _codes(own), _codes(own) + 3.0):
        assert pair_likeness(other).item() == pytest.approx(found, abs=1e-3)


def test_likeness_sees_spreads_that_differ_where_means_do_not():
    spread = torch.where(torch.arange(400) % 200 < 100, 0.2, 2.0).view(-1, 1, 1)
    codes = _codes(torch.zeros(200, 1, 3), spread)
    assert codes[:200].mean((0, 1)).abs().max() < 0.2
    assert pair_likeness(codes).item() > 0.2


def test_likeness_cannot_be_lowered_by_scale_where_pairs_never_do_the_same():
    opposed = torch.randn(50, 1, 3, generator=torch.Generator().manual_seed(0))
    near, far = (pair_likeness(s * torch.cat([opposed, -opposed])).item() for s in (1.0, 100.0))
    assert near == pytest.approx(far, abs=1e-4)
    assert near < 0


def test_likeness_is_float32_also_where_products_are_not():
    codes = _codes(torch.zeros(200, 1, 3), 0.05) + 3.0
    with torch.autocast("cpu", torch.bfloat16):
        found = pair_likeness(codes)
    torch.testing.assert_close(found, pair_likeness(codes))


def test_one_pair_has_nobody_to_be_compared_with():
    assert pair_likeness(torch.randn(2, 3, 4)).item() == 0.0


def test_an_own_pose_encoder_reads_the_pose_and_nothing_else():
    shared, own = build(), build(pose_encoder="own").eval()
    clip = _clips()
    before = own.encode(clip)
    with torch.no_grad():
        for parameter in own.pose_encoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    after = own.encode(clip)
    torch.testing.assert_close(after.identity, before.identity)
    assert not torch.allclose(after.pose, before.pose)
    with torch.no_grad():
        for parameter in own.encoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    last = own.encode(clip)
    torch.testing.assert_close(last.pose, after.pose)
    assert not torch.allclose(last.identity, after.identity)
    assert not any(name.startswith("pose_encoder") for name in shared.state_dict())


def test_an_own_pose_encoder_is_trained_in_the_first_stage_and_frozen_in_the_second():
    vdsm = build(pose_encoder="own")
    first, second = ({id(p) for p in stage.players[0].parameters} for stage in vdsm.stages())
    parameters = [id(p) for p in vdsm.pose_encoder.parameters()]
    assert all(p in first and p not in second for p in parameters)
    vdsm.stages()[0].players[0].loss(Batch(_clips()), PROGRESS).total.backward()
    assert all(p.grad is not None and p.grad.any() for p in vdsm.pose_encoder.parameters())


def test_while_the_pose_is_shut_clips_are_regenerated_as_its_steps_draw_them():
    vdsm, clip = build(pose_shut=0.5), _clips()
    (pretrain, _) = (stage.players[0] for stage in vdsm.stages())
    codes, t = vdsm.encode(clip), clip.shape[1]
    for epoch, pose in ((0, torch.zeros_like(codes.pose)), (3, codes.pose)):
        pretrain.loss(Batch(clip), Progress(epoch, 4, 0, 4))
        found = vdsm.regenerate(codes, t, "pretrain")
        drawn = vdsm.decoder(pose, vdsm.mixing_weights(codes.identity))
        torch.testing.assert_close(found, drawn)


def test_pairs_in_the_second_stage_are_two_clips():
    vdsm, clip = build().eval(), _clips(4)
    sequence = vdsm.stages()[1].players[0]
    halves = torch.cat(clip[:, :4].chunk(2, dim=1))
    losses = []
    for batch in (Batch(clip[:, :4], pairs=True), Batch(halves)):
        torch.manual_seed(0)
        losses.append(sequence.loss(batch, PROGRESS))
    torch.testing.assert_close(losses[0].total, losses[1].total)
    torch.testing.assert_close(losses[0].terms, losses[1].terms)
    features = vdsm.frame_features(clip[:, :4].flatten(0, 1)).unflatten(0, (4, 4))
    torch.manual_seed(0)
    known = sequence.loss(Batch(clip[:, :4], pairs=True, features=features), PROGRESS)
    torch.testing.assert_close(known.total, losses[1].total)


def test_clips_are_regenerated_by_what_the_stage_trains():
    vdsm, clip = build().eval(), _clips()
    codes = vdsm.encode(clip)
    drawn = vdsm.decoder(codes.pose, vdsm.mixing_weights(codes.identity))
    torch.testing.assert_close(vdsm.regenerate(codes, clip.shape[1], "pretrain"), drawn)
    rolled = vdsm.generate(codes, clip.shape[1])
    torch.testing.assert_close(vdsm.regenerate(codes, clip.shape[1], "sequence"), rolled)
    assert not torch.allclose(rolled, drawn)


@pytest.mark.parametrize("own", ["shared", "own"])
@pytest.mark.parametrize(
    ("spoil", "got"),
    [
        (lambda made: made.t().contiguous(), "[32, 15]"),  # as many numbers, of other clips
        (lambda made: made[:, :5], "[15, 5]"),
        (lambda made: made[..., None], "[15, 32, 1]"),
        (lambda made: None, "NoneType"),
    ],
)
def test_features_of_another_shape_are_refused_wherever_they_are_read(own, spoil, got):
    vdsm, clip = build(pose_encoder=own), _clips()
    chosen = vdsm.encoder if own == "shared" else vdsm.pose_encoder
    forward = chosen.forward
    chosen.forward = lambda frames: spoil(forward(frames))
    pretrain, sequence = (stage.players[0] for stage in vdsm.stages())
    for read in (
        lambda: pretrain.loss(Batch(clip), PROGRESS),
        lambda: sequence.loss(Batch(clip), PROGRESS),
        lambda: vdsm.frame_features(clip.flatten(0, 1)),
        lambda: vdsm.encode(clip),
    ):
        with pytest.raises(ContractError) as refused:
            read()
        said = f"BlurPoolEncoder.forward: expected [15, 32], got {got}."
        assert refused.value.message == said


@pytest.mark.parametrize("inference", [False, True])
def test_an_encoder_that_writes_into_the_clip_is_refused(inference):
    vdsm, clip = build(), _clips()
    forward = vdsm.encoder.forward
    with torch.inference_mode(inference):  # whose own tensors have no count of what was written
        assert vdsm.encode(clip + 0).identity.shape == (3, 4)
    vdsm.encoder.forward = lambda frames: forward(frames.sub_(0.5).div_(0.25))
    with torch.inference_mode(inference), pytest.raises(ContractError, match="BlurPoolEncoder"):
        vdsm.encode(clip)
    for stage in vdsm.stages():
        with pytest.raises(ContractError, match=r"BlurPoolEncoder\.forward: it writes into"):
            stage.players[0].loss(Batch(clip), PROGRESS)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda made: made[:, :1],  # would be spread over all frames
        lambda made: made[:, :, :1],
        lambda made: made[:1],
        lambda made: made.movedim(2, -1),
        lambda made: made.flatten(0, 1),
        lambda made: None,
    ],
)
def test_logits_of_another_shape_are_refused_in_both_stages_and_when_clips_are_made(spoil):
    vdsm, clip = build(), _clips()
    logits, codes = vdsm.decoder.logits, vdsm.encode(clip)
    vdsm.decoder.logits = lambda pose, weights: spoil(logits(pose, weights))
    pretrain, sequence = (stage.players[0] for stage in vdsm.stages())
    for make in (
        lambda: pretrain.loss(Batch(clip), PROGRESS),
        lambda: sequence.loss(Batch(clip), PROGRESS),
        lambda: vdsm.generate(codes, 5),
        lambda: vdsm.sample(3, 5),
    ):
        said = r"MixtureOfExpertsDecoder\.logits: expected \[3, 5, 3, 16, 16\], got "
        with pytest.raises(ContractError, match=said):
            make()


@pytest.mark.parametrize("pose_encoder", ["shared", "own"])
def test_an_encoder_may_say_its_width_as_numpy_does(pose_encoder):
    model = build(pose_encoder=pose_encoder)
    clips = _clips()
    expected = model.see(clips)
    for encoder in model.modules():
        if hasattr(encoder, "feature_dim"):
            encoder.feature_dim = np.int64(encoder.feature_dim)
    seen = model.see(clips)
    assert torch.equal(seen.features, expected.features)
    assert torch.equal(seen.pose_loc, expected.pose_loc)
