"""One cell from configuration to row, and everything that can get in its way."""

import errno
import json
import shutil
from contextlib import nullcontext
from functools import partial
from importlib.metadata import EntryPoint
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.plugin.toy_zoo.model import ToyAutoencoder
from tests.plugin.toy_zoo.squares import FRAMES
from vdsm_bench.boards.leaderboard import leaderboard
from vdsm_bench.config import resolve
from vdsm_bench.contracts import Codes
from vdsm_bench.data.clips import ClipSampler
from vdsm_bench.errors import DataError, UsageError
from vdsm_bench.files import hold, read_json, write_json
from vdsm_bench.registry import Entry, _load_entry_point
from vdsm_bench.runs import execute
from vdsm_bench.runs.folder import CellFolder, read_cell, scan_cells
from vdsm_bench.runs.monitor import Monitor
from vdsm_bench.runs.pairs_table import read_pairs
from vdsm_bench.runs.pick import pick_cell
from vdsm_bench.runs.reporting import Silent
from vdsm_bench.runs.restore import render_media, restore_cell

EPOCHS = {"training": {"fit": {"epochs": 3}}}


def state_of(outcome):
    return CellFolder(outcome.folder).read_status()


def weights_of(outcome):
    return load_file(CellFolder(outcome.folder).weights_file)


def numbers(metrics):
    timed = {"training_seconds", "judging_seconds", "scoring_seconds"}
    return {key: value for key, value in metrics.items() if key not in timed}


def forbid(monkeypatch, *names):
    for name in names:

        def refuse(*arguments, **settings):
            raise AssertionError("this must not run again")

        monkeypatch.setattr(execute, name, refuse)


def test_a_cell_leaves_its_whole_folder(bench):
    (outcome,), listener = bench()
    names = {path.name for path in outcome.folder.iterdir()}
    assert names == {
        "config.json", "env.json", "status.json", "train.jsonl", "checkpoints", "metrics.json",
        "pairs.csv", "media", "log.txt",
    }  # fmt: skip
    assert {path.name for path in outcome.pictures} == {
        "transfer.png", "transfer.gif", "reconstructions.png",
    }  # fmt: skip
    assert outcome.metrics == read_json(outcome.folder / "metrics.json")
    assert outcome.metrics["supervision"] == "none"
    assert (outcome.metrics["image_size"], outcome.metrics["frames"]) == (32, 4)
    assert read_cell(outcome.folder).problem is None
    assert read_json(outcome.folder / "env.json")["device"] == "cpu"


