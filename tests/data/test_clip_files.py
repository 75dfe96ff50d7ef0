"""Clips read from single files and folders: their order and times, and what is odd about them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdsm_bench.data import clip_files
from vdsm_bench.data.clip_files import Strip, frames_of
from vdsm_bench.data.cutting import Cut

from .home_videos import pictures, write_clip, write_video


def animation(path):
    first, *rest = [Image.fromarray(frame) for frame in pictures("anna", "run")]
    first.save(path, save_all=True, append_images=rest, duration=40)


def folder_with(name, save):
    def make(path):
        path.mkdir()
        save(path / name)

    return make


def broken_header(path):
    np.save(path, np.zeros((2, 8, 8)))
    path.write_bytes(path.read_bytes().replace(b"}", b"(", 1))


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("deep.png", lambda path: Image.new("I;16", (8, 8)).save(path), "8 bits per channel"),
        ("hollow", Path.mkdir, "is an empty folder"),
        ("two.npz", lambda path: np.savez(path, a=np.zeros((2, 8, 8)), b=np.zeros(1)),
         "one clip is one array"),
        ("nan.npz", lambda path: np.savez(path, np.full((2, 8, 8), np.nan)), "0 to 255 are read"),
        ("mask.npy", lambda path: np.save(path, np.eye(8, dtype=np.uint8)[None].repeat(4, 0)),
         "holds whole numbers from 0 to 1"),
        ("over.npz", lambda path: np.savez(path, np.full((2, 8, 8), 1.01)),
         "neither 0 to 1 nor 0 to 255"),
        ("one.npy", lambda path: np.save(path, np.full((8, 8, 3), 9)), "which is one picture"),
        ("moving.webp", animation, "is an animation of 8 frames"),
        ("moving.png", animation, "is an animation of 8 frames"),
        ("frames", folder_with("0.webp", animation), "holds 0.webp, which is an animation"),
        ("grey", folder_with("0.png", lambda path: Image.new("I;16", (8, 8)).save(path)),
         "holds 0.png, which has pixels of kind I;16"),
        ("flat.npz", lambda path: np.savez(path, np.zeros(8)), "a clip is"),
        ("text.npz", lambda path: np.savez(path, np.full((2, 8, 8), "a")), "are no pixels"),
        ("noise.npy", lambda path: path.write_bytes(b"x"), "does not read as an array"),
        ("header.npy", broken_header, "does not read as an array"),
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


@pytest.mark.parametrize("above", [1e-7, 0.0009765625])  # a step of float32, and of float16
def test_floats_that_resizing_took_a_hair_above_1_are_0_to_1(above):
    array = np.full((2, 8, 8), 0.5)
    array[0, 0, 0] = 1 + above
    pixels = clip_files.as_pixels(array)
    assert (pixels[1] == 128).all()
    assert pixels[0, 0, 0].tolist() == [255] * 3


def test_a_gif_is_read_whole_or_called_odd_wherever_it_is_cut(tmp_path):
    path = tmp_path / "0.gif"
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    write_clip(path, noise)
    content = path.read_bytes()
    for end in [*range(13, len(content) - 1, 5), len(content) - 2, len(content) - 1]:
        path.write_bytes(content[:end])
        with pytest.raises(clip_files.OddFileError):
            list(frames_of(path, Strip()))
    path.write_bytes(content + b"\0\0\n")  # as some programs fill up files
    assert len(list(frames_of(path, Strip()))) == 6


def test_a_phones_photograph_with_a_second_picture_in_it_is_one_image(tmp_path):
    (tmp_path / "clip").mkdir()
    for number in range(2):
        photograph = Image.new("RGB", (16, 16), (100 * number, 0, 0))
        path = tmp_path / "clip" / f"{number}.jpg"
        photograph.save(path, format="MPO", save_all=True, append_images=[Image.new("L", (8, 8))])
    assert [frame.picture.size for frame in frames_of(tmp_path / "clip", Strip())] == [(16, 16)] * 2


@pytest.mark.parametrize(("kind", "codec"), [("mkv", "mpeg4"), ("webm", "libvpx"), ("flv", "flv")])
def test_a_video_whose_header_counts_no_frames_is_measured_by_its_length(tmp_path, kind, codec):
    """Cut between two frames, so that nothing else is wrong."""
    av = pytest.importorskip("av", reason="PyAV needs Python 3.11")
    path = tmp_path / f"0.{kind}"
    write_video(path, pictures("anna", "run", frames=40), codec=codec, pixels="yuv420p")
    assert len(list(frames_of(path, Strip()))) == 40
    with av.open(str(path)) as container:
        begins = [packet.pos for packet in container.demux() if packet.size]
    path.write_bytes(path.read_bytes()[: begins[30]])
    with pytest.raises(clip_files.OddFileError, match=r"ends early: after 1\..* of 1\.6 seconds"):
        list(frames_of(path, Strip()))


def test_sound_that_is_longer_than_the_pictures_calls_no_video_cut(tmp_path):
    av = pytest.importorskip("av", reason="PyAV needs Python 3.11")
    with av.open(str(tmp_path / "0.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 40, 32, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for frame in pictures("anna", "run"):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), layout="mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    assert len(list(frames_of(tmp_path / "0.mkv", Strip()))) == 8


def test_an_mp4_trimmed_without_coding_it_anew_is_whole(tmp_path):
    """Its edit list hides the frames before the cut; the header counts them."""
    av = pytest.importorskip("av", reason="PyAV needs Python 3.11")
    path = tmp_path / "0.mp4"
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 40, 32, "yuv420p"
        packets = []
        for t, frame in enumerate(pictures("anna", "run", frames=20)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = t
            packets += stream.encode(picture)
        for packet in [*packets, *stream.encode()]:
            packet.pts, packet.dts = packet.pts - 8, packet.dts - 8
            container.mux(packet)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 20
    assert len(list(frames_of(path, Strip()))) == 12


def test_at_another_rate_the_last_frame_is_shown_as_long_as_it_was(tmp_path):
    first, *rest = [Image.new("RGB", (8, 8), (100 * number, 0, 0)) for number in range(3)]
    first.save(tmp_path / "0.gif", save_all=True, append_images=rest, duration=1000)
    write_video(tmp_path / "0.avi", pictures("anna", "run", frames=8), rate=10)
    clip = Cut(frame_rate=10, size=8).clip(frames_of(tmp_path / "0.gif", Strip()))
    assert clip[:, 0, 0, 0].tolist() == [0] * 10 + [100] * 10 + [200] * 10
    for rate, count in ((10, 8), (20, 16), (5, 4)):
        timed = Cut(frame_rate=rate, size=8).clip(frames_of(tmp_path / "0.avi", Strip()))
        assert len(timed) == count
