"""What a user types of their own clips, and what they are told where it cannot be."""

from pathlib import Path

import pytest

from vdsm_bench.cli.main import run_cli
from vdsm_bench.data.check import check_store
from vdsm_bench.data.store import ClipStore

from .conftest import write_toy
from .home_videos import write_folder

COLUMNS = ("--static", "person", "--dynamic", "action", "--size", "16")


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs ``data prepare mine`` and other commands over a data folder of the test's own."""
    monkeypatch.setenv("VDSM_BENCH_DATA", str(tmp_path / "data"))

    def typed(*arguments, expect=0):
        code = run_cli(arguments)
        answer = capsys.readouterr()
        assert code == expect, answer.err
        return answer

    return typed


@pytest.fixture
def source(tmp_path):
    write_folder(tmp_path / "clips", takes=6)
    return str(tmp_path / "clips")


def test_given_without_a_column_is_refused_before_anything_is_written(call, source, tmp_path):
    prepare = ("data", "prepare", "mine", "--from", source, *COLUMNS)
    told = call(*prepare, "--split", "given", expect=2).err
    assert "has no column 'split'" in told
    assert "--split clips" in told
    assert not (tmp_path / "data" / "mine").exists()
    before = write_toy(tmp_path / "before", split="given")  # as it could be written once
    assert any("without a column 'split'" in fault for fault in check_store(before).problems)


def test_what_cannot_be_the_name_of_a_factor_says_what_can(call, source):
    table = Path(source, "labels.csv")
    table.write_text(table.read_text().replace("person", "Person", 1))
    prepare = ("data", "prepare", "mine", "--from", source, "--dynamic", "action", "--static")
    assert "lower-case letters (a to z)" in call(*prepare, "Person", expect=2).err
    assert "has another meaning" in call(*prepare, "file", expect=2).err


def test_a_replacement_without_its_files_keeps_the_set_and_its_options(call, source, tmp_path):
    call("data", "prepare", "mine", "--from", source, *COLUMNS)
    told = call("data", "prepare", "mine", "--size", "32", "--replace", expect=3).err
    assert "next: the same command with --from FOLDER" in told
    assert ClipStore.open(tmp_path / "data" / "mine").image_shape == (16, 16, 3)


def test_a_renamed_or_damaged_set_is_no_plan(call, source, tmp_path):
    call("data", "prepare", "mine", "--from", source, *COLUMNS)
    plan = ("run", "--model", "vdsm", "--preset", "smoke", "--dry-run", "--dataset")
    assert call(*plan, "mine").err == ""
    (tmp_path / "data" / "mine").rename(tmp_path / "data" / "yours")
    for words in (plan, ("data", "prepare"), ("data", "check")):
        told = call(*words, "yours", expect=3).err
        assert "holds mine, not yours" in told
        assert "rename the folder to mine" in told
    (tmp_path / "data" / "yours").rename(tmp_path / "data" / "mine")
    frames = tmp_path / "data" / "mine" / "frames.npy"
    frames.write_bytes(frames.read_bytes()[:1000])
    assert "mine" in call(*plan, "mine", expect=3).err


def test_an_empty_folder_of_files_is_named_with_what_to_do(call, tmp_path):
    (tmp_path / "empty").mkdir()
    told = call("data", "check", "mug", "--from", str(tmp_path / "empty"), expect=3).err
    assert "empty" in told
    assert "next: mend it, or name another folder with --from" in told


def test_where_no_folder_can_be_made_the_option_is_named(call, source):
    told = call("data", "prepare", "mine", "--from", source, *COLUMNS,
                "--data-dir", "/proc/nowhere", expect=3).err  # fmt: skip
    assert "next: name another folder with --data-dir" in told