def test_leaks_stand_in_the_log_and_on_the_progress_line_from_the_first_epoch(bench):
    (outcome,), listener = bench(seeds=(7,))
    text = (outcome.folder / "train.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    figures = [line["epoch_figures"] for line in lines if "epoch_figures" in line]
    assert len(figures) == 2
    for key in ("action_from_identity", "identity_from_motion", "identity_chance"):
        assert 0 <= figures[0][key] <= 1
        assert any(key in detail for _, _, _, detail in listener.tasks)
    assert set(figures[0]["probes"]) == {"colour", "size", "action"}
    assert set(figures[0]["probes"]["colour"]) == {"chance", "identity", "motion"}


def test_every_pair_is_listed_with_its_own_scores(bench):
    (outcome,), _ = bench()
    table = read_pairs(outcome.folder)
    scores = outcome.metrics["scores"]
    assert set(table.columns) == {"dynamic_accuracy", "identity_accuracy", "transfer_accuracy"}
    for column, values in table.columns.items():
        assert sum(values) / len(values) == pytest.approx(scores[column]["value"])
        assert len(values) == len(table.ids) == scores[column]["n"]
    assert all(a != b for a, b in table.identities)
    low, high = (scores["identity_accuracy"][f"identity_{end}"] for end in ("low", "high"))
    assert low <= scores["identity_accuracy"]["value"] <= high


def test_a_finished_cell_is_reused(bench, monkeypatch):
    (first,), _ = bench()
    forbid(monkeypatch, "Trainer", "build_model", "write_media")
    (second,), _ = bench()
    assert (second.reused, second.metrics) == (True, first.metrics)
    assert second.pictures == first.pictures


def test_same_seed_same_numbers_wherever_it_runs(bench, tmp_path):
    (here,), _ = bench()
    (there,), _ = bench(runs_dir=tmp_path)
    assert numbers(here.metrics) == numbers(there.metrics)
    assert here.folder.name == there.folder.name
    (other,), _ = bench(seeds=(1,))
    assert other.metrics["group"] == here.metrics["group"]
    assert other.metrics["scores"] != here.metrics["scores"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_cell_says_so_and_ends_the_same(bench, monkeypatch, error, tmp_path):
    look = Monitor.on_epoch

    def stop(self, stage, epoch, model):
        figures = look(self, stage, epoch, model)
        if epoch == 1:
            raise error
        return figures

    monkeypatch.setattr(Monitor, "on_epoch", stop)
    with pytest.raises(error):
        bench(layer=EPOCHS, runs_dir=tmp_path)
    monkeypatch.undo()
    (record,) = scan_cells(tmp_path)
    assert record.state == "interrupted"
    assert (record.status.stage, record.status.epoch) == ("fit", 2)
    (resumed,), _ = bench(layer=EPOCHS, runs_dir=tmp_path)
    (straight,), _ = bench(layer=EPOCHS)
    assert numbers(resumed.metrics) == numbers(straight.metrics)
    for key, value in weights_of(straight).items():
        assert value.equal(weights_of(resumed)[key])


def test_weights_that_saved_ones_replace_are_not_asked_for(
    bench, table, data_dir, monkeypatch, tmp_path
):
    follow = []

    def stop(self, model):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "vdsm_bench.runs.models.weights_follow", lambda said: follow.append(said) or nullcontext()
    )
    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "at_the_end", stop)
        with pytest.raises(KeyboardInterrupt):
            bench(runs_dir=tmp_path)
    (outcome,), _ = bench(runs_dir=tmp_path)  # goes on from its checkpoint
    bench(layer={"evaluation": {"scores": ["leakage"]}}, runs_dir=tmp_path)  # adds to its row
    restore_cell(table, read_cell(outcome.folder), data_dir=data_dir, reporter=Silent())
    assert follow == [False, True, True, True]
    bench(runs_dir=tmp_path, fresh=True)
    assert follow[4:] == [False]


def test_a_model_that_fits_its_codes_by_gradient_descent_gets_its_row(bench, monkeypatch, tmp_path):
    encode = ToyAutoencoder.encode

    def fitted(self, clip):
        codes = encode(self, clip)
        with torch.enable_grad():
            offset = torch.zeros_like(codes.motion, requires_grad=True)
            (slope,) = torch.autograd.grad((offset - 1).square().sum(), offset)
        return Codes(codes.identity, codes.motion - 0.1 * slope)

    monkeypatch.setattr(ToyAutoencoder, "encode", fitted)
    (outcome,), _ = bench(runs_dir=tmp_path)
    assert (outcome.state, outcome.error) == ("done", None)
    assert len(outcome.pictures) == 3


def test_one_cell_that_fails_does_not_stop_the_others(bench, tmp_path):
    outcomes, _ = bench("diverging", "broken", "toy", runs_dir=tmp_path)
    assert [outcome.state for outcome in outcomes] == ["diverged", "failed", "done"]
    assert [outcome.exit_code for outcome in outcomes] == [1, 70, 0]
    diverged, broken, _ = outcomes
    assert (diverged.folder / "diverged-batch.safetensors").exists()
    assert state_of(diverged).state == "diverged"
    assert state_of(diverged).stage is not None
    assert "ZeroDivisionError" in state_of(broken).note
    assert "Traceback" in (broken.folder / "log.txt").read_text()
    rows = {row["model"]: row for row in leaderboard(tmp_path) if row["slot"] == "native"}
    assert rows["toy"]["status"] == "done"
    assert rows["broken"]["note"] == state_of(broken).note


def test_a_judge_below_its_floor_is_known_before_anything_is_trained(bench, tmp_path):
    layer = {"judge": {"floor": 1.0, "epochs": 1}}
    (outcome,), _ = bench(layer=layer, runs_dir=tmp_path)
    assert (outcome.state, outcome.exit_code) == ("failed", 6)
    assert "failed the test gate" in outcome.error
    assert not (outcome.folder / "metrics.json").exists()
    assert not (outcome.folder / "checkpoints").exists()


