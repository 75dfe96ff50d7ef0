import numpy as np
import pytest
from PIL import Image

from vdsm_bench.boards.figures import draw_grid, to_bytes, write_strips, write_transfer
from vdsm_bench.errors import ContractError


def clips(count, frames=3, side=8):
    """Clips of one colour each, which darken over time."""
    colours = np.linspace(60, 250, count)[:, None, None, None, None]
    fade = np.linspace(1, 0.5, frames)[None, :, None, None, None]
    return np.broadcast_to(colours * fade, (count, frames, side, side, 3)).astype(np.uint8)


def test_identities_across_motions_down_and_real_clips_at_the_edges(tmp_path):
    identities, motions = clips(3), clips(2)[:, :, :, :, ::-1] // 2
    swaps = np.zeros((2, 3, 3, 8, 8, 3), np.uint8)
    swaps[1, 2] = [10, 200, 30]
    png, gif = write_transfer(tmp_path, "swap", identities=identities, motions=motions, swaps=swaps)
    with Image.open(png) as picture:
        sheet = np.asarray(picture.convert("RGB"))
    height, width = sheet.shape[:2]
    step = 96 + 2  # 8 px enlarged to 96, and the gap
    corner = sheet[-2 - 96 :, -2 - 96 :][40:50, 40:50]
    assert (corner == [10, 200, 30]).all()
    above = sheet[height - 3 * step : height - 2 * step, -2 - 96 :][40:50, 40:50]
    assert (above == identities[2, 1, 0, 0]).all()
    left = sheet[-2 - 96 :, width - 4 * step : width - 3 * step][40:50, 40:50]
    assert (left == motions[1, 1, 0, 0]).all()
    with Image.open(gif) as film:
        assert film.n_frames == 3
        assert film.info["loop"] == 0
        assert film.size == (width, height)


def test_pictures_are_enlarged_by_a_whole_factor():
    checker = np.indices((1, 1, 32, 32, 1)).sum(0) % 2 * 255
    cells = np.repeat(checker.astype(np.uint8), 3, -1)
    sheet = np.asarray(draw_grid(cells, ["a"], ["b"]))[-98:-2, -98:-2]
    assert (sheet[::3, ::3] == cells[0, 0]).all()
    assert (sheet[2::3, 1::3] == cells[0, 0]).all()


def test_grey_clips_become_rgb_and_values_are_rounded():
    frames = to_bytes(np.array([0.0, 0.5, 1.0, 1.2]).reshape(1, 4, 1, 1, 1))
    assert frames.shape == (1, 4, 1, 1, 3)
    assert frames[0, :, 0, 0, 0].tolist() == [0, 128, 255, 255]


def test_shapes_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ContractError, match="swaps"):
        write_transfer(
            tmp_path, "x", identities=clips(3), motions=clips(2), swaps=np.zeros((3, 2, 3, 8, 8, 3))
        )
    with pytest.raises(ContractError, match="reconstructions"):
        write_strips(tmp_path / "x.png", real=clips(2), regenerated=clips(3))
    assert list(tmp_path.iterdir()) == []
