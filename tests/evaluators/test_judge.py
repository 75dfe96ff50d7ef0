import dataclasses
import json

import numpy as np
import pytest
import torch

from tests.evaluators import toy
from vdsm_bench.config import JudgeSettings
from vdsm_bench.contracts import ClipShape, Factor, LabelledClips
from vdsm_bench.errors import ContractError, DataError, DivergedError, ProtocolError
from vdsm_bench.evaluators.judge import JudgeNetwork, NeuralJudge
from vdsm_bench.evaluators.judge_card import (
    examine,
    gate,
    judge_key,
    load_card,
    load_judge,
    obtain_judge,
    save_judge,
)
from vdsm_bench.evaluators.judge_training import augment, train_judge

FAST = JudgeSettings(epochs=1, width=4, batch_size=16)


def weights(judge):
    return judge.network.state_dict()


def test_is_right_on_real_clips_it_never_saw(judge, test_clips):
    found = examine(judge, test_clips)
    assert min(found.accuracy.values()) >= 0.95
    assert found.n == len(test_clips)
    for factor in toy.FACTORS:
        table = np.array(found.confusion[factor.name])
        assert table.shape == (len(factor.classes),) * 2
        assert np.trace(table) / table.sum() == pytest.approx(found.accuracy[factor.name])
        assert np.array_equal(table.sum(1), np.bincount(test_clips.labels[factor.name]))


def test_batch_size_and_order_change_no_answer(judge, test_clips):
    clips = test_clips.clips(np.arange(70))
    whole = judge.predict(clips, 64)
    order = np.random.default_rng(0).permutation(70)
    for batch_size in (1, 7):
        turned = judge.predict(clips[torch.as_tensor(order)], batch_size)
        for name, values in whole.items():
            np.testing.assert_allclose(turned[name], values[order], atol=1e-4)
            assert (turned[name].argmax(1) == values[order].argmax(1)).all()


def test_predictions_are_log_probabilities(judge, test_clips):
    for factor, values in zip(
        toy.FACTORS, judge.predict(test_clips.clips(np.arange(5))).values(), strict=True
    ):
        assert values.shape == (5, len(factor.classes))
        np.testing.assert_allclose(np.exp(values).sum(1), 1.0)


def test_takes_clips_of_any_length(judge, test_clips):
    clips = test_clips.clips(np.arange(3))
    longer = torch.cat([clips, clips[:, -1:].expand(-1, 5, -1, -1, -1)], dim=1)
    assert judge.predict(longer)["colour"].shape == (3, 3)


@pytest.mark.parametrize(
    "clips",
    [
        torch.full((2, 4, 3, 16, 16), torch.nan),
        torch.full((2, 4, 3, 16, 16), 1.1),
        torch.zeros(2, 4, 3, 16, 12),
        torch.zeros(2, 3, 16, 16),
        torch.zeros(0, 4, 3, 16, 16),
        torch.zeros(2, 4, 3, 16, 16, dtype=torch.uint8),
    ],
)
def test_refuses_what_is_no_clip(judge, clips):
    with pytest.raises(ContractError, match="judge"):
        judge.predict(clips)


def test_same_seed_same_weights_and_another_seed_others(train, validation):
    one = train_judge(train, validation, factors=toy.FACTORS, settings=FAST)
    torch.manual_seed(77)
    again = train_judge(train, validation, factors=toy.FACTORS, settings=FAST)
    other = train_judge(
        train, validation, factors=toy.FACTORS, settings=FAST.model_copy(update={"seed": 1})
    )
    assert one.history == again.history
    for key, value in weights(one.judge).items():
        assert torch.equal(value, weights(again.judge)[key]), key
    assert any(not torch.equal(v, weights(other.judge)[k]) for k, v in weights(one.judge).items())


def test_moves_no_global_generator(train, validation, judge, tmp_path):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train_judge(train, validation, factors=toy.FACTORS, settings=FAST)
    obtain(tmp_path / "j", train, validation, validation)
    load_judge(tmp_path / "j")
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_learns_from_training_clips_alone(train, validation):
    """Validation clips only choose the epoch: with one epoch, others give the same weights."""
    asked = []

    def watched(source, name):
        def clips(rows):
            asked.append((name, torch.is_grad_enabled() and not torch.is_inference_mode_enabled()))
            return source.clips(rows)

        return LabelledClips(clips, source.labels)

    one = train_judge(
        watched(train, "train"),
        watched(validation, "validation"),
        factors=toy.FACTORS,
        settings=FAST,
    )
    assert ("validation", True) not in asked
    assert {name for name, _ in asked} == {"train", "validation"}
    other = train_judge(train, toy.make(30, seed=9), factors=toy.FACTORS, settings=FAST)
    for key, value in weights(one.judge).items():
        assert torch.equal(value, weights(other.judge)[key]), key