def test_a_damaged_row_is_scored_again_without_training(bench, monkeypatch):
    (first,), _ = bench(seeds=(2,))
    before = weights_of(first)
    (first.folder / "metrics.json").write_text('{"scores": ')
    assert read_cell(first.folder).state == "damaged"
    (again,), listener = bench(seeds=(2,))
    assert not again.reused
    assert numbers(again.metrics) == numbers(first.metrics)
    assert not [task for task in listener.tasks if task[0].startswith("train")]
    assert all(value.equal(weights_of(again)[key]) for key, value in before.items())


def test_a_row_of_judges_that_are_others_now_is_scored_again(bench, tmp_path):
    (first,), _ = bench(seeds=(2,), runs_dir=tmp_path)
    assert first.metrics["judge"]["not_asked"] == []
    path = first.folder / "metrics.json"
    judge = {**first.metrics["judge"], "weights": "of another machine"}
    write_json(path, {**first.metrics, "judge": judge, "scores": {}})
    (again,), listener = bench(seeds=(2,), runs_dir=tmp_path)
    assert not again.reused
    assert numbers(again.metrics) == numbers(first.metrics)
    assert not [task for task in listener.tasks if task[0].startswith("train")]
    said = "other judges scored it than lie there now, or nobody noted which: it is scored again"
    assert said in "\n".join(listener.lines)
    assert said in (first.folder / "log.txt").read_text()
    write_json(path, {**first.metrics, "judge": judge})
    last = first.folder / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-10])  # it could not be scored again
    (kept,), listener = bench(seeds=(2,), runs_dir=tmp_path)
    assert "stays as it is: The checkpoint" in "\n".join(listener.lines)
    assert kept.reused
    assert kept.metrics["judge"]["weights"] == "of another machine"


@pytest.mark.parametrize("weights", ["first", None], ids=["known", "from before they were known"])
def test_scores_that_a_row_lacks_come_from_the_judges_of_the_row(bench, tmp_path, weights):
    (first,), _ = bench(seeds=(2,), runs_dir=tmp_path)
    judge = {**first.metrics["judge"], "weights": weights}
    write_json(first.folder / "metrics.json", {**first.metrics, "judge": judge, "scores": {}})
    shutil.rmtree(tmp_path / "judges")  # as where cells were copied and judges were not
    layer = {"evaluation": {"scores": ["leakage"]}}
    (added,), _ = bench(seeds=(2,), layer=layer, runs_dir=tmp_path)
    assert added.metrics["judge"]["weights"] == first.metrics["judge"]["weights"]
    assert set(first.metrics["scores"]) < set(added.metrics["scores"])
    (again,), _ = bench(seeds=(2,), layer=layer, runs_dir=tmp_path)
    assert again.reused


def test_a_damaged_checkpoint_is_refused_and_fresh_starts_over(bench):
    (first,), _ = bench(seeds=(3,))
    (first.folder / "metrics.json").unlink()
    (first.folder / "checkpoints" / "last.safetensors").write_bytes(b"\x00" * 40)
    (refused,), _ = bench(seeds=(3,))
    assert (refused.state, refused.exit_code) == ("failed", 3)
    assert "--fresh" in refused.error
    (fresh,), listener = bench(seeds=(3,), fresh=True)
    assert numbers(fresh.metrics) == numbers(first.metrics)
    aside = fresh.folder.with_name(f".{fresh.folder.name}.old-1")
    assert (aside / "checkpoints" / "last.safetensors").read_bytes() == b"\x00" * 40
    assert any(str(aside) in line for line in listener.lines)


def test_one_cell_under_two_names_is_started_over_once(bench, tmp_path):
    bench("toy", "toy[code=6]", seeds=(6,), runs_dir=tmp_path)
    (first, second), _ = bench("toy", "toy[code=6]", seeds=(6,), runs_dir=tmp_path, fresh=True)
    assert first.folder == second.folder
    assert (first.reused, second.reused) == (False, True)
    assert len(list(first.folder.parent.glob(".*.old-*"))) == 1


def test_a_cell_that_another_process_holds(bench):
    (first,), _ = bench()
    with hold(first.folder, "the cell"):
        (refused,), _ = bench(wait=False)
    assert (refused.exit_code, refused.folder) == (1, None)
    assert "is being worked on by process" in refused.error


