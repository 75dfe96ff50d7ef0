"""Examinations with known answers, and the gates that no poor judge may pass."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch

from tests.evaluators import toy
from vdsm_bench.config import JudgeSettings
from vdsm_bench.contracts import Factor, LabelledClips
from vdsm_bench.errors import ProtocolError
from vdsm_bench.evaluators.judge_audit import ConstantJudge
from vdsm_bench.evaluators.judge_examination import (
    CALIBRATION_BINS,
    CORRUPTIONS,
    calibrate,
    corrupted,
    examine,
)
from vdsm_bench.evaluators.judge_gates import ask_gates, gates
from vdsm_bench.optional import import_with_torchvision


def sure(probability, right):
    """Answers of one confidence, of which a share is right."""
    return np.full(100, probability), np.arange(100) < right


def test_the_calibration_error_of_known_answers():
    assert calibrate(*sure(0.75, 75)).ece == pytest.approx(0)
    assert calibrate(*sure(0.95, 60)).ece == pytest.approx(0.35)
    assert calibrate(*sure(1.0 + 1e-12, 100)).ece == pytest.approx(0, abs=1e-9)
    pairs = [sure(0.95, 60), sure(0.5, 100)]
    confidence, right = (np.concatenate(part) for part in zip(*pairs, strict=True))
    found = calibrate(confidence, right)
    assert found.ece == pytest.approx((0.35 + 0.5) / 2)
    assert sum(found.counts) == 200
    assert found.counts[14] == 100
    assert found.accuracy[14] == pytest.approx(0.6)
    assert found.confidence[7] == pytest.approx(0.5)
    assert found.accuracy[0] is None
    assert len(found.counts) == CALIBRATION_BINS


def test_the_calibration_error_is_that_of_torchmetrics():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics imports pkg_resources on some machines
        metrics = import_with_torchvision("torchmetrics.functional.classification")
    rng = np.random.default_rng(0)
    confidence, right = rng.uniform(0.5, 1, 500), rng.random(500) < 0.7
    expected = metrics.binary_calibration_error(
        torch.as_tensor(confidence), torch.as_tensor(right).int(), n_bins=CALIBRATION_BINS
    )
    assert calibrate(confidence, right).ece == pytest.approx(float(expected), abs=1e-5)


def test_an_examination_counts_what_was_said(judge, test_clips):
    found = examine(judge, test_clips)
    said = judge.predict(test_clips.clips(np.arange(len(test_clips))))
    for factor in toy.FACTORS:
        label, guess = test_clips.labels[factor.name], said[factor.name].argmax(1)
        table = np.array(found.confusion[factor.name])
        assert np.array_equal(table.sum(1), np.bincount(label))
        assert np.trace(table) / table.sum() == pytest.approx(found.accuracy[factor.name])
        shares = [(guess[label == c] == c).mean() for c in range(len(factor.classes))]
        assert found.class_accuracy[factor.name] == pytest.approx(np.mean(shares))
        assert sum(found.calibration[factor.name].counts) == len(test_clips)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_keep_the_clip_a_clip_and_change_it_a_little(name):
    clip = torch.zeros(2, 3, 3, 32, 32)
    clip[..., 8:24, 12:20] = 1.0
    found = CORRUPTIONS[name](clip)
    assert found.shape == clip.shape
    assert 0 <= found.min() <= found.max() <= 1
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[:, 0], found[:, 2])
    assert 0.001 < (found - clip).abs().mean() < 0.1
    still = torch.full((1, 2, 3, 16, 16), 0.3)
    torch.testing.assert_close(CORRUPTIONS[name](still), still)


def test_a_blur_and_a_shift_are_what_they_say():
    clip = torch.zeros(1, 1, 1, 32, 32)
    clip[..., 10, 12] = 0.9
    soft = CORRUPTIONS["blur"](clip)[0, 0, 0]
    torch.testing.assert_close(soft[9:12, 11:14], torch.full((3, 3), 0.1))
    assert soft.sum() == pytest.approx(0.9)
    moved = CORRUPTIONS["shift"](clip)[0, 0, 0]
    assert moved[12, 14] == pytest.approx(0.9)


def test_corrupted_clips_keep_their_labels(test_clips):
    found = corrupted(test_clips, "shift")
    assert len(found) == len(test_clips)
    rows = np.array([5, 2])
    torch.testing.assert_close(found.clips(rows), CORRUPTIONS["shift"](test_clips.clips(rows)))
    assert np.array_equal(found.labels["action"], test_clips.labels["action"])


# --- the gates ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examinations(judge, test_clips):
    parts = {"test": test_clips, "cells": toy.make(40, seed=8)}
    parts |= {name: corrupted(test_clips, name) for name in CORRUPTIONS}
    return {name: examine(judge, part) for name, part in parts.items()}


def lowered(examinations, name, **values):
    found = examinations[name]
    both = {"accuracy": {**found.accuracy, **values},
            "class_accuracy": {**found.class_accuracy, **values}}  # fmt: skip
    return {**examinations, name: dataclasses.replace(found, **both)}


def test_a_good_judge_passes_every_gate(examinations):
    settings = JudgeSettings(corruptions_floor=0.0)
    ask_gates({"good": examinations}, settings)
    assert [gate.name for gate in gates(examinations, settings)] == [
        "test", "cells", "blur", "resize", "shift",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "setting", "floor"),
    [
        ("test", "floor", 0.9),
        ("cells", "cells_floor", 0.8),
        ("blur", "corruptions_floor", 0.8),
        ("resize", "corruptions_floor", 0.8),
        ("shift", "corruptions_floor", 0.8),
    ],
)
def test_every_gate_refuses_and_says_which(examinations, gate, setting, floor):
    perfect = examinations
    for name, found in examinations.items():
        perfect = lowered(perfect, name, **dict.fromkeys(found.accuracy, 1.0))
    bad = lowered(perfect, gate, colour=floor - 0.1, shape=floor)
    with pytest.raises(ProtocolError) as caught:
        ask_gates({"only": bad}, JudgeSettings())
    assert caught.value.exit_code == 6
    for word in (f"{gate} gate", f"'colour' {floor - 0.1:.3f}", f"floor {floor:.3f}"):
        assert word in caught.value.message
    assert "shape" not in caught.value.message
    assert f"judge.{setting}" in caught.value.hint
    ask_gates({"only": bad}, JudgeSettings(**{setting: floor - 0.1}))


def test_every_judge_of_several_has_to_pass(examinations):
    bad = lowered(examinations, "test", action=0.5)
    settings = JudgeSettings(corruptions_floor=0.0)
    with pytest.raises(ProtocolError) as caught:
        ask_gates({"cnn-gru seed 0": examinations, "cnn-3d seed 2": bad}, settings)
    assert "The judge cnn-3d seed 2 failed the test gate: 'action' 0.500" in caught.value.message
    assert "cnn-gru" not in caught.value.message


def test_a_constant_judge_is_refused_however_common_its_answer_is():
    """98 of 100 clips are of one class: accuracy .98, and still it knows nothing."""
    factor = Factor("action", "dynamic", ("still", "jump"))
    labels = {"action": (np.arange(100) >= 98).astype(np.int64)}
    clips = LabelledClips(lambda rows: torch.zeros(len(rows), 2, 3, 16, 16), labels)
    found = examine(ConstantJudge.of([factor], clips), clips)
    assert found.accuracy["action"] == pytest.approx(0.98)
    assert found.class_accuracy["action"] == 0.5
    with pytest.raises(ProtocolError, match="test gate: 'action' 0.500"):
        ask_gates({"constant": {"test": found}}, JudgeSettings())


def test_a_judge_that_reads_the_person_for_the_action_fails_the_cells_gate(judge, test_clips):
    """It is right wherever each colour has one action, and wrong where they were kept apart."""

    class Leaning:
        factors = (toy.FACTORS[0], toy.FACTORS[2])

        def predict(self, clips):
            colour = judge.predict(clips)["colour"]
            return {"colour": colour, "action": colour}

    tied = {**test_clips.labels, "action": test_clips.labels["colour"]}
    untied = {**test_clips.labels, "action": (test_clips.labels["colour"] + 1) % 3}
    found = {
        "test": examine(Leaning(), toy.source(toy.draw(tied, 4), tied)),
        "cells": examine(Leaning(), toy.source(toy.draw(untied, 5), untied)),
    }
    assert found["test"].accuracy["action"] >= 0.95
    with pytest.raises(ProtocolError, match=r"failed the cells gate: 'action' 0\.0"):
        ask_gates({"leaning": found}, JudgeSettings())
