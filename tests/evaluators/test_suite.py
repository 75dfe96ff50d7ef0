"""Whole subjects through a really trained judge: controls give their known answers."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tests.evaluators import toy
from vdsm_bench.config import EvaluationSettings
from vdsm_bench.contracts import (
    Codes,
    Factor,
    LabelledClips,
    VideoModel,
)
from vdsm_bench.errors import ContractError, DataError, ProtocolError
from vdsm_bench.evaluators.accuracies import Accuracies
from vdsm_bench.evaluators.codes import CodeProbes
from vdsm_bench.evaluators.controls import make_controls
from vdsm_bench.evaluators.frechet import JudgeDistances
from vdsm_bench.evaluators.judge import NeuralJudge
from vdsm_bench.evaluators.outputs import RenderedOutputs, SubjectOutputs
from vdsm_bench.evaluators.pixels import Pixels
from vdsm_bench.evaluators.sampled import PriorSamples
from vdsm_bench.evaluators.suite import build_request, evaluate, evaluate_ceiling
from vdsm_bench.registry import load_registry

EVALUATORS = {"accuracies": Accuracies(), "pixels": Pixels(), "codes": CodeProbes()}


class Copier(VideoModel):
    """Codes that are the clip itself: identity from the first frame, motion from the rest."""

    def __init__(self, capabilities=frozenset({"encode", "generate"})):
        super().__init__()
        self.capabilities = capabilities
        self.norm = torch.nn.BatchNorm1d(2)
        self.frozen = torch.nn.BatchNorm1d(2).eval()
        self.seen = []

    def stages(self):
        return ()

    def encode(self, clip):
        self.seen.append((self.training, self.frozen.training, torch.is_grad_enabled()))
        colour = clip.mean((1, 3, 4))
        moving = (clip - clip.mean(1, keepdim=True)).mean(2)
        return Codes(colour, torch.cat([moving.mean(2), moving.mean(3)], dim=2).flatten(1))

    def generate(self, codes, n_frames):
        shape = (len(codes.identity), n_frames, 3, toy.SIZE, toy.SIZE)
        return codes.identity[:, None, :, None, None].expand(shape).clamp(0, 1)


@pytest.fixture(scope="module")
def controls(train):
    return make_controls(train)


def scores(subject, judge, request):
    return evaluate(subject, judge, request, EVALUATORS).as_json()["scores"]


def test_copying_the_identity_clip(controls, judge, request_):
    found = scores(controls["copy-identity-clip"], judge, request_)
    assert found["identity_accuracy"]["value"] >= 0.95
    assert found["action_leak"]["value"] >= 0.95
    assert found["dynamic_accuracy"]["value"] <= 0.05
    assert found["transfer_accuracy"]["value"] <= 0.05
    assert found["consistent_accuracy"]["value"] == 1.0
    assert found["psnr"]["value"] == 100.0


def test_copying_the_motion_clip(controls, judge, request_):
    found = scores(controls["copy-motion-clip"], judge, request_)
    assert found["dynamic_accuracy"]["value"] >= 0.95
    assert found["identity_leak"]["value"] >= 0.95
    assert found["identity_accuracy"]["value"] <= 0.05
    assert found["action_leak"]["value"] <= 0.05


def test_a_copy_of_the_motion_clip_has_no_identity_where_pictures_share_a_class(
    controls, judge, test_clips
):
    """Every clip has a picture of its own, which no judge knows; the pairs differ in the rest."""
    n = len(test_clips)
    pictures = Factor("picture", "static", tuple(str(i) for i in range(n)))
    clips = LabelledClips(test_clips.clips, {**test_clips.labels, "picture": np.arange(n)})
    settings = EvaluationSettings(clips=80, pairs=60, bootstrap=50, batch_size=16)
    request = build_request(
        clips,
        factors=(pictures, *toy.FACTORS),
        settings=settings,
        unscorable={"picture": "training never shows it"},
    )
    known = build_request(test_clips, factors=toy.FACTORS, settings=settings)
    assert np.array_equal(request.pairs, known.pairs)  # as if there were no such factor
    found = evaluate(
        controls["copy-motion-clip"], judge, request, {"accuracies": Accuracies()}
    ).as_json()["scores"]
    assert found["identity_accuracy"]["value"] <= 0.05
    assert found["identity_leak"]["value"] >= 0.95


def test_the_frozen_frame_keeps_who_and_loses_what(controls, judge, request_):
    found = scores(controls["frozen-frame"], judge, request_)
    assert found["identity_accuracy"]["value"] >= 0.9
    assert found["dynamic_accuracy"]["value"] <= 0.5
    assert found["consistent_accuracy"]["value"] <= 0.6


def test_the_mean_clip_loses(controls, judge, request_):
    result = evaluate(controls["mean-clip"], judge, request_, EVALUATORS)
    for column in ("dynamic_accuracy", "identity_accuracy", "consistent_accuracy"):
        # one answer for all cannot beat the best constant answer
        assert result.scores[column].value <= result.chance[column]["majority"] + 1e-9
    assert result.scores["mse"].value > 0.001


def test_the_label_oracle_scores_about_one(judge, request_, test_clips):
    of = test_clips.labels
    rows = {tuple(of[f.name][i] for f in toy.FACTORS): i for i in range(len(test_clips))}
    assert len(rows) == 18

    def transfers(chosen):
        a, b = request_.pairs[chosen].T
        test = request_.test.labels
        names = ["colour", "shape", "action"]
        wanted = zip(*(test[n][b if n == "action" else a] for n in names), strict=True)
        return test_clips.clips(np.array([rows[key] for key in wanted]))

    oracle = RenderedOutputs(transfers=transfers, reconstructions=request_.test.clips)
    found = scores(oracle, judge, request_)
    for column in ("dynamic_accuracy", "identity_accuracy", "transfer_accuracy"):
        assert found[column]["value"] >= 0.95
    assert found["identity_code_identity_probe"] == {"reason": "the file holds no codes"}


def test_the_ceiling_is_what_the_judge_says_of_real_clips(judge, request_):
    result = evaluate_ceiling(judge, request_)
    assert result.scores["consistent_accuracy"].value == 1.0
    assert result.scores["transfer_accuracy"].value >= 0.95
    long = {(row.metric, row.factor): row.score.value for row in result.long}
    assert long["judge_accuracy", "colour"] >= 0.95


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_batch_size_changes_no_number(batch_size, controls, judge, request_):
    other = dataclasses.replace(request_, batch_size=batch_size)
    for subject in (controls["frozen-frame"], Copier()):
        one = scores(subject, judge, request_)
        for column, score in scores(subject, judge, other).items():
            same = one[column] if "reason" in score else pytest.approx(one[column], rel=1e-5)
            assert score == same, column


def test_the_result_is_json_and_every_declared_column_is_there(controls, judge, request_):
    result = evaluate(Copier(), judge, request_, EVALUATORS).as_json()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    declared = {m.name for evaluator in EVALUATORS.values() for m in evaluator.metrics}
    assert set(result["scores"]) == set(result["versions"]) == declared
    assert {"metric", "factor", "value", "low", "high", "n"} == set(result["long"][0])
    for score in result["scores"].values():
        assert score["low"] <= score["value"] <= score["high"]


def test_a_model_is_scored_in_evaluation_mode_and_put_back(judge, request_):
    model = Copier()
    model.train()
    model.frozen.eval()
    scores(model, judge, request_)
    assert set(model.seen) == {(False, False, False)}
    assert model.training
    assert model.norm.training
    assert not model.frozen.training


def test_a_model_may_fit_its_codes_by_gradient_descent(judge, request_):
    class Fitter(Copier):
        def encode(self, clip):
            goal = super().encode(clip)
            with torch.enable_grad():
                colour = torch.zeros_like(goal.identity, requires_grad=True)
                (step,) = torch.autograd.grad((colour - goal.identity).square().sum() / 2, colour)
            return Codes(-step, goal.motion)

    assert scores(Fitter(), judge, request_) == scores(Copier(), judge, request_)


def test_codes_tell_what_they_hold(judge, request_):
    found = scores(Copier(), judge, request_)
    result = evaluate(Copier(), judge, request_, EVALUATORS)
    long = {(row.metric, row.factor): row.score.value for row in result.long}
    assert long["identity_code_probe", "colour"] >= 0.95
    assert found["motion_code_action_probe"]["value"] >= 0.8
    assert found["identity_code_action_probe"]["value"] <= 0.6


def test_what_a_model_cannot_do_is_empty_with_the_reason_and_never_zero(judge, request_):
    found = scores(Copier(capabilities=frozenset({"sample"})), judge, request_)
    assert {tuple(score) for score in found.values()} == {("reason",)}
    assert found["consistent_accuracy"]["reason"] == "Copier cannot encode and generate"
    assert found["motion_code_action_probe"]["reason"] == "Copier cannot encode"
    half = scores(Copier(capabilities=frozenset({"encode"})), judge, request_)
    assert half["psnr"]["reason"] == "Copier cannot generate"
    assert "value" in half["motion_code_action_probe"]


def test_without_a_judge_the_rest_is_scored(controls, request_):
    found = scores(controls["frozen-frame"], None, request_)
    assert found["dynamic_accuracy"] == {"reason": "there is no judge"}
    assert found["ssim"]["value"] < 1


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (lambda clip: clip + torch.nan, r"\[0, 1\]"),
        (lambda clip: clip * 3, r"\[0, 1\]"),
        (lambda clip: clip[:, :2], "expected"),
        (lambda clip: clip[:1], "expected"),
    ],
)
def test_outputs_that_are_no_clips_are_refused(outcome, message, judge, request_):
    class Broken:
        def reconstruct(self, clip):
            return outcome(clip)

        def transfer(self, identity_of, motion_of):
            return identity_of

    with pytest.raises(ContractError, match=f"Broken.reconstruct.*{message}"):
        scores(Broken(), judge, request_)


def test_codes_with_nan_are_refused(judge, request_):
    class Broken(Copier):
        def encode(self, clip):
            found = super().encode(clip)
            return Codes(found.identity * torch.nan, found.motion)

    with pytest.raises(ContractError, match="identity code"):
        evaluate(Broken(), judge, request_, {"codes": CodeProbes()})


def test_rendered_clips_of_the_wrong_number_are_refused(judge, request_):
    short = RenderedOutputs(
        reconstructions=lambda rows: request_.test.clips(rows[:1]), name="x.npz"
    )
    with pytest.raises(ContractError, match="x.npz, reconstructions: asked for 16"):
        scores(short, judge, request_)


def test_reconstructions_are_made_once_for_all_evaluators(judge, request_):
    class Counter:
        calls = 0

        def reconstruct(self, clip):
            self.calls += 1
            return clip

        def transfer(self, identity_of, motion_of):
            return motion_of

    subject = Counter()
    scores(subject, judge, request_)
    assert subject.calls == -(-len(request_.test) // request_.batch_size)


def test_a_judge_that_lacks_a_factor_is_refused(controls, judge, request_):
    more = (*toy.FACTORS, dataclasses.replace(toy.FACTORS[0], name="hat"))
    labels = {**request_.test.labels, "hat": request_.test.labels["colour"]}
    test = LabelledClips(request_.test.clips, labels)
    wider = dataclasses.replace(request_, factors=more, test=test)
    with pytest.raises(ProtocolError, match="hat"):
        evaluate(controls["mean-clip"], judge, wider, {"accuracies": Accuracies()})


def test_the_request_is_a_function_of_labels_and_settings(test_clips):
    settings = EvaluationSettings(clips=50, pairs=30)
    one = build_request(test_clips, factors=toy.FACTORS, settings=settings)
    other = build_request(
        test_clips,
        factors=toy.FACTORS,
        settings=settings.model_copy(update={"batch_size": 3}),
        seed=4,
    )
    assert np.array_equal(one.pairs, other.pairs)
    assert len(one.test) == 50
    rows = np.arange(50)
    assert torch.equal(one.test.clips(rows), other.test.clips(rows))
    # the clips are the ones their labels belong to
    kept = [
        i
        for i in range(90)
        if (test_clips.clips(np.array([i])) == one.test.clips(rows)).flatten(1).all(1).any()
    ]
    assert np.array_equal(test_clips.labels["action"][kept], one.test.labels["action"])


def test_bad_labels_are_refused_before_anything_runs(test_clips):
    labels = {**test_clips.labels, "colour": test_clips.labels["colour"] + 7}
    with pytest.raises(DataError, match="colour"):
        build_request(
            LabelledClips(test_clips.clips, labels),
            factors=toy.FACTORS,
            settings=EvaluationSettings(),
        )


def test_the_built_in_evaluators_are_these():
    table = load_registry()
    entries = [table.peek("evaluators", name) for name in table.names("evaluators")]
    built_in = {entry.name: entry for entry in entries if entry.target}
    asked = {name for name, entry in built_in.items() if entry.settings.get("asked")}
    assert asked == {
        "factors", "kinetics", "leakage", "long-generation", "mixed-codes", "vdsm-notebook"
    }  # fmt: skip
    defaults = {name: table.factory("evaluators", name)() for name in set(built_in) - asked}
    assert {name: type(evaluator) for name, evaluator in defaults.items()} == {
        "accuracies": Accuracies,
        "codes": CodeProbes,
        "distances": JudgeDistances,
        "pixels": Pixels,
        "samples": PriorSamples,
    }
    assert {m.name for evaluator in defaults.values() for m in evaluator.metrics} == {
        "consistent_accuracy", "dynamic_accuracy", "identity_accuracy", "transfer_accuracy",
        "action_leak", "identity_leak",
        "identity_code_identity_probe", "identity_code_action_probe",
        "motion_code_identity_probe", "motion_code_action_probe",
        "fvd_judge_regenerated", "fvd_judge_transferred", "fvd_judge_floor",
        "kid_judge_regenerated", "kid_judge_transferred", "kid_judge_floor",
        "mse", "psnr", "ssim",
        "sampled_prior_dynamic_accuracy", "sampled_prior_identity_accuracy", "sampled_prior_H_y",
        "sampled_prior_H_y_given_x", "sampled_prior_inception_score",
    }  # fmt: skip


def test_controls_say_what_they_expect(controls):
    assert list(controls) == ["copy-identity-clip", "copy-motion-clip", "frozen-frame", "mean-clip"]
    assert all(control.expected for control in controls.values())


def test_the_mean_clip_is_the_mean_whatever_the_batch_size(train):
    clips = train.clips(np.arange(len(train)))
    for batch_size in (7, 1000):
        mean = make_controls(train, batch_size)["mean-clip"].mean
        torch.testing.assert_close(mean, clips.mean(0))


def test_controls_need_training_clips(train):
    with pytest.raises(DataError, match="training clips"):
        make_controls(LabelledClips(train.clips, {"colour": np.zeros(0, int)}))


def test_every_clip_is_judged_once_whoever_hands_it_over(controls, judge, request_, monkeypatch):
    """Ceiling and controls together: real clips, their frozen frames and the mean clip."""
    blocks = []
    network = judge.network

    def features(block):
        blocks.append({clip.numpy().tobytes() for clip in block})
        return type(network).features(network, block)

    monkeypatch.setattr(network, "features", features)
    fresh = NeuralJudge(network, judge.shape, judge.device)
    evaluate_ceiling(fresh, request_)
    for control in controls.values():
        evaluate(control, fresh, request_, {**EVALUATORS, "distances": JudgeDistances()})
    n, compared = len(request_.test), min(len(request_.test), len(request_.pairs))
    everything = set().union(*blocks)
    assert len(everything) == n + n + 1 + compared
    assert sum(map(len, blocks)) == len(everything)  # none of them is in two blocks


def test_outputs_are_kept_only_while_there_is_room(request_, monkeypatch):
    monkeypatch.setattr("vdsm_bench.evaluators.outputs._CACHE_BYTES", 0)
    outputs = SubjectOutputs(Copier(), request_)
    made = []
    outputs.subject.generate = lambda codes, n: made.append(n) or Copier().generate(codes, n)
    rows = np.arange(3)
    assert torch.equal(outputs.reconstructions(rows), outputs.reconstructions(rows))
    assert len(made) == 2


def test_a_clip_is_encoded_once_however_many_pairs_it_is_in(request_):
    outputs = SubjectOutputs(Copier(), request_)
    pairs = np.arange(len(request_.pairs))
    transfers = outputs.transfers(pairs)
    outputs.reconstructions(np.arange(5))
    assert len(outputs.subject.seen) == -(-len(request_.test) // request_.batch_size)
    a, b = (request_.test.clips(request_.pairs[:, side]) for side in (0, 1))
    torch.testing.assert_close(transfers, Copier().transfer(a, b))


def test_a_transfer_of_a_model_s_own_is_asked_for(request_):
    class Own(Copier):
        def transfer(self, identity_of, motion_of):
            return motion_of

    found = SubjectOutputs(Own(), request_).transfers(np.arange(4))
    assert torch.equal(found, request_.test.clips(request_.pairs[:4, 1]))
