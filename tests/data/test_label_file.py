"""The labels file of a user's own clips: who and what by its columns, and the parts it gives."""

import itertools
import unicodedata

import pytest

from vdsm_bench.data.clip_files import natural
from vdsm_bench.data.label_file import read_labels
from vdsm_bench.data.splits import check_disjoint, make_splits, rules_of
from vdsm_bench.errors import UsageError

from .home_videos import imported, pictures, refused, write_clip, write_folder, write_labels


def test_a_label_that_looks_wrong_can_be_right(tmp_path):
    rows = write_folder(tmp_path / "clips")
    write_labels(tmp_path / "clips", [*rows[:-1], (rows[-1][0], "ben", "walks")])
    assert "is it 'walk'" in refused(tmp_path / "clips", tmp_path)
    store = imported(tmp_path / "clips", tmp_path / "data" / "mine", trust_labels=True)
    assert store.factors[1].classes == ("run", "walk", "walks")


@pytest.mark.parametrize(
    ("labels", "suspicious"),
    [
        (["walk"] * 5 + ["wakl"], True),
        (["walk"] * 5 + ["Walk"] * 3, True),
        (["p01"] * 3 + ["p02"], False),
        (["walk"] * 5 + ["jump"], False),
        (["anna", "anne", "hannah"], False),
    ],
)
def test_slips_are_told_from_names(tmp_path, labels, suspicious):
    write_labels(tmp_path, [(f"{i}.npz", "x", label) for i, label in enumerate(labels)])
    found = read_labels(tmp_path / "labels.csv", tmp_path, ("person", "action"))
    assert bool(found.odd) == suspicious


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_as_spreadsheets_save_them(tmp_path, separator):
    write_labels(tmp_path, [("sub\\a.npz", "Ann, B.", "x")], separator=separator)
    path = tmp_path / "labels.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n\r\n")
    (row,) = read_labels(path, tmp_path, ("person", "action")).rows
    assert (row.file, row.labels["person"]) == ("sub/a.npz", "Ann, B.")


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_may_be_composed_otherwise_than_on_disk(tmp_path, on_disk, in_table):
    source = tmp_path / "clips"
    rows = write_folder(source)
    first = rows[0][0]
    (source / first).rename(source / unicodedata.normalize(on_disk, f"é{first}"))
    named = unicodedata.normalize(in_table, f"é{first}")
    write_labels(source, [(named, *rows[0][1:]), *rows[1:]])
    assert len(imported(source, tmp_path / "store")) == len(rows)


def test_a_name_is_one_label_however_its_accents_are_typed(tmp_path):
    forms = ("NFC", "NFD")
    names = [unicodedata.normalize(form, "José") for form in forms for _ in range(2)]
    write_labels(tmp_path, [(f"{i}.npz", name, "walk") for i, name in enumerate(names)])
    found = read_labels(tmp_path / "labels.csv", tmp_path, ("person", "action"))
    assert {row.labels["person"] for row in found.rows} == {"Jos\xe9"}
    assert len(found.rows) == 4


def test_a_missing_table_shows_how_to_write_it(tmp_path):
    write_folder(tmp_path / "clips")
    (tmp_path / "clips" / "labels.csv").unlink()
    said = refused(tmp_path / "clips", tmp_path)
    assert "file,person,action" in said
    assert "anna_run_0.npz,(person),(action)" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"static": ("persn",)}, "did you mean 'person'"),
        ({"static": ()}, "--static person"),
        ({"dynamic": ("person",)}, "named once"),
        ({"dynamic": ("file",)}, "cannot be the name of a factor"),
    ],
)
def test_wrong_columns_are_usage_errors(tmp_path, options, says):
    write_folder(tmp_path / "clips", takes=1)
    with pytest.raises(UsageError) as caught:
        imported(tmp_path / "clips", tmp_path / "data" / "mine", **options)
    assert says in str(caught.value)


