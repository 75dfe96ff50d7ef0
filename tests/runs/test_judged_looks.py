"""``--judge-looks``: what the judge says while a model trains, on models whose scores are known."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.evaluators import toy
from tests.evaluators.known import PROTOTYPES, SIZES, Oracle, one_hot
from vdsm_bench.config import EvaluationSettings
from vdsm_bench.contracts import LabelledClips
from vdsm_bench.errors import ProtocolError
from vdsm_bench.evaluators.accuracies import Accuracies
from vdsm_bench.runs.monitor import Monitor

CLIPS = toy.make(60, seed=3)
EVERY = LabelledClips(
    lambda rows: PROTOTYPES[rows],
    dict(
        zip(
            [factor.name for factor in toy.FACTORS],
            np.unravel_index(np.arange(len(PROTOTYPES)), SIZES),
            strict=True,
        )
    ),
)

UNSEEN = "--judge-looks: the judge looked at nothing here"


class Knowing:
    """A judge who knows the labels of all clips there are."""

    factors = toy.FACTORS

    def predict(self, clips):
        shown = torch.cat([CLIPS.clips(np.arange(len(CLIPS))), PROTOTYPES]).flatten(1)
        known = torch.cat([one_hot(CLIPS.labels), one_hot(EVERY.labels)])
        said = known[torch.cdist(clips.flatten(1), shown).argmin(1)]
        parts = said.log().split(SIZES, dim=1)
        return {f.name: part.numpy() for f, part in zip(toy.FACTORS, parts, strict=True)}


def look(table, model, *, stage=None, labels=None, asked=True, batch_size=64):
    known = {**CLIPS.labels, **(labels or {})}
    n = len(CLIPS)

    def chosen(indices):
        return LabelledClips(
            lambda rows: CLIPS.clips(indices[rows]), {k: v[indices] for k, v in known.items()}
        )

    bench = SimpleNamespace(
        clips=chosen,
        splits=SimpleNamespace(validation=np.arange(n), train=np.arange(0)),
        store=SimpleNamespace(factors=toy.FACTORS, identities=np.arange(n)),
    )
    protocol = SimpleNamespace(
        table=table,
        bench=bench,
        unscorable={},
        evaluators={"accuracies": Accuracies()},
        evaluation=EvaluationSettings(batch_size=batch_size),
    )
    monitor = Monitor(bench, protocol, None, "cpu")
    if asked:
        monitor.ask(SimpleNamespace(judge=Knowing()))
    return monitor.look(model, stage).figures


def scores(figures):
    return [figures[f"{name}_accuracy"] for name in ("consistent", "dynamic", "identity")]


@pytest.mark.parametrize(
    ("leak", "expected", "action_leak", "identity_leak"),
    [
        ((), [1.0, 1.0, 1.0], 0.0, 0.0),
        (("identity",), [1.0, 0.0, 1.0], 1.0, 0.0),
        (("motion",), [1.0, 1.0, 0.0], 0.0, 1.0),
    ],
)
def test_scores_are_those_of_the_exchange(table, leak, expected, action_leak, identity_leak):
    figures = look(table, Oracle(CLIPS, EVERY, leak=leak))
    assert scores(figures) == expected
    assert (figures["action_leak"], figures["identity_leak"]) == (action_leak, identity_leak)
    assert figures["transfer_accuracy"] == (1.0 if not leak else 0.0)


class Unfinished(Oracle):
    """Its way from motion to frames is trained by the second stage; poses are the motion."""

    def encode(self, clip):
        codes = super().encode(clip)
        return replace(codes, pose=codes.motion[:, None].expand(-1, clip.shape[1], -1))

    def generate(self, codes, n_frames):
        return super().generate(replace(codes, motion=torch.zeros_like(codes.motion)), n_frames)

    def regenerate(self, codes, n_frames, stage):
        if stage == "second":
            return self.generate(codes, n_frames)
        return super().generate(replace(codes, motion=codes.pose[:, 0]), n_frames)


def test_a_stage_is_judged_by_what_it_trains(table):
    first, second, end = (
        look(table, Unfinished(CLIPS, EVERY), stage=stage) for stage in ("first", "second", None)
    )
    assert scores(first) == [1.0, 1.0, 1.0]
    assert scores(second) == scores(end)
    assert second["identity_accuracy"] == 1.0
    assert second["dynamic_accuracy"] < 0.6


def test_nobody_is_judged_unasked(table):
    model = Oracle(CLIPS, EVERY)
    asked, unasked = (look(table, model, asked=each) for each in (True, False))
    assert set(asked) - set(unasked) == {metric.name for metric in Accuracies.metrics}
    assert {name: asked[name] for name in unasked} == unasked


def test_clips_that_cannot_be_paired_are_refused_before_anything_is_trained(table):
    alike = {"action": np.zeros(len(CLIPS), dtype=np.int64)}
    with pytest.raises(ProtocolError, match="No two of the clips differ"):
        look(table, Oracle(CLIPS, EVERY), labels=alike)


def looks_of(outcome):
    text = (outcome.folder / "train.jsonl").read_text()
    return [
        line["epoch_figures"]
        for line in map(json.loads, text.splitlines())
        if "epoch_figures" in line
    ]


def test_a_cell_s_numbers_are_the_same_and_its_log_has_the_curve(bench, tmp_path):
    (plain,), _ = bench()
    (judged,), listener = bench(runs_dir=tmp_path, judge_looks=True)
    assert judged.folder.name == plain.folder.name
    for name in ("scores", "long", "health"):
        assert judged.metrics[name] == plain.metrics[name]
    looks = looks_of(judged)
    assert len(looks) == len(looks_of(plain)) > 0
    for figures, without in zip(looks, looks_of(plain), strict=True):
        assert 0 <= figures["dynamic_accuracy"] <= 1
        assert {name: figures[name] for name in without} == without
    assert any("dynamic_accuracy" in detail for _, _, _, detail in listener.tasks)
    assert not any(UNSEEN in line for line in listener.lines)


def test_where_there_is_nothing_to_look_at_any_more_that_is_said(bench, tmp_path):
    bench(runs_dir=tmp_path)
    few = {"evaluation": {"pairs": 10}}  # the same training, taken over
    (outcome,), listener = bench(layer=few, runs_dir=tmp_path, judge_looks=True)
    assert outcome.metrics["trained_as"] is not None
    assert any(UNSEEN in line for line in listener.lines)


def test_transfers_are_made_as_many_at_a_time_as_the_settings_say(table):
    class Counting(Oracle):
        def generate(self, codes, n_frames):
            sizes.append(len(codes.identity))
            return super().generate(codes, n_frames)

    sizes: list[int] = []
    whole = look(table, Counting(CLIPS, EVERY))
    unjudged = max(sizes)
    sizes.clear()
    assert look(table, Counting(CLIPS, EVERY), batch_size=7) == whole
    assert unjudged > 7
    assert sizes.count(7) > 10
