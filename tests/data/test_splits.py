import hashlib
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from vdsm_bench.contracts import Factor
from vdsm_bench.data.splits import check_disjoint, make_splits
from vdsm_bench.data.sprites import read_facts
from vdsm_bench.data.store import ClipStore
from vdsm_bench.data.store_writer import StoreWriter
from vdsm_bench.errors import DataError, UsageError

from .conftest import FACTORS, card, write_toy

RULES = ("clips", "identities", "cells")


def write_labels_only(folder, name, factors, rows):
    """A store of one-frame clips with 2 x 2 random pixels: only its labels matter."""
    pixels = np.random.default_rng(0).integers(0, 256, (len(rows), 2, 2, 3), dtype=np.uint8)
    with StoreWriter(
        folder, card=card(name), factors=factors, image_shape=(2, 2, 3), total_frames=len(rows)
    ) as writer:
        for frame, row in zip(pixels, rows, strict=True):
            labels = {factor.name: value for factor, value in zip(factors, row, strict=True)}
            writer.add(frame[None], labels)
    return ClipStore.open(folder)


def write_sprites_labels(folder, variant):
    facts = read_facts(variant)
    factors = [Factor(name, "static", tuple(kinds)) for name, kinds in facts.factors.items()]
    factors.append(Factor("action", "dynamic", tuple(facts.actions)))
    rows = list(itertools.product(*(range(len(factor.classes)) for factor in factors)))
    return write_labels_only(folder, facts.store, factors, rows)


@pytest.fixture(scope="module")
def stores(tmp_path_factory, faces_store):
    root = tmp_path_factory.mktemp("splits")
    return {
        "toy": write_toy(root / "toy", takes=4),
        "faces": faces_store,
        "sprites": write_sprites_labels(root / "sprites", "vdsm-840"),
        "sprites-1296": write_sprites_labels(root / "sprites-1296", "li-mandt-1296"),
    }


@pytest.fixture(params=["toy", "faces", "sprites", "sprites-1296"])
def store(request, stores):
    return stores[request.param]


