import numpy as np
import pytest
import torch

from tests.data.conftest import write_toy
from vdsm_bench.config import DataSettings
from vdsm_bench.data.clips import evaluation_clips
from vdsm_bench.data.store import ClipStore
from vdsm_bench.runs import bench
from vdsm_bench.runs.bench import EvaluationClips

DATA = DataSettings(dataset="toy", image_size=8, frames=4, stride=1)


@pytest.fixture
def asked(monkeypatch):
    """Every clip that was read from a store, in order."""
    seen: list[int] = []
    read = ClipStore.windows

    def spy(self, which, *arguments, **options):
        seen.extend(int(index) for index in which)
        return read(self, which, *arguments, **options)

    monkeypatch.setattr(ClipStore, "windows", spy)
    return seen


@pytest.mark.parametrize("limit", [bench._CACHE_LIMIT, 0])
def test_evaluation_reads_the_clips_that_are_asked_for_and_no_other(
    tmp_path, asked, monkeypatch, limit
):
    monkeypatch.setattr(bench, "_CACHE_LIMIT", limit)
    store = write_toy(tmp_path / "toy", takes=3, lengths=(5, 9, 12))
    indices = np.arange(2, 9)
    clips = EvaluationClips(store, indices, DATA)
    rows = np.array([4, 1, 4])
    first = clips(rows)
    assert set(asked) == {6, 3}
    expected = evaluation_clips(store, indices[rows], frames=4, stride=1, image_size=8)
    torch.testing.assert_close(first, expected, rtol=0, atol=1e-7)

    asked.clear()
    assert torch.equal(clips(np.array([1, 0])), clips(np.array([0, 1])).flip(0))
    assert set(asked) == ({2} if limit else {2, 3})
