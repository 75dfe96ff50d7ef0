import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import write_toy
from vdsm_bench.boards.preview import preview_clips, rows_of, write_preview
from vdsm_bench.data.check import combination_names


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("preview") / "toy", takes=1)


def test_cells_are_the_middle_of_the_first_clip_of_identity_and_action(toy):
    grid = preview_clips(toy, toy.identities, np.array([5, 2]), np.array([0, 3]), frames=3)
    assert grid.shape == (2, 2, 3, 8, 8, 3)
    clip = np.flatnonzero((toy.identities == 2) & (toy.motions == 3))[0]
    start = (toy.lengths[clip] - 3) // 2
    assert (grid[1, 1] == toy.frames(clip)[start : start + 3]).all()


def test_a_cell_without_a_clip_stays_grey_and_a_short_clip_holds_still(toy):
    people = np.where(toy.motions == 1, 99, toy.identities)
    grid = preview_clips(toy, people, np.array([0]), np.array([0, 1]), frames=50)
    assert grid.shape[2] == 9  # the longest clip
    assert (grid[0, 1] == 235).all()
    assert toy.lengths[0] == 5
    assert (grid[0, 0, 4:] == toy.frames(0)[4]).all()


def test_the_files_are_a_png_and_a_moving_gif_with_a_margin_for_names(toy, tmp_path):
    files = write_preview(toy, tmp_path / "new" / "sheet.png", identities=2, actions=3, frames=4)
    assert [path.name for path in files] == ["sheet.png", "sheet.gif"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["sheet.gif", "sheet.png"]
    with Image.open(files[0]) as picture:
        wide, high = picture.size
        pixels = np.asarray(picture)
    assert (high - 14, (wide - 3 * 98) > 30) == (2 * 98, True)  # cells of 96, gaps of 2
    assert (pixels[:14] < 100).any(), "nothing is written above the columns"
    assert (pixels[14:, : wide - 3 * 98] < 100).any(), "nothing is written beside the rows"
    with Image.open(files[1]) as picture:
        assert (picture.n_frames, picture.size) == (4, (wide, high))


def test_rows_and_columns_are_called_by_their_labels(toy):
    assert combination_names(toy, "static")[:3] == ["red round", "red square", "green round"]
    assert combination_names(toy, "dynamic") == ["walk", "run", "jump", "sit"]


def test_identities_with_few_actions_are_shown_by_their_fullest_factor(toy, monkeypatch):
    people, names = rows_of(toy)
    assert (people == toy.identities).all()
    assert names == combination_names(toy, "static")
    monkeypatch.setattr(toy, "identities", np.arange(len(toy)))  # every clip someone else
    people, names = rows_of(toy)
    assert (people == toy.labels["colour"]).all()
    assert names == list(next(f for f in toy.factors if f.name == "colour").classes)
