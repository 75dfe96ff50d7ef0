import functools
import os

import pytest

from vdsm_bench.cli.main import run_cli
from vdsm_bench.data.mug import Mug
from vdsm_bench.data.mug_synthetic import MugSynthetic
from vdsm_bench.data.parallel import in_order
from vdsm_bench.data.store import ClipStore

from .home_videos import write_folder
from .test_mug import write_tree


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


def same_bytes(*folders):
    one, *others = (
        [(folder / name).read_bytes() for name in ("frames.npy", "clips.npz", "card.json")]
        for folder in folders
    )
    return all(other == one for other in others)


@pytest.mark.parametrize("kind", [FewFaces, Mug])
def test_two_processes_write_the_same_bytes_as_one(tmp_path, kind):
    """Drawn, and read from a tree of images whose clips have different lengths."""
    source, folders = None, []
    if kind is Mug:
        source = write_tree(tmp_path / "tree", takes=16, frames=4)
        for image in source.glob("*/*/take3/img_11.png"):
            image.unlink()
    for processes in (1, 2):
        dataset = kind()
        dataset.processes = processes
        folders.append(tmp_path / f"{processes}" / dataset.card.name)
        dataset.prepare(folders[-1], source=source)
    assert same_bytes(*folders)


def test_own_clips_are_the_same_bytes_with_any_number_of_processes(tmp_path, capsys):
    write_folder(tmp_path / "clips", takes=24, frames=4)  # 96 clips: work for three
    folders = []
    for processes in ("1", "3"):
        folders.append(tmp_path / processes / "mine")
        columns = ("--static", "person", "--dynamic", "action", "--size", "16")
        where = ("--data-dir", str(folders[-1].parent), "--processes", processes)
        prepare = ("data", "prepare", "mine", "--from", str(tmp_path / "clips"))
        assert run_cli([*prepare, *columns, *where]) == 0, capsys.readouterr().err
    assert same_bytes(*folders)
    assert len(ClipStore.open(folders[0])) == 96