def test_what_a_model_cannot_do_is_empty_with_the_reason(bench):
    (outcome,), _ = bench("encode-only")
    score = outcome.metrics["scores"]["dynamic_accuracy"]
    assert "value" not in score
    assert "cannot generate" in score["reason"]
    assert outcome.metrics["scores"]["identity_code_identity_probe"]["value"] > 0
    assert outcome.pictures == ()


def test_a_collapsed_identity_code_is_said_everywhere(bench, tmp_path):
    outcomes, listener = bench("collapsed", "averaging")
    collapsed, sound = outcomes
    assert (collapsed.metrics["collapsed"], sound.metrics["collapsed"]) == (True, False)
    for said in (
        collapsed.metrics["note"],
        state_of(collapsed).note,
        (collapsed.folder / "log.txt").read_text(),
        "\n".join(listener.lines),
    ):
        assert "identity code has collapsed" in said
    assert sound.metrics["note"] is None


def test_supervision_is_declared(bench):
    layer = {"training": {"fit": {"pairs": True}}}
    told, pairs = bench("told", "toy", layer=layer)[0]
    assert told.metrics["supervision"] == "action-labels+identity-pairs"
    assert pairs.metrics["supervision"] == "identity-pairs"


def test_clips_that_are_over_before_their_window_are_counted(bench, tmp_path):
    long = bench("toy", layer={"data": {"stride": 1000}}, runs_dir=tmp_path / "a")
    usual = bench("toy", runs_dir=tmp_path / "b")
    said = ["their last frame repeats" in "\n".join(x.lines) for _, x in (long, usual)]
    assert said == [True, False]


@pytest.mark.parametrize(("pairs", "warned"), [(False, True), (True, False)])
def test_the_frames_of_a_stage_count_too_and_a_pair_shows_half_of_them(
    bench, tmp_path, pairs, warned
):
    frames = FRAMES + 2
    layer = {"training": {"fit": {"frames": frames, "pairs": pairs}}}
    _, listener = bench("toy", layer=layer, runs_dir=tmp_path)
    said = [line for line in listener.lines if "their last frame repeats" in line]
    assert len(said) == warned
    assert all(f"shorter than {frames} frames" in line for line in said)


