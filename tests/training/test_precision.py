"""Training in bfloat16: close to float32, and float32 wherever sums and moments are kept."""

import json
import math
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.models.tiny import CLIP, build
from tests.training.toys import SETTINGS, Duel, Noise
from vdsm_bench.config import StageSettings
from vdsm_bench.contracts import Batch, Losses, Progress
from vdsm_bench.errors import UsageError
from vdsm_bench.training import measure
from vdsm_bench.training.measure import longest_stage, time_precisions
from vdsm_bench.training.trainer import PlayerLoss, Trainer

#: of a loss; bfloat16 keeps 8 bits, and the ELBO is a sum over many pixels
LOSS_TOLERANCE = 0.01


def loss_and_gradients(precision, stage):
    model = build()
    torch.manual_seed(3)
    clip = Noise().batch(stage, 0, 4, False)
    loss, terms = PlayerLoss(model, precision)(Batch(clip), stage, "vdsm", Progress(2, 4, 6, 12))
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss, terms, gradients


@pytest.mark.parametrize("stage", ["pretrain", "sequence"])
def test_bf16_is_near_float32_and_is_not_float32(stage):
    exact, terms, gradients = loss_and_gradients("32", stage)
    loss, rounded, rough = loss_and_gradients("bf16", stage)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=LOSS_TOLERANCE)
    assert loss.item() != exact.item()
    assert rounded["nll"].item() == pytest.approx(terms["nll"].item(), rel=LOSS_TOLERANCE)
    assert gradients.keys() == rough.keys()
    for gradient in rough.values():
        assert gradient.dtype == torch.float32
        assert gradient.isfinite().all()
    whole, near = (
        torch.cat([each[name].flatten() for name in gradients]) for each in (gradients, rough)
    )
    assert torch.cosine_similarity(whole, near, dim=0) > 0.99


def test_a_stage_without_settings_is_refused_before_it_is_measured():
    with pytest.raises(UsageError, match="No training settings for stage 'sequence' of VDSM"):
        longest_stage(build(), {"pretrain": SETTINGS["pretrain"]})


def test_a_loss_that_takes_its_numbers_from_the_schedule_is_measured():
    class Scheduled(Duel):
        def stages(self):
            (stage,) = super().stages()
            return (replace(stage, schedule=lambda progress: {"beta": 2.0}),)

        def _generator_loss(self, batch, progress):
            return Losses(
                progress.scheduled["beta"] * super()._generator_loss(batch, progress).total
            )

    settings = {"duel": StageSettings(epochs=2, batches_per_epoch=2, batch_size=2)}
    assert set(time_precisions(Scheduled(), settings, CLIP, device="cpu").seconds) == {"32", "bf16"}


def test_a_training_in_bf16_follows_the_one_in_float32(tmp_path):
    ends = {}
    for precision in ("32", "bf16"):
        model, folder = build(), tmp_path / precision
        Trainer(model, SETTINGS, Noise(), folder=folder, seed=1, precision=precision).train()
        assert all(value.dtype == torch.float32 for value in model.state_dict().values())
        lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
        ends[precision] = [line["loss"] for line in lines if "loss" in line]
    assert ends["bf16"] == pytest.approx(ends["32"], rel=LOSS_TOLERANCE)
    assert ends["bf16"] != ends["32"]


def settings(**epochs):
    return {
        name: StageSettings(epochs=count, batches_per_epoch=3, batch_size=2)
        for name, count in epochs.items()
    }


def test_the_stage_of_most_steps_is_timed_in_both_precisions():
    for epochs, stage in (((4, 2), "pretrain"), ((2, 4), "sequence")):
        both = settings(pretrain=epochs[0], sequence=epochs[1])
        timing = time_precisions(build(), both, CLIP, device="cpu")
        assert timing.stage == stage
        assert set(timing.seconds) == {"32", "bf16"}
        assert all(0 < taken < 10 for taken in timing.seconds.values())


def test_the_middle_of_the_stage_is_timed_where_a_pose_that_was_shut_is_open(monkeypatch):
    monkeypatch.setattr(measure, "_MOST_ROUNDS", 1)
    model, shown = build(pose_shut=0.3), []
    decode = model.decoder.logits
    model.decoder.logits = lambda pose, weights: (shown.append(pose), decode(pose, weights))[1]
    assert time_precisions(model, SETTINGS, CLIP, device="cpu").stage == "pretrain"
    assert len(shown) == 4
    assert all(pose.any() for pose in shown)


def test_timing_leaves_the_callers_random_stream_alone():
    model = build()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    time_precisions(model, SETTINGS, CLIP, device="cpu")
    torch.testing.assert_close(torch.rand(3), expected)


class Narrow(Duel):
    """It cannot be computed in bfloat16, or leaves its range there."""

    value = None

    def _generator_loss(self, batch, progress):
        losses = super()._generator_loss(batch, progress)
        if torch.is_autocast_enabled("cpu"):
            if self.value is None:
                raise RuntimeError("not implemented for 'BFloat16'")
            return type(losses)(losses.total * self.value)
        return losses


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_model_that_bf16_breaks_takes_for_ever_in_it(value, monkeypatch):
    monkeypatch.setattr(Narrow, "value", value)
    timing = time_precisions(Narrow(), settings(duel=2), CLIP, device="cpu")
    assert timing.seconds["bf16"] == math.inf
    assert timing.seconds["32"] < 10


def test_a_model_that_float32_breaks_says_so(monkeypatch):
    def broken(self, batch, progress):
        raise RuntimeError("a bug in the model")

    monkeypatch.setattr(Duel, "_critic_loss", broken)
    with pytest.raises(RuntimeError, match="a bug in the model"):
        time_precisions(Duel(), settings(duel=2), CLIP, device="cpu")


def test_a_profiler_that_sees_no_kernel_leaves_it_to_the_clock(monkeypatch):
    seen = SimpleNamespace(key_averages=list)
    monkeypatch.setattr(torch.profiler, "profile", lambda **_: nullcontext(seen))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    taken = measure._timed(lambda precision: time.sleep(0.02), "32", "cuda")
    assert taken >= 0.02
    seen.key_averages = lambda: [SimpleNamespace(self_device_time_total=3e6)]
    assert measure._timed(lambda precision: None, "32", "cuda") == 3.0


def test_the_least_of_several_rounds_counts(monkeypatch):
    monkeypatch.setattr(measure, "_MOST_ROUNDS", 4)
    taken = {"32": iter([9, 5, 3, 4, 8]), "bf16": iter([1, 2, 3, 4, 5])}
    monkeypatch.setattr(measure, "_timed", lambda once, precision, device: next(taken[precision]))
    timing = time_precisions(build(), SETTINGS, CLIP, device="cpu")
    assert timing.seconds == {"32": 3, "bf16": 2}  # the first round warms up


def test_a_lack_of_memory_is_not_taken_for_what_bf16_cannot_do():
    def once(precision):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    for precision in ("32", "bf16"):
        with pytest.raises(torch.OutOfMemoryError):
            measure._timed(once, precision, "cpu")
