import numpy as np
import pytest

from vdsm_bench.data.clips import evaluation_clips
from vdsm_bench.data.moving_shapes import (
    COLOURS,
    GROUNDS,
    PATHS,
    PULSES,
    SPINS,
    MovingShapes,
)
from vdsm_bench.data.store import ClipStore
from vdsm_bench.errors import DataError

FRAMES = np.arange(16)


@pytest.fixture(scope="module")
def shapes():
    return MovingShapes()


class Few(MovingShapes):
    """The same with one shape, two colours and two grounds."""

    factors = tuple(
        type(factor)(factor.name, factor.kind, factor.classes[:count])
        for factor, count in zip(MovingShapes.factors, (1, 2, 2, 3, 3, 2), strict=True)
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "moving-shapes"
    Few().prepare(folder)
    return ClipStore.open(folder)


def nearest(colour, table):
    return int(np.abs(np.array(list(table.values())) - colour).sum(1).argmin())


def seen(clip):
    """Reads every factor off the pixels, knowing the tables but not the clip's labels."""
    clip = clip.astype(float)
    ground = clip[0, 0, 0]
    white = clip.min(-1) > 235
    apart = np.abs(clip[0] - ground).max(-1) > 40
    found, counts = np.unique(clip[0][apart & ~white[0]], axis=0, return_counts=True)
    colour = found[counts.argmax()]
    # how much of a pixel is shape, be it coloured or white
    full = min(np.abs(colour - ground).max(), np.abs(250 - ground).max())
    cover = np.clip(np.abs(clip - ground).max(-1) / full, 0, 1)
    rows, columns = np.mgrid[:64, :64] + 0.5
    area = cover.sum((1, 2))
    x, y = (cover * columns).sum((1, 2)) / area, (cover * rows).sum((1, 2)) / area
    mark = np.clip((clip.min(-1) - 225) / 25, 0, 1)
    white_x = (mark * columns).sum((1, 2)) / mark.sum((1, 2))
    white_y = (mark * rows).sum((1, 2)) / mark.sum((1, 2))
    turn = np.unwrap(np.arctan2(white_x - x, -(white_y - y)))
    turned = np.degrees(turn[-1] - turn[0])
    wide, high = np.ptp(x), np.ptp(y)
    radius = np.hypot(columns - x[:, None, None], rows - y[:, None, None])
    furthest = np.where(cover > 0.5, radius, 0).max((1, 2))
    # two numbers that neither size nor turn changes: the share of the circle round the shape that
    # it fills, and its polar moment over its squared area
    filled = np.median(area / (np.pi * furthest**2))
    moment = np.median((cover * radius**2).sum((1, 2)) / area**2)
    return {
        "ground": nearest(ground, GROUNDS),
        "colour": nearest(colour, COLOURS),
        "path": 2 if min(wide, high) > 8 else 0 if wide > high else 1,
        "spin": 0 if abs(turned) < 60 else 1 if turned > 0 else 2,
        "pulse": int(area.max() / area.min() > 1.6),
        "shape": (3 if moment > 0.18 else 0) if filled > 0.53 else (2 if moment > 0.22 else 1),
    }


def test_every_combination_is_there_once(shapes, store):
    assert len(shapes) == 4 * 6 * 4 * 3 * 3 * 2
    kinds = [(factor.name, factor.kind) for factor in shapes.factors]
    assert kinds == [
        ("shape", "static"),
        ("colour", "static"),
        ("ground", "static"),
        ("path", "dynamic"),
        ("spin", "dynamic"),
        ("pulse", "dynamic"),
    ]
    assert (len(store), store.identities.max(), store.motions.max()) == (72, 3, 17)
    assert set(np.bincount(store.identities * 18 + store.motions)) == {1}
    for index in (0, 40, 71):
        labels = {name: int(values[index]) for name, values in store.labels.items()}
        assert labels == Few().labels(index)


def test_all_labels_can_be_read_off_the_pixels(shapes):
    draw = np.random.default_rng(0)
    for index in draw.choice(len(shapes), 60, replace=False):
        assert seen(shapes.draw(index, index, FRAMES)) == shapes.labels(int(index)), index


def test_a_shape_stays_inside_the_frame(shapes):
    for index in range(0, len(shapes), 173):
        clip = shapes.draw(index, index, np.arange(40)).astype(int)
        border = np.concatenate(
            [clip[:, [0, -1]].reshape(-1, 3), clip[:, :, [0, -1]].reshape(-1, 3)]
        )
        assert (border == clip[0, 0, 0]).all()


def test_factors_change_what_they_name_alone(shapes):
    """Another shape, colour or ground leaves the motion as it is."""
    motion = 2 * 6 + 1 * 2 + 1  # round, clockwise, pulsing
    course = shapes.course(motion)
    for who in (0, 18 * 30, 18 * 95):
        (clip,) = shapes.render_transfer([who], [motion], frames=16, stride=1, image_size=64)
        found = seen(clip)
        assert (found["path"], found["spin"], found["pulse"]) == (2, 1, 1)
        assert found["ground"] == shapes.labels(who)["ground"]
        assert found["colour"] == shapes.labels(who)["colour"]
    assert (list(PATHS)[course.path], list(SPINS)[course.spin], list(PULSES)[course.pulse]) == (
        "round",
        "clockwise",
        "pulsing",
    )


def test_transfers_and_continuations_agree_with_the_store(store):
    chosen, dataset = [0, 35, 71], Few()
    stored = evaluation_clips(store, chosen, frames=8, stride=2, image_size=32)
    pixels = stored.mul(255).round().byte().permute(0, 1, 3, 4, 2).numpy()
    same = dataset.render_transfer(chosen, chosen, frames=8, stride=2, image_size=32)
    assert (same == pixels).all()
    long = dataset.render_continuation(chosen, window=8, frames=30, stride=2, image_size=32)
    assert (long[:, :8] == pixels).all()
    assert long.shape == (3, 30, 32, 32, 3)


def test_a_seed_gives_the_same_bytes_and_another_seed_others(store):
    again, other = Few(takes=2), Few(seed=1)
    for index in (0, 71):
        assert (again.draw(2 * index, 2 * index, FRAMES) == store.frames(index)).all()
        assert (other.draw(index, index, FRAMES) != store.frames(index)).any()


def test_no_takes_are_refused():
    with pytest.raises(DataError, match="moving-shapes: takes must be at least 1"):
        MovingShapes(takes=0)
