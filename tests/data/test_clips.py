import numpy as np
import pytest
import torch

from vdsm_bench.data import clips
from vdsm_bench.data.clips import ClipSampler, downscale, evaluation_clips, to_clip, to_unit
from vdsm_bench.errors import DataError, UsageError
from vdsm_bench.training.features import FrameHolder

from .conftest import write_toy


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("clips") / "toy", takes=3, lengths=(5, 9, 12))


def sampler(store, indices=None, **changes):
    settings = {"frames": 4, "stride": 2, "image_size": 4, "seed": 0, "purpose": "data"}
    return ClipSampler(
        store, np.arange(len(store)) if indices is None else indices, **{**settings, **changes}
    )


def brute_mean(frames, size):
    """Area averaging in float64, by loops."""
    n, height, width, channels = frames.shape
    result = np.empty((n, size, size, channels))
    for row in range(size):
        for column in range(size):
            block = frames[
                :,
                row * height // size : -(-(row + 1) * height // size),
                column * width // size : -(-(column + 1) * width // size),
            ]
            result[:, row, column] = block.mean((1, 2))
    return np.floor(result + 0.5)


@pytest.mark.parametrize(("shape", "size"), [((64, 64), 32), ((64, 64), 16), ((9, 12), 3),
                                             ((64, 64), 24), ((10, 7), 4)])  # fmt: skip
def test_downscaling_is_the_rounded_mean_over_areas(shape, size):
    frames = np.random.default_rng(0).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    assert (downscale(frames, size) == brute_mean(frames, size)).all()


def test_downscaling_keeps_white_white():
    frames = np.full((1, 64, 64, 3), 255, np.uint8)
    for size in (64, 32, 24, 2):
        assert (downscale(frames, size) == 255).all()


def test_upscaling_is_refused():
    with pytest.raises(UsageError, match="image_size 65 is larger than the stored 64x64"):
        downscale(np.zeros((1, 64, 64, 3), np.uint8), 65)


def test_a_clip_has_the_contracts_axes_and_range(store):
    clip = to_clip(store.windows([0, 1], [0, 0], frames=4), 8)
    assert clip.shape == (2, 4, 3, 8, 8)
    assert clip.dtype == torch.float32
    assert clip[1, 2, 0, 3, 5].item() == pytest.approx(store.frames(1)[2, 3, 5, 0] / 255)
    assert 0 <= clip.min() <= clip.max() <= 1


def test_evaluation_takes_the_centre_and_repeats_the_last_frame(store):
    clip = evaluation_clips(store, [0, 1, 2], frames=3, stride=2, image_size=8)
    assert torch.equal(clip[0], to_clip(store.frames(0)[None, [0, 2, 4]], 8)[0])
    assert torch.equal(clip[1], to_clip(store.frames(1)[None, [2, 4, 6]], 8)[0])
    assert torch.equal(clip[2], to_clip(store.frames(2)[None, [3, 5, 7]], 8)[0])
    short = evaluation_clips(store, [0], frames=4, stride=2, image_size=8)
    assert torch.equal(short[0], to_clip(store.frames(0)[None, [0, 2, 4, 4]], 8)[0])


def test_batches_are_a_function_of_seed_stage_and_step(store):
    one, other = sampler(store), sampler(store)
    for step in (0, 1, 2):
        one.batch("first", step, 5, False)
    assert torch.equal(one.batch("first", 7, 5, True), other.batch("first", 7, 5, True))
    for changed in (
        other.batch("second", 7, 5, True),
        other.batch("first", 8, 5, True),
        sampler(store, seed=1).batch("first", 7, 5, True),
        sampler(store, purpose="judge").batch("first", 7, 5, True),
    ):
        assert not torch.equal(one.batch("first", 7, 5, True), changed)


