"""What is said of a model's codes, on models that are made to have collapsed or not."""

from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from vdsm_bench.contracts import Codes, Factor, LabelledClips, Stage, VideoModel
from vdsm_bench.errors import ContractError
from vdsm_bench.runs import monitor
from vdsm_bench.runs.monitor import EVERY_EPOCH, Monitor

N, T, SIZE = 64, 3, 4
COLOURS = torch.tensor([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8]])


class Mixed(VideoModel):
    """Paints a clip in one colour, mixed from three experts by how red, green and blue it is.

    How bright the frames are is the motion. Weights differ from 1/3 by ``spread``; experts that
    lie 1 / ``spread`` apart make it up.
    """

    def __init__(self, *, spread=1e-3, apart=True, constant=False):
        super().__init__()
        self.spread, self.constant = spread, constant
        self.experts = (torch.eye(3) - 1 / 3) / spread * (1.0 if apart else 0.0) + 0.4

    def stages(self):
        return []

    def encode(self, clip):
        colour = clip.mean((1, 3, 4))
        code = (1 / 3 + self.spread * (colour - colour.mean(1, keepdim=True))).log()
        return Codes(code * 0 if self.constant else code, clip.mean((2, 3, 4)))

    def mixing_weights(self, identity):
        return identity.softmax(1)

    def generate(self, codes, n_frames):
        colour = self.mixing_weights(codes.identity) @ self.experts
        frames = colour[:, None] + codes.motion[:, :n_frames, None] - 0.4
        return frames.clamp(0, 1)[..., None, None].expand(-1, -1, -1, SIZE, SIZE)


class EncodeOnly(Mixed):
    capabilities = frozenset({"encode"})


def look(table, model, *, labels=None, stage=None, alike=0, count=EVERY_EPOCH):
    """Looks at clips of three colours, whose names are the labels unless others are given.

    Every frame is brighter or darker than the colour by a number of its own.

    Clips of one colour are of one identity; so many come first, and are the validation clips.
    """
    rng = np.random.default_rng(0)
    colours = rng.integers(3, size=N)
    colours[:alike] = 0
    noise = 0.05 * torch.from_numpy(rng.normal(size=(N, T, 3, SIZE, SIZE))).float()
    shade = torch.from_numpy(rng.uniform(-0.06, 0.06, (N, T, 1, 1, 1))).float()
    clips = (COLOURS[colours][:, None, :, None, None] + shade + noise).clamp(0, 1)
    known = {"colour": colours if labels is None else labels}

    def chosen(indices):
        return LabelledClips(
            lambda rows: clips[indices][rows], {k: v[indices] for k, v in known.items()}
        )

    factor = Factor("colour", "static", ("red", "green", "blue"))
    bench = SimpleNamespace(
        clips=chosen,
        splits=SimpleNamespace(
            validation=np.arange(N)[: alike or N], train=np.arange(N)[alike or N :]
        ),
        store=SimpleNamespace(factors=(factor,), identities=colours),
    )
    return Monitor(bench, SimpleNamespace(table=table), None, "cpu", count).look(model, stage)


def test_nearly_uniform_weights_over_experts_far_apart_have_not_collapsed(table):
    health = look(table, Mixed())
    assert health.figures["weight_information"] < 0.001
    assert health.figures["largest_weight"] == pytest.approx(1 / 3, abs=0.001)
    assert health.figures["swap_gap"] > 1
    assert (health.collapsed, health.warning) == (False, None)


def test_a_movement_that_changes_no_frame_has_collapsed(table):
    class Still(Mixed):
        def generate(self, codes, n_frames):
            level = torch.full_like(codes.motion, 0.4)
            return super().generate(replace(codes, motion=level), n_frames)

    assert look(table, Mixed()).figures["motion_gap"] > 0.1
    health = look(table, Still())
    assert health.figures["motion_gap"] == pytest.approx(0.0, abs=1e-3)
    assert health.figures["swap_gap"] > 1
    assert health.collapsed
    assert health.warning == (
        "training has collapsed: with another clip's motion code the error changes by +0.0%"
    )


