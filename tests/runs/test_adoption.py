"""Cells that differ in judge or scores alone share one training."""

import shutil

import pytest
from safetensors.torch import load_file

from tests.runs.test_execute import numbers, weights_of
from vdsm_bench.errors import DataError
from vdsm_bench.files import read_json, write_json
from vdsm_bench.runs import adoption
from vdsm_bench.training.trainer import Trainer

OTHER_JUDGE = {"judge": {"width": 10}}
OTHER_PART = {"evaluation": {"part": "validation"}}


@pytest.fixture
def untrainable(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("this cell was to be trained no more")

    return lambda: monkeypatch.setattr(Trainer, "take", refuse)


@pytest.mark.parametrize("layer", [OTHER_JUDGE, OTHER_PART], ids=["judge", "part"])
def test_what_is_only_judged_otherwise_is_not_trained_again(bench, tmp_path, untrainable, layer):
    (alone,), _ = bench(layer=layer, runs_dir=tmp_path / "alone")
    (first,), _ = bench(runs_dir=tmp_path / "both")
    untrainable()
    (second,), listener = bench(layer=layer, runs_dir=tmp_path / "both")
    assert second.state == "done"
    assert {**numbers(second.metrics), "trained_as": None} == numbers(alone.metrics)
    assert second.metrics["training_seconds"] == first.metrics["training_seconds"]
    assert (second.folder / "train.jsonl").read_text() == (first.folder / "train.jsonl").read_text()
    assert read_json(second.folder / "adopted.json") == {
        "trained_as": f"toy-squares/toy/{first.folder.name}",
        "env": read_json(first.folder / "env.json"),
    }
    (second.folder / "metrics.json").write_text("{")  # scored again: still told whose it was
    (again,), _ = bench(layer=layer, runs_dir=tmp_path / "both")
    assert again.metrics["trained_as"] == f"toy-squares/toy/{first.folder.name}"
    assert first.metrics["trained_as"] is None
    assert all((weights_of(first)[k] == w).all() for k, w in weights_of(second).items())
    said = f"trained already, as toy-squares/toy/{first.folder.name}"
    assert said in "\n".join(listener.lines)
    assert said in (second.folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("layer", "more"),
    [
        ({**OTHER_JUDGE, "training": {"fit": {"epochs": 1}}}, {}),
        ({**OTHER_JUDGE, "data": {"frames": 3}}, {}),
        (OTHER_JUDGE, {"seeds": (1,)}),
        (OTHER_JUDGE, {"fresh": True}),
    ],
    ids=["other training", "other clips", "other seed", "asked to start over"],
)
def test_another_training_is_trained(bench, tmp_path, layer, more):
    bench(runs_dir=tmp_path)
    (outcome,), listener = bench(layer=layer, runs_dir=tmp_path, **more)
    assert outcome.state == "done"
    assert "trained already" not in "\n".join(listener.lines)


@pytest.mark.parametrize(
    "damage", ["truncated", "missing", "unfinished", "journal", "inputs", "env"]
)
def test_a_damaged_training_is_passed_over(bench, tmp_path, damage):
    (first,), _ = bench(runs_dir=tmp_path)
    last = first.folder / "checkpoints" / "last.safetensors"
    if damage == "truncated":
        last.write_bytes(last.read_bytes()[:-10])
    elif damage == "missing":
        last.unlink()
    elif damage == "unfinished":
        (first.folder / "checkpoints" / "model.safetensors").unlink()
    elif damage == "inputs":
        config = read_json(first.folder / "config.json")
        write_json(first.folder / "config.json", {**config, "inputs": {"config": [], "data": 1}})
    elif damage == "journal":
        (first.folder / "train.jsonl").write_text('{"stage": "fi')
    else:
        (first.folder / "env.json").unlink()
    (second,), listener = bench(layer=OTHER_JUDGE, runs_dir=tmp_path)
    assert second.state == "done"
    assert "trained already" not in "\n".join(listener.lines)
    assert load_file(second.folder / "checkpoints" / "last.safetensors")


def test_a_neighbour_that_does_not_say_what_it_was_trained_on_is_passed_over(bench, tmp_path):
    (first,), _ = bench(runs_dir=tmp_path)
    config = read_json(first.folder / "config.json")
    del config["inputs"]
    write_json(first.folder / "config.json", config)
    (second,), listener = bench(layer=OTHER_JUDGE, runs_dir=tmp_path)
    assert second.state == "done"
    assert "trained already" not in "\n".join(listener.lines)


def test_a_training_that_another_name_spelt_out_is_taken_over(bench, tmp_path, untrainable):
    # what was named by its option then is what the preset has now, or the other way round
    (first,), _ = bench(runs_dir=tmp_path)
    first.folder.parent.rename(first.folder.parent.parent / "toy[code=8]")
    untrainable()
    (second,), _ = bench(layer=OTHER_JUDGE, runs_dir=tmp_path)
    assert second.state == "done"
    assert second.metrics["trained_as"] == f"toy-squares/toy[code=8]/{first.folder.name}"


def test_a_copy_that_was_cut_short_is_made_again(bench, tmp_path, monkeypatch, untrainable):
    bench(runs_dir=tmp_path)
    written = adoption.write_bytes

    def full(path, content):
        if path.name == "last.safetensors":
            path.parent.mkdir(parents=True)
            raise DataError(f"{path} cannot be written: No space left on device.")
        written(path, content)

    monkeypatch.setattr(adoption, "write_bytes", full)
    (cut,), _ = bench(layer=OTHER_JUDGE, runs_dir=tmp_path)
    assert (cut.state, cut.exit_code) == ("failed", 3)
    monkeypatch.setattr(adoption, "write_bytes", written)
    untrainable()
    (second,), _ = bench(layer=OTHER_JUDGE, runs_dir=tmp_path)
    assert second.state == "done"


def test_who_trains_after_a_copy_was_cut_short_is_not_said_to_have_copied(
    bench, tmp_path, monkeypatch
):
    (donor,), _ = bench(runs_dir=tmp_path)

    def full(path, content):
        raise DataError(f"{path} cannot be written: No space left on device.")

    with monkeypatch.context() as patch:
        patch.setattr(adoption, "write_bytes", full)
        (cut,), _ = bench(layer=OTHER_JUDGE, runs_dir=tmp_path)
    assert (cut.folder / "adopted.json").exists()
    shutil.rmtree(donor.folder)
    (second,), _ = bench(layer=OTHER_JUDGE, runs_dir=tmp_path)
    assert (second.state, second.metrics["trained_as"]) == ("done", None)


def test_starting_over_is_not_forgotten_when_it_is_stopped(bench, tmp_path, monkeypatch):
    bench(runs_dir=tmp_path)

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", stop)
        with pytest.raises(KeyboardInterrupt):
            bench(layer=OTHER_JUDGE, runs_dir=tmp_path, fresh=True)
    (second,), listener = bench(layer=OTHER_JUDGE, runs_dir=tmp_path)
    assert second.state == "done"
    assert "trained already" not in "\n".join(listener.lines)


def test_a_training_that_begins_again_has_not_ended(bench, tmp_path, monkeypatch):
    (first,), _ = bench(runs_dir=tmp_path)
    for name in ("checkpoints/last.safetensors", "metrics.json"):
        (first.folder / name).unlink()

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "take", stop)
    with pytest.raises(KeyboardInterrupt):
        bench(runs_dir=tmp_path)
    assert not (first.folder / "checkpoints" / "model.safetensors").exists()
