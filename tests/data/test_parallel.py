import functools
import os

import pytest

from vdsm_bench.data.mug_synthetic import MugSynthetic
from vdsm_bench.data.parallel import in_order
from vdsm_bench.data.store import ClipStore


def where(index):
    return index, os.getpid()


def dies(index, parent):
    if os.getpid() != parent and index == 40:
        os._exit(9)
    return index


def fails(index):
    if index == 5:
        raise ValueError("clip 5")
    return index


def test_results_come_in_order_from_other_processes():
    with in_order(where, range(101), processes=2) as results:
        numbers, owners = zip(*results, strict=True)
    assert numbers == tuple(range(101))
    assert os.getpid() not in owners


def test_one_process_or_little_to_do_stays_here():
    for count, processes in ((101, 1), (20, 2)):
        with in_order(where, range(count), processes=processes) as results:
            assert list(results) == [(index, os.getpid()) for index in range(count)]


def test_what_a_dead_worker_left_is_drawn_here():
    with in_order(functools.partial(dies, parent=os.getpid()), range(99), processes=2) as results:
        assert list(results) == list(range(99))


def test_an_error_in_a_worker_is_raised_here():
    with pytest.raises(ValueError, match="clip 5"), in_order(fails, range(99), processes=2) as some:
        list(some)


class FewFaces(MugSynthetic):
    def __len__(self):
        return 65


def test_two_processes_write_the_same_bytes_as_one(tmp_path):
    for processes in (1, 2):
        dataset = FewFaces()
        dataset.processes = processes
        dataset.prepare(tmp_path / f"{processes}" / "mug-synthetic")
    one, two = (ClipStore.open(tmp_path / name / "mug-synthetic") for name in "12")
    for name in ("frames.npy", "clips.npz", "card.json"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
