import os

import pytest

from tests.runs.cells import make_cell
from vdsm_bench.errors import DataError
from vdsm_bench.files import read_json, write_json
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
        {"judge": 3},
        {"scores": {"mse": {"value": "x"}}},
        {"long": 3},
        {"long": [{"metric": "identity_accuracy", "value": 0.5}]},
    ],
)
def test_a_row_with_fields_of_the_wrong_kind_is_damaged(tmp_path, field):
    folder = make_cell(tmp_path, **field)
    assert read_cell(folder.path).state == "damaged"
