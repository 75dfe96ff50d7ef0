"""What only a GPU can show: the real recording, and that nothing waits."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.models.tiny import build
from tests.training.test_recording import ARGUMENTS, SETTINGS
from tests.training.toys import Duel, Held, Noise, Read
from vdsm_bench.config import StageSettings
from vdsm_bench.contracts import Losses
from vdsm_bench.data.clips import to_unit
from vdsm_bench.devices import prepare_process
from vdsm_bench.errors import DivergedError
from vdsm_bench.training import trainer as trainer_module
from vdsm_bench.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here"),
    pytest.mark.usefixtures("exact_products"),
]


class OnDevice(Noise):
    """The same batches, waiting on the GPU."""

    def batch(self, *arguments, **options):
        return super().batch(*arguments, **options).cuda()


def _train(folder, model=None, settings=SETTINGS, **options):
    model = model or build(**ARGUMENTS)
    summary = Trainer(
        model, settings, options.pop("noise", OnDevice()), folder=folder, seed=1, device="cuda",
        **options,
    ).train()  # fmt: skip
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return model, summary, lines


def _alike(mine, theirs):
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        assert one == pytest.approx(other, rel=2e-3, abs=1e-5)


def test_graphs_train_as_single_steps_do(tmp_path, monkeypatch):
    _, summary, graph = _train(tmp_path / "graph")
    assert summary.manners == {"pretrain": "graph", "sequence": "graph"}
    monkeypatch.setattr(trainer_module, "recorder_for", lambda device: None)
    _, summary, eager = _train(tmp_path / "eager")
    assert all(manner.startswith("eager") for manner in summary.manners.values())
    _alike(graph, eager)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_graphs_with_known_features_train_as_single_steps_without_do(
    tmp_path, monkeypatch, precision
):
    held = Held(device="cuda")
    _, summary, known = _train(tmp_path / "known", noise=held, precision=precision)
    assert summary.manners == {"pretrain": "graph", "sequence": "graph"}
    monkeypatch.setattr(trainer_module, "recorder_for", lambda device: None)
    _, _, computed = _train(tmp_path / "computed", noise=Read(held), precision=precision)
    _alike(known, computed)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_the_same_seed_gives_the_same_weights(tmp_path, precision):
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = True, False
    prepare_process()  # the fixture sets back what it sets
    first, second = (
        _train(tmp_path / str(time), precision=precision)[0].state_dict() for time in (1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_graph_run_that_is_resumed_goes_on_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trainer_module, "CHECKPOINT_REST", 0.0)
    *_, whole = _train(tmp_path / "whole")

    def stop(task, done, total, detail):
        if task == "train sequence" and done > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "parts", progress=stop)
    *_, parts = _train(tmp_path / "parts", model=build(seed=9, **ARGUMENTS))
    _alike(whole, parts)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous-bernoulli", "gaussian"])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_no_step_waits_for_the_device(tmp_path, likelihood, precision):
    model = build(likelihood=likelihood, **ARGUMENTS)
    settings = {
        "pretrain": SETTINGS["pretrain"].model_copy(update={"pairs": True, "frames": 6}),
        # long enough that what it is made of does not change meanwhile
        "sequence": SETTINGS["sequence"].model_copy(update={"epochs": 8}),
    }
    trainer = Trainer(
        model, settings, OnDevice(), folder=tmp_path, seed=0, device="cuda", precision=precision
    )
    for stage in trainer.stages:
        work = trainer.begin(stage)
        for step in range(6):
            watched = step in (2, 5)  # the last one by one, and one of the recording
            if watched:
                trainer.sampler = _Ready(trainer.sampler, stage.name, step, settings[stage.name])
                torch.cuda.set_sync_debug_mode("error")
            try:
                trainer.take(work, step)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            if watched:
                trainer.sampler = trainer.sampler.sampler
        assert work.manner == "graph"


class _Ready:
    """A batch that has been drawn before it is watched how it is used."""

    def __init__(self, sampler, stage, step, settings):
        self.sampler = sampler
        self.clip = sampler.batch(stage, step, settings.batch_size, settings.pairs, settings.frames)

    def batch(self, *arguments):
        return self.clip


class Asking(Duel):
    """Promises not to wait, and does."""

    def stages(self):
        (stage,) = super().stages()
        return (replace(stage, schedule=lambda progress: {}),)

    def _critic_loss(self, batch, progress):
        losses = super()._critic_loss(batch, progress)
        return Losses(losses.total * (1.0 if losses.total.item() < 1e9 else 0.0))


class Quiet(Duel):
    """Keeps its promise, with noise of two players."""

    def stages(self):
        (stage,) = super().stages()
        return (replace(stage, schedule=lambda progress: {}),)


@pytest.mark.parametrize(("kind", "manner"), [(Quiet, "graph"), (Asking, "eager (")])
def test_what_cannot_be_recorded_is_trained_all_the_same(tmp_path, kind, manner):
    settings = {"duel": StageSettings(epochs=2, batches_per_epoch=5, batch_size=4)}
    torch.manual_seed(0)
    said = []
    model, summary, lines = _train(
        tmp_path / "tried", model=kind(), settings=settings, say=said.append
    )
    assert summary.manners["duel"].startswith(manner)
    assert len(said) == (manner != "graph")
    torch.manual_seed(0)
    *_, plain = _train(tmp_path / "plain", model=Duel(), settings=settings)
    _alike(lines, plain)
    assert torch.rand(3, device="cuda").isfinite().all()  # the generator draws again


def test_a_step_of_a_graph_that_diverges_is_found(tmp_path):
    with pytest.raises(DivergedError, match="not finite at step 6 "):
        _train(tmp_path, noise=OnDevice(poison=("pretrain", 6)))


def test_bytes_become_the_same_pixels_on_every_device():
    planes = torch.arange(256, dtype=torch.uint8)
    assert np.array_equal(to_unit(planes.cuda()).cpu().numpy(), to_unit(planes).numpy())
