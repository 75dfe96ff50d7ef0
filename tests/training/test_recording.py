import json
from dataclasses import replace

import pytest
import torch

from tests.models.tiny import build
from tests.training.tape import BrokenRecorder, TapeRecorder
from tests.training.toys import Duel, Held, Noise
from vdsm_bench.config import StageSettings
from vdsm_bench.contracts import Losses
from vdsm_bench.errors import DivergedError
from vdsm_bench.training import trainer as trainer_module
from vdsm_bench.training.recording import WARM_UP, Repeater
from vdsm_bench.training.trainer import Trainer

#: learning rates that are the same number in float32
SETTINGS = {
    "pretrain": StageSettings(
        epochs=4, batches_per_epoch=4, batch_size=2, learning_rate=2**-9, warm_up=8,
        gradient_clip=1.0, pairs=True, frames=4,
    ),
    "sequence": StageSettings(epochs=4, batches_per_epoch=4, batch_size=2, learning_rate=2**-9),
}  # fmt: skip
ARGUMENTS = {
    "rnn_dropout": 0.2, "pose_shut": 0.5, "pose_match": [1.0, 0.0], "identity_from": "partner",
    "pose_encoder": "own", "pose_likeness": 1.0, "identity_reward": 1.0,
}  # fmt: skip


def _train(folder, recorder, monkeypatch, model=None, settings=SETTINGS, **options):
    monkeypatch.setattr(trainer_module, "recorder_for", lambda device: recorder)
    model = model or build(**ARGUMENTS)
    summary = Trainer(
        model, settings, options.pop("noise", Noise()), folder=folder, seed=1, **options
    ).train()
    return model, summary


def _same(one, other):
    theirs = other.state_dict()
    return all(torch.equal(mine, theirs[name]) for name, mine in one.state_dict().items())


@pytest.fixture(autouse=True, scope="module")
def plain_lstm():
    """oneDNN's LSTM keeps a workspace that a tape does not see."""
    enabled, *_ = torch.backends.mkldnn.set_flags(False)
    yield
    torch.backends.mkldnn.set_flags(enabled)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        model, summary = _train(folder, None, patch)
    assert summary.manners == {"pretrain": "eager", "sequence": "eager"}
    return folder, model


def _log(folder):
    return (folder / "train.jsonl").read_text()


def test_a_recorded_step_gives_the_same_bits(plain, tmp_path, monkeypatch):
    """Learning rate, annealing and noise change from step to step though Python runs no more."""
    recorder = TapeRecorder()
    model, summary = _train(tmp_path, recorder, monkeypatch)
    assert _same(plain[1], model)
    assert _log(tmp_path) == _log(plain[0])
    assert summary.manners == {"pretrain": "graph", "sequence": "graph"}
    # the pose opens halfway through one stage, and is matched in the first epoch of the other
    forms = [["warm up"] * WARM_UP + ["record"] + ["replay"] * (n - WARM_UP) for n in (8, 8, 4, 12)]
    assert recorder.done == sum(forms, [])


def test_a_recorded_step_with_known_features_gives_the_same_bits(tmp_path, monkeypatch):
    model, _ = _train(tmp_path / "plain", None, monkeypatch, noise=Held())
    recorded, summary = _train(tmp_path / "recorded", TapeRecorder(), monkeypatch, noise=Held())
    assert summary.manners == {"pretrain": "graph", "sequence": "graph"}
    assert _same(model, recorded)
    assert _log(tmp_path / "recorded") == _log(tmp_path / "plain")


def test_without_a_recording_the_same_bits_and_the_reason_once(plain, tmp_path, monkeypatch):
    said = []
    model, summary = _train(tmp_path, BrokenRecorder(), monkeypatch, say=said.append)
    assert _same(plain[1], model)
    assert _log(tmp_path) == _log(plain[0])
    reason = "RuntimeError: operation not permitted when stream is capturing"
    assert summary.manners == dict.fromkeys(SETTINGS, f"eager ({reason})")
    assert len(said) == 2
    assert said[0].startswith("stage 'pretrain' takes its steps one by one")
    assert said[0].endswith(reason)


def test_resumed_in_the_middle_the_same_bits(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trainer_module, "CHECKPOINT_REST", 0.0)

    def stop(task, done, total, detail):
        if (task, done) == ("train sequence", 6):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, TapeRecorder(), monkeypatch, progress=stop)
    model, summary = _train(tmp_path, TapeRecorder(), monkeypatch)
    assert _same(plain[1], model)
    assert _log(tmp_path) == _log(plain[0])
    assert summary.manners == {"pretrain": "graph", "sequence": "graph"}


