import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.runs.cells import make_cell
from vdsm_bench.boards.leaderboard import COLUMNS, leaderboard, to_csv
from vdsm_bench.boards.table import render
from vdsm_bench.files import read_json, write_json

GOLDEN = Path(__file__).with_name("leaderboard_header.csv")


def test_csv_header_is_the_golden_one():
    assert to_csv([]) == GOLDEN.read_text()


def test_seeds_become_mean_and_spread(tmp_path):
    for seed in (0, 1, 2):
        make_cell(tmp_path, seed=seed)
    (row,) = leaderboard(tmp_path)
    assert (row["seeds"], row["n_seeds"]) == ("0 1 2", 3)
    assert row["dynamic_accuracy"] == pytest.approx(0.92)
    assert row["dynamic_accuracy_spread"] == pytest.approx(0.02)
    assert row["consistent_accuracy_low"] == pytest.approx(0.7)
    assert row["training_minutes"] == 1.5
    assert row["identity_by_factor"] == "hair 0.600"


def test_an_absent_score_is_empty_with_its_reason(tmp_path):
    make_cell(tmp_path)
    (row,) = leaderboard(tmp_path)
    assert row["transfer_accuracy"] is None
    assert "transfer_accuracy: the model cannot generate" in row["note"]
    assert row["dynamic_accuracy_spread"] is None
    fields = to_csv([row]).splitlines()[1].split(",")
    assert fields[COLUMNS.index("transfer_accuracy")] == ""


def test_a_score_that_only_some_seeds_have_says_of_which(tmp_path):
    cells = [make_cell(tmp_path, seed=seed) for seed in (0, 1, 2)]
    content = read_json(cells[1].metrics_file)
    content["scores"]["fvd_judge_regenerated"] = {"value": 5.0, "low": 4.0, "high": 6.0}
    write_json(cells[1].metrics_file, content)
    (row,) = leaderboard(tmp_path)
    assert (row["fvd_judge_regenerated"], row["n_seeds"]) == (5.0, 3)
    assert "fvd_judge_regenerated: of seed 1 alone" in row["note"]
    assert "dynamic_accuracy: of seed" not in row["note"]


def test_other_settings_under_the_same_preset_are_another_row(tmp_path):
    make_cell(tmp_path)
    make_cell(tmp_path, layers=[{"training": {"sequence": {"epochs": 1}}}])
    rows = leaderboard(tmp_path)
    assert [row["n_seeds"] for row in rows] == [1, 1]
    assert {row["preset"] for row in rows} == {"small", "small[training.sequence.epochs=1]"}
    console = Console(width=100, file=io.StringIO())
    console.print(render(rows))
    text = console.file.getvalue()
    assert "small ×1" in text
    assert "small (1) ×1" in text
    assert "(1) beside the preset: training.sequence.epochs=1" in text


def test_failed_and_damaged_cells_are_listed_with_their_reason(tmp_path):
    make_cell(tmp_path, seed=0)
    make_cell(tmp_path, seed=1).write_status("failed", note="the loss is nan")
    damaged = make_cell(tmp_path, seed=2)
    damaged.metrics_file.write_text("{")
    rows = {row["seeds"]: row for row in leaderboard(tmp_path)}
    assert rows["0"]["status"] == "done"
    assert (rows["1"]["status"], rows["1"]["note"]) == ("failed", "the loss is nan")
    assert rows["1"]["dynamic_accuracy"] is None
    assert rows["2"]["status"] == "damaged"
    assert "metrics.json" in rows["2"]["note"]


def controls(tmp_path):
    return tmp_path / "judges" / "faces" / "clips-feedbeef" / "controls-0.json"


def test_controls_stand_beside_the_cells_of_their_protocol(tmp_path):
    make_cell(tmp_path)
    row = {
        "name": "copy-identity-clip",
        "expected": "identity 1",
        "scores": {"identity_accuracy": {"value": 1.0, "low": 1.0, "high": 1.0, "n": 9}},
    }
    content = {
        "dataset": "faces",
        "image_size": 64,
        "frames": 8,
        "split": "clips",
        "judge": {"lowest_accuracy": 0.97},
        "protocol": {"judge": "feedbeef"},
        "key": "0",
        "chance": {"identity_accuracy": {"majority": 0.25}},
        "rows": [row],
    }
    write_json(controls(tmp_path), content)
    native, control, chance = leaderboard(tmp_path)
    assert (native["slot"], control["slot"]) == ("native", "control")
    assert native["protocol"] == control["protocol"]
    assert control["identity_accuracy"] == 1.0
    assert (chance["model"], chance["identity_accuracy"]) == ("chance-majority", 0.25)
    assert chance["identity_accuracy_low"] is None


def test_damaged_controls_do_not_hide_the_cells(tmp_path):
    make_cell(tmp_path)
    for content in ({}, {"rows": 3}, {"rows": [], "chance": {}}):
        write_json(controls(tmp_path), content)
        rows = leaderboard(tmp_path)
        assert [row["status"] for row in rows] == ["done", "damaged"]


def test_table_fits_a_terminal_and_shows_what_matters(tmp_path):
    make_cell(tmp_path, collapsed=True, note="the identity code has collapsed")
    make_cell(tmp_path, seed=1).write_status("diverged", note="loss is nan")
    console = Console(width=100, file=io.StringIO())
    console.print(render(leaderboard(tmp_path)))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    for wanted in ("0.900", "collapsed", "diverged", "loss is nan", "64 px", "–"):
        assert wanted in text


def test_an_instance_keeps_its_brackets_in_the_table(tmp_path):
    make_cell(tmp_path, model="toy[decoder=single]")
    console = Console(width=100, file=io.StringIO())
    console.print(render(leaderboard(tmp_path)))
    assert "[decoder=single]" in console.file.getvalue()


def test_seeds_that_judges_trained_apart_have_scored_are_no_one_row(tmp_path):
    for seed, weights in enumerate(("first", "second", "first")):
        make_cell(tmp_path, seed=seed, judge={"lowest_accuracy": 0.97, "weights": weights})
    one, other = sorted(leaderboard(tmp_path), key=lambda row: row["n_seeds"])
    assert (one["seeds"], other["seeds"]) == ("1", "0 2")
    assert one["note"].endswith("judges second; rows of other judges stand beside it")
    assert other["note"].endswith("judges first; rows of other judges stand beside it")


def test_models_that_judges_trained_apart_have_scored_are_told_apart_and_stay_in_blocks(tmp_path):
    lowest = {"a": 0.95, "b": 0.97, None: 0.95}
    for n, (model, weights) in enumerate(
        [("toy", "a"), ("toy[pose_dim=9]", "b"), ("toy[pose_dim=8]", None)]
    ):
        judge = {"lowest_accuracy": lowest[weights], "weights": weights}
        score = {"value": 0.5 + 0.1 * n, "low": 0.0, "high": 1.0, "n": 9}
        make_cell(tmp_path, model=model, judge=judge, scores={"transfer_accuracy": score})
    rows = leaderboard(tmp_path)
    assert [row["judge_accuracy"] for row in rows] == [0.95, 0.95, 0.97]
    assert "which judges scored it is not recorded" in rows[0]["note"]
    assert all("rows of other judges" in row["note"] for row in rows)
