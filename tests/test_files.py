import json
import multiprocessing
import os

import pytest

from vdsm_bench.errors import CellError, DataError
from vdsm_bench.files import hold, move_aside, read_json, write_bytes, write_json


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "row.json"
    write_json(path, {"a": 1})

    def no_space(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DataError, match="No space left"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["row.json"]


def test_nan_is_refused_rather_than_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "row.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b'{"a": 1'])
def test_damage_names_the_file(tmp_path, content):
    path = tmp_path / "status.json"
    write_bytes(path, content)
    with pytest.raises(DataError, match="status.json is damaged"):
        read_json(path)


def test_move_aside_never_overwrites(tmp_path):
    for expected in (".cell.old-1", ".cell.old-2"):
        (tmp_path / "cell").mkdir()
        assert move_aside(tmp_path / "cell").name == expected


def _hold_for_a_while(folder, ready, release):
    with hold(folder, "the cell"):
        ready.set()
        release.wait(20)


def test_second_process_refuses_or_waits_and_names_the_holder(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    other = context.Process(target=_hold_for_a_while, args=(tmp_path / "c", ready, release))
    other.start()
    try:
        assert ready.wait(20)
        with (
            pytest.raises(CellError, match=f"process {other.pid} on"),
            hold(tmp_path / "c", "the cell", wait=False),
        ):
            pass
        said = []

        def say(text):
            said.append(text)
            release.set()

        with hold(tmp_path / "c", "the cell", say=say):
            assert json.loads((tmp_path / ".c.holder.json").read_text())["pid"] == os.getpid()
        assert f"process {other.pid}" in said[0]
    finally:
        release.set()
        other.join(20)
    assert not (tmp_path / ".c.holder.json").exists()
