import shutil

import numpy as np
import pytest
from PIL import Image

from vdsm_bench.config import DataSettings
from vdsm_bench.data.mug import Mug, crop_faces
from vdsm_bench.data.mug_files import EXPRESSIONS, STORED_CODES
from vdsm_bench.data.splits import check_disjoint, make_splits
from vdsm_bench.data.store import ClipStore
from vdsm_bench.errors import DataError
from vdsm_bench.runs.bench import Bench

CODES = range(9)
KEPT = [0, 1, 3, 4, 7, 8]


def released(people=3, codes=CODES, frames=(4, 5, 6)):
    """Clips and labels as the release stores them; a clip's pixels tell person, code and frame."""
    labels = [(who, code) for who in range(people) for code in codes]
    clips = np.empty(len(labels), dtype=object)
    for index, (who, code) in enumerate(labels):
        length = frames[index % len(frames)]
        clip = np.empty((length, 112, 112, 3), np.uint8)
        clip[...] = np.array([4 * who, 20 * code + 10, 0])
        clip[..., 2] = 10 * np.arange(length)[:, None, None]
        clips[index] = clip
    return clips, np.array(labels)


def save(folder, clips, labels, names=("clips", "labels")):
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / f"{names[0]}.npz", clips)
    np.savez_compressed(folder / f"{names[1]}.npz", labels)
    return folder


def imported(source, folder, **arguments):
    Mug(**arguments).prepare(folder, source=source)
    return ClipStore.open(folder)


def test_the_releases_layout_with_52_people_and_9_codes(tmp_path):
    source = save(tmp_path / "mug", *released(people=52, frames=(2,)))
    store = imported(source, tmp_path / "data" / "mug", crop="clean")
    assert len(store) == 52 * 6
    assert store.name == "mug-clean"
    assert [len(factor.classes) for factor in store.factors] == [52, 6]
    assert set(np.bincount(store.labels["identity"])) == {6}
    assert set(np.bincount(store.labels["action"])) == {52}
    clips, labels = released(people=52, frames=(2,))
    with pytest.raises(DataError, match=r"row 81: action 9 .* \(columns: identity, action\)"):
        Mug().prepare(tmp_path / "x", source=save(tmp_path / "swapped", clips, labels[:, ::-1]))


@pytest.mark.parametrize("names", [("clips", "labels"), ("b", "a")])
def test_codes_2_5_6_go_and_8_and_7_take_the_places_of_5_and_2(tmp_path, names):
    clips, labels = released()
    source = save(tmp_path / "mug", clips, labels, names)
    store = imported(source, tmp_path / "data" / "mug", crop="clean")
    kept = [(who, code) for who, code in labels.tolist() if code in KEPT]
    renamed = {8: 5, 7: 2}
    for index, (who, code) in enumerate(kept):
        pixel = store.frames(index)[0, 32, 32]
        assert pixel[:2].tolist() == [4 * who, 20 * code + 10]
        assert store.labels["identity"][index] == who
        assert store.labels["action"][index] == renamed.get(code, code)
    assert store.factors[1].classes == tuple(f"code-{code}" for code in STORED_CODES)
    assert STORED_CODES[5] == 8
    assert STORED_CODES[2] == 7


def test_importing_twice_gives_the_same(tmp_path):
    """The release's loader renamed labels in place and lost two actions on the second visit."""
    source = save(tmp_path / "mug", *released())
    first = imported(source, tmp_path / "a" / "mug")
    second = imported(source, tmp_path / "b" / "mug")
    assert first.content_hash == second.content_hash


def test_as_released_takes_every_second_frame_with_a_black_border(tmp_path):
    source = save(tmp_path / "mug", *released())
    store = imported(source, tmp_path / "data" / "mug")
    frames = store.frames(1)  # code 1: five frames
    assert frames[:, 32, 32, 2].tolist() == [0, 20, 40]
    assert not frames[:, :9].any()
    assert not frames[:, -9:].any()
    assert not frames[:, :, :9].any()
    face = (frames[0, :, 32, 1] > 15).sum()
    assert face == 45 or face == 44  # 112 of 160 pixels of 64
    clean = imported(source, tmp_path / "clean" / "mug", crop="clean")
    assert clean.frames(1)[:, 32, 32, 2].tolist() == [0, 10, 20, 30, 40]
    assert (clean.frames(1)[0, :, :, 1] == 30).all()


def test_both_crops_resize_the_same_face():
    face = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), dtype=np.uint8)
    assert crop_faces(face, "clean").shape == (1, 64, 64, 3)
    assert crop_faces(face, "as-released").shape == (1, 64, 64, 3)


