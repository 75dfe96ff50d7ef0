import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest

from vdsm_bench.data.store import ClipStore
from vdsm_bench.data.store_writer import StoreWriter
from vdsm_bench.errors import DataError

from .conftest import FACTORS, card, write_toy

FRAMES = np.zeros((2, 8, 8, 3), np.uint8)
LABELS = {"colour": 0, "shape": 0, "action": 0}


def writer(folder, total=2):
    return StoreWriter(
        folder, card=card(), factors=FACTORS, image_shape=(8, 8, 3), total_frames=total
    )


def left_behind(folder):
    return [path.name for path in folder.iterdir() if not path.name.endswith(".lock")]


@pytest.mark.parametrize(
    ("frames", "labels", "says"),
    [
        (FRAMES[:, :4], LABELS, r"got uint8 \[2, 4, 8, 3\]"),
        (FRAMES.astype(float), LABELS, "got float64"),
        (FRAMES[:0], LABELS, r"\[0, 8, 8, 3\]"),
        (FRAMES, {**LABELS, "action": 4}, "action = 4 is none of its 4"),
        (FRAMES, {"action": 0}, "labels"),
        (FRAMES[:1], LABELS, "2 frames were announced, 1 were written"),
    ],
)
def test_wrong_clips_leave_nothing_behind(tmp_path, frames, labels, says):
    with pytest.raises(DataError, match=says), writer(tmp_path / "toy") as open_writer:
        open_writer.add(frames, labels)
    assert left_behind(tmp_path) == []


def write_two(folder, before_the_second):
    with writer(folder, total=4) as open_writer:
        open_writer.add(FRAMES, LABELS)
        before_the_second(open_writer)
        open_writer.add(FRAMES, LABELS)


def test_any_error_inside_leaves_nothing_behind(tmp_path):
    def interrupt(open_writer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_two(tmp_path / "toy", interrupt)
    assert left_behind(tmp_path) == []
    assert len(write_toy(tmp_path / "toy")) == 72  # the lock is free again


def test_an_existing_store_is_not_overwritten(toy):
    with pytest.raises(DataError, match="exists already"), writer(toy.folder):
        pass
    toy.verify()


def test_too_small_a_disk_is_refused_before_writing(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 0))
    with pytest.raises(DataError, match="needs 384 bytes") as caught, writer(tmp_path / "toy"):
        pass
    assert str(tmp_path / "toy") in caught.value.message
    assert left_behind(tmp_path) == []


def test_a_disk_that_fills_up_is_a_data_error(tmp_path):
    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    def fill_the_disk(open_writer):
        open_writer._file.close()
        open_writer._file = Full()

    with pytest.raises(DataError, match="needs 768 bytes"):
        write_two(tmp_path / "toy", fill_the_disk)
    assert left_behind(tmp_path) == []


KILLED = """
import sys, os, signal
import numpy as np
from pathlib import Path
from vdsm_bench.data.store_writer import StoreWriter
from vdsm_bench.contracts import DatasetCard, Factor
card = DatasetCard(name="toy", summary="", licence="", access="embedded", source="", split="clips")
with StoreWriter(Path(sys.argv[1]), card=card, factors=[Factor("a", "static", ("x",))],
                 image_shape=(8, 8, 3), total_frames=9) as writer:
    writer.add(np.zeros((4, 8, 8, 3), np.uint8), {"a": 0})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_no_store_and_the_next_one_cleans_up(tmp_path):
    folder = tmp_path / "toy"
    process = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert process.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert left_behind(tmp_path) == [".toy.partial"]
    with pytest.raises(DataError, match="no clip store"):
        ClipStore.open(folder)
    write_toy(folder).verify()
    assert left_behind(tmp_path) == ["toy"]


def test_a_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    with pytest.raises(DataError, match="cannot be written"), writer(tmp_path / "toy") as one:
        one.add(FRAMES, LABELS)
    assert left_behind(tmp_path) == []