def test_a_stage_stopped_before_its_last_steps_was_still_recorded(tmp_path, monkeypatch):
    def stop(task, done, total, detail):
        if (task, done) == ("train sequence", 14):
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trainer_module, "CHECKPOINT_REST", 0.0)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, TapeRecorder(), monkeypatch, progress=stop)
    _, summary = _train(tmp_path, TapeRecorder(), monkeypatch)  # too few steps to record anew
    assert summary.manners == {"pretrain": "graph", "sequence": "graph"}


def test_a_recorded_step_that_diverges_is_found(tmp_path, monkeypatch):
    noise = Noise(poison=("pretrain", 5))
    with pytest.raises(DivergedError, match="not finite at step 5 "):
        _train(tmp_path, TapeRecorder(), monkeypatch, noise=noise)


class ScheduledDuel(Duel):
    """Two players that read nothing of the progress."""

    def stages(self):
        (stage,) = super().stages()
        return (replace(stage, schedule=lambda progress: {}),)


def test_two_players_are_recorded_together(tmp_path, monkeypatch):
    settings = {"duel": StageSettings(epochs=2, batches_per_epoch=4, batch_size=4)}
    models = []
    for name, recorder in (("plain", None), ("recorded", TapeRecorder())):
        torch.manual_seed(0)
        model, summary = _train(
            tmp_path / name, recorder, monkeypatch, model=ScheduledDuel(), settings=settings
        )
        models.append(model)
    assert summary.manners == {"duel": "graph"}
    for name, value in models[0].state_dict().items():  # lr 1e-3 is no number of float32
        torch.testing.assert_close(value, models[1].state_dict()[name], rtol=1e-5, atol=1e-7)


def test_a_model_without_a_schedule_is_left_alone(tmp_path, monkeypatch):
    settings = {"duel": StageSettings(epochs=1, batches_per_epoch=2, batch_size=4)}
    recorder, said = TapeRecorder(), []
    _, summary = _train(
        tmp_path, recorder, monkeypatch, model=Duel(), settings=settings, say=said.append
    )
    assert recorder.done == []
    assert summary.manners == {"duel": "eager (the stage has no schedule)"}
    assert len(said) == 1


def test_another_shape_is_recorded_anew():
    seen, recorder = [], TapeRecorder()
    repeat = Repeater(lambda clip: seen.append(clip.shape), recorder, pytest.fail)
    for shape in [(2, 3)] * 5 + [(1, 3)] * 2:
        repeat([torch.rand(shape)], ())
    assert recorder.done == [*["warm up"] * 3, "record", "replay", "replay", *["warm up"] * 2]
    assert repeat.obstacle == "fewer than 4 steps of the same form"


class Weighted(Duel):
    """Minds the generator's weights as much as a schedule says."""

    def __init__(self, schedule):
        super().__init__()
        self._schedule = schedule

    def stages(self):
        (stage,) = super().stages()
        return (replace(stage, schedule=lambda progress: self._schedule(progress.epoch)),)

    def _generator_loss(self, batch, progress):
        beta = progress.scheduled.get("beta", 0.0)
        size = self.generator.weight.square().sum()
        plain = super()._generator_loss(batch, progress).total
        return Losses(plain + beta * size, {"beta": 0 * size.detach() + beta})


@pytest.mark.parametrize(
    ("schedule", "numbers"),
    [
        (lambda epoch: {"beta": 0 if epoch < 1 else 0.75}, [0.0, 0.75, 0.75]),
        (lambda epoch: {"beta": min(1, (epoch + 4) % 5 / 4)}, [1.0, 0.0, 0.25]),
        (lambda epoch: {"beta": [1, 0.25, 1][epoch]}, [1.0, 0.25, 1.0]),
        (lambda epoch: {} if epoch < 1 else {"beta": 0.75}, [0.0, 0.75, 0.75]),
    ],
    ids=["a whole number first", "a plateau", "a whole number in turn", "not there at first"],
)
def test_a_recorded_step_follows_every_schedule(tmp_path, monkeypatch, schedule, numbers):
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 1)
    settings = {"duel": StageSettings(epochs=3, batches_per_epoch=5, batch_size=4)}
    for name, recorder in (("plain", None), ("recorded", TapeRecorder())):
        _, summary = _train(
            tmp_path / name, recorder, monkeypatch, model=Weighted(schedule), settings=settings
        )
        entries = [json.loads(line) for line in _log(tmp_path / name).splitlines()]
        last = {entry["epoch"]: entry["generator/beta"] for entry in entries}
        assert list(last.values()) == numbers, name
    assert summary.manners == {"duel": "graph"}
