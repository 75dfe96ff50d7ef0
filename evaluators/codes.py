"""What the codes hold: linear probes, and quick leaks for the training log."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vdsm_bench.contracts import (
    Codes,
    EvaluationRequest,
    Evaluator,
    Factor,
    FactorScore,
    Findings,
    Floats,
    Integers,
    Judge,
    MetricInfo,
    Outputs,
    Score,
)
from vdsm_bench.errors import DataError
from vdsm_bench.evaluators.statistics import bootstrap_mean, identities
from vdsm_bench.seeding import generator

_PROBE_STEPS = 100
_SHRINKAGE = 0.1


@dataclass(frozen=True)
class Probe:
    """How well a linear classifier reads one factor from one code.

    Attributes:
        right: 1 where a test clip's label was read, else 0, ``[N]``.
        chance: share of the most frequent test label: what needs no code.
    """

    right: Floats
    chance: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.right.mean())


def probe(
    train_codes: Floats, train_labels: Integers, test_codes: Floats, test_labels: Integers
) -> Probe:
    """Reads labels from codes by logistic regression on standardised codes.

    Args:
        train_codes: ``[N, K]`` of training clips.
        train_labels: ``[N]``.
        test_codes: ``[M, K]`` of test clips.
        test_labels: ``[M]``.

    Raises:
        DataError: shapes that do not fit, no clips, NaN.
    """
    check_codes(train_codes, train_labels, "probe, training codes")
    check_codes(test_codes, test_labels, "probe, test codes")
    train, test = standardise(train_codes, test_codes)
    if len(np.unique(train_labels)) == 1:
        guess = np.full(len(test), train_labels[0])
    else:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        with warnings.catch_warnings():
            # Codes that separate the classes drive the weights on without changing an answer.
            warnings.simplefilter("ignore", ConvergenceWarning)
            guess = LogisticRegression(max_iter=_PROBE_STEPS).fit(train, train_labels).predict(test)
    return Probe((guess == test_labels).astype(np.float64), majority(test_labels))


def code_views(codes: Codes) -> dict[str, Floats]:
    """Turns codes into one vector per clip and code, ``[B, K]``.

    The pose path becomes its time mean beside its first and last pose.
    """
    views = {"identity": codes.identity, "motion": codes.motion}
    found = {name: value.detach().cpu().double().numpy() for name, value in views.items()}
    if codes.pose is not None:
        pose = codes.pose.detach().cpu().double().numpy()
        found["pose"] = np.concatenate([pose.mean(1), pose[:, 0], pose[:, -1]], axis=1)
    return found


def quick_leaks(
    views: Mapping[str, Floats],
    labels: Mapping[str, Integers],
    factors: Sequence[Factor],
    *,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Probes every code for every factor in closed form, fast enough for every epoch.

    Linear discriminant analysis with shrunk covariance, fitted on two thirds of the clips and
    tested on the rest (always the same ones). Figures for the training log; the row's figures come
    from :class:`CodeProbes`.

    Args:
        views: code name to ``[N, K]``, see :func:`code_views`.
        labels: ``[N]`` per factor.
        factors: what is probed.
        seed: which clips are held back.

    Returns:
        Per factor: accuracy per code name, and ``chance`` (share of the most frequent label).

    Raises:
        DataError: fewer than three clips, shapes that do not fit, NaN.
    """
    n = len(next(iter(views.values())))
    if n < 3:
        raise DataError(f"Quick leaks need at least three clips, got {n}.")
    order = generator(seed, "leaks", n).permutation(n)
    test, train = order[: n // 3], order[n // 3 :]
    found: dict[str, dict[str, float]] = {}
    for factor in factors:
        label = labels[factor.name]
        row = {"chance": majority(label[test])}
        for name, codes in views.items():
            check_codes(codes, label, f"quick leaks, {name} code")
            guess = _discriminant(*standardise(codes[train], codes[test]), label[train])
            row[name] = float((guess == label[test]).mean())
        found[factor.name] = row
    return found


def _column(code: str, what: str, wanted: bool) -> MetricInfo:
    kind = "static factors, mean over them" if what == "identity" else "dynamic factors"
    return MetricInfo(
        f"{code}_code_{what}_probe",
        "higher" if wanted else "lower",
        0.0,
        1.0,
        "share",
        2,
        f"Share of test labels that logistic regression reads from the {code} code ({kind}).",
    )


METRICS = tuple(
    _column(code, what, wanted=(code == "identity") == (what == "identity"))
    for code in ("identity", "motion")
    for what in ("identity", "action")
)


class CodeProbes(Evaluator):
    """Linear probes of every factor from the identity and the motion code, beside chance."""

    metrics: ClassVar[tuple[MetricInfo, ...]] = METRICS

    def evaluate(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge | None
    ) -> Findings:
        """Fits probes on codes of training clips and tests them on codes of test clips."""
        reason = outputs.missing("codes")
        if request.train is None:
            reason = reason or "no training clips were given to learn probes from"
        if reason is not None or request.train is None:
            return Findings({m.name: Score(None, reason=reason) for m in METRICS})
        from threadpoolctl import threadpool_limits

        train, test = code_views(outputs.codes("train")), code_views(outputs.codes("test"))
        with threadpool_limits(1):  # these matrices are too small to be shared out
            return _probe_all(train, test, request.train.labels, request)


def _probe_all(
    train: Mapping[str, Floats],
    test: Mapping[str, Floats],
    labels: Mapping[str, Integers],
    request: EvaluationRequest,
) -> Findings:
    """Probes every code for every factor; ``labels`` are those of the training clips."""
    scores: dict[str, Score] = {}
    long: list[FactorScore] = []
    levels: dict[str, dict[str, float]] = {}
    for code in train:
        for what, kind in (("identity", "static"), ("action", "dynamic")):
            probes = {
                factor.name: probe(
                    train[code],
                    labels[factor.name],
                    test[code],
                    request.test.labels[factor.name],
                )
                for factor in request.scorable()
                if factor.kind == kind
            }
            for name, found in probes.items():
                long.append(FactorScore(f"{code}_code_probe", name, _mean(found.right, request)))
            column = f"{code}_code_{what}_probe"
            if column not in {metric.name for metric in METRICS}:
                continue  # the pose has rows in the long table only
            if not probes:
                scores[column] = Score(None, reason=f"no {kind} factor can be probed")
                continue
            right = np.mean([found.right for found in probes.values()], axis=0)
            scores[column] = _mean(right, request)
            chance = float(np.mean([found.chance for found in probes.values()]))
            levels[column] = {"majority": chance}
    return Findings(scores, long=long, chance=levels)


def _mean(values: Floats, request: EvaluationRequest) -> Score:
    return bootstrap_mean(
        values, resamples=request.bootstrap, seed=request.seed, groups=identities(request)
    )


def standardise(train: Floats, test: Floats) -> tuple[Floats, Floats]:
    """Centres and scales by the training codes; dimensions that are constant there become 0."""
    mean, spread = train.mean(0), train.std(0)
    alive = spread > 1e-8
    scale = np.where(alive, 1 / np.where(alive, spread, 1.0), 0.0)
    return (train - mean) * scale, (test - mean) * scale


def _discriminant(train: Floats, test: Floats, labels: Integers) -> Integers:
    """Returns the classes of the test codes by discriminant analysis with one shared covariance."""
    values, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    index = index.reshape(-1)
    means = np.zeros((len(values), train.shape[1]))
    np.add.at(means, index, train)
    means /= counts[:, None]
    inside = train - means[index]
    covariance = inside.T @ inside / len(train)
    size = len(covariance)
    target = max(float(np.trace(covariance)) / size, 1e-6) * np.eye(size)
    weights = np.linalg.solve((1 - _SHRINKAGE) * covariance + _SHRINKAGE * target, means.T)
    bias = np.log(counts / len(labels)) - 0.5 * np.einsum("ck,kc->c", means, weights)
    return np.asarray(values[(test @ weights + bias).argmax(1)], dtype=np.int64)


def majority(labels: Integers) -> float:
    """Computes the share of the most frequent label: what needs no code."""
    return float(np.bincount(labels).max() / len(labels))


def check_codes(codes: Floats, labels: Integers, where: str) -> None:
    """Raises DataError where codes are not finite ``[N, K]`` with N >= 1 labels."""
    if codes.ndim != 2 or len(codes) == 0 or len(codes) != len(labels):
        raise DataError(
            f"{where}: expected [N, K] with N labels, got {list(codes.shape)} and {len(labels)}."
        )
    if not np.isfinite(codes).all():
        raise DataError(f"{where}: the codes hold NaN or infinity.")
