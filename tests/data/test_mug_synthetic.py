import numpy as np
import pytest
import torch

from vdsm_bench.data.clips import evaluation_clips
from vdsm_bench.data.expressions import ACTIONS, APEX, NEUTRAL, draw_take
from vdsm_bench.data.faces import HAIRS, PEOPLE, SKINS, draw_people
from vdsm_bench.data.mug_synthetic import MugSynthetic, render
from vdsm_bench.errors import DataError
from vdsm_bench.seeding import generator


def test_the_set_has_mugs_schema(faces_store):
    assert faces_store.name == "mug-synthetic"
    assert len(faces_store) == 52 * 6
    assert faces_store.image_shape == (64, 64, 3)
    kinds = {factor.name: (factor.kind, len(factor.classes)) for factor in faces_store.factors}
    assert kinds == {
        "identity": ("static", 52),
        "skin": ("static", 5),
        "hair": ("static", 6),
        "action": ("dynamic", 6),
    }
    assert (faces_store.identities == faces_store.labels["identity"]).all()
    assert set(np.bincount(faces_store.labels["action"])) == {52}
    assert faces_store.lengths.min() >= 20
    assert faces_store.lengths.max() <= 32
    assert len(set(faces_store.lengths.tolist())) > 8


def test_attributes_are_balanced_and_crossed():
    people = draw_people(generator(0, "mug-synthetic", "people"))
    table = np.zeros((len(SKINS), len(HAIRS)), int)
    for person in people:
        table[person.skin, person.hair] += 1
    assert len(people) == PEOPLE
    assert table.min() == 1
    assert table.max() == 2
    looks = {(person.skin, person.hair, person.style) for person in people}
    assert len(looks) == PEOPLE


def test_a_seed_gives_the_same_bytes_and_another_seed_other_people(faces_store):
    same, other = MugSynthetic(takes=1), MugSynthetic(takes=1, seed=1)
    for index in (0, 100, 311):
        drawn = render(same._people[same.labels(index)["identity"]], same.take(index))
        assert (drawn == faces_store.frames(index)).all()
        changed = render(other._people[other.labels(index)["identity"]], other.take(index))
        assert changed.shape != drawn.shape or (changed != drawn).any()


def test_a_larger_set_keeps_the_clips_of_a_smaller_one():
    few, many = MugSynthetic(takes=1), MugSynthetic(takes=3)
    assert (few.take(7).amounts == many.take(21).amounts).all()
    assert few.labels(7) == many.labels(21)
    assert (
        len(many.take(22)) != len(many.take(21))
        or (many.take(22).amounts != many.take(21).amounts).any()
    )


@pytest.mark.parametrize("action", range(6))
def test_a_take_goes_smoothly_from_neutral_to_the_apex_and_back(action):
    for number in range(20):
        take = draw_take(action, generator(number, "test"))
        amounts = take.amounts
        assert amounts[0] < 0.1
        assert amounts[-1] < 0.1
        assert amounts.max() > 0.84
        top = int(np.argmax(amounts))
        assert (np.diff(amounts[: top + 1]) >= 0).all()
        assert np.abs(np.diff(amounts)).max() < 0.45
        assert take.expression(0).mouth_width == pytest.approx(1.0, abs=0.05)


def test_expressions_differ_from_neutral_and_from_each_other():
    vectors = np.array([NEUTRAL, *APEX.values()])
    for i in range(len(vectors)):
        for j in range(i):
            assert np.abs(vectors[i] - vectors[j]).max() > 1


def test_clips_of_a_person_look_alike_and_expressions_look_different(faces_store):
    """The nearest apex frame of another person's clip shows the same expression, mostly."""
    first = np.stack([faces_store.frames(i)[0] for i in range(len(faces_store))]).astype(float)
    middle = np.stack(
        [faces_store.frames(i)[len(faces_store.frames(i)) // 2] for i in range(len(faces_store))]
    ).astype(float)
    assert (np.abs(middle - first).mean((1, 2, 3)) > 0.5).all()
    flat = first.reshape(len(first), -1)
    distance = (flat**2).sum(1)[:, None] + (flat**2).sum(1)[None] - 2 * flat @ flat.T
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argmin(1)
    who = faces_store.labels["identity"]
    assert (who[nearest] == who).mean() > 0.9


@pytest.mark.parametrize(("size", "frames", "stride"), [(64, 10, 2), (32, 8, 1), (24, 40, 1)])
def test_transfer_to_oneself_is_the_stored_clip(faces_store, size, frames, stride):
    dataset, which = MugSynthetic(takes=1), [0, 17, 200]
    drawn = dataset.render_transfer(which, which, frames=frames, stride=stride, image_size=size)
    stored = evaluation_clips(faces_store, which, frames=frames, stride=stride, image_size=size)
    assert drawn.dtype == np.uint8
    assert drawn.shape == (3, frames, size, size, 3)
    pixels = torch.from_numpy(drawn).permute(0, 1, 4, 2, 3).float() / 255
    assert torch.equal(pixels, stored)


def test_transfer_takes_the_person_of_one_and_the_take_of_the_other():
    dataset = MugSynthetic(takes=1)
    a, b = 3, 3 * 6 + 5  # persons 0 and 3, actions 3 and 5
    drawn = dataset.render_transfer([a], [b], frames=200, stride=1, image_size=64)[0]
    expected = render(dataset._people[0], dataset.take(b))
    assert dataset.take(b).action == ACTIONS.index("surprise")
    assert (drawn[: len(expected)] == expected).all()


def test_a_source_is_refused(tmp_path):
    with pytest.raises(DataError, match="is drawn, not imported"):
        MugSynthetic().prepare(tmp_path / "x", source=tmp_path)


def test_no_takes_are_refused():
    with pytest.raises(DataError, match="takes must be at least 1"):
        MugSynthetic(takes=0)