def test_identities_that_nobody_can_be_paired_with_are_named(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(ClipSampler, "alone", 3)
    pairs = bench("toy", layer={"training": {"fit": {"pairs": True}}}, runs_dir=tmp_path / "a")
    clips = bench("toy", runs_dir=tmp_path / "b")
    warning = "identities with one training recording, so that a pair shows one action twice: 3"
    said = [warning in "\n".join(x.lines) for _, x in (pairs, clips)]
    assert said == [True, False]


def test_arguments_that_can_do_nothing_are_warned_of(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(
        ToyAutoencoder,
        "idle_arguments",
        lambda self, paired: [] if "fit" in paired else ["code=6 does nothing: it has no pairs"],
    )
    pairs = bench("toy", layer={"training": {"fit": {"pairs": True}}}, runs_dir=tmp_path / "a")
    (outcome,), listener = bench("toy", runs_dir=tmp_path / "b")
    warning = "warning: code=6 does nothing: it has no pairs"
    assert warning not in "\n".join(pairs[1].lines)
    assert warning in "\n".join(listener.lines)
    assert warning in CellFolder(outcome.folder).log_file.read_text()


def test_controls_are_scored_once_and_made_again_when_damaged(bench, shared_runs):
    bench()
    (path,) = {
        path
        for path in shared_runs.glob("judges/*/*/controls-*.json")
        if not path.parent.name.startswith(".")
    } & {path for path in shared_runs.glob("judges/*/*/controls-*.json") if _is_smoke(path)}
    rows = {row["name"]: row["scores"] for row in read_json(path)["rows"]}
    assert list(rows)[0] == "real-test"
    assert rows["copy-identity-clip"]["consistent_accuracy"]["value"] == 1.0
    others = json.dumps({**read_json(path), "judge": {"weights": "of another machine"}})
    for seed, damage in enumerate(("{", "{}", '{"rows": 3}', '{"rows": [1]}', others)):
        path.write_text(damage)
        bench(seeds=(11 + seed,))
        assert {row["name"] for row in read_json(path)["rows"]} == set(rows)


def _is_smoke(path):
    return read_json(path.parent / "card.json")["settings"]["epochs"] == 1


def test_a_finished_cell_comes_back_with_its_weights(bench, table, data_dir, shared_runs, tmp_path):
    (outcome,), listener = bench()
    record = pick_cell(table, shared_runs, cell=outcome.folder)
    model, restored = restore_cell(table, record, data_dir=data_dir, reporter=listener)
    assert not model.training
    assert all(value.equal(model.state_dict()[key.removeprefix("model/")])
               for key, value in weights_of(outcome).items())  # fmt: skip
    paths = render_media(
        table, record, data_dir=data_dir, device="cpu", out=tmp_path, reporter=listener
    )
    for path in paths:
        assert path.read_bytes() == (outcome.folder / "media" / path.name).read_bytes()


def test_clips_that_changed_since_are_refused(bench, table, data_dir, shared_runs):
    (outcome,), listener = bench()
    record = read_cell(outcome.folder)
    record.config["inputs"]["data"]["content"] = "other"
    with pytest.raises(DataError, match="other clips"):
        restore_cell(table, record, data_dir=data_dir, reporter=listener)


def test_a_model_of_another_version_is_refused(bench, table, data_dir, shared_runs):
    (outcome,), listener = bench()
    record = read_cell(outcome.folder)
    record.config["inputs"]["config"]["model"]["version"] = 2
    with pytest.raises(DataError, match="another version of its model"):
        restore_cell(table, record, data_dir=data_dir, reporter=listener)


@pytest.mark.parametrize("change", [{"seed": "x"}, {"judge": 5}, {"unknown": 1}], ids=str)
def test_a_configuration_that_does_not_read_is_refused(bench, table, data_dir, shared_runs, change):
    (outcome,), listener = bench()
    record = read_cell(outcome.folder)
    record.config["config"].update(change)
    with pytest.raises(DataError, match="damaged, or of another version: .* in it[:;] "):
        restore_cell(table, record, data_dir=data_dir, reporter=listener)


def test_a_damaged_configuration_is_written_again(bench):
    (first,), _ = bench(seeds=(3,))
    (first.folder / "config.json").write_text("{")
    (again,), _ = bench(seeds=(3,))
    assert (again.state, again.reused) == ("done", False)
    assert read_cell(again.folder).state == "done"
    assert numbers(again.metrics) == numbers(first.metrics)


def test_a_wrong_value_leaves_no_folder(bench, tmp_path):
    for value in ("six", True):
        with pytest.raises(UsageError, match="argument 'code'"):
            bench(layer={"model": {"code": value}}, runs_dir=tmp_path)
    (refused,), _ = bench(layer={"evaluation": {"clips": 1}}, runs_dir=tmp_path)
    assert (refused.exit_code, refused.folder) == (6, None)
    assert scan_cells(tmp_path) == []


def test_clips_larger_than_the_stored_frames_are_refused_before_there_is_a_folder(bench, tmp_path):
    (refused,), _ = bench(layer={"data": {"image_size": 4096}}, runs_dir=tmp_path)
    assert (refused.exit_code, refused.folder) == (2, None)
    assert "data.image_size 4096 is larger" in refused.error
    assert "--set data.image_size=" in refused.error
    assert list(tmp_path.glob("cells/*/*/*/config.json")) == []


@pytest.mark.parametrize("name", ["write_status", "log"])
def test_a_disk_that_refuses_while_a_cell_works_stops_that_cell_alone(
    bench, monkeypatch, tmp_path, name
):
    def refuse(self, *arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device", str(self.path))

    monkeypatch.setattr(CellFolder, name, refuse)
    outcomes, _ = bench(seeds=(0, 1), runs_dir=tmp_path)
    assert [(outcome.state, outcome.exit_code) for outcome in outcomes] == [("failed", 3)] * 2
    assert all("No space left" in outcome.error for outcome in outcomes)
    assert all("vdsm-bench doctor" in outcome.error for outcome in outcomes)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "w.pth"), "The disk refused: No such"),
        (URLError("no route"), "The network failed: URLError: "),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "The network failed: "),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "The network failed: "),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "The disk refused: Broken pipe"),
        (OSError("5000 requested and 0 written"), "Something could not be read or written: OSE"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_was_refused_says_where_that_came_from(bench, monkeypatch, tmp_path, error, said):
    def train(self):
        raise error

    monkeypatch.setattr(execute.Trainer, "train", train)
    (outcome,), _ = bench(runs_dir=tmp_path)
    assert (outcome.state, outcome.exit_code) == ("failed", 3)
    assert outcome.error.startswith(said)
    log = outcome.folder / "log.txt"
    assert outcome.error.splitlines()[0].endswith(f"(traceback in {log})")
    assert "in train\n    raise error\n" in log.read_text()


def of_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has ...")


@pytest.mark.parametrize(
    ("allocate", "size"),
    [
        (lambda: torch.empty(10**15), "4000000000000000 bytes"),
        (lambda: np.ones(10**15), "7.11 PiB"),
        (of_a_gpu, "20.00 MiB"),
    ],
    ids=["torch", "numpy", "gpu"],
)
def test_too_little_memory_fails_that_cell_and_names_the_batch(
    bench, monkeypatch, tmp_path, allocate, size
):
    def train(self):
        try:
            return allocate()
        except RuntimeError as error:  # as Pyro does, which adds shapes
            raise type(error)(f"Error while computing: {error}\nTrace Shapes:\n x 1 2 3") from error

    with monkeypatch.context() as patch:
        patch.setattr(execute.Trainer, "train", train)
        (outcome,), _ = bench(runs_dir=tmp_path)
    assert (outcome.state, outcome.exit_code) == ("failed", 1)
    assert outcome.error.startswith(f"There is too little memory: no room for {size} more.")
    assert "--set training.STAGE.batch_size" in outcome.error
    assert "Trace Shapes" not in outcome.error
    assert state_of(outcome).note == outcome.error.splitlines()[0]


def test_a_runs_folder_that_cannot_be_written_is_3(bench, tmp_path):
    (tmp_path / "cells").write_text("a file in its place")
    (refused,), _ = bench(runs_dir=tmp_path)
    assert (refused.state, refused.exit_code) == ("failed", 3)


def test_an_evaluator_of_another_package_that_does_not_load_is_left_out(
    bench, table, monkeypatch, tmp_path
):
    point = EntryPoint("far", "nowhere.far:Far", "vdsm_bench.evaluators")
    entry = Entry("evaluators", "far", "", loader=partial(_load_entry_point, point))
    monkeypatch.setitem(table._entries, ("evaluators", "far"), entry)
    (outcome,), listener = bench(runs_dir=tmp_path)
    assert outcome.state == "done"
    assert any("evaluators/far is left out" in line for line in listener.lines)


def test_where_a_cell_was_trained_is_kept_when_it_is_scored_elsewhere(bench, tmp_path):
    (first,), _ = bench(runs_dir=tmp_path)
    write_json(first.folder / "env.json", {"machine": "another"})
    (first.folder / "metrics.json").unlink()
    bench(runs_dir=tmp_path)
    assert read_json(first.folder / "env.json") == {"machine": "another"}


def test_a_call_holds_the_clips_of_two_settings_at_most(table, data_dir, tmp_path, listener):
    context = execute.RunContext(table, tmp_path, data_dir, "cpu", False, True, listener)
    desk = execute.Desk(context, "cpu")
    for frames in (1, 2, 3, 1):
        layer = {"data": {"frames": frames}}
        config = resolve(table, model="toy", dataset="toy-squares", preset="smoke", layers=[layer])
        assert desk.bench(config).data.frames == frames
        assert desk.bench(config) is desk.bench(config)
        assert len(desk._benches) <= 2


def test_a_cell_that_is_done_stays_so_when_the_telling_is_interrupted(bench, monkeypatch, tmp_path):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(execute, "_done", stop)
    with pytest.raises(KeyboardInterrupt):
        bench(runs_dir=tmp_path)
    monkeypatch.undo()
    (record,) = scan_cells(tmp_path)
    assert record.state == "done"
    (again,), _ = bench(runs_dir=tmp_path)
    assert again.reused


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("x")])
def test_scores_per_pair_that_are_lost_are_made_again(bench, tmp_path, damage):
    (first,), _ = bench(runs_dir=tmp_path)
    path = first.folder / "pairs.csv"
    text = path.read_text()
    damage(path)
    (again,), listener = bench(runs_dir=tmp_path)
    assert not again.reused
    assert path.read_text() == text
    assert numbers(again.metrics) == numbers(first.metrics)
    assert not [task for task in listener.tasks if task[0].startswith("train")]
    assert "pairs.csv" in "\n".join(line for line in listener.lines if "scored again" in line)
