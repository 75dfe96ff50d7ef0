import json
import os
import shutil

import pytest

from tests.runs.cells import TABLE, make_cell
from vdsm_bench.boards.leaderboard import leaderboard
from vdsm_bench.config import resolve
from vdsm_bench.errors import DataError
from vdsm_bench.files import read_json, write_json
from vdsm_bench.runs.cell import KnownCells
from vdsm_bench.runs.folder import CellFolder, read_cell, scan_cells


def test_status_says_who_wrote_it(tmp_path):
    folder = CellFolder(tmp_path)
    folder.write_status("training", stage="sequence", epoch=3)
    status = folder.read_status()
    assert (status.state, status.stage, status.epoch) == ("training", "sequence", 3)
    assert status.pid == os.getpid()
    assert status.shown() == "training"


def test_a_dead_process_leaves_its_cell_killed(tmp_path):
    folder = make_cell(tmp_path)
    folder.write_status("training", stage="pretrain", epoch=1)
    content = read_json(folder.path / "status.json")
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    write_json(folder.path / "status.json", {**content, "pid": child})
    assert read_cell(folder.path).state == "killed"


@pytest.mark.parametrize("name", ["status.json", "config.json", "metrics.json"])
@pytest.mark.parametrize("damage", [b"{", b"\x00", b"{}", b'{"config": 5, "time": null}', None])
def test_one_damaged_cell_is_reported_and_the_others_read(tmp_path, name, damage):
    bad, good = make_cell(tmp_path, seed=0), make_cell(tmp_path, seed=1)
    if damage is None:
        (bad.path / name).unlink()
    else:
        (bad.path / name).write_bytes(damage)
    states = {record.path: record for record in scan_cells(tmp_path)}
    assert states[bad.path].state == "damaged"
    assert name in states[bad.path].problem
    assert (states[bad.path].config is None) == (name == "config.json")
    assert states[good.path].state == "done"


@pytest.mark.parametrize("pid", [-1, 0, 2**40, "12", None])
def test_a_pid_that_cannot_be_is_damage(tmp_path, pid):
    folder = make_cell(tmp_path)
    write_json(folder.path / "status.json", {**read_json(folder.path / "status.json"), "pid": pid})
    with pytest.raises(DataError, match="process id"):
        folder.read_status()


def test_a_time_that_cannot_be_is_damage(tmp_path):
    folder = make_cell(tmp_path)
    write_json(folder.path / "status.json", {**read_json(folder.path / "status.json"), "time": 5})
    assert scan_cells(tmp_path)[0].state == "damaged"


def test_hidden_folders_are_no_cells(tmp_path):
    folder = make_cell(tmp_path)
    folder.path.rename(folder.path.with_name("." + folder.path.name + ".old-1"))
    assert scan_cells(tmp_path) == []


@pytest.mark.parametrize(
    "field",
    [
        {"schema": 99},
        {"judge": 3},
        {"judge": {"lowest_accuracy": "high"}},
        {"protocol": {"judge": []}},
        {"protocol": {"metrics": 3}},
        {"citation": ["A. Body"]},
        {"scores": {"mse": {"value": "x"}}},
        {"scores": {"mse": {"reason": []}}},
        {"long": 3},
        {"long": [{"metric": "identity_accuracy", "value": 0.5}]},
    ],
)
def test_a_row_with_fields_of_the_wrong_kind_is_damaged(tmp_path, field):
    folder, other = make_cell(tmp_path, **field), make_cell(tmp_path, seed=1)
    assert read_cell(folder.path).state == "damaged"
    assert read_cell(other.path).state == "done"
    assert [row["status"] for row in leaderboard(tmp_path)] == ["done", "damaged"]


@pytest.mark.parametrize("field", ["collapsed", "training_seconds"])
def test_a_row_without_a_field_is_damaged_also_where_the_field_may_be_null(tmp_path, field):
    folder = make_cell(tmp_path)
    make_cell(tmp_path, seed=1)
    row = json.loads(folder.metrics_file.read_text())
    del row[field]
    folder.metrics_file.write_text(json.dumps(row))
    assert [row["status"] for row in leaderboard(tmp_path)] == ["done", "damaged"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_damages_its_row_alone(tmp_path, value):
    folder, _ = make_cell(tmp_path), make_cell(tmp_path, seed=1)
    row = read_json(folder.metrics_file)
    row["scores"]["dynamic_accuracy"]["value"] = value
    folder.metrics_file.write_text(json.dumps(row))
    done, damaged = leaderboard(tmp_path)
    assert (done["seeds"], damaged["status"]) == ("1", "damaged")
    assert "metrics.json" in damaged["note"]


@pytest.mark.parametrize(
    "damage",
    [
        {"config": {"evaluation": 5}},
        {"config": {"data": 5}},
        {"inputs": {"config": {"seed": "x"}}},
        {"inputs": {"config": 5}},
        {"inputs": None},
    ],
    ids=str,
)
def test_a_section_of_the_wrong_kind_damages_its_cell_alone(tmp_path, damage):
    folder, other = make_cell(tmp_path), make_cell(tmp_path, seed=1)
    folder.write_status("training", stage="pretrain", epoch=1)
    content = read_json(folder.config_file)
    (section, parts), *_ = damage.items()
    write_json(folder.config_file, {**content, section: parts and {**content[section], **parts}})
    assert [row["status"] for row in leaderboard(tmp_path)] == ["done", "damaged"]
    config = resolve(TABLE, model="toy", dataset="faces")
    assert [each.path for each in KnownCells(TABLE, tmp_path).seeds(config).values()] == [
        other.path
    ]


@pytest.mark.parametrize("whole_model", [False, True])
def test_a_copied_folder_is_reported_and_counts_as_no_seed(tmp_path, whole_model):
    folder = make_cell(tmp_path).path
    original = folder.parent if whole_model else folder
    shutil.copytree(original, original.with_name(f"{original.name}.bak"))
    done, copy = leaderboard(tmp_path)
    assert (done["seeds"], done["n_seeds"], done["dynamic_accuracy_spread"]) == ("0", 1, None)
    assert copy["status"] == "damaged"
    assert ".bak" in copy["note"]
    assert "copy" in copy["note"]
    config = resolve(TABLE, model="toy", dataset="faces")
    assert KnownCells(TABLE, tmp_path).find(config, "32").path == folder


def test_a_renamed_cell_is_damaged_also_where_the_original_is_gone(tmp_path):
    folder = make_cell(tmp_path).path
    folder.rename(folder.with_name(f"{folder.name}.bak"))
    (row,) = leaderboard(tmp_path)
    assert row["status"] == "damaged"
    assert "was renamed" in row["note"]


def test_a_log_takes_names_that_are_no_text(tmp_path):
    folder = CellFolder(tmp_path)
    folder.log(f"scored from {os.fsdecode(b'caf' + bytes([0xE9]))}.npz")
    assert r"caf\udce9.npz" in folder.log_file.read_text()
