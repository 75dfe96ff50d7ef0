import numpy as np
import pytest
from scipy.integrate import solve_ivp

from vdsm_bench.contracts import Factor
from vdsm_bench.data.clips import evaluation_clips
from vdsm_bench.data.pendula import (
    BOBS,
    COLOURS,
    ENERGIES,
    LENGTHS,
    RATES,
    Pendula,
    Swing,
    integrate,
)
from vdsm_bench.data.store import ClipStore
from vdsm_bench.errors import DataError, UsageError

#: one clip of every motion, spread over identities and takes
SOME = [motion * 3 + 27 * 7 * (motion % 5) + motion % 3 for motion in range(9)]


@pytest.fixture(scope="module")
def pendula():
    return Pendula()


class Few(Pendula):
    """The same with two colours."""

    factors = (Factor("colour", "static", tuple(COLOURS)[:2]), *Pendula.factors[1:])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pendula"
    Few(takes=1).prepare(folder)
    return ClipStore.open(folder)


def angles_in(clip):
    """Reads the angle of the rod off the pixels: where the coloured bob is, seen from the pivot."""
    pixels = clip.astype(float)
    spread = pixels.max(-1) - pixels.min(-1)
    weight = np.where(spread > 60, spread, 0)  # ground and rod are grey, the bob is not
    rows, columns = np.mgrid[:64, :64] + 0.5
    total = weight.sum((1, 2))
    x, y = (weight * columns).sum((1, 2)) / total, (weight * rows).sum((1, 2)) / total
    return x, y


def test_every_combination_is_there_equally_often(pendula, store):
    assert len(pendula) == 8 * 3 * 3 * 9 * 3
    assert (len(store), set(store.lengths.tolist()), store.image_shape) == (162, {16}, (64, 64, 3))
    assert store.identities.max() == 17
    assert store.motions.max() == 8
    assert set(np.bincount(store.identities * 9 + store.motions)) == {1}
    assert {f.name: f.kind for f in store.factors} == {
        "colour": "static",
        "length": "static",
        "bob": "static",
        "reach": "dynamic",
        "tempo": "dynamic",
    }


@pytest.mark.parametrize("index", SOME)
def test_energy_is_kept_and_lies_in_its_bin(pendula, index):
    swing, labels = pendula.swing(index), pendula.labels(index)
    states = integrate(swing, 400)
    energy = np.array([swing.energy(*state) for state in states])
    assert np.abs(energy - energy[0]).max() < 1e-5
    low, high = list(ENERGIES.values())[labels["reach"]]
    assert low <= energy[0] <= high
    low, high = list(RATES.values())[labels["tempo"]]
    assert low <= swing.rate <= high


@pytest.mark.parametrize("index", SOME)
def test_the_course_is_that_of_an_independent_integrator(pendula, index):
    swing = pendula.swing(index)
    truth = solve_ivp(
        lambda _, state: [state[1], -(swing.rate**2) * np.sin(state[0])],
        (0, 59),
        [swing.angle, swing.speed],
        method="DOP853",
        t_eval=np.arange(60),
        rtol=1e-11,
        atol=1e-12,
    )
    assert np.abs(integrate(swing, 60) - truth.y.T).max() < 1e-4


def test_a_small_swing_has_the_textbook_period():
    swing = Swing(rate=0.3, angle=0.01, speed=0.0, pivot=(32, 32), gain=1.0)
    frames = np.arange(100)
    assert np.abs(integrate(swing, 100)[:, 0] - 0.01 * np.cos(0.3 * frames)).max() < 1e-5


@pytest.mark.parametrize("index", SOME)
def test_the_pixels_show_the_integrated_angle(pendula, index):
    if pendula.labels(index)["colour"] == list(COLOURS).index("white"):
        pytest.skip("a white bob has no colour to be found by")
    swing, length = pendula.swing(index), list(LENGTHS.values())[pendula.labels(index)["length"]]
    x, y = angles_in(pendula.draw(index, index, np.arange(16)))
    angles = integrate(swing, 16)[:, 0]
    assert np.abs(x - swing.pivot[0] - length * np.sin(angles)).max() < 0.6
    assert np.abs(y - swing.pivot[1] - length * np.cos(angles)).max() < 0.6


