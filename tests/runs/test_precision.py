"""Which precision a cell gets: measured once, written down, never changed under a cell's feet."""

import shutil
from functools import partial

import pytest
import torch

from vdsm_bench.boards.leaderboard import leaderboard
from vdsm_bench.cli.status_command import row_of
from vdsm_bench.files import read_json, write_json
from vdsm_bench.runs import precision
from vdsm_bench.runs.cell import KnownCells, plan_cells
from vdsm_bench.runs.folder import read_cell
from vdsm_bench.runs.plan import describe_plan
from vdsm_bench.training import measure
from vdsm_bench.training.measure import Timing


@pytest.fixture
def bench(bench):
    return partial(bench, precision="auto")


@pytest.fixture
def clock(monkeypatch):
    """Makes bfloat16 the asked-for times faster; counts the measurements."""

    class Clock:
        gain, low, count = 2.0, 1.0, 0

    def timed(model, settings, shape, *, device):
        Clock.count += 1
        return Timing("fit", {"32": Clock.gain, "bf16": Clock.low})

    monkeypatch.setattr(measure, "time_precisions", timed)
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    return Clock


def used(outcome):
    return outcome.metrics["precision"]


def cells_of(table):
    return plan_cells(table, models=["toy"], datasets=["toy-squares"], seeds=[0], preset="smoke")


def plan_of(table, runs_dir, asked):
    (item,) = describe_plan(table, cells_of(table), runs_dir, precision=asked, fresh=False)
    return item["action"], item["precision"]


@pytest.mark.parametrize(("gain", "chosen"), [(1.36, "bf16"), (1.34, "32"), (0.0, "32")])
def test_auto_takes_bf16_where_it_is_clearly_faster(bench, clock, tmp_path, gain, chosen):
    clock.gain = gain
    (outcome,), listener = bench(runs_dir=tmp_path)
    assert used(outcome) == chosen
    written = read_json(outcome.folder / "config.json")["precision"]
    assert (written["asked"], written["used"]) == ("auto", chosen)
    assert "measured" in written["reason"]
    assert any(f"precision {chosen} (measured" in line for line in listener.lines)


def test_what_was_measured_is_kept_for_all_cells_of_these_sizes(bench, clock, tmp_path, table):
    (first,), _ = bench(runs_dir=tmp_path)
    clock.gain = 1.0  # another measurement would choose otherwise
    (seed,), _ = bench(runs_dir=tmp_path, seeds=(1,))
    (again,), _ = bench(runs_dir=tmp_path, fresh=True)
    assert [used(each) for each in (first, seed, again)] == ["bf16"] * 3
    assert first.metrics["group"] == seed.metrics["group"]
    assert clock.count == 1
    (wider,), _ = bench("toy[code=9]", runs_dir=tmp_path)
    assert (used(wider), clock.count) == ("32", 2)
    (kept,) = {path for path in (tmp_path / "precision").glob("*.json")
               if read_json(path)["precision"] == "bf16"}  # fmt: skip
    kept.write_text("{")
    (third,), _ = bench(runs_dir=tmp_path, seeds=(2,))
    assert (used(third), clock.count) == ("32", 3)  # damaged: measured anew


def test_a_cell_that_exists_is_neither_measured_nor_changed(bench, clock, tmp_path, table):
    assert plan_of(table, tmp_path, "auto") == ("new", "auto")
    (first,), _ = bench(runs_dir=tmp_path)
    shutil.rmtree(tmp_path / "precision")
    (again,), _ = bench(runs_dir=tmp_path)
    assert (again.reused, used(again)) == (True, "bf16")
    (first.folder / "metrics.json").unlink()
    (resumed,), _ = bench(runs_dir=tmp_path)
    assert (resumed.folder, used(resumed)) == (first.folder, "bf16")
    assert clock.count == 1
    assert plan_of(table, tmp_path, "auto") == ("reuse", "bf16")
    assert plan_of(table, tmp_path, "32") == ("new", "32")


