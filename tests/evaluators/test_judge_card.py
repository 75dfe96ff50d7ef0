"""A judge in its folder: what is kept, what is refused, and what a leaky judge meets."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tests.evaluators import toy
from vdsm_bench.config import JudgeChoice, JudgeSettings
from vdsm_bench.contracts import ClipShape, LabelledClips
from vdsm_bench.errors import DataError, ProtocolError
from vdsm_bench.evaluators.judge_card import (
    JudgeClips,
    judge_key,
    load_judge,
    obtain_judge,
    retrains_alike,
    save_judge,
)
from vdsm_bench.evaluators.judge_examination import (
    CORRUPTIONS,
    clips_digest,
    corrupted,
    examine,
)
from vdsm_bench.evaluators.judge_training import train_judge

FAST = JudgeSettings(epochs=1, width=4, batch_size=16)


@pytest.fixture(scope="module")
def clips(train, validation, test_clips):
    return JudgeClips(train, validation, test_clips, toy.make(40, seed=8))


def obtain(folder, clips, **more):
    return obtain_judge(folder, clips, factors=toy.FACTORS, **{"settings": FAST, **more})


@pytest.fixture(scope="module")
def saved(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges") / "clips-1234"
    judge, card = obtain(folder, clips)
    return folder, judge, card


@pytest.fixture
def copy(saved, tmp_path):
    folder = tmp_path / "judge"
    folder.mkdir()
    for path in saved[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def both(one, other):
    """Puts two sources of clips together."""

    def clips(rows):
        return torch.cat([one.clips(np.arange(len(one))), other.clips(np.arange(len(other)))])[
            torch.as_tensor(rows)
        ]

    labels = {name: np.concatenate([one.labels[name], other.labels[name]]) for name in one.labels}
    return LabelledClips(clips, labels)


def test_loads_as_it_was_saved(saved, test_clips):
    folder, judge, card = saved
    again, card_again = load_judge(folder)
    assert dataclasses.asdict(again.shape) == dataclasses.asdict(ClipShape(4, 3, 16, 16))
    assert again.factors == toy.FACTORS
    kept = json.loads((folder / "card.json").read_text())
    for each in (card, card_again):
        assert json.loads(json.dumps(dataclasses.asdict(each))) == kept
    assert set(card_again.examinations) == {
        "validation", "test", "cells", "blur", "resize", "shift"
    }  # fmt: skip
    clips = test_clips.clips(np.arange(9))
    for name, values in judge.predict(clips).items():
        np.testing.assert_array_equal(again.predict(clips)[name], values)


def test_every_examination_is_on_the_clips_it_is_named_after(saved, clips):
    _, judge, card = saved
    parts = {"validation": clips.validation, "test": clips.test, "cells": clips.cells}
    parts |= {name: corrupted(clips.test, name) for name in CORRUPTIONS}
    expected = {name: examine(judge, part) for name, part in parts.items()}
    assert len({repr(found) for found in expected.values()}) == 6  # no two are alike
    assert card.examinations == expected


def test_the_other_architecture_loads_too(clips, test_clips, tmp_path):
    choice = JudgeChoice("cnn-3d", 3)
    judge, _ = obtain(tmp_path / "j", clips, choice=choice)
    again, card = load_judge(tmp_path / "j")
    assert card.choice == choice
    shown = test_clips.clips(np.arange(5))
    np.testing.assert_array_equal(again.predict(shown)["action"], judge.predict(shown)["action"])


def test_a_second_call_trains_nothing(saved, clips):
    trained = []
    _, card = obtain(saved[0], clips, progress=lambda *figures: trained.append(figures))
    assert card.n_train == 240
    assert trained == []


def test_moves_no_global_generator(clips, tmp_path):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    obtain(tmp_path / "j", clips)
    load_judge(tmp_path / "j")
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_held_out_clips_teach_nothing(saved, clips, tmp_path):
    """Other test clips and cells, and the same weights come out, to the last bit."""
    other = dataclasses.replace(clips, test=toy.make(50, seed=21), cells=None)
    _, card = obtain(tmp_path / "j", other)
    assert card.weights_sha256 == saved[2].weights_sha256
    assert "cells" not in card.examinations


# --- a planted leaky judge ----------------------------------------------------------------------


@pytest.mark.parametrize("taught_by", ["train", "validation"])
@pytest.mark.parametrize("held_out", ["test", "cells"])
def test_no_judge_is_trained_on_clips_it_is_examined_on(clips, taught_by, held_out, tmp_path):
    part = getattr(clips, held_out)
    one = LabelledClips(lambda rows: part.clips(rows * 0 + 7),
                        {name: values[7:8] for name, values in part.labels.items()})  # fmt: skip
    leaky = dataclasses.replace(clips, **{taught_by: both(getattr(clips, taught_by), one)})
    with pytest.raises(ProtocolError, match=f"disjoint gate.*1 of '{held_out}'") as caught:
        obtain(tmp_path / "faces" / "j", leaky)
    assert caught.value.exit_code == 6
    assert caught.value.hint.startswith("vdsm-bench data check faces ")
    assert not (tmp_path / "faces" / "j").exists()


def test_controls_that_come_while_a_judge_is_trained_do_not_cost_it(clips, tmp_path):
    """Another process may score them with the judge that was there before ``--fresh``."""
    folder = tmp_path / "judge"

    def interfere(*figures):
        folder.mkdir(exist_ok=True)
        (folder / "controls-1.json").write_text("{}")

    obtain(folder, clips, progress=interfere)
    load_judge(folder)
    assert not (folder / "controls-1.json").exists()


def test_a_judge_that_learnt_from_test_clips_is_caught_where_it_lies(clips, tmp_path):
    """It is better on the test clips than any honest one, and its card tells on it."""
    leaky = dataclasses.replace(clips, train=both(clips.train, clips.test), test=toy.make(30, 33))
    obtain(tmp_path / "j", leaky)
    with pytest.raises(ProtocolError, match="training gate") as caught:
        obtain(tmp_path / "j", clips)
    assert caught.value.exit_code == 6
    assert caught.value.hint.startswith("rm -r ")


def test_a_leaky_judge_with_a_forged_card_is_caught_by_training_it_anew(saved, clips, tmp_path):
    taught = both(clips.train, clips.test)
    trained = train_judge(taught, clips.validation, factors=toy.FACTORS, settings=FAST)
    forged = save_judge(trained.judge, saved[2], tmp_path / "j")
    obtain(tmp_path / "j", clips)  # the card says what it should
    assert not retrains_alike(forged, clips, FAST)
    assert retrains_alike(saved[2], clips, FAST)


def test_the_digest_knows_pixels_labels_and_order(train):
    digest = clips_digest(train)
    labels = {**train.labels, "shape": 1 - train.labels["shape"]}
    turned = LabelledClips(lambda rows: train.clips(239 - rows),
                           {name: v[::-1] for name, v in train.labels.items()})  # fmt: skip
    lighter = LabelledClips(lambda rows: (train.clips(rows) + 0.01).clamp(0, 1), train.labels)
    others = [LabelledClips(train.clips, labels), turned, lighter]
    assert len({digest, *map(clips_digest, others)}) == 4
    # what eight bits cannot hold is no other clip
    blurred = LabelledClips(lambda rows: train.clips(rows).mul(255).round().div(255), train.labels)
    assert clips_digest(blurred) == digest


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weights.safetensors", "card.json"])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_damage_is_a_clear_error(copy, name, damage):
    path = copy / name
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    with pytest.raises(DataError, match="judge") as caught:
        load_judge(copy)
    assert str(copy) in caught.value.message
    assert caught.value.hint.startswith(f"rm -r {copy}")


@pytest.mark.parametrize(
    "change", [{"version": 0}, {"factors": []}, {"settings": {}}, {"surprise": 1}]
)
def test_a_card_that_is_not_the_weights_is_refused(copy, change):
    path = copy / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError):
        load_judge(copy)


def test_controls_alone_are_no_judge_and_are_kept(clips, tmp_path):
    """A run was scoring them when ``judge train --fresh`` moved its judge aside."""
    folder = tmp_path / "judge"
    folder.mkdir()
    (folder / "controls-1.json").write_text("{}")
    _, card = obtain(folder, clips)
    assert load_judge(folder)[1].weights_sha256 == card.weights_sha256
    assert not (folder / "controls-1.json").exists()
    assert (tmp_path / ".judge.old-1" / "controls-1.json").exists()


def test_an_existing_folder_is_not_written_over(saved):
    folder, judge, card = saved
    with pytest.raises(DataError, match="exists"):
        save_judge(judge, card, folder)


def test_what_a_killed_run_left_is_cleared(clips, tmp_path):
    left = tmp_path / ".j-abc"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    obtain(tmp_path / "j", clips)
    assert not left.exists()
    assert sorted(p.name for p in (tmp_path / "j").iterdir()) == [
        "card.json",
        "weights.safetensors",
    ]


def test_unscorable_factors_are_left_out_of_the_judge(clips, tmp_path):
    judge, card = obtain(tmp_path / "j", clips, unscorable={"colour": "new colours"})
    assert [factor.name for factor in judge.factors] == ["shape", "action"]
    assert card.unscorable == {"colour": "new colours"}
    assert "colour" not in card.examinations["test"].accuracy


def test_the_key_follows_what_it_was_trained_by_and_not_what_is_asked_of_it():
    data = {"content": "abc", "image_size": 32}
    key = judge_key(JudgeSettings(), data)
    floors = JudgeSettings(floor=0.1, cells_floor=0.2, corruptions_floor=0.3)
    assert key == judge_key(floors, dict(reversed(data.items())))
    assert key != judge_key(JudgeSettings(seeds=[1]), data)
    assert key != judge_key(JudgeSettings(architectures=["cnn-3d"]), data)
    assert key != judge_key(JudgeSettings(), {**data, "image_size": 64})


def test_a_judge_is_the_same_judge_whoever_judges_beside_it():
    several = JudgeSettings(architectures=["cnn-3d", "cnn-gru"], seeds=[4, 0])
    alone = judge_key(JudgeSettings(), {})
    assert [judge_key(several, {}, choice) == alone for choice in several.choices] == [
        False, False, False, True,
    ]  # fmt: skip
