"""Stopped, killed and damaged: the same command goes on and ends as if nothing had been."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from tests.models.tiny import build
from tests.training.toys import SETTINGS, Noise, Stop, equal
from vdsm_bench.errors import DataError
from vdsm_bench.files import write_whole
from vdsm_bench.models.vdsm.model import VDSM
from vdsm_bench.training import trainer as trainer_module
from vdsm_bench.training.checkpoint import Position, load_weights, write_checkpoint
from vdsm_bench.training.journal import Journal, read_looks
from vdsm_bench.training.trainer import Trainer


@pytest.mark.parametrize("stop_after", [1, 5, 12, 13, 20])
def test_stopped_and_resumed_equals_uninterrupted(uninterrupted, tmp_path, monkeypatch, stop_after):
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trainer_module, "CHECKPOINT_REST", 0.0)
    calls = []

    def stop(task, done, total, detail):
        calls.append(task)
        if len(calls) == stop_after:
            raise Stop

    with pytest.raises(Stop):
        Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=1, progress=stop).train()
    model = build(seed=7)  # whatever the weights before: the checkpoint's count
    Trainer(model, SETTINGS, Noise(), folder=tmp_path, seed=1, progress=stop).train()
    folder, weights = uninterrupted
    assert equal(weights, model.state_dict())
    assert (tmp_path / "train.jsonl").read_text() == (folder / "train.jsonl").read_text()


def test_a_model_meets_its_first_batch_once(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trainer_module, "CHECKPOINT_REST", 0.0)
    met = []
    monkeypatch.setattr(VDSM, "meet", lambda model, clip: met.append(clip))

    def stop(task, done, total, detail):
        if done == 5:
            raise Stop

    with pytest.raises(Stop):
        Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=1, progress=stop).train()
    Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=1).train()
    name, settings = next(iter(SETTINGS.items()))
    first = Noise().batch(name, 0, settings.batch_size, settings.pairs, settings.frames)
    assert [clip.equal(first) for clip in met] == [True]


def test_what_a_model_draws_as_it_meets_its_first_batch_is_its_seeds(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(VDSM, "meet", lambda model, clip: drawn.append(torch.rand(4)))

    def stop(task, done, total, detail):
        raise Stop

    for number, seed in enumerate((1, 2, 1)):  # one after another, as the seeds of one command
        model = build()
        torch.manual_seed(99 + number)
        before = torch.get_rng_state()
        with pytest.raises(Stop):
            Trainer(
                model, SETTINGS, Noise(), folder=tmp_path / str(number), seed=seed, progress=stop
            ).train()
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_moments_of_weights_that_lie_otherwise_in_memory_resume(tmp_path, monkeypatch):
    """Fused Adam takes weights and moments in the order of memory, a checkpoint in that of axes."""

    def train(folder, progress=None):
        model = build()
        for weight in model.parameters():
            if weight.dim() == 4:
                weight.data = weight.data.to(memory_format=torch.channels_last)
        Trainer(
            model, SETTINGS, Noise(), folder=tmp_path / folder, seed=1, progress=progress
        ).train()
        return model.state_dict()

    def stop(task, done, total, detail):
        if done == 5:
            raise Stop

    whole = train("whole")
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trainer_module, "CHECKPOINT_REST", 0.0)
    with pytest.raises(Stop):
        train("resumed", stop)
    assert equal(whole, train("resumed"))


@pytest.mark.parametrize(
    "cut", ['{"stage": "a", "epoch": 1, "epoch_figures": {"x"', '{"epoch_figures": 3}']
)
def test_looks_are_read_up_to_where_a_kill_cut_them_short(tmp_path, cut):
    path = tmp_path / "train.jsonl"
    Journal(path, ["a"]).write("a", 0, 9, {"epoch_figures": {"x": 1.0}})
    path.write_text(path.read_text() + cut)
    assert [(one.epoch, one.figures) for one in read_looks(path)] == [(0, {"x": 1.0})]


def test_resume_from_an_older_checkpoint_equals_uninterrupted(uninterrupted, tmp_path, monkeypatch):
    """A kill loses the steps since the last checkpoint; they are taken again, bit for bit."""
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 1e9)  # stage ends only
    seen = []

    def stop(task, done, total, detail):
        seen.append((task, done))
        if (task, done) == ("train sequence", 7) and len(seen) == 19:
            raise Stop

    with pytest.raises(Stop):
        Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=1, progress=stop).train()
    model = build()
    Trainer(model, SETTINGS, Noise(), folder=tmp_path, seed=1, progress=stop).train()
    folder, weights = uninterrupted
    assert seen[19] == ("train sequence", 1)
    assert equal(weights, model.state_dict())
    assert (tmp_path / "train.jsonl").read_text() == (folder / "train.jsonl").read_text()


PROGRAM = """
    import sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from tests.models.tiny import build
    from tests.training.toys import SETTINGS, Noise
    from vdsm_bench.training import trainer
    trainer.CHECKPOINT_SECONDS = trainer.CHECKPOINT_REST = 0.0
    def tell(task, done, total, detail):
        print(task, done, flush=True)
    trainer.Trainer(
        build(), SETTINGS, Noise(), folder=Path(sys.argv[1]), seed=1, precision=sys.argv[2],
        progress=tell,
    ).train()
