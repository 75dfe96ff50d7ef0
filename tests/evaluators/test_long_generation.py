"""Generated for longer than trained: what keeps its identity and its action, and what does not."""

import numpy as np
import pytest
import torch

from tests.evaluators import toy
from vdsm_bench.contracts import Codes, EvaluationRequest, VideoModel
from vdsm_bench.evaluators.accuracies import METRICS
from vdsm_bench.evaluators.long_generation import LongGeneration
from vdsm_bench.evaluators.outputs import SubjectOutputs
from vdsm_bench.evaluators.pairs import pair_list

N = 60
LABELS = toy.labels(N, seed=5)
STATIC = [factor.name for factor in toy.FACTORS if factor.kind == "static"]


def number_clips():
    """Clips whose first pixels say their colour, their shape and their action."""
    clips = torch.zeros(N, 4, 1, 2, 2)
    for place, name in enumerate(("colour", "shape", "action")):
        clips[:, :, 0].flatten(2)[:, :, place] = torch.as_tensor(LABELS[name])[:, None] / 10
    return clips


CLIPS = number_clips()


class Reader:
    """A judge that reads the labels off the last frame."""

    factors = toy.FACTORS

    def predict(self, clips):
        assert clips.shape[1] == 4  # it knows clips of this length alone
        said = (clips[:, -1, 0].flatten(1) * 10).round().long().numpy()
        return {
            factor.name: np.log(np.eye(len(factor.classes))[said[:, place]] + 1e-9)
            for place, factor in enumerate(toy.FACTORS)
        }


class Speaker(VideoModel):
    """Codes that are the labels; forgets its action after ``memory`` frames."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def stages(self):
        return ()

    def encode(self, clip):
        pixels = clip[:, 0, 0].flatten(1)
        return Codes(pixels[:, :2], pixels[:, 2:3])

    def generate(self, codes, n_frames):
        clip = torch.zeros(len(codes.identity), n_frames, 1, 4)
        clip[:, :, 0, :2] = codes.identity[:, None]
        clip[:, : self.memory, 0, 2:3] = codes.motion[:, None]
        return clip.unflatten(3, (2, 2))


def request(batch_size=16):
    pairs = pair_list(LABELS, toy.FACTORS, 80)
    return EvaluationRequest(
        toy.source(CLIPS, LABELS), toy.FACTORS, pairs, batch_size=batch_size, bootstrap=20
    )


def found(memory, batch_size=16, pairs=40):
    asked = request(batch_size)
    outputs = SubjectOutputs(Speaker(memory), asked)
    return LongGeneration(pairs=pairs).evaluate(outputs, asked, Reader())


def test_a_perfect_model_stays_perfect_at_any_length():
    scores = found(memory=99).scores
    assert set(scores) == {metric.name for metric in LongGeneration.metrics}
    for metric in METRICS:
        for times in (2, 3):
            wanted = 0.0 if "leak" in metric.name else 1.0
            assert scores[f"{metric.name}_{times}x"].value == wanted
    assert scores["transfer_accuracy_2x"].n == 40


def test_what_is_forgotten_in_between_shows_at_the_length_at_which_it_is():
    scores = found(memory=8).scores  # two lengths of four frames
    actions = LABELS["action"][request().pairs[:40, 1]]
    assert scores["dynamic_accuracy_2x"].value == 1.0
    assert scores["dynamic_accuracy_3x"].value == pytest.approx((actions == 0).mean())
    assert scores["identity_accuracy_3x"].value == 1.0
    assert scores["transfer_accuracy_3x"].value == scores["dynamic_accuracy_3x"].value
    assert scores["consistent_accuracy_2x"].value == 1.0
    assert scores["consistent_accuracy_3x"].value < 0.6


def test_leaks_are_scored_too():
    class Copier(Speaker):
        def encode(self, clip):
            codes = super().encode(clip)
            return Codes(codes.identity, torch.zeros_like(codes.motion))

    asked = request()
    scores = LongGeneration().evaluate(SubjectOutputs(Copier(99), asked), asked, Reader()).scores
    first = LABELS["action"][asked.pairs[:40, 0]]
    assert scores["action_leak_2x"].value == pytest.approx((first == 0).mean())


def test_per_factor_rows_carry_the_length_in_their_name():
    rows = {(row.metric, row.factor): row.score.value for row in found(memory=8).long}
    for name in STATIC:
        assert rows["identity_accuracy_3x", name] == 1.0
    assert rows["consistent_accuracy_3x", "action"] < 1.0
    assert rows["transfer_copies_a_2x", "all"] == 0.0


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_batch_size_changes_no_number(batch_size):
    assert found(8, batch_size).scores == found(8).scores


def test_a_model_that_cannot_generate_has_empty_columns_with_the_reason():
    class Mute(Speaker):
        capabilities = frozenset({"encode"})

    asked = request()
    scores = LongGeneration().evaluate(SubjectOutputs(Mute(9), asked), asked, Reader()).scores
    assert all(score.value is None for score in scores.values())
    assert "cannot generate" in scores["dynamic_accuracy_2x"].reason
    outputs = SubjectOutputs(Speaker(9), asked)
    without = LongGeneration().evaluate(outputs, asked, None).scores
    assert without["dynamic_accuracy_2x"].reason == "there is no judge"