def test_a_column_split_is_obeyed(tmp_path):
    rows = write_folder(tmp_path / "clips", takes=6)
    parts = ["train", "train", "Train", "val", "test", "training"] * 4
    header = ("file", "person", "action", "split")
    with_parts = [(*row, part) for row, part in zip(rows, parts, strict=True)]
    write_labels(tmp_path / "clips", with_parts, header)
    store = imported(tmp_path / "clips", tmp_path / "data" / "mine")
    assert store.card["split"] == "given"
    splits = make_splits(store, "given")
    check_disjoint(store, splits)
    assert splits.test.tolist() == [i for i, part in enumerate(parts) if part == "test"]
    assert splits.validation.tolist() == [i for i, part in enumerate(parts) if part == "val"]
    assert len(splits.train) == 16
    no_validation = [(*row[:3], row[3].replace("val", "train")) for row in with_parts]
    write_labels(tmp_path / "clips", no_validation, header)
    splits = make_splits(imported(tmp_path / "clips", tmp_path / "data" / "two"), "given")
    assert splits.test.tolist() == [4, 10, 16, 22]
    assert len(splits.validation) == 2
    write_labels(tmp_path / "clips", [(*rows[0], "tset"), *with_parts[1:]], header)
    assert "in the part 'tset' (did you mean 'test'?)" in refused(
        tmp_path / "clips", tmp_path / "3"
    )


def test_a_given_split_that_holds_out_people_has_a_gate(tmp_path):
    rows = write_folder(tmp_path / "clips", takes=8)
    given = [(*row, "test" if row[1] == "ben" else "train") for row in rows]
    write_labels(tmp_path / "clips", given, ("file", "person", "action", "split"))
    store = imported(tmp_path / "clips", tmp_path / "data" / "mine")
    splits = make_splits(store, "given")
    assert set(store.identities[splits.test].tolist()) == {1}
    assert set(store.identities[splits.cells].tolist()) <= {0}
    assert splits.unscorable == ("person",)


def test_a_person_of_validation_alone_is_not_scored_either(tmp_path):
    """Validation clips choose the judge's epoch, and suites score them."""
    rows = write_folder(tmp_path / "clips", takes=8)
    part = {"anna": ["train", "test"], "ben": ["train", "test"], "cleo": ["val"]}
    people = ["anna", "ben", "cleo"]
    named = [(file, people[number % 3], action) for number, (file, _, action) in enumerate(rows)]
    given = [
        (*row, part[row[1]][number // 3 % len(part[row[1]])]) for number, row in enumerate(named)
    ]
    write_labels(tmp_path / "clips", given, ("file", "person", "action", "split"))
    splits = make_splits(imported(tmp_path / "clips", tmp_path / "data" / "mine"), "given")
    assert splits.unscorable == ("person",)


def test_a_set_without_a_split_of_its_own_cannot_be_split_as_given(tmp_path):
    write_folder(tmp_path / "clips")
    store = imported(tmp_path / "clips", tmp_path / "data" / "mine")
    assert "given" not in rules_of(store)
    with pytest.raises(UsageError, match="without a split of its own"):
        make_splits(store, "given")


def test_another_table_and_a_licence_are_taken(tmp_path):
    write_folder(tmp_path / "clips")
    (tmp_path / "clips" / "labels.csv").rename(tmp_path / "clips" / "mine.csv")
    store = imported(
        tmp_path / "clips", tmp_path / "data" / "mine", labels="mine.csv", licence="CC0"
    )
    assert store.card["licence"] == "CC0"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"name,person,action\n0.npz,a,b\n", "has no column 'file'"),
        (b"file,person,person,action\n", "the column 'person' twice"),
        (b"", "is empty; its first line"),
        ("file,person,action\n0.npz,\xe9,b\n".encode("latin-1"), "CSV in UTF-8"),
        (b'file,person,action\n0.npz,"a,b\n', "line 2: unexpected end"),
    ],
)
def test_a_table_that_does_not_read_says_why(tmp_path, text, says):
    write_folder(tmp_path / "clips")
    (tmp_path / "clips" / "labels.csv").write_bytes(text)
    assert says in refused(tmp_path / "clips", tmp_path)


def test_links_that_lead_back_are_walked_once(tmp_path):
    write_folder(tmp_path / "clips")
    for name in ("a", "b"):
        (tmp_path / "clips" / name).mkdir()
        (tmp_path / "clips" / name / "up").symlink_to("..", target_is_directory=True)
    write_clip(tmp_path / "clips" / "a" / "extra.npz", pictures("anna", "run", frames=9))
    said = refused(tmp_path / "clips", tmp_path)
    assert said.count("extra.npz: is not in labels.csv") == 1
    assert "1 thing is odd" in said


def test_names_that_are_one_number_are_in_one_order(tmp_path):
    names = ["p1", "p01", "p001", "p10", "p2", "p"]
    orders = {tuple(sorted(order, key=natural)) for order in itertools.permutations(names)}
    assert orders == {("p", "p001", "p01", "p1", "p2", "p10")}
