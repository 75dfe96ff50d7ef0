"""Clips read from single files and folders: their order and times, and what is odd about them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdsm_bench.data import clip_files
from vdsm_bench.data.clip_files import Strip, frames_of

from .home_videos import pictures


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("deep.png", lambda path: Image.new("I;16", (8, 8)).save(path), "8 bits per channel"),
        ("hollow", Path.mkdir, "is an empty folder"),
        ("two.npz", lambda path: np.savez(path, a=np.zeros((2, 8, 8)), b=np.zeros(1)),
         "one clip is one array"),
        ("nan.npz", lambda path: np.savez(path, np.full((2, 8, 8), np.nan)), "0 to 255 are read"),
        ("flat.npz", lambda path: np.savez(path, np.zeros(8)), "a clip is"),
        ("text.npz", lambda path: np.savez(path, np.full((2, 8, 8), "a")), "are no pixels"),
        ("noise.npy", lambda path: path.write_bytes(b"x"), "does not read as an array"),
    ],
)  # fmt: skip
def test_what_is_odd_about_a_file_is_said(tmp_path, name, make, says):
    make(tmp_path / name)
    with pytest.raises(clip_files.OddFileError, match=says) as odd:
        list(frames_of(tmp_path / name, Strip()))
    assert "pickle" not in str(odd.value)


def test_a_folder_is_read_in_natural_order_and_upright(tmp_path):
    (tmp_path / "order").mkdir()
    (tmp_path / "turned").mkdir()
    for number in (1, 2, 10):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "order" / f"{number}.png")
    reds = [frame.picture.getpixel((0, 0))[0] for frame in frames_of(tmp_path / "order", Strip())]
    assert reds == [1, 2, 10]
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    Image.new("RGB", (16, 8)).save(tmp_path / "turned" / "0.png", exif=exif)
    assert next(iter(frames_of(tmp_path / "turned", Strip()))).picture.size == (8, 16)


def test_a_gif_without_delays_is_as_long_as_viewers_show_it(tmp_path):
    first, *rest = [Image.fromarray(frame) for frame in pictures("anna", "run", frames=10)]
    first.save(tmp_path / "0.gif", save_all=True, append_images=rest, duration=0)
    times = [frame.time for frame in frames_of(tmp_path / "0.gif", Strip())]
    assert times == pytest.approx(np.arange(10) / 10)
