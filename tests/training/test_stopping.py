"""A signal to stop waits for the end of a step; a second one does not."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.models.tiny import build
from tests.training.toys import SETTINGS, Noise
from vdsm_bench.errors import DivergedError
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

    def __init__(self, times, number=signal.SIGINT, **others):
        super().__init__(**others)
        self.times, self.number = times, number

    def batch(self, stage, step, *others):
        while step == 4 and self.times:  # not again where a batch that diverged is asked for anew
            self.times -= 1
            signal.raise_signal(self.number)
        return super().batch(stage, step, *others)


class Terminated(Exception):
    """What a program makes of SIGTERM."""


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


def test_sigterm_waits_too(tmp_path):
    def terminate(number, frame):
        raise Terminated

    former = signal.signal(signal.SIGTERM, terminate)
    try:
        with pytest.raises(Terminated):
            Trainer(
                build(), SETTINGS, Interrupted(1, signal.SIGTERM), folder=tmp_path, seed=1
            ).train()
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGTERM, former)
    assert read_checkpoint(tmp_path / "checkpoints" / "last.safetensors")[1].step == 5


def test_a_stop_is_not_forgotten_where_the_step_fails(tmp_path):
    stage = next(iter(SETTINGS))
    sampler = Interrupted(1, poison=(stage, 4))
    with pytest.raises(DivergedError):
        Trainer(build(), SETTINGS, Noise(poison=(stage, 4)), folder=tmp_path / "a", seed=1).train()
    with pytest.raises(KeyboardInterrupt) as caught:
        Trainer(build(), SETTINGS, sampler, folder=tmp_path / "b", seed=1).train()
    assert isinstance(caught.value.__context__, DivergedError)
    assert not (tmp_path / "b" / "checkpoints" / "last.safetensors").exists()


def test_a_handler_that_goes_on_is_called_once(tmp_path):
    calls = []
    signal.signal(signal.SIGINT, lambda *_: calls.append(1))
    Trainer(build(), SETTINGS, Interrupted(1), folder=tmp_path, seed=1).train()
    assert calls == [1]


def test_training_off_the_main_thread_sets_no_handler(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=1).train).result()
    assert (tmp_path / "checkpoints" / "model.safetensors").exists()