def test_equal_lengths_and_floats_are_read(tmp_path):
    clips, labels = released(frames=(4,))
    stacked = np.stack(list(clips))
    whole = imported(save(tmp_path / "x", stacked, labels), tmp_path / "a" / "mug")
    floats = imported(
        save(tmp_path / "y", (stacked / 255).astype(np.float32), labels.astype(float)),
        tmp_path / "b" / "mug",
    )
    listed = tmp_path / "z"
    listed.mkdir()
    np.savez(listed / "clips.npz", **{f"{i}": clip for i, clip in enumerate(clips)})
    np.savez(listed / "labels.npz", labels)
    named = imported(listed, tmp_path / "c" / "mug")
    assert whole.content_hash == floats.content_hash == named.content_hash


def with_clip(change):
    def damage(clips, labels):
        clips[4] = change(clips[4])
        return clips, labels

    return damage


def with_label(row, column, value):
    def damage(clips, labels):
        labels = labels.astype(float)
        labels[row, column] = value
        return clips, labels

    return damage


def as_nan(clip):
    clip = clip.astype(np.float32)
    clip[0, 0, 0, 0] = np.nan
    return clip


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (with_clip(lambda clip: clip[:, :100]), r"clips\.npz, clip 4 has shape \[5, 100, 112, 3\]"),
        (with_clip(lambda clip: clip[0]), r"clip 4 has shape"),
        (with_clip(lambda clip: clip[:0]), r"clip 4 has shape \[0"),
        (
            with_clip(lambda clip: clip[:2]),
            r"clips\.npz, clip 4 is too short: 2 frames, 1 with stride 2",
        ),
        (with_clip(lambda clip: "face.png"), r"clip 4 is no array of pixels"),
        (with_clip(as_nan), r"clip 4 holds pixels from nan to nan; 0 to 1 or 0 to 255 are read"),
        (with_clip(lambda clip: clip.astype(int) - 300), r"clip 4 holds pixels from -300"),
        (with_clip(lambda clip: clip > 5), "clip 4 is no array of pixels"),
        (with_clip(lambda clip: (clip > 5).astype(np.uint8)), "clip 4 holds whole numbers"),
        (with_clip(lambda clip: clip / 80), "clip 4 holds floats from 0 to 1.125"),
        (with_label(7, 1, 9), r"labels\.npz, row 7: action 9"),
        (with_label(7, 1, 1.5), r"row 7: action 1\.5"),
        (with_label(7, 0, -1), r"row 7: identity -1"),
        (with_label(7, 0, 1e30), r"row 7: identity 1e\+30"),
        (with_label(7, 0, np.nan), r"row 7: identity nan"),
        (lambda clips, labels: (clips, labels[:-1]), r"labels\.npz has 26 labels for 27 clips"),
        (lambda clips, labels: (clips, np.array([["a", "b"]] * 27)), r"labels are no numbers"),
        (lambda clips, labels: (labels, labels), r"exactly one of"),
        (lambda clips, labels: (clips, labels[:, 0]), r"exactly one of"),
        (lambda clips, labels: (clips[:9], labels[:9]), r"1 identities are left"),
    ],
)
def test_wrong_files_are_named_and_nothing_is_imported(tmp_path, damage, says):
    source = save(tmp_path / "mug", *damage(*released(people=3)))
    with pytest.raises(DataError, match=says):
        Mug().prepare(tmp_path / "data" / "mug", source=source)
    assert not (tmp_path / "data" / "mug").exists()


def test_one_or_three_archives_are_refused(tmp_path):
    source = save(tmp_path / "mug", *released())
    (source / "labels.npz").rename(source / "labels.txt")
    with pytest.raises(DataError, match="1 npz files"):
        Mug().prepare(tmp_path / "data" / "mug", source=source)


def write_tree(root, people=("anna", "ben"), actions=("anger", "joy"), takes=2, frames=4):
    for p, who in enumerate(people):
        for a, what in enumerate(actions):
            for take in range(takes):
                folder = root / who / what / f"take{take}"
                folder.mkdir(parents=True)
                for frame in range(frames):
                    image = Image.new("RGB", (128, 96), (60 * p + 50, 60 * a + 50, 10 * frame))
                    image.save(folder / f"img_{frame + 8}.png")
    return root


def test_a_tree_is_read_in_natural_order(tmp_path):
    source = write_tree(tmp_path / "tree")
    (source / "anna" / "anger" / "take1").rename(source / "anna" / "anger" / "take1\u00b2")
    (source / "anna" / ".DS_Store").write_text("")
    (source / "ben" / "joy" / "take0" / "Thumbs.db").write_text("")
    store = imported(source, tmp_path / "data" / "mug", crop="clean")
    assert len(store) == 8
    assert store.factors[0].classes == ("anna", "ben")
    assert store.factors[1].classes == ("anger", "joy")
    last = store.frames(7)
    assert last[:, 30, 30].tolist() == [[110, 110, 10 * t] for t in range(4)]
    assert store.labels["action"].tolist() == [0, 0, 1, 1] * 2