def test_a_cell_from_before_there_was_a_choice_is_reused(bench, clock, tmp_path):
    (first,), _ = bench(runs_dir=tmp_path, precision="32")
    content = read_json(first.folder / "config.json")
    del content["precision"], content["config"]["precision"]
    write_json(first.folder / "config.json", content)
    row = {key: value for key, value in first.metrics.items() if key != "precision"}
    write_json(first.folder / "metrics.json", row)
    (again,), _ = bench(runs_dir=tmp_path)
    assert (again.reused, again.folder, clock.count) == (True, first.folder, 0)
    (row,) = (row for row in leaderboard(tmp_path) if row["slot"] == "native")
    assert (row["precision"], row["preset"]) == ("32", "smoke")


def test_what_was_asked_for_by_hand_does_not_decide_for_auto(bench, clock, tmp_path, table):
    (plain,), _ = bench(runs_dir=tmp_path, precision="32")
    assert plan_of(table, tmp_path, "auto") == ("new, but reuse if auto chooses 32", "auto")
    assert plan_of(table, tmp_path, "bf16") == ("new", "bf16")
    (auto,), _ = bench(runs_dir=tmp_path)
    assert plan_of(table, tmp_path, "auto") == ("reuse", "bf16")
    assert [used(plain), used(auto)] == ["32", "bf16"]
    assert plain.metrics["group"] != auto.metrics["group"]
    assert plain.metrics["scores"] != auto.metrics["scores"]
    rows = {row["precision"]: row for row in leaderboard(tmp_path) if row["slot"] == "native"}
    assert rows["32"]["preset"] == "smoke"
    assert rows["bf16"]["preset"] == "smoke[precision=bf16]"
    (cell,) = cells_of(table)
    known = KnownCells(table, tmp_path)
    shown = [known.find(cell.config, asked).path for asked in ("auto", "bf16", "32")]
    assert shown == [auto.folder, auto.folder, plain.folder]
    assert known.seeds(cell.config)[0].path == auto.folder  # auto's own is shown in a suite's table
    assert row_of(read_cell(auto.folder))["precision"] == "bf16"
    assert row_of(read_cell(plain.folder))["precision"] == "32"


def test_a_cell_that_auto_began_stays_its_own_when_another_command_ends_it(
    bench, clock, monkeypatch, tmp_path
):
    (first,), _ = bench(runs_dir=tmp_path)
    (first.folder / "metrics.json").unlink()
    (ended,), _ = bench(runs_dir=tmp_path, precision="bf16")
    assert ended.folder == first.folder
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)  # on another machine
    (again,), _ = bench(runs_dir=tmp_path)
    assert (again.reused, again.folder) == (True, first.folder)


def test_a_chip_without_bf16_is_not_measured_and_is_warned_of(bench, clock, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    (auto,), _ = bench(runs_dir=tmp_path)
    (asked,), listener = bench(runs_dir=tmp_path, precision="bf16")
    assert [used(auto), used(asked), clock.count] == ["32", "bf16", 0]
    assert any("no bf16 instructions: it is slow" in line for line in listener.lines)


def test_a_lack_of_memory_while_measuring_decides_nothing(bench, clock, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:

        def timed(*arguments, **named):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

        patch.setattr(measure, "time_precisions", timed)
        (outcome,), _ = bench(runs_dir=tmp_path)
    assert (outcome.state, outcome.exit_code) == ("failed", 1)
    assert "too little memory to measure which precision is faster" in outcome.error
    assert "--precision 32" in outcome.error
    assert not list((tmp_path / "precision").glob("*.json"))
    (again,), _ = bench(runs_dir=tmp_path)
    assert used(again) == "bf16"


def test_a_model_that_bf16_breaks_is_trained_in_float32(bench, clock, tmp_path):
    clock.low = float("inf")
    (outcome,), _ = bench(runs_dir=tmp_path)
    assert used(outcome) == "32"
    reason = read_json(outcome.folder / "config.json")["precision"]["reason"]
    assert reason == "stage 'fit' cannot be computed in bf16"
