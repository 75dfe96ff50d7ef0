"""A user's own clips: whatever kind of file, every odd one named, all of it imported or nothing."""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdsm_bench.cli.main import run_cli
from vdsm_bench.config import DataSettings
from vdsm_bench.data import clip_files
from vdsm_bench.data.clip_files import Strip, frames_of
from vdsm_bench.data.splits import check_disjoint, make_splits
from vdsm_bench.data.store import ClipStore
from vdsm_bench.errors import DataError, MissingDependencyError, UsageError
from vdsm_bench.runs.bench import Bench

from .home_videos import (
    imported,
    pictures,
    refused,
    write_clip,
    write_folder,
    write_labels,
    write_video,
)

ALL_KINDS = (".mp4", ".avi", ".webm", ".gif", ".png", "", ".npz")


def test_every_kind_of_file_shows_what_was_filmed(tmp_path):
    rows = write_folder(tmp_path / "clips", ALL_KINDS)
    store = imported(tmp_path / "clips", tmp_path / "data" / "mine")
    assert len(store) == 16
    assert store.factors[0].classes == ("anna", "ben")
    assert store.factors[1].classes == ("run", "walk")
    assert store.card["recordings"] == [name for name, _, _ in rows]
    assert store.frame_rate == 25
    for index, (name, who, what) in enumerate(rows):
        filmed = pictures(who, what, take=index % 4, frames=8 + index % 4)
        filmed = filmed[:, :, :32] if name.endswith(".png") else filmed[:, :, 4:36]
        clip = store.frames(index)
        assert clip.shape == filmed.shape, name
        exact = name.endswith((".png", ".npz", what + f"_{index % 4}"))
        error = np.abs(clip.astype(int) - filmed).mean()
        assert error == 0 if exact else error < 12, (name, error)
        assert store.factors[0].classes[store.labels["person"][index]] == who
        assert store.factors[1].classes[store.labels["action"][index]] == what