def test_test_and_cells_clips_are_not_touched_before_the_judge_is_trained(
    train, validation, tmp_path
):
    def forbidden(rows):
        raise LookupError("touched")

    done = []
    with pytest.raises(LookupError):
        obtain_judge(
            tmp_path / "j",
            train=train,
            validation=validation,
            test=LabelledClips(forbidden, validation.labels),
            cells=LabelledClips(forbidden, validation.labels),
            factors=toy.FACTORS,
            settings=FAST,
            progress=lambda epoch, epochs, figures: done.append((epoch, epochs)),
        )
    assert done == [(1, 1)]
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_the_best_epoch_on_validation_clips_is_kept(train, validation, settings):
    trained = train_judge(train, validation, factors=toy.FACTORS, settings=settings)
    best = max(h["validation_accuracy"] for h in trained.history)
    assert trained.history[trained.epoch]["validation_accuracy"] == best
    found = examine(trained.judge, validation).accuracy
    assert np.mean(list(found.values())) == pytest.approx(best)


def test_the_loss_of_a_chance_judge_is_the_entropy_of_its_labels():
    """Labels that no clip tells: the judge cannot do better than chance, and the gate sees it."""
    of = toy.labels(120, seed=0)
    clips = toy.draw(of, seed=0)
    shuffled = {k: np.random.default_rng(1).permutation(v) for k, v in of.items()}
    trained = train_judge(
        toy.source(clips, shuffled),
        toy.source(clips, shuffled),
        factors=toy.FACTORS,
        settings=JudgeSettings(epochs=1, width=4),
    )
    assert max(examine(trained.judge, toy.make(90, seed=5)).accuracy.values()) < 0.8


def test_augmentation_keeps_the_clip_a_clip_and_moves_all_frames_alike():
    clip = torch.zeros(8, 3, 3, 32, 32)
    clip[..., 10:20, 12:18] = 0.8
    found = augment(clip, np.random.default_rng(0))
    assert found.shape == clip.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(found[:, 0], found[:, 2])
    assert not torch.equal(found[0], found[1])
    centre = (found[:, 0, 0] > 0.4).float()
    columns = (centre.sum(1) * torch.arange(32)).sum(1) / centre.sum((1, 2))
    assert (columns - 14.5).abs().max() <= 2


@pytest.mark.parametrize("name", ["type", "items", "training"])
def test_a_factor_may_have_any_name(name, train, validation):
    factor = Factor(name, "static", toy.FACTORS[0].classes)

    def renamed(source):
        return LabelledClips(source.clips, {name: source.labels["colour"]})

    trained = train_judge(renamed(train), renamed(validation), factors=[factor], settings=FAST)
    assert trained.judge.predict(train.clips(np.arange(2)))[name].shape == (2, 3)


def test_no_factor_bad_labels_and_bad_clips_are_refused(train, validation):
    with pytest.raises(ProtocolError, match="No factor"):
        train_judge(train, validation, factors=[], settings=FAST)
    wrong = LabelledClips(train.clips, {**train.labels, "shape": train.labels["shape"] + 5})
    with pytest.raises(DataError, match="shape"):
        train_judge(wrong, validation, factors=toy.FACTORS, settings=FAST)
    broken = LabelledClips(lambda rows: train.clips(rows) + torch.nan, train.labels)
    with pytest.raises(ContractError, match="training clips"):
        train_judge(broken, validation, factors=toy.FACTORS, settings=FAST)


def test_a_loss_that_is_not_finite_is_an_error(train, validation):
    calls = []

    def late_nan(rows):
        calls.append(rows)
        return train.clips(rows) * (torch.nan if len(calls) > 3 else 1)

    with pytest.raises(DivergedError, match="loss"):
        train_judge(
            LabelledClips(late_nan, train.labels),
            validation,
            factors=toy.FACTORS,
            settings=FAST,
        )


# --- the card, the gates and the folder -------------------------------------------------------


def obtain(folder, train, validation, test, settings=FAST, **more):
    relaxed = settings.model_copy(update={"floor": 0.0, "cells_floor": 0.0})
    return obtain_judge(
        folder,
        train=train,
        validation=validation,
        test=test,
        factors=toy.FACTORS,
        settings=relaxed,
        **more,
    )


