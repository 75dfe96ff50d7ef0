import json
import os
import shutil

import numpy as np
import pytest

from vdsm_bench.data import store as store_module
from vdsm_bench.data.store import ClipStore
from vdsm_bench.errors import DataError

from .conftest import write_toy


def test_what_is_written_is_read(tmp_path):
    store = write_toy(tmp_path / "toy", takes=2)
    draw = np.random.default_rng(0)
    for index, length in enumerate(store.lengths):
        expected = draw.integers(0, 256, (length, 8, 8, 3), dtype=np.uint8)
        assert (store.frames(index) == expected).all()
    assert len(store) == 48
    assert store.lengths.tolist()[:3] == [5, 9, 5]
    assert store.image_shape == (8, 8, 3)
    assert [factor.name for factor in store.factors] == ["colour", "shape", "action"]
    assert store.factors[0].classes == ("red", "green", "blue")
    assert store.labels["action"].tolist()[:4] == [0, 0, 1, 1]
    store.verify()


def test_identity_is_the_combination_of_static_factors(toy):
    pairs = set(zip(toy.labels["colour"], toy.labels["shape"], toy.identities, strict=True))
    assert len(pairs) == 6
    assert sorted(set(toy.identities)) == list(range(6))
    assert (toy.motions == toy.labels["action"]).all()


def test_frames_are_read_only_views_of_the_file(toy):
    with pytest.raises(ValueError, match="read-only"):
        toy.frames(0)[0] = 0
    assert isinstance(toy.frames(0), np.memmap)


def test_windows_cut_stride_and_repeat_the_last_frame(toy):
    clip = toy.frames(1)
    window = toy.windows([1, 1], [0, 6], frames=4, stride=2)
    assert (window[0] == clip[[0, 2, 4, 6]]).all()
    assert (window[1] == clip[[6, 8, 8, 8]]).all()


def test_the_content_hash_follows_pixels_and_labels_not_the_place(tmp_path):
    one = write_toy(tmp_path / "a")
    same = write_toy(tmp_path / "b", name="other")
    other = write_toy(tmp_path / "c", seed=1)
    assert one.content_hash == same.content_hash != other.content_hash


def test_no_store_names_the_command(tmp_path):
    with pytest.raises(DataError, match="no clip store") as caught:
        ClipStore.open(tmp_path / "sprites")
    assert caught.value.hint == "vdsm-bench data prepare sprites"
    assert caught.value.exit_code == 3


def cut(folder):
    path = folder / "frames.npy"
    path.write_bytes(path.read_bytes()[:-100])


def lengthen(folder):
    with (folder / "frames.npy").open("ab") as file:
        file.write(b"x")


def lose_frames(folder):
    (folder / "frames.npy").unlink()


def empty_clips(folder):
    (folder / "clips.npz").write_bytes(b"")


def spoil_header(folder, old, new):
    path = folder / "frames.npy"
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def method_unknown(folder):
    path = folder / "clips.npz"
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 10] = 99  # how the first member is compressed
    path.write_bytes(bytes(content))


def wrong_json(folder):
    (folder / "card.json").write_text("{")


def change_card(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    card.update(changes)
    (folder / "card.json").write_text(json.dumps(card))


def change_clips(folder, **changes):
    with np.load(folder / "clips.npz") as archive:
        arrays = dict(archive)
    np.savez(folder / "clips.npz", **{**arrays, **changes})


def lose_key(folder):
    card = json.loads((folder / "card.json").read_text())
    del card["sha256"]
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "frames.npy has"),
        (lengthen, "frames.npy has"),
        (lose_frames, "frames.npy"),
        (empty_clips, "damaged"),
        (lambda folder: spoil_header(folder, b"}", b"("), "damaged"),
        (lambda folder: spoil_header(folder, b"'descr'", b"'desc\xff"), "damaged"),
        (method_unknown, "damaged"),
        (wrong_json, "card.json does not read"),
        (lose_key, "lacks sha256"),
        (lambda folder: change_card(folder, schema=99), "schema"),
        (lambda folder: change_card(folder, frames=7), "frames.npy holds"),
        (lambda folder: change_card(folder, clips=7), "clips"),
        (
            lambda folder: change_clips(folder, **{"label.action": np.full(72, 4)}),
            "action has labels outside its 4 classes",
        ),
        (
            lambda folder: change_clips(folder, **{"label.action": np.zeros(71, np.int64)}),
            "71 labels for 72 clips",
        ),
        (
            lambda folder: change_clips(folder, **{"label.action": np.full(72, 0.5)}),
            "not int64",
        ),
        (
            lambda folder: change_clips(folder, **{"label.action": np.full(72, None)}),
            "damaged",
        ),
        (lambda folder: change_clips(folder, offsets=np.arange(73)), "offsets"),
        (
            lambda folder: change_clips(folder, **{"label.action": np.zeros(72, np.int64)}),
            "clips.npz does not match its checksum",
        ),
        (lambda folder: change_card(folder, sha256={}), "damaged"),
        (lambda folder: change_card(folder, factors=[]), "card.json does not match its checksum"),
        (lambda folder: change_card(folder, split="foo"), "split rule 'foo'"),
        (lambda folder: (folder / "card.json").unlink(), "there is no card.json"),
    ],
)
def test_damage_is_found_on_opening(toy, damage, says):
    damage(toy.folder)
    with pytest.raises(DataError, match=says) as caught:
        ClipStore.open(toy.folder)
    assert "vdsm-bench data prepare toy" in caught.value.hint


def flip(path):
    """Changes one bit in place, an hour after the file was written."""
    then = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns + 3_600_000_000_000))


def test_a_flipped_bit_is_found_by_verify(toy):
    flip(toy.folder / "frames.npy")
    store = ClipStore.open(toy.folder)
    with pytest.raises(DataError, match="frames.npy does not match its checksum"):
        store.verify()


def test_verified_once_frames_are_read_again_only_when_the_file_changes(toy, monkeypatch):
    toy.verify_once()
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "sha256_of", lambda path: pytest.fail(f"{path} is read again"))
        toy.verify_once()
    flip(toy.folder / "frames.npy")
    for _ in range(2):  # a failure is never remembered as a pass
        with pytest.raises(DataError, match="frames.npy does not match its checksum") as caught:
            toy.verify_once()
        assert "vdsm-bench data prepare toy --replace" in caught.value.hint


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_damaged_memory_of_the_check_is_no_pass(toy, content):
    toy.verify_once()
    flip(toy.folder / "frames.npy")
    (toy.folder / ".passed.json").write_text(content)
    with pytest.raises(DataError, match="checksum"):
        toy.verify_once()


def test_the_memory_of_another_files_check_is_no_pass(toy, tmp_path):
    """As when a store is copied, with its times, and damaged on the way."""
    toy.verify_once()
    copy = shutil.copytree(toy.folder, tmp_path / "copy")
    times = (copy / "frames.npy").stat()
    flip(copy / "frames.npy")
    os.utime(copy / "frames.npy", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DataError, match="checksum"):
        ClipStore.open(copy).verify_once()


def test_a_clip_that_does_not_exist_is_refused(toy):
    with pytest.raises(DataError, match="no clip 72"):
        toy.frames(72)
