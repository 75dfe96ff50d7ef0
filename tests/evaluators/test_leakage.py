"""Cross-validated readers, leakage and information gap on codes of known content."""

import dataclasses
import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.evaluators import toy
from vdsm_bench.contracts import EvaluationRequest, Factor, LabelledClips
from vdsm_bench.errors import DataError
from vdsm_bench.evaluators.leakage import METRICS, Leakage, findings, fold_of, read
from vdsm_bench.evaluators.outputs import RenderedOutputs

LABELS = toy.labels(300, seed=4)
REQUEST = EvaluationRequest(
    test=LabelledClips(lambda rows: None, LABELS),
    factors=toy.FACTORS,
    pairs=np.zeros((1, 2), np.int64),
    bootstrap=100,
)
NOISE = np.random.default_rng(0).normal(size=(300, 4))


def hot(*names):
    sizes = {f.name: len(f.classes) for f in toy.FACTORS}
    return np.concatenate([np.eye(sizes[n])[LABELS[n]] for n in names], axis=1)


STATIC, ACTION = hot("colour", "shape"), hot("action")


def values(identity, motion, request=REQUEST):
    result = findings({"identity": identity, "motion": motion}, request)
    assert set(result.scores) == {metric.name for metric in METRICS}
    return {name: score.value for name, score in result.scores.items()}, result


def test_perfect_codes():
    found, _ = values(STATIC, ACTION)
    assert found["identity_code_identity_mlp_probe"] == 1.0
    assert found["motion_code_action_mlp_probe"] == 1.0
    assert abs(found["identity_code_action_leakage"]) < 0.15
    assert abs(found["motion_code_identity_leakage"]) < 0.15
    assert found["identity_information_gap"] == pytest.approx(1.0, abs=0.05)
    assert found["action_information_gap"] == pytest.approx(1.0, abs=0.05)


def test_codes_that_say_nothing():
    found, result = values(NOISE, NOISE[::-1])
    assert found["identity_information_gap"] == pytest.approx(0.0, abs=0.05)
    for name in ("identity_code_action_leakage", "motion_code_identity_leakage"):
        assert abs(found[name]) < 0.15
    chance = result.chance["identity_code_action_mlp_probe"]["majority"]
    assert chance == np.bincount(LABELS["action"]).max() / 300


def test_a_code_that_leaks_and_codes_that_are_the_same():
    both = np.concatenate([STATIC, ACTION], axis=1)
    found, _ = values(both, ACTION)
    assert found["identity_code_action_leakage"] == 1.0
    assert found["action_information_gap"] == pytest.approx(0.0, abs=0.02)
    assert found["identity_information_gap"] == pytest.approx(1.0, abs=0.05)
    same, _ = values(both, both)
    assert same["identity_information_gap"] == same["action_information_gap"] == 0.0


def test_exchanged_codes_are_worse_than_none():
    found, _ = values(ACTION, STATIC)
    assert found["identity_information_gap"] == pytest.approx(-1.0, abs=0.05)
    assert found["motion_code_identity_leakage"] == 1.0


def test_shuffled_codes_are_at_chance():
    rows = np.random.default_rng(5).permutation(300)
    found, _ = values(STATIC[rows], ACTION[rows])
    assert found["motion_code_action_mlp_probe"] < 0.5
    assert abs(found["action_information_gap"]) < 0.1


def test_an_mlp_reads_what_a_line_cannot():
    rng = np.random.default_rng(6)
    signs = rng.choice([-1.0, 1.0], size=(300, 2))
    labels = (signs[:, 0] * signs[:, 1] > 0).astype(int)  # exclusive or
    codes = signs + 0.1 * rng.normal(size=signs.shape)
    assert read(codes, labels, "logistic").right.mean() < 0.65
    assert read(codes, labels, "mlp").right.mean() > 0.95


def test_leakage_is_that_of_the_better_reader_mean_over_factors():
    """Of one factor the network reads more, of the other the line."""
    rng = np.random.default_rng(6)
    signs = rng.choice([-1.0, 1.0], size=(300, 2))
    codes = np.concatenate([signs, rng.normal(size=(300, 10))], axis=1)
    labels = {
        **LABELS,
        "shape": (signs[:, 0] * signs[:, 1] > 0).astype(int),  # exclusive or
        "colour": (codes[:, 2:].sum(1) + 2 * rng.normal(size=300) > 0).astype(int),
    }
    request = dataclasses.replace(REQUEST, test=LabelledClips(lambda rows: None, labels))
    found, result = values(STATIC, codes, request)
    long = {(row.metric, row.factor): row.score.value for row in result.long}
    linear, network = (
        {name: long[f"motion_code_{reader}_probe_cv", name] for name in ("colour", "shape")}
        for reader in ("logistic", "mlp")
    )
    assert linear["colour"] > network["colour"]
    assert linear["shape"] < 0.6 < 0.9 < network["shape"]
    chance = {name: np.bincount(labels[name]).max() / 300 for name in linear}
    best = {"colour": linear["colour"], "shape": network["shape"]}
    excess = [(best[name] - chance[name]) / (1 - chance[name]) for name in best]
    assert found["motion_code_identity_leakage"] == pytest.approx(np.mean(excess))
    read_by_mlp = found["motion_code_identity_mlp_probe"]
    assert read_by_mlp == pytest.approx(np.mean(list(network.values())))
    level = result.chance["motion_code_identity_mlp_probe"]["majority"]
    assert level == pytest.approx(np.mean(list(chance.values())))