"""


@pytest.fixture(scope="module")
def uninterrupted_in(uninterrupted, tmp_path_factory):
    model = build()
    folder = tmp_path_factory.mktemp("whole-bf16")
    Trainer(model, SETTINGS, Noise(), folder=folder, seed=1, precision="bf16").train()
    return {"32": uninterrupted[1], "bf16": model.state_dict()}


@pytest.mark.parametrize(
    ("at", "precision"),
    [("train pretrain 4", "32"), ("train sequence 6", "32"), ("train sequence 2", "bf16")],
)
def test_kill_9_then_the_same_command_equals_uninterrupted(
    uninterrupted_in, tmp_path, at, precision
):
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path), precision]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.strip() == at:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    time.sleep(0.05)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{at.rsplit(maxsplit=1)[0]} 1\n" not in done.stdout
    model = build(seed=3)
    load_weights(tmp_path / "checkpoints" / "model.safetensors", model)
    assert equal(uninterrupted_in[precision], model.state_dict())


def _killed_while_writing(path):
    write_whole(path, lambda _: os.kill(os.getpid(), signal.SIGKILL))


def test_what_killed_writers_of_checkpoints_left_is_removed(tmp_path):
    writer = multiprocessing.get_context("fork").Process(
        target=_killed_while_writing, args=(tmp_path / "checkpoints" / "last.safetensors",)
    )
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=1).train()
    found = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert found == {"last.safetensors", "model.safetensors"}


def test_checkpoints_take_a_small_share_of_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    written, write = [], trainer_module.write_checkpoint

    def slow(path, model, optimisers, position):
        written.append((position.stage, position.step))
        write(path, model, optimisers, position)
        time.sleep(0.2)

    monkeypatch.setattr(trainer_module, "write_checkpoint", slow)
    Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=1).train()
    assert written == [("pretrain", 1), ("pretrain", 12), ("sequence", 1), ("sequence", 12)]


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path, damage):
    path = tmp_path / "checkpoints" / "last.safetensors"
    Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=1).train()
    path.write_bytes(path.read_bytes()[:1000] if damage is None else damage)
    with pytest.raises(DataError, match="--fresh"):
        Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=1).train()


@pytest.mark.parametrize(
    "at",
    [
        {"stage": "seqeunce"},
        {"stage": 3},
        {"step": -1},
        {"step": 13},
        {"step": []},
        {"seconds": "x"},
        {"manners": []},
    ],
    ids=str,
)
def test_a_checkpoint_of_a_place_that_training_does_not_have_is_damaged(tmp_path, at):
    model = build()
    place = {"stage": "sequence", "step": 12, "seconds": 1.0, "manners": {}, **at}
    write_checkpoint(tmp_path / "checkpoints" / "last.safetensors", model, {}, Position(**place))
    with pytest.raises(DataError, match=r"last\.safetensors is damaged") as caught:
        Trainer(model, SETTINGS, Noise(), folder=tmp_path, seed=1).train()
    assert "--fresh" in caught.value.hint


def test_moments_of_a_player_that_is_not_there_are_damage(tmp_path):
    Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=1).train()
    path = tmp_path / "checkpoints" / "last.safetensors"
    path.write_bytes(path.read_bytes().replace(b"optimiser/vdsm/", b"optimiser/vdsn/"))
    with pytest.raises(DataError, match="damaged: no optimiser has 'optimiser/vdsn/"):
        Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=1).train()


@pytest.mark.parametrize("line", ["[1]", '{"a": 1}', '{"stage": "a", "step": "x"}', "garbage"])
def test_a_damaged_journal_is_cut_at_the_damage(tmp_path, line):
    path = tmp_path / "train.jsonl"
    good = '{"stage": "a", "epoch": 0, "step": 0}'
    path.write_text(f"{good}\n{line}\n{good}\n")
    Journal(path, ["a"]).rewind("a", 5)
    assert path.read_text() == f"{good}\n"


@pytest.mark.parametrize("term", ["step", "stage", "epoch"])
def test_a_term_called_like_a_place_in_the_journal_moves_no_line(tmp_path, term):
    path = tmp_path / "train.jsonl"
    journal = Journal(path, ["a"])
    for step in (9, 19, 29):
        journal.write("a", step // 20, step, {term: 0.5, "loss": 1.0})
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["stage"], one["epoch"], one["step"]) for one in entries] == [
        ("a", 0, 9), ("a", 0, 19), ("a", 1, 29),
    ]  # fmt: skip
    journal.rewind("a", 19)
    assert len(path.read_text().splitlines()) == 1


def test_the_journal_lies_on_the_disk_before_a_checkpoint_that_counts_on_it(tmp_path, monkeypatch):
    done, write = [], trainer_module.write_checkpoint
    monkeypatch.setattr(Journal, "sync", lambda journal: done.append("journal"))
    monkeypatch.setattr(
        trainer_module,
        "write_checkpoint",
        lambda *arguments: done.append("checkpoint") or write(*arguments),
    )
    Trainer(build(), SETTINGS, Noise(), folder=tmp_path, seed=1).train()
    assert len(done) >= 4
    assert done == ["journal", "checkpoint"] * (len(done) // 2)


def test_the_journal_s_file_is_synchronised(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    journal = Journal(tmp_path / "train.jsonl", ["a"])
    journal.sync()  # nothing is written yet
    journal.write("a", 0, 0, {"loss": 1.0})
    journal.sync()
    assert synced == [(tmp_path / "train.jsonl").stat().st_ino]
