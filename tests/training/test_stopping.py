"""A signal to stop waits for the end of a step; a second one does not."""

import signal

import pytest
import torch

from tests.models.tiny import build
from tests.training.toys import SETTINGS, Noise
from vdsm_bench.training.checkpoint import read_checkpoint
from vdsm_bench.training.trainer import Trainer


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C as in a terminal: a shell's background job hands down an ignored one."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


class Interrupted(Noise):
    """Somebody types Ctrl-C while the fifth step is at work; twice, if asked."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def batch(self, stage, step, *others):
        for _ in range(self.times if step == 4 else 0):
            signal.raise_signal(signal.SIGINT)
        return super().batch(stage, step, *others)


def test_a_stop_loses_no_step(tmp_path):
    whole, tmp_path = tmp_path / "whole", tmp_path / "stopped"
    uninterrupted = build()
    Trainer(uninterrupted, SETTINGS, Noise(), folder=whole, seed=1).train()
    with pytest.raises(KeyboardInterrupt):
        Trainer(build(), SETTINGS, Interrupted(1), folder=tmp_path, seed=1).train()
    assert read_checkpoint(tmp_path / "checkpoints" / "last.safetensors")[1].step == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model = build(seed=7)
    Trainer(model, SETTINGS, Noise(), folder=tmp_path, seed=1).train()
    weights = uninterrupted.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert (tmp_path / "train.jsonl").read_text() == (whole / "train.jsonl").read_text()


def test_a_second_stop_does_not_wait(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Trainer(build(), SETTINGS, Interrupted(2), folder=tmp_path, seed=1).train()
    assert not (tmp_path / "checkpoints" / "last.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_stop_that_the_process_ignores_stays_ignored(tmp_path):
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        Trainer(build(), SETTINGS, Interrupted(2), folder=tmp_path, seed=1).train()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)