def cells_of(store, indices):
    return set(zip(store.identities[indices], store.motions[indices], strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_parts_are_disjoint_and_use_every_clip(store, rule):
    splits = make_splits(store, rule)
    check_disjoint(store, splits)
    everything = np.concatenate(list(splits.parts().values()))
    assert sorted(everything) == list(range(len(store)))
    assert len(splits.train) > len(splits.test) > 0
    assert len(splits.validation) > 0


@pytest.mark.parametrize("rule", RULES)
def test_the_gates_cells_are_a_tenth_and_leave_every_identity_and_action_in_train(store, rule):
    splits = make_splits(store, rule)
    gate, train = cells_of(store, splits.cells), cells_of(store, splits.train)
    assert gate
    assert not gate & train
    if len(store) > 200:
        assert 0.07 <= len(gate) / (len(gate) + len(train)) <= 0.14
    assert {who for who, _ in gate} <= {who for who, _ in train}
    assert {what for _, what in gate} <= {what for _, what in train}
    per_action = np.bincount([what for _, what in gate], minlength=store.motions.max() + 1)
    assert per_action.max() - per_action.min() <= 1 + 0.2 * per_action.max()


@pytest.mark.parametrize(("people", "actions"), [(2, 2), (2, 3), (4, 3), (4, 4), (5, 4)])
def test_the_gate_of_a_small_set_asks_for_two_people_and_two_actions(people, actions, tmp_path):
    factors = [
        Factor("who", "static", tuple(map(str, range(people)))),
        Factor("what", "dynamic", tuple(map(str, range(actions)))),
    ]
    rows = list(itertools.product(range(people), range(actions))) * 8
    store = write_labels_only(tmp_path / "few", "few", factors, rows)
    for seed in range(5):
        splits = make_splits(store, "clips", seed)
        gate, train = cells_of(store, splits.cells), cells_of(store, splits.train)
        several = people * actions >= 6
        assert len(gate) == 1 + several
        assert len({who for who, _ in gate}) == len({what for _, what in gate}) == len(gate)
        # no person is told by what they do alone
        assert len(train) >= people + actions - 1
        assert {who for who, _ in train} == set(range(people))
        assert {what for _, what in train} == set(range(actions))


def test_a_factor_of_one_class_is_named(tmp_path):
    room = Factor("room", "static", ("kitchen", "garden"))
    rows = [(*row, 0) for row in itertools.product(range(3), range(2), range(4))] * 4
    store = write_labels_only(tmp_path / "room", "room", [*FACTORS, room], rows)
    for rule in RULES:
        splits = make_splits(store, rule)
        assert splits.constant == ("room",)
        assert "room" not in splits.unscorable


def test_identities_are_held_out_whole_and_attributes_stay_known(store):
    splits = make_splits(store, "identities")
    people = [
        set(store.identities[part]) for part in (splits.train, splits.validation, splits.test)
    ]
    assert not people[0] & people[1]
    assert not people[0] & people[2]
    assert not people[1] & people[2]
    for factor in store.factors:
        if factor.name not in splits.unscorable:
            known = set(store.labels[factor.name][splits.train])
            assert set(store.labels[factor.name]) == known


@pytest.mark.parametrize("seed", range(4))
def test_the_gates_people_are_people_of_training(seed, tmp_path):
    """Of attributes that are drawn, most people have one clip of each action."""
    draw = np.random.default_rng(seed)
    counts = {"hair": 3, "skin": 2, "glasses": 2, "age": 2}
    factors = [Factor(name, "static", tuple(map(str, range(n)))) for name, n in counts.items()]
    factors.append(Factor("action", "dynamic", ("wave", "nod", "jump")))
    rows = np.stack([draw.integers(0, len(factor.classes), 90) for factor in factors], 1).tolist()
    store = write_labels_only(tmp_path / "drawn", "drawn", factors, rows)
    splits = make_splits(store, "clips")
    assert len(splits.cells)
    assert set(store.identities[splits.cells]) <= set(store.identities[splits.train])
    check_disjoint(store, splits)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("toy", "178227908d3c"),
        ("faces", "d5c5225f3154"),
        ("sprites", "ef82b5c8cff7"),
        ("sprites-1296", "10a1d1a720f7"),
    ],
)
def test_the_indices_of_known_sets_stay(stores, name, digest):
    """Other indices are another protocol: every cell would be trained anew."""
    parts = [make_splits(stores[name], rule).parts() for rule in RULES]
    listed = json.dumps([{part: rows.tolist() for part, rows in each.items()} for each in parts])
    assert hashlib.sha256(listed.encode()).hexdigest()[:12] == digest


@pytest.mark.parametrize("people", [4, 9, 14])
def test_two_identities_are_held_out_however_few_there_are(people, tmp_path):
    factors = [Factor("who", "static", tuple(map(str, range(people)))), FACTORS[-1]]
    rows = [(who, what) for who in range(people) for what in range(len(FACTORS[-1].classes))] * 2
    splits = make_splits(write_labels_only(tmp_path / "few", "few", factors, rows), "identities")
    rows = np.array(rows)
    assert len(np.unique(rows[splits.test, 0])) == 2
    assert len(np.unique(rows[splits.validation, 0])) == 1


@pytest.mark.parametrize("lone", [1, 5])
def test_the_only_clip_of_somebody_is_for_training(lone, tmp_path):
    people, actions = 12, len(FACTORS[-1].classes)
    factors = [Factor("who", "static", tuple(map(str, range(people + lone)))), FACTORS[-1]]
    rows = [(who, what) for who in range(people) for what in range(actions)] * 4
    rows += [(people + one, one % actions) for one in range(lone)]
    store = write_labels_only(tmp_path / "lone", "lone", factors, rows)
    for seed in range(20):
        splits = make_splits(store, "clips", seed)
        assert splits.unscorable == splits.constant == ()
        assert set(range(len(rows) - lone, len(rows))) <= set(splits.train)


def test_a_name_of_the_identity_is_unscorable_on_unseen_identities(stores):
    assert make_splits(stores["faces"], "identities").unscorable == ("identity",)
    assert make_splits(stores["faces"], "clips").unscorable == ()
    assert make_splits(stores["sprites"], "identities").unscorable == ()


