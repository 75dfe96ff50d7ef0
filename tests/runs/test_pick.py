"""One cell among many, by the words of its command."""

import pytest

from tests.runs.cells import TABLE, make_cell
from vdsm_bench.errors import UsageError
from vdsm_bench.files import read_json, write_json
from vdsm_bench.runs.pick import pick_cell


@pytest.fixture
def cells(tmp_path):
    """A cell as the preset has it, and one that departs from it."""
    return make_cell(tmp_path), make_cell(tmp_path, model="toy[decoder=single,pose_dim=9]")


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("toy", 0),
        ("toy[pose_dim=30]", 0),
        ("toy[encoder=conv, decoder=mixture]", 0),
        (" toy[pose_dim=3e1]", 0),
        ("toy[decoder=single,pose_dim=9]", 1),
        ("toy[pose_dim=9, decoder=single]", 1),
        ("toy[motion_dim=50,pose_dim=9,decoder=single]", 1),
    ],
)
def test_a_model_is_meant_however_it_is_written(tmp_path, cells, words, number):
    assert pick_cell(TABLE, tmp_path, model=words).path == cells[number].path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("tyo", "did you mean 'toy'"),
        ("toy[pose_dmi=9]", "did you mean 'pose_dim'"),
        ("toy[decoder=sinlge]", "did you mean 'single'"),
        ("toy[pose_dim=8]", "No cell fits .*pose_dim=8"),
    ],
)
def test_what_no_cell_is_of_is_refused_with_what_may_be_meant(tmp_path, cells, words, said):
    with pytest.raises(UsageError, match=said):
        pick_cell(TABLE, tmp_path, model=words)


def test_a_model_that_left_the_catalogue_is_found_by_its_text(tmp_path, cells):
    content = read_json(cells[1].config_file)
    write_json(cells[1].config_file, {**content, "instance": "gone[a=1]"})
    assert pick_cell(TABLE, tmp_path, model="gone[a=1]").path == cells[1].path


@pytest.mark.parametrize("name", ["theirs [v2", "toy"])
def test_a_row_from_a_file_is_found_by_its_name_alone(tmp_path, name):
    folder = make_cell(tmp_path)
    content = read_json(folder.config_file)
    write_json(folder.config_file, {**content, "instance": name, "slot": "external"})
    with pytest.raises(UsageError, match="scored from a file"):
        pick_cell(TABLE, tmp_path, model=name)
    with pytest.raises(UsageError, match="No cell fits"):
        pick_cell(TABLE, tmp_path, model="toy[pose_dim=30]")