def test_the_logistic_reader_is_scikit_learn_s_under_the_same_folds():
    rng = np.random.default_rng(7)
    labels = rng.integers(4, size=200)
    codes = rng.normal(size=(4, 5))[labels] + rng.normal(size=(200, 5))
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=100))
    split = PredefinedSplit(fold_of(labels, 5, seed=0))
    theirs = cross_val_predict(pipeline, codes, labels, cv=split, method="predict_proba")
    mine = read(codes, labels, "logistic")
    assert mine.right.mean() == (theirs.argmax(1) == labels).mean()
    likelihood = np.log((0.999 * theirs + 0.001 / 4)[np.arange(200), labels])
    assert mine.log_likelihood == pytest.approx(likelihood, abs=1e-6)


def test_folds_are_even_in_every_class():
    labels = np.repeat([0, 1, 2], [50, 11, 5])
    folds = fold_of(labels, 5, seed=1)
    for value in range(3):
        counts = np.bincount(folds[labels == value], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.array_equal(folds, fold_of(labels, 5, seed=1))


def test_windows_of_one_recording_are_in_one_fold():
    """What a recording looks like tells its label to who has seen another window of it."""
    rng = np.random.default_rng(9)
    recordings = np.repeat(rng.permutation(20), 6)
    labels = rng.integers(3, size=20)[recordings]
    codes = rng.normal(size=(20, 12))[recordings] + 0.05 * rng.normal(size=(120, 12))
    folds = fold_of(labels, 5, 0, recordings)
    assert all(len(np.unique(folds[recordings == one])) == 1 for one in range(20))
    assert np.bincount(folds, minlength=5).tolist() == [24] * 5
    assert read(codes, labels, "logistic").right.mean() > 0.95
    assert read(codes, labels, "logistic", recordings=recordings).right.mean() < 0.6
    windows = LabelledClips(
        lambda rows: None, {f.name: labels % 2 for f in toy.FACTORS}, recordings
    )
    request = dataclasses.replace(REQUEST, test=windows)
    found, _ = values(codes, codes, request)
    assert found["identity_code_action_leakage"] < 0.6
    with pytest.raises(DataError, match="two recordings"):
        read(codes, labels, "mlp", recordings=np.zeros(120, int))


def test_clips_of_recordings_of_their_own_are_dealt_one_by_one():
    labels = np.arange(40) % 3
    numbers = np.random.default_rng(3).permutation(40)
    assert np.array_equal(fold_of(labels, 5, 2), fold_of(labels, 5, 2, numbers))


def test_a_factor_of_one_class_is_left_out_and_said():
    """A motion code that holds all of the identity leaks all of it, whatever the room is."""
    room = Factor("room", "static", ("kitchen", "garden"))
    labels = {**LABELS, "room": np.zeros(300, np.int64)}
    request = dataclasses.replace(
        REQUEST,
        test=LabelledClips(lambda rows: None, labels),
        factors=(*toy.FACTORS, room),
    )
    both = np.concatenate([STATIC, ACTION], axis=1)
    found, result = values(STATIC, both, request)
    assert found == values(STATIC, both)[0]
    assert found["motion_code_identity_leakage"] == 1.0
    assert "'room' is left out" in result.notes[0]
    assert "room" not in {row.factor for row in result.long}
    alone = dataclasses.replace(request, factors=(room, toy.FACTORS[2]))
    assert "two classes" in values(STATIC, both, alone)[1].scores["identity_information_gap"].reason


def test_information_is_between_nothing_and_the_entropy():
    labels = np.arange(120) % 6
    assert read(np.eye(6)[labels], labels, "logistic").information > 0.9 * math.log(6)
    rng = np.random.default_rng(8)
    assert read(rng.normal(size=(120, 3)), labels, "mlp").information < 0.2


def test_rare_classes_and_constant_codes_are_taken():
    labels = np.array([0] * 20 + [1])
    found = read(np.ones((21, 2)), labels, "logistic")
    assert found.right.mean() == pytest.approx(20 / 21)
    assert np.isfinite(found.log_likelihood).all()


def test_bad_codes_are_refused():
    with pytest.raises(DataError, match="NaN"):
        read(np.full((9, 2), np.nan), np.arange(9) % 2, "logistic")
    with pytest.raises(DataError, match="two clips"):
        read(np.ones((1, 2)), np.zeros(1, int), "mlp")


def test_what_has_no_codes_says_so():
    found = Leakage().evaluate(RenderedOutputs(name="x.npz"), REQUEST, None)
    assert {score.reason for score in found.scores.values()} == {"x.npz holds no codes"}


def test_a_factor_that_cannot_be_scored_is_left_out():
    request = dataclasses.replace(REQUEST, unscorable={"action": "unseen"})
    found, result = values(STATIC, ACTION, request)
    assert found["identity_code_action_leakage"] is None
    assert "no such factor" in result.scores["action_information_gap"].reason
    assert found["identity_information_gap"] == pytest.approx(1.0, abs=0.05)