def test_clips_are_held_out_in_every_cell(stores):
    splits = make_splits(stores["toy"], "clips")
    store = stores["toy"]
    assert cells_of(store, splits.test) == cells_of(store, splits.train)
    assert abs(len(splits.test) / (len(store) - len(splits.cells)) - 0.25) < 0.01


def test_cells_are_held_out_of_known_identities(stores):
    store = stores["sprites"]
    splits = make_splits(store, "cells")
    assert not cells_of(store, splits.test) & cells_of(store, splits.train)
    assert set(store.identities[splits.test]) <= set(store.identities[splits.train])


def test_splits_are_a_function_of_content_rule_and_seed(stores):
    store = stores["sprites"]
    keys = {make_splits(store, rule, seed).content_key for rule in RULES for seed in (0, 1)}
    assert len(keys) == 6
    assert make_splits(store, "cells").content_key == make_splits(store, "cells").content_key


def test_li_and_mandts_characters(stores):
    """The published list: 1000 and 296 characters by NumPy's legacy generator, seed 423."""
    store = stores["sprites-1296"]
    splits = make_splits(store, "identities")
    test = set(store.identities[splits.test])
    assert len(test) == 296
    assert len(set(store.identities[splits.train]) | set(store.identities[splits.validation])) == (
        1000
    )
    assert not test & {1116, 1135, 17, 469, 1293, 491, 869, 961, 91, 793}
    assert make_splits(store, "identities", seed=5).test.tolist() == splits.test.tolist()


def test_li_and_mandts_list_is_the_one_in_the_facts(stores, lpc):
    facts = json.loads((lpc / "geometry.json").read_text())["variants"]["li_mandt_1296"]
    store = stores["sprites-1296"]
    test = sorted(set(store.identities[make_splits(store, "identities").test].tolist()))
    assert test == facts["published_split"]["test_identity_indices"]


def test_an_unknown_rule_is_refused_with_a_suggestion(toy):
    with pytest.raises(UsageError, match="did you mean 'identities'"):
        make_splits(toy, "identity")


def test_too_small_a_set_is_refused(tmp_path):
    store = write_labels_only(tmp_path / "t", "t", FACTORS, [(0, 0, 0), (1, 1, 1)])
    with pytest.raises(DataError, match="too small"):
        make_splits(store, "identities")


def moved(splits, **parts):
    return replace(splits, **{name: np.asarray(part) for name, part in parts.items()})


def test_shared_clips_are_found(toy):
    splits = make_splits(toy, "clips")
    with pytest.raises(DataError, match="share clips"):
        check_disjoint(toy, moved(splits, test=np.append(splits.test, splits.train[0])))


def test_a_shared_identity_is_found(toy):
    splits = make_splits(toy, "identities")
    with pytest.raises(DataError, match="identity"):
        check_disjoint(
            toy,
            moved(splits, train=splits.train[1:], test=np.append(splits.test, splits.train[0])),
        )


def test_a_shared_cell_is_found(toy):
    splits = make_splits(toy, "cells")
    with pytest.raises(DataError, match="cell"):
        check_disjoint(
            toy,
            moved(splits, train=splits.train[1:], test=np.append(splits.test, splits.train[0])),
        )


def test_a_gate_cell_in_train_is_found(toy):
    splits = make_splits(toy, "clips")
    with pytest.raises(DataError, match="'cells' occur in another part"):
        check_disjoint(
            toy,
            moved(splits, cells=splits.cells[1:], train=np.append(splits.train, splits.cells[0])),
        )


def test_equal_pixels_in_train_and_test_are_found(tmp_path):
    store = write_toy(tmp_path / "toy")
    splits = make_splits(store, "clips")
    original, copy = int(splits.train[0]), int(splits.test[0])
    twin = store.frames(original).copy()
    store.frames = lambda index: twin if index == copy else ClipStore.frames(store, index)
    with pytest.raises(DataError, match=f"1 clips .*train {original} = test {copy}"):
        check_disjoint(store, splits)