def test_validation_clips_of_one_identity_do_not_make_a_code_look_collapsed(table):
    health = look(table, Mixed(), alike=N // 2, count=N // 2)
    assert health.figures["swap_gap"] > 1
    assert not health.collapsed


@pytest.mark.parametrize(
    "model",
    [Mixed(apart=False), Mixed(spread=0.3, apart=False), Mixed(constant=True)],
    ids=["identical experts", "identical experts, weights that differ", "constant code"],
)
def test_a_code_that_changes_no_frame_has_collapsed(table, model):
    health = look(table, model)
    assert health.figures["swap_gap"] == pytest.approx(0.0, abs=1e-3)
    assert health.collapsed
    assert "identity code has collapsed: clips are regenerated" in health.warning


def test_a_code_that_is_used_but_says_nothing_of_who_is_in_doubt(table):
    labels = np.random.default_rng(5).integers(3, size=N)
    health = look(table, Mixed(), labels=labels)
    assert not health.collapsed
    assert "identity code is in doubt: no static factor" in health.warning


def test_a_model_that_cannot_generate_is_judged_by_what_is_read_from_its_code(table):
    sound, mute = look(table, EncodeOnly()), look(table, EncodeOnly(constant=True))
    assert "swap_gap" not in sound.figures
    assert (sound.collapsed, mute.collapsed) == (False, True)
    assert "no static factor is read" in mute.warning


class Moving(VideoModel):
    """A clip is one colour times how bright it is in each frame, which is its motion.

    With an ``accent`` the motion is read with an offset that the colour decides.
    """

    def __init__(self, accent=0.0):
        super().__init__()
        self.accent = accent

    def stages(self):
        return []

    def encode(self, clip):
        bright = clip.mean((2, 3, 4))
        colour = clip.mean((1, 3, 4)) / bright.mean(1, keepdim=True)
        return Codes(colour, bright + self.accent * colour[:, :1])

    def generate(self, codes, n_frames):
        frames = codes.motion[:, :n_frames, None] * codes.identity[:, None]
        return frames.clamp(0, 1)[..., None, None].expand(-1, -1, -1, SIZE, SIZE)


def test_a_motion_that_is_read_alike_on_everybody_does_not_drift(table):
    same, accented = look(table, Moving()), look(table, Moving(accent=0.05))
    assert same.figures["drift"] == pytest.approx(0.0, abs=1e-3)
    assert accented.figures["drift"] > 0.1


def test_while_a_stage_trains_it_is_judged_by_what_it_trains(table, monkeypatch):
    monkeypatch.setattr(monitor, "_SWAPPED_AT_THE_END", monitor._SWAPPED_EVERY_EPOCH)

    class Unfinished(Moving):
        """The way from motion to frames is trained by its second stage."""

        def generate(self, codes, n_frames):
            return super().generate(codes, n_frames).flip(1) * 0.3

        def regenerate(self, codes, n_frames, stage):
            if stage == "second":
                return self.generate(codes, n_frames)
            return super().generate(codes, n_frames)

    ends = [look(table, Unfinished(), stage=stage).figures for stage in (None, "second")]
    first = look(table, Unfinished(), stage="first").figures
    sound = look(table, Moving()).figures
    assert first == sound
    assert ends[0] == ends[1]
    assert ends[0]["swap_gap"] < 0.5 * first["swap_gap"]


class Posterior(Mixed):
    """Says how sure it is of its codes: of the identity always, of what moves as told."""

    def __init__(self, *, motion, pose):
        super().__init__()
        self.scales = {"motion": motion, "pose": pose}

    def stages(self):
        return [Stage("first", (), moving="pose"), Stage("second", ())]

    def posteriors(self, clip):
        codes = self.encode(clip)
        pose = clip.mean((3, 4))
        return replace(codes, pose=pose), Codes(
            torch.full_like(codes.identity, 1e-5),
            torch.full_like(codes.motion, self.scales["motion"]),
            torch.full_like(pose, self.scales["pose"]),
        )


@pytest.mark.parametrize(
    ("motion", "pose", "stage", "said"),
    [
        (100.0, 0.01, None, "training has collapsed: the motion code holds 0.00 nats"),
        (100.0, 0.01, "second", "training has collapsed: the motion code holds 0.00 nats"),
        (100.0, 0.01, "first", None),
        (0.01, 100.0, "first", "training has collapsed: the pose code holds 0.00 nats"),
        (0.01, 100.0, None, None),
        (0.01, 0.01, None, None),
    ],
)
def test_a_code_of_the_movement_that_holds_nothing_has_collapsed(table, motion, pose, stage, said):
    health = look(table, Posterior(motion=motion, pose=pose), stage=stage)
    assert health.collapsed == health.figures["collapsed"] == (said is not None)
    assert health.warning == said or health.warning.startswith(said)


def test_what_is_wrong_with_both_codes_is_said_of_both(table):
    model = Posterior(motion=100.0, pose=0.01)
    model.experts = torch.full((3, 3), 0.4)
    health = look(table, model)
    assert health.warning.startswith("the identity code has collapsed: clips are regenerated")
    assert health.warning.endswith("; training has collapsed: the motion code holds 0.00 nats "
                                   "about which clip it is of")  # fmt: skip


def test_an_identity_code_that_is_drowned_in_its_noise_has_collapsed(table):
    class Drowned(Posterior):
        def posteriors(self, clip):
            loc, scale = super().posteriors(clip)
            return loc, replace(scale, identity=torch.full_like(loc.identity, 1e3))

    health = look(table, Drowned(motion=0.01, pose=0.01))
    assert health.figures["swap_gap"] > 1
    assert health.collapsed
    assert "identity code has collapsed: the identity code holds 0.00 nats" in health.warning


def test_clips_are_encoded_a_few_at_a_time_and_said_the_same_of(table, monkeypatch):
    class Counting(Mixed):
        seen: ClassVar[list[int]] = []

        def encode(self, clip):
            self.seen.append(len(clip))
            return super().encode(clip)

    whole = look(table, Counting())
    assert Counting.seen == [32, 32, 32, 32]  # and as many regenerated, twice
    monkeypatch.setattr(monitor, "_TOGETHER", 7)
    assert look(table, Counting()).figures == whole.figures
    assert max(Counting.seen[4:]) == 7


@pytest.mark.parametrize(
    ("stage", "method", "n"), [("first", "regenerate", 24), (None, "generate", 96)]
)
@pytest.mark.parametrize(
    ("cut", "got"),
    [
        (lambda made: made[:, :1], [1, 3, SIZE, SIZE]),  # would be compared with every frame
        (lambda made: made[:, :, :1], [T, 1, SIZE, SIZE]),
        (lambda made: made[..., ::2], [T, 3, SIZE, SIZE // 2]),
    ],
)
def test_clips_of_another_shape_are_refused_at_the_first_look(table, cut, got, stage, method, n):
    class Cut(Mixed):
        def generate(self, codes, n_frames):
            return cut(super().generate(codes, n_frames))

    with pytest.raises(ContractError) as refused:
        look(table, Cut(), stage=stage)
    expected = f"expected {[n, T, 3, SIZE, SIZE]}, got {[n, *got]}."
    assert refused.value.message == f"Cut.{method}: {expected}"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda loc, scale: loc, "expected two Codes, got Codes"),
        (lambda loc, scale: (loc, None), "expected Codes, got NoneType"),
        (
            lambda loc, scale: (loc, replace(scale, pose=None)),
            f"the pose code has means of [32, {T}, 3] and deviations of None",
        ),
        (
            lambda loc, scale: (loc, replace(scale, motion=scale.motion[:, :0])),
            "the motion code must be finite [B, K]",
        ),
        (
            lambda loc, scale: (loc, replace(scale, identity=scale.identity[:, :1])),
            "the identity code has means of",
        ),
    ],
)
def test_posteriors_that_are_none_are_refused_at_the_first_look(table, found, said):
    class Odd(Posterior):
        def posteriors(self, clip):
            return found(*super().posteriors(clip))

    with pytest.raises(ContractError) as refused:
        look(table, Odd(motion=0.01, pose=0.01))
    assert refused.value.message.startswith("Odd.posteriors: ")
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("made", "got"), [(lambda clip: None, "NoneType"), (lambda clip: clip.numpy(), "ndarray")]
)
def test_what_is_no_tensor_is_refused_at_the_first_look(table, made, got):
    class Odd(Mixed):
        def generate(self, codes, n_frames):
            return made(super().generate(codes, n_frames))

    with pytest.raises(ContractError, match=f"a clip is a float tensor .*, got {got}"):
        look(table, Odd())


def test_a_code_of_no_numbers_is_refused(table):
    class Empty(EncodeOnly):
        def encode(self, clip):
            codes = super().encode(clip)
            return replace(codes, motion=codes.motion[:, :0])

    with pytest.raises(
        ContractError, match=r"Empty.encode: the motion code must be finite \[B, K\]"
    ):
        look(table, Empty())
