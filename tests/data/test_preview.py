import numpy as np
from PIL import Image

from vdsm_bench.data.preview import contact_sheet, write_preview


def test_rows_are_identities_and_columns_actions(toy):
    sheet = contact_sheet(toy, identities=6)
    assert sheet.shape == (6 * 10, 4 * 10, 3)
    for who in range(6):
        for what in range(4):
            clip = np.flatnonzero((toy.identities == who) & (toy.motions == what))[0]
            middle = toy.frames(clip)[toy.lengths[clip] // 2]
            assert (sheet[10 * who : 10 * who + 8, 10 * what : 10 * what + 8] == middle).all()


def test_several_frames_and_zoom(toy):
    assert contact_sheet(toy, identities=2, frames=3, zoom=2).shape == (2 * 20, 4 * 52, 3)


def test_the_file_is_a_png_of_the_sheet(toy, tmp_path):
    write_preview(toy, tmp_path / "new" / "sheet.png", identities=3)
    with Image.open(tmp_path / "new" / "sheet.png") as image:
        assert image.format == "PNG"
        assert (np.asarray(image) == contact_sheet(toy, identities=3)).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]