def test_jpegs_are_read(tmp_path):
    source = write_tree(tmp_path / "tree")
    for path in source.rglob("*.png"):
        Image.open(path).save(path.with_suffix(".JPG"), format="JPEG", quality=95)
        path.unlink()
    store = imported(source, tmp_path / "data" / "mug")
    assert np.abs(store.frames(7)[1, 32, 32].astype(int) - [110, 110, 20]).max() < 6


def test_images_are_read_as_they_are_shown(tmp_path):
    """Turned as a camera says, and black where nothing is seen."""
    source = write_tree(tmp_path / "tree")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    for path in (source / "ben" / "joy" / "take0").iterdir():
        picture = Image.new("RGB", (96, 96), "white")
        picture.paste((0, 0, 0), (0, 48, 96, 96))  # the lower half: shown at the left
        picture.save(path, exif=exif)
    for path in (source / "ben" / "joy" / "take1").iterdir():
        Image.new("RGBA", (96, 96), (255, 255, 255, 0)).save(path)
    store = imported(source, tmp_path / "data" / "mug", crop="clean")
    turned, clear = store.frames(6)[0], store.frames(7)[0]
    assert (turned[:, :30].max(), turned[:, 34:].min()) == (0, 255)
    assert clear.max() == 0


def odd_file(root):
    (root / "anna" / "notes.txt").write_text("x")


def test_an_expression_is_one_class_however_its_folders_are_spelt(tmp_path):
    write_tree(tmp_path / "mug", takes=1, people=("anna", "ben"))
    (tmp_path / "mug" / "ben" / "joy").rename(tmp_path / "mug" / "ben" / "Joy")
    store = imported(tmp_path / "mug", tmp_path / "data" / "mug")
    assert store.factors[1].classes == ("anger", "joy")
    assert np.bincount(store.labels["action"]).tolist() == [2, 2]


def odd_image(root):
    (root / "anna" / "joy" / "take1" / "notes.txt").write_text("x")


def empty_take(root):
    (root / "anna" / "joy" / "take7").mkdir()


def empty_action(root):
    (root / "anna" / "sad").mkdir()


def broken_image(root):
    path = root / "ben" / "joy" / "take1" / "img_9.png"
    path.write_bytes(path.read_bytes()[:60])


def other_size(root):
    Image.new("RGB", (100, 96)).save(root / "ben" / "joy" / "take1" / "img_9.png")


def tiny(root):
    for path in (root / "ben" / "joy" / "take1").iterdir():
        Image.new("RGB", (32, 32)).save(path)


def deep(root):
    Image.new("I;16", (128, 96)).save(root / "ben" / "joy" / "take1" / "img_9.png")


def disguised(root):
    path = root / "ben" / "joy" / "take1" / "img_9.png"
    Image.new("RGB", (128, 96)).save(path, format="GIF")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (odd_file, r"notes\.txt does not belong there"),
        (odd_image, r"notes\.txt is no jpg, png or bmp"),
        (empty_take, "take7 is too short: 0 images"),
        (empty_action, "sad is empty"),
        (broken_image, r"img_9\.png does not read as an image"),
        (other_size, r"img_9\.png is 100x96, the clip's first frame 128x96"),
        (tiny, "is 32x32; at least 64x64"),
        (deep, r"img_9\.png has pixels of kind I;16; 8 bits per channel are read"),
        (disguised, r"img_9\.png does not read as an image"),
    ],
)
def test_odd_trees_are_refused_by_name_and_nothing_is_imported(tmp_path, damage, says):
    source = write_tree(tmp_path / "tree")
    damage(source)
    with pytest.raises(DataError, match=says):
        Mug(crop="clean").prepare(tmp_path / "data" / "mug", source=source)
    assert not (tmp_path / "data" / "mug").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"people": ("anna",)}, "1 identities"), ({"actions": ("joy",)}, "1 actions"),
     ({"frames": 1}, "too short: 1 images")],
)  # fmt: skip
def test_too_little_is_refused(tmp_path, arguments, says):
    source = write_tree(tmp_path / "tree", **arguments)
    with pytest.raises(DataError, match=says):
        Mug().prepare(tmp_path / "data" / "mug", source=source)


