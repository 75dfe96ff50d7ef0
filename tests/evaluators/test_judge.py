"""A judge at work and in training."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.evaluators import toy
from vdsm_bench.config import JudgeChoice, JudgeSettings
from vdsm_bench.contracts import ClipShape, Factor, LabelledClips
from vdsm_bench.errors import ContractError, DataError, DivergedError, ProtocolError
from vdsm_bench.evaluators import judge_training
from vdsm_bench.evaluators.judge import NeuralJudge
from vdsm_bench.evaluators.judge_examination import examine
from vdsm_bench.evaluators.judge_gates import ask_gates
from vdsm_bench.evaluators.judge_networks import ARCHITECTURES, build_network
from vdsm_bench.evaluators.judge_training import augment, train_judge

FAST = JudgeSettings(epochs=1, width=4, batch_size=16)


def weights(judge):
    return judge.network.state_dict()


def forgetful(judge):
    """The same judge, who has seen nothing yet."""
    return NeuralJudge(judge.network, judge.shape, judge.device)


@pytest.fixture
def shown(judge, monkeypatch):
    """The clips that the judge's network is shown, one entry per pass."""
    passes = []
    network = judge.network

    def features(clip):
        passes.append((clip, torch.is_inference_mode_enabled(), network.training))
        return type(network).features(network, clip)

    monkeypatch.setattr(network, "features", features)
    return passes


@pytest.fixture(scope="module")
def judges(judge, train, validation, settings):
    """A trained judge of every architecture."""
    volume = train_judge(
        train,
        validation,
        factors=toy.FACTORS,
        settings=settings,
        choice=JudgeChoice("cnn-3d", 0),
    )
    return {"cnn-gru": judge, "cnn-3d": volume.judge}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_is_right_on_real_clips_it_never_saw(architecture, judges, test_clips):
    found = examine(judges[architecture], test_clips)
    assert min(found.accuracy.values()) >= 0.95
    assert found.n == len(test_clips)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batch_size_and_order_change_no_digit(architecture, judges, test_clips):
    judge, clips = judges[architecture], test_clips.clips(np.arange(70))
    whole = forgetful(judge).predict(clips)
    order = np.random.default_rng(0).permutation(70)
    turned = clips[torch.as_tensor(order)]
    for batch_size in (1, 7, 64):
        parts = [forgetful(judge).predict(part) for part in turned.split(batch_size)]
        for name, values in whole.items():
            found = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(found, values[order])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("frames", [1, toy.FRAMES])
def test_a_block_is_judged_as_its_clips_are_one_by_one(architecture, frames, judges, test_clips):
    judge, clips = judges[architecture], test_clips.clips(np.arange(37))[:, :frames]
    found = forgetful(judge).predict(clips)
    with torch.inference_mode():
        for row, clip in enumerate(clips):
            for name, logits in judge.network(clip[None]).items():
                expected = torch.log_softmax(logits.double(), dim=1)[0].numpy()
                np.testing.assert_allclose(found[name][row], expected, atol=1e-5)
                assert found[name][row].argmax() == expected.argmax()


def test_every_distinct_clip_is_shown_to_the_network_once(judge, shown, test_clips):
    clips = test_clips.clips(np.arange(40))
    fresh = forgetful(judge)
    first = fresh.predict(clips)
    assert [len(clip) for clip, *_ in shown] == [16, 16, 16]
    twice = fresh.predict(torch.cat([clips[5:25], clips[5:25]]))
    features = fresh.features(clips)
    assert len(shown) == 3  # judged before, or twice in one call
    assert features.shape[0] == 40
    for name, values in first.items():
        np.testing.assert_array_equal(twice[name], np.concatenate([values[5:25]] * 2))
    other = clips[:1].clone()
    other[0, 0, 0, 0, 0] += 1 / 255
    fresh.predict(torch.cat([other, clips[:1, :1].expand_as(clips[:1])]))
    assert len(shown) == 4  # a pixel makes another clip
    fresh.predict(clips[:1, :1])
    assert len(shown) == 5  # and so does a frame


def test_the_network_is_shown_clips_in_inference_mode(judge, shown, test_clips):
    forgetful(judge).predict(test_clips.clips(np.arange(2)))
    assert [(inference, training) for _, inference, training in shown] == [(True, False)]


def test_verdicts_are_kept_only_while_there_is_room(judge, shown, test_clips, monkeypatch):
    monkeypatch.setattr("vdsm_bench.evaluators.judge._REMEMBERED", 4)
    fresh, clips = forgetful(judge), test_clips.clips(np.arange(6))
    one, other = fresh.predict(clips[:4]), fresh.predict(clips)
    fresh.predict(clips[:4])
    assert len(shown) == 2
    fresh.predict(clips[4:])
    assert len(shown) == 3
    np.testing.assert_array_equal(one["colour"], other["colour"][:4])


def test_how_clips_lie_in_memory_changes_no_digit(judge, test_clips):
    clips = test_clips.clips(np.arange(3))
    turned = clips.movedim(2, -1).contiguous().movedim(-1, 2)
    assert not turned.is_contiguous()
    for name, values in forgetful(judge).predict(clips).items():
        np.testing.assert_array_equal(forgetful(judge).predict(turned)[name], values)


def test_judging_changes_no_clip_and_no_weight(judge, test_clips):
    clips = test_clips.clips(np.arange(4))
    before, state = clips.clone(), {k: v.clone() for k, v in weights(judge).items()}
    judge.predict(clips)
    assert torch.equal(clips, before)
    assert all(torch.equal(value, state[key]) for key, value in weights(judge).items())


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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_smallest_batches_train_too(architecture, train, validation):
    """Nine clips, one a batch as asked: what normalises over a batch needs two."""
    few = LabelledClips(train.clips, {name: rows[:9] for name, rows in train.labels.items()})
    settings = FAST.model_copy(update={"batch_size": 1, "epochs": 1})
    choice = JudgeChoice(architecture, 0)
    trained = train_judge(few, validation, factors=toy.FACTORS, settings=settings, choice=choice)
    assert len(trained.history) == 1