def test_the_labels_can_be_read_off_the_pixels(pendula):
    draw = np.random.default_rng(0)
    palette = np.array(list(COLOURS.values())) / np.linalg.norm(
        list(COLOURS.values()), axis=1, keepdims=True
    )
    for index in draw.choice(len(pendula), 30, replace=False):
        labels = pendula.labels(int(index))
        clip = pendula.draw(index, index, np.arange(40)).astype(float)
        if labels["colour"] == list(COLOURS).index("white"):
            continue
        x, y = angles_in(clip)
        bob = clip[0][(clip[0].max(-1) - clip[0].min(-1)) > 90]
        hue = bob.mean(0) / np.linalg.norm(bob.mean(0))
        assert (palette @ hue).argmax() == labels["colour"]
        pivot = np.array(pendula.swing(index).pivot)
        reach = np.hypot(x - pivot[0], y - pivot[1]).mean()
        assert np.abs(np.array(list(LENGTHS.values())) - reach).argmin() == labels["length"]
        angle = np.unwrap(np.arctan2(x - pivot[0], y - pivot[1]))
        furthest = np.degrees(np.abs(angle).max())
        assert labels["reach"] == (0 if furthest < 45 else 1 if furthest < 120 else 2)


def test_bobs_look_different():
    dataset = Pendula(takes=1)
    clips = [dataset.draw(bob * 9, 0, np.arange(1)).astype(int) for bob in range(len(BOBS))]
    for left in range(3):
        for right in range(left):
            assert (np.abs(clips[left] - clips[right]).max(-1) > 60).sum() > 25


def test_sixty_frames_go_on_from_the_sixteen_that_are_stored(pendula):
    chosen = [0, 700, 1943]
    long = pendula.render_continuation(chosen, window=16, frames=60, stride=1, image_size=64)
    assert long.shape == (3, 60, 64, 64, 3)
    for clip, index in zip(long, chosen, strict=True):
        assert (clip[:16] == pendula.draw(index, index, np.arange(16))).all()
        assert (clip[16:] != clip[15]).any()


@pytest.mark.parametrize(("window", "stride", "size"), [(8, 2, 32), (16, 1, 64), (5, 1, 24)])
def test_a_continuation_starts_with_the_evaluation_window(store, window, stride, size):
    dataset, chosen = Few(takes=1), [1, 133]
    long = dataset.render_continuation(
        chosen, window=window, frames=40, stride=stride, image_size=size
    )
    stored = evaluation_clips(store, chosen, frames=window, stride=stride, image_size=size)
    pixels = stored.mul(255).round().byte().permute(0, 1, 3, 4, 2).numpy()
    assert long.shape == (2, 40, size, size, 3)
    assert (long[:, :window] == pixels).all()


def test_a_window_longer_than_the_clip_has_no_continuation(pendula):
    with pytest.raises(UsageError, match="longer than its clips of 16 frames"):
        pendula.render_continuation([0], window=9, frames=60, stride=2, image_size=32)


@pytest.mark.parametrize(("frames", "stride"), [(8, 2), (16, 1), (20, 1)])
def test_a_transfer_is_who_in_the_swing_of_the_other(store, frames, stride):
    dataset = Few(takes=1)
    same = dataset.render_transfer([5, 160], [5, 160], frames=frames, stride=stride, image_size=32)
    stored = evaluation_clips(store, [5, 160], frames=frames, stride=stride, image_size=32)
    assert (same == stored.mul(255).round().byte().permute(0, 1, 3, 4, 2).numpy()).all()
    a, b = 3, 8 + 9 * 14
    (mixed,) = dataset.render_transfer([a], [b], frames=16, stride=1, image_size=64)
    x, y = angles_in(mixed)
    angles = integrate(dataset.swing(b), 16)[:, 0]
    assert np.abs(np.sin(np.arctan2(x - 32, y - 32) - angles)).max() < 0.25
    assert dataset.labels(a)["length"] != dataset.labels(b)["length"]


def test_a_seed_gives_the_same_bytes_and_another_seed_other_swings(store):
    again, other = Few(takes=2), Few(takes=1, seed=1)
    frames = np.arange(16)
    for index in (0, 77, 161):
        assert (again.draw(2 * index, 2 * index, frames) == store.frames(index)).all()
        assert (other.draw(index, index, frames) != store.frames(index)).any()


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(DataError, match="takes must be at least 1"):
        Pendula(takes=0)
    with pytest.raises(DataError, match="is drawn, not imported"):
        Pendula().prepare(tmp_path / "x", source=tmp_path)
