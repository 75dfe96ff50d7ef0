"""Faults planted in a store on purpose: each is found, named, and fails the command."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from vdsm_bench.contracts import Factor
from vdsm_bench.data.check import cells_table, check_store
from vdsm_bench.data.store import (
    CARD,
    CARD_DIGEST,
    CLIPS,
    FRAMES,
    ClipStore,
    card_digest,
    content_digest,
    sha256_of,
)
from vdsm_bench.data.store_writer import StoreWriter
from vdsm_bench.errors import DataError

from .conftest import card, write_toy


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("check") / "toy", takes=4, lengths=(3,))


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound.folder, tmp_path / "toy")


def reseal(folder):
    """Makes all checksums right again: what somebody does who edits a store with care."""
    content = json.loads((folder / CARD).read_text())
    with np.load(folder / CLIPS) as arrays:
        labels = {one["name"]: arrays[f"label.{one['name']}"] for one in content["factors"]}
    frames = np.load(folder / FRAMES, mmap_mode="r")
    content["clips"] = len(next(iter(labels.values())))
    content["frames_sha256"] = hashlib.sha256(frames.tobytes()).hexdigest()
    content["content_sha256"] = content_digest(content["frames_sha256"], content["factors"], labels)
    content["sha256"] = {name: sha256_of(folder / name) for name in (FRAMES, CLIPS)}
    content[CARD_DIGEST] = card_digest(content)
    (folder / CARD).write_text(json.dumps(content))
    return folder


def change_label(folder, factor, clip, value):
    with np.load(folder / CLIPS) as archive:
        arrays = dict(archive)
    arrays[f"label.{factor}"][clip] = value
    np.savez(folder / CLIPS, **arrays)


def change_frames(folder, change):
    frames = np.load(folder / FRAMES, mmap_mode="r+")
    change(frames)
    frames.flush()


def test_a_sound_store_has_no_faults(sound):
    seen = []
    report = check_store(sound, progress=lambda *done: seen.append(done))
    assert report.problems == []
    assert report.notes == []
    text = "\n".join(report.lines)
    for wanted in (
        "toy: 96 clips, checksums are right, labels in range",
        "factor colour (static): 3 classes, 32 clips each",
        "identity x action: 24 of 24 combinations have clips, 4 each",
        "no two clips are the same",
        "split clips (default): disjoint (train",
        "split identities: disjoint",
        "split cells: disjoint",
    ):
        assert wanted in text
    assert seen[0] == ("checksums, MB", 1, 1)
    assert seen[-1] == ("duplicates", 96, 96)
    assert json.loads(json.dumps(report.as_json()))["cells"]["red round"]["walk"] == 4


@pytest.mark.parametrize("name", [FRAMES, CLIPS, CARD])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.98])
def test_one_flipped_byte_is_found_in_every_file(folder, name, place):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged") as caught:
        check_store(ClipStore.open(folder))
    assert "vdsm-bench data prepare toy --replace" in caught.value.hint


def test_a_label_out_of_range_is_named_though_all_checksums_are_right(folder):
    change_label(folder, "action", 7, 4)
    with pytest.raises(DataError, match=r"action has labels outside its 4 classes.* clip 7: 4"):
        check_store(ClipStore.open(reseal(folder)))


def test_a_clip_that_is_in_two_parts_of_a_split_is_a_fault(folder):
    def copy_a_cell(frames):  # all four takes of the first cell are one clip: some are held out
        frames[3:12] = np.tile(frames[:3], (3, 1, 1, 1))

    change_frames(folder, copy_a_cell)
    report = check_store(ClipStore.open(reseal(folder)))
    assert "duplicates: 3 clips are there already: 0 = 1, 0 = 2, 0 = 3" in report.notes
    assert any("split clips: toy: " in one and "pixel for pixel" in one for one in report.problems)


def test_the_same_pixels_under_other_labels_are_named(folder):
    change_frames(folder, lambda frames: frames.__setitem__(slice(-3, None), frames[:3]))
    report = check_store(ClipStore.open(reseal(folder)))
    (torn,) = [note for note in report.notes if "different labels" in note]
    assert "0 = 95 (colour: red, blue)" in torn
    assert "0 = 95 (action: walk, sit)" in torn


def test_missing_cells_empty_and_rare_classes_are_notes(folder):
    for clip in range(4):
        change_label(folder, "action", clip, 1)  # red round never walks
    store = ClipStore.open(reseal(folder))
    assert "missing walk: red round" in check_store(store).notes
    for clip in np.flatnonzero(store.labels["shape"] == 1)[:44]:
        change_label(folder, "shape", clip, 0)
    report = check_store(ClipStore.open(reseal(folder)))
    assert any(note.startswith("factor shape: unbalanced, round has 92") for note in report.notes)
    change_label(folder, "action", np.arange(96), 3)
    report = check_store(ClipStore.open(reseal(folder)))
    assert "factor action: no clip of walk, run, jump" in report.notes
    assert "factor action: all clips are sit; it is not scored" in report.notes


def test_a_store_too_small_for_its_own_rule_is_a_fault_and_for_another_a_note(tmp_path):
    with StoreWriter(
        tmp_path / "toy",
        card=card(),
        factors=(Factor("who", "static", ("a", "b")), Factor("what", "dynamic", ("x", "y"))),
        image_shape=(8, 8, 3),
        total_frames=4,
    ) as writer:
        for place in range(4):
            frames = np.full((1, 8, 8, 3), place, np.uint8)
            writer.add(frames, {"who": place // 2, "what": place % 2})
    report = check_store(ClipStore.open(tmp_path / "toy"))
    assert any(fault.startswith("split clips: toy is too small") for fault in report.problems)
    assert any(note.startswith("split identities: toy is too small") for note in report.notes)


def test_the_table_of_cells_has_a_dot_for_none():
    assert cells_table({"ann": {"joy": 3, "fear": 0}, "ben": {"joy": 12, "fear": 1}}) == [
        "    joy fear",
        "ann   3    .",
        "ben  12    1",
    ]