def test_same_seed_same_weights_and_another_seed_others(train, validation):
    one = train_judge(train, validation, factors=toy.FACTORS, settings=FAST)
    torch.manual_seed(77)
    again = train_judge(train, validation, factors=toy.FACTORS, settings=FAST)
    other = train_judge(
        train, validation, factors=toy.FACTORS, settings=FAST.model_copy(update={"seeds": [1]})
    )
    assert one.history == again.history
    for key, value in weights(one.judge).items():
        assert torch.equal(value, weights(again.judge)[key]), key
    assert any(not torch.equal(v, weights(other.judge)[k]) for k, v in weights(one.judge).items())


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


def test_the_best_epoch_on_validation_clips_is_kept(train, validation, settings):
    trained = train_judge(train, validation, factors=toy.FACTORS, settings=settings)
    best = max(h["validation_accuracy"] for h in trained.history)
    assert trained.history[trained.epoch]["validation_accuracy"] == best
    found = examine(trained.judge, validation).accuracy
    assert np.mean(list(found.values())) == pytest.approx(best)


def test_without_validation_clips_the_last_epoch_is_kept(train):
    settings = FAST.model_copy(update={"epochs": 2})
    trained = train_judge(train, None, factors=toy.FACTORS, settings=settings)
    assert trained.epoch == 1
    assert [set(figures) for figures in trained.history] == [{"loss"}] * 2


def test_the_loss_of_a_chance_judge_is_the_entropy_of_its_labels(settings):
    """Labels that no clip tells: three epochs, enough for a loss below 1, leave it at chance."""
    of = toy.labels(240, seed=0)
    clips, untold = toy.draw(of, seed=0), toy.labels(240, seed=1)
    trained = train_judge(
        toy.source(clips, untold),
        toy.make(90, seed=5),
        factors=toy.FACTORS,
        settings=settings.model_copy(update={"epochs": 3}),
    )
    entropy = sum(np.log(len(factor.classes)) for factor in toy.FACTORS)
    assert trained.history[-1]["validation_loss"] == pytest.approx(entropy, rel=0.1)
    found = examine(trained.judge, toy.make(90, seed=5))
    with pytest.raises(ProtocolError, match="test gate: 'colour'.*'shape'.*'action'"):
        ask_gates({"chance": {"test": found}}, JudgeSettings())


def test_it_learns_from_augmented_clips(train, validation, monkeypatch):
    augmented = train_judge(train, validation, factors=toy.FACTORS, settings=FAST)
    monkeypatch.setattr(judge_training, "augment", lambda clip, rng: clip)
    plain = train_judge(train, validation, factors=toy.FACTORS, settings=FAST)
    assert augmented.train_digest == plain.train_digest
    assert augmented.history[0]["loss"] != pytest.approx(plain.history[0]["loss"], rel=1e-4)


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


@pytest.mark.parametrize("shape", [(9, 2, 3, 32, 32), (7, 5, 1, 37, 50), (4, 1, 2, 3, 1)])
def test_augmentation_shifts_lightens_and_blurs_as_it_says(shape):
    clip = torch.rand(shape)
    found = augment(clip, np.random.default_rng(7))
    draws = np.random.default_rng(7)
    size, (height, width) = len(clip), shape[-2:]
    reach = max(1, height // 16), max(1, width // 16)
    shifts = np.stack([draws.integers(2 * r + 1, size=size) - r for r in reach], axis=1)
    gain, offset = draws.uniform(0.97, 1.03, size), draws.uniform(-0.015, 0.015, size)
    blur = draws.uniform(-1, 1, size).clip(0)
    assert 0 < (blur > 0).sum() < size
    for index in range(size):
        frames = clip[index].double()
        mean = functional.avg_pool2d(frames, 3, stride=1, padding=1, count_include_pad=False)
        frames = (1 - blur[index]) * frames + blur[index] * mean
        rows = (torch.arange(height) + int(shifts[index, 0])).clamp(0, height - 1)
        columns = (torch.arange(width) + int(shifts[index, 1])).clamp(0, width - 1)
        wanted = (frames[..., rows, :][..., columns] * gain[index] + offset[index]).clamp(0, 1)
        assert torch.allclose(found[index].double(), wanted, rtol=0, atol=1e-6)


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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [(8, 8), (32, 24), (48, 64)])
@pytest.mark.parametrize("frames", [1, 5])
def test_networks_take_frames_of_any_size_and_number(architecture, size, frames):
    shape = ClipShape(2, 3, *size)
    network = build_network(architecture, toy.FACTORS, shape, base=4)
    judge = NeuralJudge(network, shape, torch.device("cpu"))
    assert judge.predict(torch.rand(2, frames, 3, *size))["action"].shape == (2, 3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_action_is_not_read_from_a_frame_that_stands_still(architecture, judges, test_clips):
    """Who it is cannot tell what they do: a frozen clip leaves the action heads nothing."""
    clips = test_clips.clips(np.arange(30))[:, :1].expand(-1, toy.FRAMES, -1, -1, -1)
    found = judges[architecture].predict(clips)["action"]
    np.testing.assert_allclose(found, np.broadcast_to(found[0], found.shape), atol=1e-5)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(DataError, match="did you mean 'cnn-3d'"):
        build_network("cnn-3", toy.FACTORS, ClipShape(2, 3, 8, 8), base=4)
