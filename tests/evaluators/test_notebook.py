"""VDSM's notebook protocol: what it says, and that the clean numbers stand beside it."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.evaluators import toy
from tests.evaluators.known import Oracle
from vdsm_bench.evaluators import notebook
from vdsm_bench.evaluators.judge_training import train_judge
from vdsm_bench.evaluators.notebook import METRICS, Notebook, mixed_clips
from vdsm_bench.evaluators.outputs import RenderedOutputs, SubjectOutputs
from vdsm_bench.evaluators.suite import evaluate
from vdsm_bench.seeding import generator

EVALUATORS = {"vdsm-notebook": Notebook(epochs=3)}


def test_the_notebook_s_clips_repeat_and_leak_as_theirs_did(request_):
    outputs = SubjectOutputs(Oracle(request_.test), request_)
    tried, taught = mixed_clips(outputs, request_)
    n = len(request_.test)
    assert len(tried) == round(0.3 * n)
    rows = np.arange(n - len(tried))
    assert len(taught) == 2 * len(rows)  # real and regenerated
    drawn = generator(request_.seed, "notebook", n).integers(n, size=n)[len(tried) :]
    shown = taught.clips(rows)
    assert torch.equal(shown, request_.test.clips(drawn))
    assert torch.equal(taught.clips(rows + len(rows)), outputs.reconstructions(drawn))
    assert np.array_equal(
        taught.labels["action"], np.tile(request_.test.labels["action"][drawn], 2)
    )
    leaked = [bool((shown == clip).flatten(1).all(1).any()) for clip in request_.test.clips(tried)]
    assert 0.2 < np.mean(leaked) < 0.8  # about half of what is tried was taught


def test_its_judge_is_of_the_last_epoch_and_chosen_on_no_clip(judge, request_, monkeypatch):
    asked = []

    def watched(taught, validation, **settings):
        trained = train_judge(taught, validation, **settings)
        asked.append((validation, trained.epoch))
        return trained

    monkeypatch.setattr(notebook, "train_judge", watched)
    evaluate(Oracle(request_.test), judge, request_, EVALUATORS)
    assert asked == [(None, 2)]


def test_a_good_model(judge, request_):
    result = evaluate(Oracle(request_.test), judge, request_, EVALUATORS)
    assert set(result.scores) == {metric.name for metric in METRICS}
    scores = {name: score.value for name, score in result.scores.items()}
    assert scores["notebook_agreement_clean"] >= 0.95
    assert scores["notebook_ln_inception_score_clean"] == pytest.approx(
        (2 * np.log(3) + np.log(2)) / 3, abs=0.1
    )
    assert scores["notebook_ln_inception_score"] == pytest.approx(
        scores["notebook_H_y"] - scores["notebook_H_y_given_x"]
    )
    assert any("NOT CLEAN" in note for note in result.notes)
    dirty = [metric for metric in METRICS if not metric.name.endswith("_clean")]
    assert all("NOT CLEAN" in metric.definition for metric in dirty)


class Told:
    """A judge that says of every clip the class that it is told to, whatever is shown.

    Args:
        answer: from clips to one class per clip; the same for every factor.
    """

    factors = toy.FACTORS

    def __init__(self, answer):
        self.answer = answer

    def predict(self, clips):
        said = self.answer(clips).numpy()
        return {f.name: np.log(np.eye(len(f.classes))[said] + 1e-9) for f in self.factors}


def teach(monkeypatch, judge):
    """Makes this one the notebook's judge."""
    monkeypatch.setattr(notebook, "train_judge", lambda *_, **__: SimpleNamespace(judge=judge))


def test_judges_agree_with_themselves_and_neither_with_the_label(request_, monkeypatch):
    """The notebook's judge and the gated one are each asked their own question."""
    steady = Told(lambda clips: torch.zeros(len(clips), dtype=torch.int64))
    fooled = Told(lambda clips: (clips.mean((1, 2, 3, 4)) > 0.5).long())
    outputs = RenderedOutputs(reconstructions=lambda rows: 1 - request_.test.clips(rows))
    for dirty, gated, wanted in ((fooled, steady, (0.0, 1.0)), (steady, fooled, (1.0, 0.0))):
        teach(monkeypatch, dirty)
        result = evaluate(outputs, gated, request_, EVALUATORS)
        names = ("notebook_agreement", "notebook_agreement_clean")
        assert tuple(result.scores[name].value for name in names) == wanted
        long = {(row.metric, row.factor): row.score.value for row in result.long}
        for name, value in zip(names, wanted, strict=True):
            assert {long[name, factor.name] for factor in toy.FACTORS} == {value}


def test_clips_of_the_prior_have_neither_code_of_a_real_clip(request_, monkeypatch):
    steady = Told(lambda clips: torch.zeros(len(clips), dtype=torch.int64))
    teach(monkeypatch, steady)
    model, kept = Oracle(request_.test), []

    def watched(n, n_frames, *, identity=None, motion=None):
        kept.append((identity, motion))
        return request_.test.clips(np.arange(n))

    model.sample = watched
    evaluate(model, steady, request_, EVALUATORS)
    assert kept
    assert set(kept) == {(None, None)}


def test_what_cannot_be_had_is_empty_with_the_reason(judge, request_):
    scores = evaluate(Oracle(request_.test, prior=False), judge, request_, EVALUATORS).scores
    assert scores["notebook_agreement"].value is not None
    assert scores["notebook_H_y"].reason == "Oracle cannot sample"
    for subject, who, reason in (
        (RenderedOutputs(name="x.npz"), judge, "x.npz holds no reconstructions"),
        (Oracle(request_.test), None, "there is no judge"),
    ):
        scores = evaluate(subject, who, request_, EVALUATORS).scores
        assert {score.reason for score in scores.values()} == {reason}


def test_the_same_every_time(judge, request_):
    small = dataclasses.replace(request_, batch_size=7)
    one, other = (
        evaluate(Oracle(request_.test), judge, r, EVALUATORS).scores["notebook_agreement"].value
        for r in (request_, small)
    )
    assert one == other
