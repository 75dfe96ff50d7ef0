import dataclasses

import numpy as np
import pytest
import torch

from tests.data.conftest import FACTORS, card, write_toy
from vdsm_bench.config import DataSettings, EvaluationSettings, resolve
from vdsm_bench.data.clips import evaluation_clips
from vdsm_bench.data.store import RECORDING, ClipStore
from vdsm_bench.data.store_writer import StoreWriter
from vdsm_bench.evaluators.pairs import choose_clips
from vdsm_bench.evaluators.suite import build_request
from vdsm_bench.runs import bench
from vdsm_bench.runs.bench import Bench, EvaluationClips
from vdsm_bench.runs.protocol import ScoringProtocol

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


def _recorded(folder, recording_of):
    """120 clips of five per identity and action; returns their bench."""
    draw = np.random.default_rng(0)
    with StoreWriter(
        folder,
        card=card("toy"),
        factors=FACTORS,
        image_shape=(8, 8, 3),
        total_frames=480,
        columns=(RECORDING,),
    ) as writer:
        for clip in range(120):
            labels = {"colour": clip % 3, "shape": clip // 3 % 2, "action": clip // 6 % 4}
            frames = draw.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
            writer.add(frames, labels, {RECORDING: recording_of(clip)})
    return Bench.of(ClipStore.open(folder), DATA.model_copy(update={"split": "identities"}))


def test_what_clips_were_cut_from_counts_because_pairs_depend_on_it(tmp_path):
    alone = _recorded(tmp_path / "alone", lambda clip: clip)
    named = _recorded(tmp_path / "named", lambda clip: 7 + clip)
    halves = _recorded(tmp_path / "halves", lambda clip: clip % 60)

    def pairs(bench):
        return [bench.sampler(0).batch("pretrain", step, 8, True) for step in range(5)]

    assert halves.splits.content_key == alone.splits.content_key
    assert not np.array_equal(pairs(halves), pairs(alone))
    assert halves.key != alone.key
    assert np.array_equal(pairs(named), pairs(alone))
    assert named.key == alone.key


def test_scored_clips_know_their_recordings(tmp_path):
    bench = _recorded(tmp_path / "halves", lambda clip: clip % 60)
    request = build_request(
        bench.scored, factors=FACTORS, settings=EvaluationSettings(clips=20, pairs=10)
    )
    rows = bench.scored_indices[choose_clips(len(bench.scored), 20)]
    assert len(rows) == 20 > len(np.unique(request.test.recordings))
    assert np.array_equal(request.test.recordings, rows % 60)


def test_a_factor_of_one_class_is_scored_by_nobody_and_makes_other_rows(table, tmp_path):
    bench = _recorded(tmp_path / "alone", lambda clip: clip)
    config = resolve(table, model="toy", dataset="toy-squares", preset="smoke")
    usual = ScoringProtocol(table, bench, config, "cpu")
    splits = dataclasses.replace(bench.splits, constant=("shape",))
    one = ScoringProtocol(table, dataclasses.replace(bench, splits=splits), config, "cpu")
    assert usual.unscorable == {}
    assert one.unscorable == {"shape": "all clips show one class of it"}
    assert [factor.name for factor in one.request.scorable()] == ["colour", "action"]
    assert one.judge_keys != usual.judge_keys  # a judge of it has another network
    assert one.key == {**usual.key, "judge": one.judge_hash, "left_out": ["shape"]}