@pytest.fixture(scope="module")
def saved(train, validation, test_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges") / "clips-1234"
    judge, card = obtain(folder, train, validation, test_clips, cells=toy.make(40, seed=8))
    return folder, judge, card


@pytest.fixture
def copy(saved, tmp_path):
    folder = tmp_path / "judge"
    folder.mkdir()
    for path in saved[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_loads_as_it_was_saved(saved, test_clips):
    folder, judge, card = saved
    again, card_again = load_judge(folder)
    assert dataclasses.asdict(again.shape) == dataclasses.asdict(ClipShape(4, 3, 16, 16))
    assert again.factors == toy.FACTORS
    assert json.loads(json.dumps(dataclasses.asdict(card_again))) == json.loads(
        (folder / "card.json").read_text()
    )
    assert set(card_again.examinations) == {"validation", "test", "cells"}
    clips = test_clips.clips(np.arange(9))
    for name, values in judge.predict(clips).items():
        np.testing.assert_array_equal(again.predict(clips)[name], values)


def test_a_second_call_trains_nothing(saved, validation):
    def forbidden(rows):
        raise LookupError("touched")

    source = LabelledClips(forbidden, validation.labels)
    _, card = obtain(saved[0], source, source, source)
    assert card.n_train == 240


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


def test_an_existing_folder_is_not_written_over(saved):
    folder, judge, card = saved
    with pytest.raises(DataError, match="exists"):
        save_judge(judge, card, folder)


def test_what_a_killed_run_left_is_cleared(train, validation, tmp_path):
    left = tmp_path / ".j-abc"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    obtain(tmp_path / "j", train, validation, validation)
    assert not left.exists()
    assert sorted(p.name for p in (tmp_path / "j").iterdir()) == [
        "card.json",
        "weights.safetensors",
    ]


def test_gate_names_gate_factor_value_and_floor(saved):
    card = saved[2]
    low = dataclasses.replace(card.examinations["test"], accuracy={"colour": 0.5, "action": 1.0})
    bad = dataclasses.replace(card, examinations={"test": low})
    with pytest.raises(ProtocolError) as caught:
        gate(bad, JudgeSettings())
    assert caught.value.exit_code == 6
    for word in ("test gate", "'colour' 0.500", "0.900"):
        assert word in caught.value.message
    assert "action" not in caught.value.message
    gate(bad, JudgeSettings(floor=0.5))


def test_cells_gate_has_its_own_floor(saved):
    card = saved[2]
    low = dataclasses.replace(card.examinations["cells"], accuracy={"action": 0.7})
    bad = dataclasses.replace(card, examinations={"cells": low})
    with pytest.raises(ProtocolError, match="cells gate: 'action' 0.700"):
        gate(bad, JudgeSettings())
    gate(bad, JudgeSettings(cells_floor=0.7))


def test_shuffled_labels_are_refused_and_cost_nothing_the_second_time(
    validation, test_clips, tmp_path
):
    of = toy.labels(120, seed=1)
    rng = np.random.default_rng(0)
    train = toy.source(toy.draw(of, 1), {name: rng.permutation(v) for name, v in of.items()})
    rest = {"validation": validation, "test": test_clips, "factors": toy.FACTORS, "settings": FAST}
    with pytest.raises(ProtocolError) as caught:
        obtain_judge(tmp_path / "j", train=train, **rest)
    assert caught.value.exit_code == 6
    assert load_card(tmp_path / "j").examinations["test"].n == len(test_clips)

    def forbidden(rows):
        raise LookupError("touched")

    with pytest.raises(ProtocolError):
        obtain_judge(tmp_path / "j", train=LabelledClips(forbidden, train.labels), **rest)


def test_unscorable_factors_are_left_out_of_the_judge(train, validation, test_clips, tmp_path):
    judge, card = obtain(
        tmp_path / "j", train, validation, test_clips, unscorable={"colour": "new colours"}
    )
    assert [factor.name for factor in judge.factors] == ["shape", "action"]
    assert card.unscorable == {"colour": "new colours"}
    assert "colour" not in card.examinations["test"].accuracy


def test_the_key_follows_what_it_was_trained_by_and_not_what_is_asked_of_it():
    data = {"content": "abc", "image_size": 32}
    key = judge_key(JudgeSettings(), data)
    assert key == judge_key(JudgeSettings(floor=0.1, cells_floor=0.2), dict(reversed(data.items())))
    assert key != judge_key(JudgeSettings(seed=1), data)
    assert key != judge_key(JudgeSettings(), {**data, "image_size": 64})


@pytest.mark.parametrize("size", [(8, 8), (32, 24), (48, 64)])
def test_network_takes_frames_of_any_size(size):
    height, width = size
    network = JudgeNetwork(toy.FACTORS, channels=3, height=height, width=width, base=4)
    judge = NeuralJudge(network, ClipShape(2, 3, height, width), torch.device("cpu"))
    assert judge.predict(torch.rand(2, 5, 3, height, width))["action"].shape == (2, 3)
