import itertools
import shutil

import numpy as np
import pytest

from vdsm_bench.data.sprites import Sprites, compose, first_identity_sha256, read_facts, read_sheets
from vdsm_bench.data.store import ClipStore
from vdsm_bench.errors import DataError

VARIANTS = ("vdsm-840", "li-mandt-1296")


@pytest.mark.parametrize(("variant", "characters"), [("vdsm-840", 840), ("li-mandt-1296", 1296)])
def test_the_card_and_factors_say_what_the_set_is(variant, characters):
    dataset = Sprites(variant=variant)
    sizes = [len(factor.classes) for factor in dataset.factors if factor.kind == "static"]
    assert np.prod(sizes) == characters
    assert dataset.factors[-1].kind == "dynamic"
    assert len(dataset.factors[-1].classes) == 9
    assert "CC BY-SA 3.0" in dataset.card.licence
    assert "GPL 3.0" in dataset.card.licence


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_character_is_the_published_one(variant, lpc):
    facts = read_facts(variant)
    labels, character = next(compose(facts, read_sheets(facts, lpc)))
    assert character.shape == (9, 8, 64, 64, 3)
    assert set(labels.values()) == {0}
    assert first_identity_sha256(character) == facts.first_identity_sha256


def test_characters_come_in_the_order_of_their_labels(lpc):
    facts = read_facts("vdsm-840")
    characters = itertools.islice(compose(facts, read_sheets(facts, lpc)), 32)
    labels = [list(one.values()) for one, _ in characters]
    assert labels[:8] == [[0, 0, 0, k] for k in range(6)] + [[0, 0, 1, 0], [0, 0, 1, 1]]
    assert labels[30] == [0, 1, 0, 0]


def test_the_840_characters_are_those_vdsm_used(lpc, tmp_path):
    """The SHA-256 of all 743 MB is compared while composing: prepare refuses anything else."""
    seen = []
    Sprites().prepare(
        tmp_path / "sprites", source=lpc / "sheets", progress=lambda *done: seen.append(done)
    )
    store = ClipStore.open(tmp_path / "sprites")
    assert store.card["frames_sha256"] == read_facts("vdsm-840").sha256
    assert seen[0] == (9, 7560)
    assert seen[-1] == (7560, 7560)
    assert (len(store), store.lengths.max(), store.identities.max()) == (7560, 8, 839)
    assert store.labels["action"][:10].tolist() == [*range(9), 0]
    shutil.rmtree(tmp_path / "sprites")


@pytest.fixture
def sheets(lpc, tmp_path):
    shutil.copytree(lpc / "sheets", tmp_path / "sheets")
    for path in (tmp_path / "sheets").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / "sheets"


def test_a_missing_sheet_is_named(sheets, tmp_path):
    (sheets / "body" / "male" / "dark.png").unlink()
    with pytest.raises(DataError, match=r"dark\.png is missing"):
        Sprites().prepare(tmp_path / "data" / "sprites", source=tmp_path)
    assert not (tmp_path / "data").exists()


def test_a_damaged_sheet_is_named(sheets, tmp_path):
    path = sheets / "hair" / "male" / "plain" / "raven2.png"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"raven2\.png is damaged"):
        Sprites().prepare(tmp_path / "data" / "sprites", source=tmp_path)


def test_other_pixels_than_the_published_ones_are_refused(lpc, tmp_path):
    dataset = Sprites()
    facts = dataset.facts
    small = {name: dict(list(kinds.items())[:1]) for name, kinds in facts.factors.items()}
    dataset.facts = type(facts)(**{**vars(facts), "factors": small})
    with pytest.raises(DataError, match="the published set has 8baa315a3490baf8"):
        dataset.prepare(tmp_path / "sprites", source=lpc)
    assert not (tmp_path / "sprites").exists()


def test_without_a_source_the_hint_is_the_command(tmp_path):
    with pytest.raises(DataError) as caught:
        Sprites().prepare(tmp_path / "sprites")
    assert "vdsm-bench data prepare sprites --from FOLDER" in caught.value.hint