def test_where_clips_are_cut_is_part_of_their_key(tmp_path):
    """The same images under the same labels, three of them in the clip before."""
    keys = []
    for number in range(2):
        folder = tmp_path / f"clips{number}"
        write_folder(folder, kinds=("",), takes=6)
        first, second = folder / "anna_walk_0", folder / "anna_walk_1"
        if number:
            for t in range(3):
                (second / f"{t}.png").rename(first / f"{100 + t}.png")
        store = imported(folder, tmp_path / f"data{number}")
        keys.append(Bench.of(store, DataSettings(dataset="mine", image_size=32, frames=4)).key)
    assert keys[0]["content"] == keys[1]["content"]
    assert keys[0]["prepared"] != keys[1]["prepared"]


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_a_video_is_taken_as_its_file_says_that_it_is_shown(tmp_path, turned):
    """As phones write it: the pixels lie on their side, and a matrix says so."""
    clip = pictures("anna", "walk", frames=8)
    path = tmp_path / "clip.mp4"
    write_video(path, clip)
    before = [np.asarray(frame.picture) for frame in frames_of(path, Strip())]
    turn = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}[turned]
    a, b, c, d = (number << 16 for number in turn)
    content = bytearray(path.read_bytes())
    begin = content.index(b"tkhd") + 44
    content[begin : begin + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    after = [np.asarray(frame.picture) for frame in frames_of(path, Strip())]
    assert before[0].shape == (32, 40, 3)
    for one, other in zip(before, after, strict=True):
        assert (np.rot90(one, turned // 90) == other).all()


def damage(folder):
    """Does to a sound folder of 16 clips what people do; returns words that must be said."""
    rows = [tuple(line.split(",")) for line in (folder / "labels.csv").read_text().split()[1:]]
    write_video(folder / "whole.mp4", pictures("anna", "run", frames=40))
    content = (folder / "whole.mp4").read_bytes()
    (folder / "whole.mp4").unlink()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    (folder / "noise.avi").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "empty.gif").write_bytes(b"")
    Image.new("RGB", (100, 32)).save(folder / "crooked.png")
    np.savez(folder / "pickle.npz", np.array([{"a": 1}], dtype=object))
    np.savez(folder / "nan.npz", np.full((4, 8, 8), np.nan))
    (folder / "renamed.npy").write_bytes((folder / "nan.npz").read_bytes())
    write_clip(folder / "brief.npz", pictures("anna", "run", frames=1))
    write_clip(folder / "twin.npz", pictures("anna", "walk", take=0, frames=8))
    (folder / "mixed").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "mixed" / "0.png")
    Image.new("RGB", (30, 32)).save(folder / "mixed" / "1.png")
    (folder / "pointer.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    write_clip(folder / "extra.npz", pictures("anna", "run", frames=9))
    write_clip(folder / "extra_frames", pictures("ben", "run", frames=9))
    (folder / "readme.txt").write_text("not a clip")
    odd = ["cut.mp4", "noise.avi", "empty.gif", "crooked.png", "pickle.npz", "nan.npz", "brief.npz",
           "twin.npz", "mixed", "pointer.mp4", "gone.mp4", "renamed.npy"]  # fmt: skip
    lines = [*rows, *((name, "anna", "walk") for name in odd)]
    lines += [rows[3], (rows[5][0], "ben", "run")]  # the same again; the same with another label
    write_clip(folder / "slip.npz", pictures("ben", "walk", frames=13))
    lines += [("slip.npz", "ben", "wlak"), ("../outside.mp4", "ben", "run"), ("x.npz", "ben", "")]
    write_labels(folder, lines)
    return odd + [
        "line 30: anna_walk_3", "with the same labels", "with other labels", "'wlak', seen once",
        "is it 'walk'", "outside.mp4 lies outside", "x.npz has no action", "extra.npz: is not in",
        "extra_frames: is not in labels.csv (a folder of 9 images)", "git lfs pull",
        "too short: 1 frame", "same as anna_walk_0.npz, pixel for pixel", "there is no such file",
    ]  # fmt: skip


def test_everything_odd_is_named_at_once_and_nothing_is_imported(tmp_path):
    write_folder(tmp_path / "clips")
    words = damage(tmp_path / "clips")
    said = refused(tmp_path / "clips", tmp_path)
    for word in words:
        assert word in said, said
    assert "nothing was imported" in said
    assert "--leave-out-odd" in said
    assert "anna_walk_2" not in said  # what is sound is not called odd


def test_the_rest_is_imported_on_request_and_the_card_says_what_was_left_out(tmp_path):
    write_folder(tmp_path / "clips")
    words = damage(tmp_path / "clips")
    store = imported(tmp_path / "clips", tmp_path / "data" / "mine", leave_out_odd=True)
    assert len(store) == 15  # one clip has two labels, so neither can be trusted
    assert "ben" in store.factors[0].classes
    assert store.factors[1].classes == ("run", "walk")
    left_out = "\n".join(store.card["left_out"])
    for word in words:
        assert word in left_out
    assert "1 files are no clips: readme.txt" in store.card["notes"]


def test_a_name_that_is_no_text_is_no_clip_and_stops_nothing(tmp_path):
    source = tmp_path / "clips"
    rows = write_folder(source)
    Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.txt")).touch()
    assert len(imported(source, tmp_path / "store")) == len(rows)


def test_windows_of_one_file_are_never_taken_apart(tmp_path):
    write_folder(tmp_path / "clips", frames=12)
    store = imported(tmp_path / "clips", tmp_path / "data" / "mine", window=4, window_step=2)
    assert set(store.lengths.tolist()) == {4}
    assert np.bincount(store.recordings).tolist() == [5, 5, 6, 6] * 4
    first = store.frames(1)
    assert (first == pictures("anna", "walk", frames=12)[2:6, :, 4:36]).all()
    splits = make_splits(store, "clips")
    check_disjoint(store, splits)
    assert sum(map(len, splits.parts().values())) == len(store)
    homes = {}
    for part, rows in splits.parts().items():
        for recording in store.recordings[rows].tolist():
            assert homes.setdefault(recording, part) == part
    assert len(splits.test) > 4
    torn = replace(splits, train=splits.train[1:], test=np.sort([*splits.test, splits.train[0]]))
    with pytest.raises(DataError, match="recording"):
        check_disjoint(store, torn)
    said = refused(tmp_path / "clips", tmp_path / "other", window=13)
    assert "anna_walk_0.npz: is too short: 12 frames, 13 are needed" in said
    assert "anna_walk_1" not in said


def test_a_window_that_two_files_share_is_found_though_the_files_differ(tmp_path):
    """Else a trimmed copy is trained on and its original tested on."""
    source = tmp_path / "clips"
    rows = write_folder(source, takes=1, frames=12)
    write_clip(source / "trimmed.npz", pictures("anna", "walk", frames=12)[4:])
    write_labels(source, [*rows, ("trimmed.npz", "anna", "walk")])
    said = refused(source, tmp_path, window=4)
    assert (
        "trimmed.npz: shows in its frames 0 to 3 the same as frames 4 to 7 of anna_walk_0.npz, "
        "pixel for pixel" in said
    )
    assert said.count("the same as") == 1
    assert len(imported(source, tmp_path / "whole")) == 5  # uncut they are different clips


@pytest.mark.parametrize("rate", [0.0, -5.0, 1e30, float("inf"), float("nan")])
def test_a_frame_rate_that_is_none_is_refused_at_once(tmp_path, rate):
    with pytest.raises(UsageError, match="a frame rate of"):
        imported(tmp_path, tmp_path / "data" / "toy", frame_rate=rate)


def test_rate_stride_size_and_colour(tmp_path):
    source = tmp_path / "clips"
    source.mkdir()
    clip = pictures("anna", "run", frames=20)
    write_video(source / "fast.avi", clip, rate=20)
    write_video(source / "slow.avi", clip[::2], rate=10)
    write_labels(source, [("fast.avi", "anna", "run"), ("slow.avi", "ben", "run")])
    store = imported(source, tmp_path / "data" / "plain", size=16)
    assert store.lengths.tolist() == [20, 10]
    assert "10 to 20 frames per second" in store.card["notes"][-1]
    store = imported(source, tmp_path / "data" / "even", size=16, frame_rate=10, colour="grey")
    assert store.lengths.tolist() == [10, 10]
    assert store.image_shape == (16, 16, 1)
    assert store.frame_rate == 10
    assert np.abs(store.frames(0).astype(int) - store.frames(1)).mean() < 4
    store = imported(source, tmp_path / "data" / "stride", size=16, stride=3, fit="pad")
    assert store.lengths.tolist() == [7, 4]
    assert store.frame_rate == 5
    assert store.frames(0)[:, 0].max() == 0  # 40 x 32 on a square: black above
    stretched = imported(source, tmp_path / "data" / "stretched", size=48, fit="stretch")
    assert stretched.image_shape == (48, 48, 3)
    assert "smaller than 48 pixels and enlarged: fast.avi (40x32)" in stretched.card["notes"][0]


def test_strips_either_way_and_of_a_told_number_of_frames(tmp_path):
    source = tmp_path / "clips"
    source.mkdir()
    clip = pictures("anna", "run", frames=6)  # 40 x 32, no squares
    Image.fromarray(np.concatenate(list(clip), axis=0)).save(source / "down.png")
    write_labels(source, [("down.png", "anna", "run")])
    assert "down.png: is no strip of square frames" in refused(source, tmp_path / "no")
    store = imported(source, tmp_path / "data" / "mine", strip="vertical", strip_frames=6)
    assert (store.frames(0) == clip[:, :, 4:36]).all()


@pytest.mark.parametrize(
    ("array", "value"),
    [
        (np.full((4, 8, 8), 0.5), 128),
        (np.full((4, 8, 8, 1), True), 255),
        (np.full((4, 3, 8, 8), 200, np.int32), 200),
        (np.full((4, 8, 8, 3), 7.4, np.float32), 7),
    ],
)
def test_arrays_of_many_kinds(array, value):
    pixels = clip_files.as_pixels(array)
    assert pixels.shape == (4, 8, 8, 3)
    assert (pixels == value).all()


@pytest.mark.parametrize(
    "array", [np.full((4, 8, 8), -1.0), np.full((4, 8, 8, 5), 1), np.zeros((4, 8)),
              np.full((4, 8, 8), 300), np.full((4, 8, 8), "x"), np.zeros((0, 8, 8))]
)  # fmt: skip
def test_arrays_that_are_no_pixels(array):
    with pytest.raises(clip_files.OddFileError):
        clip_files.as_pixels(array)


def test_transparent_pictures_show_black(tmp_path):
    source = tmp_path / "clips"
    source.mkdir()
    strip = Image.new("RGBA", (64, 32), (255, 255, 255, 0))
    strip.paste((10, 20, 30, 255), (40, 8, 48, 16))
    strip.save(source / "a.png")
    write_labels(source, [("a.png", "anna", "run")])
    frames = imported(source, tmp_path / "data" / "mine").frames(0)
    assert frames[0].max() == 0
    assert frames[1, 10, 10].tolist() == [10, 20, 30]


def test_without_pyav_videos_say_what_to_install_and_the_rest_works(tmp_path, monkeypatch):
    write_folder(tmp_path / "clips", (".npz", ".avi"), takes=1)
    write_folder(tmp_path / "arrays", takes=1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError) as caught:
        imported(tmp_path / "clips", tmp_path / "data" / "mine")
    assert caught.value.exit_code == 4
    assert "vdsm-bench[video]" in caught.value.hint
    assert len(imported(tmp_path / "arrays", tmp_path / "data" / "mine")) == 4


PREPARE = (
    "import sys; from vdsm_bench.cli.main import main; main(['--data-dir', sys.argv[2], 'data',\n"
    "'prepare', 'my-set', '--from', sys.argv[1], '--static', 'person', '--dynamic', 'action'])\n"
)


def test_a_full_disk_leaves_nothing_and_says_how_much_there_was(tmp_path):
    write_folder(tmp_path / "clips")

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(tmp_path / "clips"), str(tmp_path / "data")],
        capture_output=True, text=True, check=False, preexec_fn=small_files, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "No space for" in done.stderr
    assert [path for path in (tmp_path / "data").iterdir() if path.suffix != ".lock"] == []


def test_kill_9_then_the_same_command_again(tmp_path):
    write_folder(tmp_path / "clips", takes=8)
    stop = (
        "import os, signal\nfrom vdsm_bench.data import cutting\n"
        "whole, seen = cutting.Cut.clip, []\n"
        "def clip(self, frames):\n    seen.append(1)\n"
        "    if len(seen) == 20: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return whole(self, frames)\ncutting.Cut.clip = clip\n"
    )
    arguments = [str(tmp_path / "clips"), str(tmp_path / "data")]
    killed = subprocess.run([sys.executable, "-c", stop + PREPARE, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "data" / ".my-set.spool").exists()
    assert not (tmp_path / "data" / "my-set").exists()
    imported(tmp_path / "clips", tmp_path / "data" / "my-set").verify()
    left = {path.name for path in (tmp_path / "data").iterdir()} - {".my-set.lock"}
    assert left == {"my-set"}


def test_by_the_card_alone_the_set_is_known_everywhere(tmp_path, monkeypatch, capsys):
    def call(*arguments, expect=0):
        code = run_cli(arguments)
        answer = capsys.readouterr()
        assert code == expect, answer.err
        return answer

    monkeypatch.setenv("VDSM_BENCH_DATA", str(tmp_path / "data"))
    source = tmp_path / "clips"
    write_folder(source, takes=8)
    hint = call("data", "prepare", "my-set", "--from", str(source), expect=2).err
    assert "--static person --dynamic action" in hint
    columns = ("--static", "person", "--dynamic", "action", "--size", "32")
    call("data", "prepare", "my-set", "--from", str(source), *columns)
    again = call("data", "prepare", "my-set", "--from", str(source), *columns)
    assert "prepared already; its checksums are right" in again.err
    assert "was not read; --replace makes" in again.err
    other = ("data", "prepare", "my-set", "--from", str(source), "--size", "16")
    assert "made with size 32" in call(*other, expect=2).err
    call(*other, "--replace")
    assert ClipStore.open(tmp_path / "data" / "my-set").image_shape == (16, 16, 3)
    call(*other[:-1], "32", "--replace")
    (source / "odd.npz").write_bytes(b"no clip")
    odd = ("data", "prepare", "my-set", "--from", str(source), *columns)
    assert "odd.npz: is not in labels.csv" in call(*odd, "--replace", expect=3).err
    call(*odd, "--replace", "--leave-out-odd")
    call(*odd, "--leave-out-odd")  # typed again without --replace: nothing else is asked for
    call(*odd)
    for again in (odd, odd[:5]):  # with every option of the set, and with none
        assert "odd.npz: is not in labels.csv" in call(*again, "--replace", expect=3).err
    (source / "odd.npz").unlink()
    states = {state["name"]: state for state in json.loads(call("data", "list", "--json").out)}
    assert states["my-set"]["prepared"]
    assert "my-set" in call("list", "datasets").out
    assert "who: person" in call("show", "datasets/my-set").out
    assert "disjoint" in call("data", "check", "my-set").out
    call("data", "preview", "my-set", "--out", str(tmp_path / "sheet.png"))
    assert (tmp_path / "sheet.png").exists()
    plan = ("run", "--model", "vdsm", "--preset", "smoke", "--dry-run", "--dataset")
    assert "my-set/vdsm/smoke-seed0: new" in call(*plan, "my-set").out
    assert "did you mean 'my-set'" in call(*plan, "my-sett", expect=2).err
    taken = ("data", "prepare", "sprites", "--from", str(source), *columns)
    assert "does not take" in call(*taken, expect=2).err
    (tmp_path / "data" / "my-set" / "card.json").write_text('{"kind": ')
    assert "damaged" in call(*plan, "my-set", expect=3).err
    assert "damaged" in call("data", "list").out