def which_clips(store, batch):
    """Finds the clips of a full-size batch by their pixels."""
    table = {
        store.frames(i)[t].tobytes(): (i, t)
        for i in range(len(store))
        for t in range(store.lengths[i])
    }
    pixels = (batch * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
    return [[table[frame.tobytes()] for frame in item] for item in pixels]


def test_a_pass_has_no_repetition_and_the_next_pass_another_order(store):
    one = sampler(store, image_size=8, frames=1)
    steps = [which_clips(store, one.batch("s", step, 16, False)) for step in range(9)]
    order = [item[0][0] for batch in steps for item in batch]
    assert sorted(order[:72]) == sorted(order[72:]) == list(range(72))
    assert order[:72] != order[72:]


def test_a_batch_larger_than_the_set_walks_through_several_passes(store):
    one = sampler(store, indices=[3, 5, 8], image_size=8, frames=1)
    found = [item[0][0] for item in which_clips(store, one.batch("s", 0, 12, False))]
    assert all(sorted(found[k : k + 3]) == [3, 5, 8] for k in (0, 3, 6, 9))


def test_windows_lie_inside_their_clip_and_start_everywhere(store):
    one = sampler(store, indices=[1, 2], image_size=8, frames=3, stride=2)
    starts = {1: set(), 2: set()}
    for step in range(40):
        for item in which_clips(store, one.batch("s", step, 4, False)):
            clip, start = item[0]
            assert item == [(clip, start), (clip, start + 2), (clip, start + 4)]
            starts[clip].add(start)
    assert starts == {1: set(range(5)), 2: set(range(8))}


def test_pairs_join_two_different_clips_of_one_identity(store):
    one = sampler(store, image_size=8, frames=4)
    partners = set()
    for step in range(20):
        for item in which_clips(store, one.batch("s", step, 18, True)):
            (first, _), (same, _), (second, _), (other, _) = item
            assert first == same != second == other
            assert store.identities[first] == store.identities[second]
            if first == 0:
                partners.add(second)
    assert len(partners) > 2


def test_clips_of_one_recording_are_no_pair_where_there_is_another(store, monkeypatch):
    takes = np.arange(len(store)) // 2  # two windows of each
    monkeypatch.setattr(store, "recordings", takes)
    one = sampler(store, image_size=8, frames=4)
    for step in range(20):
        for (first, _), _, (second, _), _ in which_clips(store, one.batch("s", step, 18, True)):
            assert takes[first] != takes[second]
            assert store.identities[first] == store.identities[second]
    who = np.flatnonzero(store.identities == 0)[:2]
    assert sampler(store, indices=who, image_size=8, frames=4).alone == 1


def test_an_identity_with_one_clip_is_counted_and_joined_to_itself(store):
    first, second = (np.flatnonzero(store.identities == who)[:2] for who in (0, 1))
    one = sampler(store, indices=[*first, second[0]], image_size=8, frames=4)
    assert one.alone == 1
    clips = which_clips(store, one.batch("s", 0, 3, True))
    assert [item[0][0] == item[2][0] for item in clips] == [
        item[0][0] == second[0] for item in clips
    ]
    assert sampler(store, image_size=8, frames=4).alone == 0


def test_pairs_stay_inside_the_training_clips(store):
    mine = [0, 3, 13, 14]  # clip 0 and 3 are of one identity, the others of another
    one = sampler(store, indices=mine, image_size=8, frames=4)
    for item in which_clips(store, one.batch("s", 0, 40, True)):
        assert {clip for clip, _ in item} in ({0, 3}, {13, 14})


def test_an_identity_with_one_clip_is_paired_with_itself(store):
    one = sampler(store, indices=[0], image_size=8, frames=4)
    assert {clip for clip, _ in which_clips(store, one.batch("s", 0, 2, True))[0]} == {0}


def test_pairs_of_an_odd_number_of_frames_are_refused(store):
    with pytest.raises(UsageError, match="must be even, not 3"):
        sampler(store, frames=3).batch("s", 0, 2, True)


@pytest.mark.parametrize("size", [8, 4, 3])
@pytest.mark.parametrize("pairs", [True, False])
def test_where_frames_lie_changes_no_bit(store, size, pairs):
    settings = {"image_size": size, "indices": np.arange(3, len(store), 2)}
    resident, streamed = (sampler(store, **settings, resident=place) for place in (True, False))
    for step in (0, 1, 2, 7, 8, 3):  # in a row, after a leap as on resuming, and back
        one, other = (each.batch("s", step, 9, pairs) for each in (resident, streamed))
        assert torch.equal(one, other)


def test_batches_are_read_one_step_ahead(store, monkeypatch):
    streamed = sampler(store, resident=False)
    read = []
    monkeypatch.setattr(streamed, "_read", lambda wanted, real=streamed._read: (
        read.append(wanted.step), real(wanted))[1])  # fmt: skip
    for step in (5, 6, 7):
        streamed.batch("s", step, 2, False)
    streamed._reader.shutdown()
    assert read == [5, 6, 7, 8]


def test_frames_are_resident_where_they_fit(store, monkeypatch):
    assert sampler(store).resident is not None
    monkeypatch.setattr(clips, "RESIDENT_LIMIT", 1000)
    assert sampler(store).resident is None


def test_the_sampler_shows_the_pixels_that_evaluation_shows(store):
    index = 0  # five frames: a window of three with stride two has one place only
    drawn = sampler(store, indices=[index], frames=3).batch("s", 0, 1, False)
    judged = evaluation_clips(store, [index], frames=3, stride=2, image_size=4)
    assert torch.equal(drawn, judged)


def test_a_stage_may_ask_for_another_number_of_frames(store):
    assert sampler(store).batch("s", 0, 2, False, frames=6).shape == (2, 6, 3, 4, 4)


@pytest.mark.parametrize("pairs", [False, True])
def test_it_tells_which_frames_a_batch_shows(store, pairs):
    held, read = (sampler(store, resident=place) for place in (True, False))
    asked = [(name, step, 5, pairs, 4) for name in ("one", "two") for step in (0, 3)]
    for wanted in asked:
        rows = held.rows(*wanted)
        assert rows.shape == (5, 4)
        assert torch.equal(held.batch(*wanted), to_unit(held.resident[rows]))
        assert torch.equal(read.rows(*wanted), rows)
    assert len({held.rows(*wanted).numpy().tobytes() for wanted in asked}) == 4
    assert read.resident is None
    assert held.n_frames == read.n_frames == len(held.resident)
    for each in (held, read):
        assert isinstance(each, FrameHolder)  # or frozen encoders read frames in every step
        assert torch.equal(each.some_frames(3, 17), held.resident[3:17])


def test_no_clips_are_refused(store):
    with pytest.raises(DataError, match="no clips to draw from"):
        sampler(store, indices=[])
