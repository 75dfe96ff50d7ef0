import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.evaluators import toy
from tests.evaluators.known import Oracle
from vdsm_bench.contracts import Codes
from vdsm_bench.errors import DataError
from vdsm_bench.evaluators.codes import CodeProbes, code_views, probe, quick_leaks
from vdsm_bench.evaluators.outputs import SubjectOutputs
from vdsm_bench.evaluators.pairs import joint_classes
from vdsm_bench.seeding import generator
from vdsm_bench.significance import interval


def blobs(n, seed, spread=1.0, classes=4, size=6):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, size))
    labels = rng.integers(classes, size=n)
    return 50 + 30 * (centres[labels] + spread * rng.normal(size=(n, size))), labels


def test_probe_agrees_with_a_scikit_learn_pipeline():
    train, test = blobs(300, 0), blobs(200, 1)
    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(*train)
    found = probe(*train, *test)
    assert 0.6 < found.accuracy < 1.0
    assert found.accuracy == pytest.approx(reference.score(*test), abs=0.011)
    assert found.chance == np.bincount(test[1]).max() / 200


def test_probe_of_codes_that_say_nothing_is_at_chance_and_of_the_label_is_one():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=600)
    noise = rng.normal(size=(600, 5))
    assert probe(noise[:300], labels[:300], noise[300:], labels[300:]).accuracy < 0.45
    exact = np.eye(3)[labels]
    assert probe(exact[:300], labels[:300], exact[300:], labels[300:]).accuracy == 1.0


def test_probe_takes_constant_codes_and_a_single_class():
    labels = np.array([0, 1, 1, 0, 1, 1])
    found = probe(np.ones((6, 2)), labels, np.ones((6, 2)), labels)
    assert found.accuracy == pytest.approx(4 / 6)
    assert (
        probe(np.ones((3, 2)), np.zeros(3, int), np.ones((2, 2)), np.array([0, 1])).accuracy == 0.5
    )


@pytest.mark.parametrize(
    ("codes", "labels"),
    [
        (np.full((3, 2), np.nan), np.zeros(3, int)),
        (np.ones((3, 2)), np.zeros(4, int)),
        (np.ones(3), np.zeros(3, int)),
        (np.ones((0, 2)), np.zeros(0, int)),
    ],
)
def test_probe_refuses_bad_codes(codes, labels):
    good = np.ones((3, 2)), np.zeros(3, int)
    with pytest.raises(DataError, match="training codes"):
        probe(codes, labels, *good)
    with pytest.raises(DataError, match="test codes"):
        probe(*good, codes, labels)


def test_a_column_is_the_mean_over_its_factors_and_so_is_its_chance(request_):
    outputs = SubjectOutputs(Oracle(request_.test, request_.train), request_)
    found = CodeProbes().evaluate(outputs, request_, None)
    chance = {n: np.bincount(v).max() / len(v) for n, v in request_.test.labels.items()}
    long = {(row.metric, row.factor): row.score.value for row in found.long}
    for code in ("identity", "motion"):
        for what, names in (("identity", ("colour", "shape")), ("action", ("action",))):
            column = f"{code}_code_{what}_probe"
            read = np.mean([long[f"{code}_code_probe", name] for name in names])
            assert found.scores[column].value == pytest.approx(read)
            level = np.mean([chance[name] for name in names])
            assert found.chance[column] == {"majority": pytest.approx(level)}
    assert found.scores["identity_code_identity_probe"].value == 1.0
    assert 0.3 < found.scores["motion_code_identity_probe"].value < 0.6


def test_a_column_has_an_interval_over_identities(request_):
    outputs = SubjectOutputs(Oracle(request_.test, request_.train), request_)
    found = CodeProbes().evaluate(outputs, request_, None)
    train, test = (code_views(outputs.codes(part))["motion"] for part in ("train", "test"))
    known, labels = request_.train.labels, request_.test.labels
    right = [probe(train, known[n], test, labels[n]).right for n in ("colour", "shape")]
    who = joint_classes(labels, toy.FACTORS, "static")
    expected = pytest.approx(interval(np.mean(right, axis=0), who))
    assert found.scores["motion_code_identity_probe"].by_identity == expected


def leaks(views, labels, **more):
    return quick_leaks(views, labels, [f for f in toy.FACTORS if f.name in labels], **more)


def test_quick_leaks_tell_the_code_that_holds_the_factor():
    labels = toy.labels(600, seed=0)
    rng = np.random.default_rng(1)
    views = {
        "identity": np.eye(3)[labels["colour"]] + 0.1 * rng.normal(size=(600, 3)),
        "motion": rng.normal(size=(600, 4)),
    }
    found = leaks(views, labels)
    assert found["colour"]["identity"] >= 0.99
    assert found["colour"]["motion"] < found["colour"]["chance"] + 0.1
    assert found["action"]["identity"] < found["action"]["chance"] + 0.1
    assert set(found["shape"]) == {"identity", "motion", "chance"}
    assert found == leaks(views, labels)


def test_quick_leaks_agree_with_scikit_learn_s_discriminant_analysis():
    # few clips for so many dimensions, which one another tell: the shrinkage matters
    codes, labels = blobs(240, 3, spread=2.0, size=40)
    codes = codes @ np.random.default_rng(4).normal(size=(40, 40))
    found = quick_leaks({"x": codes}, {"colour": labels % 3}, toy.FACTORS[:1], seed=0)
    order = generator(0, "leaks", 240).permutation(240)
    test, train = order[:80], order[80:]
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
    scaler = StandardScaler().fit(codes[train])
    reference.fit(scaler.transform(codes[train]), labels[train] % 3)
    score = reference.score(scaler.transform(codes[test]), labels[test] % 3)
    assert 0.4 < score < 0.9
    assert found["colour"]["x"] == score


def test_quick_leaks_take_constant_codes_and_many_classes():
    labels = {"colour": np.arange(60) % 3}
    found = leaks({"dead": np.zeros((60, 5)), "one": np.ones((60, 1))}, labels)
    assert found["colour"]["dead"] <= 0.5
    factor = [toy.Factor("who", "static", tuple(map(str, range(52))))]
    who = np.arange(600) % 52
    codes = np.random.default_rng(0).normal(size=(52, 50))[who]
    assert quick_leaks({"x": codes}, {"who": who}, factor)["who"]["x"] == 1.0


def test_quick_leaks_refuse_nan_and_too_few_clips():
    with pytest.raises(DataError, match="identity code"):
        leaks({"identity": np.full((9, 2), np.nan)}, {"colour": np.zeros(9, int)})
    with pytest.raises(DataError, match="three"):
        leaks({"identity": np.ones((2, 2))}, {"colour": np.zeros(2, int)})


def test_code_views_flatten_the_pose():
    pose = torch.arange(24.0).reshape(2, 4, 3)
    views = code_views(Codes(torch.ones(2, 5), torch.zeros(2, 6, requires_grad=True), pose))
    assert {name: view.shape for name, view in views.items()} == {
        "identity": (2, 5), "motion": (2, 6), "pose": (2, 9)
    }  # fmt: skip
    assert views["pose"][0].tolist() == [4.5, 5.5, 6.5, 0, 1, 2, 9, 10, 11]
    assert "pose" not in code_views(Codes(torch.ones(2, 5), torch.zeros(2, 6)))