def test_an_empty_folder_says_what_is_expected(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty; expected two npz files or IDENTITY"):
        Mug().prepare(tmp_path / "data" / "mug", source=tmp_path / "empty")


def test_without_a_source_the_hint_is_the_command(tmp_path):
    with pytest.raises(DataError) as caught:
        Mug().prepare(tmp_path / "mug")
    assert "vdsm-bench data prepare mug --from FOLDER" in caught.value.hint


def test_splits_of_an_imported_set_are_disjoint(tmp_path):
    clips, labels = released(people=8, codes=KEPT, frames=(4,))
    for index in range(len(clips)):
        clips[index] = np.random.default_rng(index).integers(0, 256, clips[index].shape, np.uint8)
    store = imported(save(tmp_path / "mug", clips, labels), tmp_path / "data" / "mug")
    for rule in ("clips", "identities", "cells"):
        check_disjoint(store, make_splits(store, rule))


def test_the_crop_stands_in_the_protocol_and_in_the_name(tmp_path):
    source = save(tmp_path / "mug", *released(people=8))
    keys = {}
    for crop, name, rate in (("as-released", "mug", 9.5), ("clean", "mug-clean", 19.0)):
        store = imported(source, tmp_path / "data" / name, crop=crop)
        assert (store.name, store.frame_rate) == (name, rate)
        keys[crop] = Bench.of(store, DataSettings(dataset=name)).key
        assert keys[crop]["prepared"]["crop"] == crop
    assert keys["as-released"] != keys["clean"]


def openface(root, people=("001", "002"), actions=EXPRESSIONS, frames=5, lost=(), image=None):
    """The tree as OpenFace 2.0 leaves it: aligned faces, and tables and models beside them."""
    for p, who in enumerate(people):
        for a, what in enumerate(actions):
            folder = root / who / what / "take000_aligned"
            folder.mkdir(parents=True)
            for number in range(1, frames + 1):
                face = Image.new("RGB", (112, 112), (60 * p + 50, 30 * a + 20, 10 * number))
                face.save(folder / f"frame_det_00_{number:06d}.bmp")
            rows = [
                f"{n}, 0, {n / 19:.3f}, 0.98, {int(n not in lost)}" for n in range(1, frames + 1)
            ]
            table = ["frame, face_id, timestamp, confidence, success", *rows]
            (folder.parent / "take000.csv").write_text("\n".join(table) + "\n")
            for beside in ("take000.hog", "take000_of_details.txt", "take000.avi"):
                (folder.parent / beside).write_bytes(b"x")
    return root


def test_openface_folders_are_read_without_frames_that_show_no_face(tmp_path):
    source = openface(tmp_path / "faces", lost=(2, 4))
    store = imported(source, tmp_path / "data" / "mug-clean", crop="clean")
    assert len(store) == 12
    assert store.card["layout"] == "openface"
    assert store.factors[1].classes == EXPRESSIONS
    assert store.frames(7)[:, 30, 30].tolist() == [[110, 50, 10 * n] for n in (1, 3, 5)]
    whole = imported(openface(tmp_path / "more"), tmp_path / "data" / "mug")
    assert whole.frames(7)[:, 30, 30, 2].tolist() == [10, 30, 50]  # every second frame
    report = Mug().survey(source)
    assert "left out: frames without a face (24)" in report.notes
    assert report.problems == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("take000_aligned/frame_det_01_000001.bmp", "is a second face"),
        ("take000.docx", r"take000\.docx does not belong there"),
        ("take000.csv", r"take000\.csv is no table of OpenFace"),
    ],
)
def test_odd_openface_files_are_refused_by_name(tmp_path, name, says):
    source = openface(tmp_path / "faces")
    (source / "001" / "fear" / name).write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=says):
        Mug().prepare(tmp_path / "data" / "mug", source=source)
    assert not (tmp_path / "data" / "mug").exists()


def test_takes_and_their_aligned_copies_are_not_imported_together(tmp_path):
    """They would be two clips of one take, one to train on and one to test on."""
    source = openface(tmp_path / "faces")
    raw = source / "001" / "fear" / "take000"
    shutil.copytree(source / "001" / "fear" / "take000_aligned", raw)
    with pytest.raises(DataError, match="take000 is not aligned and others are"):
        Mug().prepare(tmp_path / "data" / "mug", source=source)
    assert not (tmp_path / "data" / "mug").exists()


def test_actions_beside_the_six_expressions_are_left_out_and_named(tmp_path):
    actions = ("mixed", *EXPRESSIONS, "neutral")
    source = write_tree(tmp_path / "tree", actions=actions, takes=1, frames=4)
    store = imported(source, tmp_path / "data" / "mug")
    assert store.factors[1].classes == EXPRESSIONS
    assert len(store) == 12
    notes = Mug().survey(source).notes
    assert "left out: mixed (2)" in notes
    assert "left out: neutral (2)" in notes
