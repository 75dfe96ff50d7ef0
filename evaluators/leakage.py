"""What either code knows of every factor: cross-validated probes, leakage, information gap.

Unlike :mod:`vdsm_bench.evaluators.codes`, whose probes learn from codes of training clips, these
learn from held-out codes alone: every test clip's label is read by a probe that never saw the
recording it is from, and the model never saw any of them. A factor of which the test clips show
one class is left out: there is nothing to read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from vdsm_bench.contracts import (
    Direction,
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
from vdsm_bench.evaluators.codes import check_codes, code_views, majority, standardise
from vdsm_bench.evaluators.statistics import bootstrap_mean, identities
from vdsm_bench.seeding import generator

Reader = Literal["logistic", "mlp"]
READERS: tuple[Reader, ...] = ("logistic", "mlp")
#: share of every answer that is spread over all classes: no label is impossible
_DOUBT = 1e-3
_STEPS, _HIDDEN = 100, 32
_VERSION = 3  # recordings stay in one fold, factors of one class are left out
_CODES = ("identity", "motion")
_WHAT = {"identity": "static", "action": "dynamic"}
_NOTHING = "no such factor that can be judged has two classes among the test clips"


@dataclass(frozen=True)
class Reading:
    """How one reader reads one factor from one code, every clip out of its fold.

    Attributes:
        right: 1 where the label was read, else 0, ``[N]``.
        log_likelihood: of the true label, nats, ``[N]``.
        chance: share of the most frequent label.
        entropy: H of the labels, nats.
    """

    right: Floats
    log_likelihood: Floats
    chance: float
    entropy: float

    @property
    def information(self) -> float:
        """A lower bound of I(code; factor), nats: H(y) minus the cross-entropy, in [0, H(y)]."""
        return float(np.clip(self.entropy + self.log_likelihood.mean(), 0.0, self.entropy))


def fold_of(
    labels: Integers, folds: int, seed: int, recordings: Integers | None = None
) -> Integers:
    """Deals whole recordings out to folds, every class as evenly as can be.

    Args:
        labels: ``[N]``; a recording counts by that of its first clip.
        folds: number of folds.
        seed: of the deal.
        recordings: of every clip ``[N]``; None where each is one of its own.

    Returns:
        Fold of every clip, ``[N]`` in 0..folds-1.
    """
    recordings = np.arange(len(labels)) if recordings is None else recordings
    _, first, which = np.unique(recordings, return_index=True, return_inverse=True)
    order = generator(seed, "folds", len(first)).permutation(np.sort(first))
    dealt = order[np.argsort(labels[order], kind="stable")]
    found = np.empty(len(labels), dtype=np.int64)
    found[dealt] = np.arange(len(dealt)) % folds
    return found[first[which.reshape(-1)]]


def read(
    codes: Floats,
    labels: Integers,
    reader: Reader,
    *,
    folds: int = 5,
    seed: int = 0,
    recordings: Integers | None = None,
) -> Reading:
    """Reads labels from codes with scikit-learn, cross-validated.

    Clips of one recording are in one fold: what else they share would give their label away.
    Codes are standardised by the folds that are learnt from. ``logistic`` is multinomial logistic
    regression (C = 1, L-BFGS), ``mlp`` one hidden layer of 32 ReLUs (L2 0.01, L-BFGS).

    Args:
        codes: ``[N, K]``.
        labels: ``[N]``.
        reader: which of the two.
        folds: number of folds; fewer where there are fewer recordings.
        seed: of the folds and of the network's first weights.
        recordings: of every clip ``[N]``; None where each is one of its own.

    Raises:
        DataError: shapes that do not fit, clips of fewer than two recordings, NaN.
    """
    check_codes(codes, labels, "probe")
    count = len(labels) if recordings is None else len(np.unique(recordings))
    if count < 2:
        raise DataError("Cross-validated probes need at least two clips, of two recordings.")
    values, index = np.unique(labels, return_inverse=True)
    index = index.reshape(-1)
    where = fold_of(labels, min(folds, count), seed, recordings)
    p = np.zeros((len(labels), len(values)))
    for fold in range(where.max() + 1):
        learn, test = where != fold, where == fold
        train_codes, test_codes = standardise(codes[learn], codes[test])
        known, guess = _fit_predict(reader, train_codes, index[learn], test_codes, seed)
        p[np.ix_(np.flatnonzero(test), known)] = guess
    p = (1 - _DOUBT) * p + _DOUBT / len(values)
    shares = np.bincount(index) / len(index)
    return Reading(
        right=(p.argmax(1) == index).astype(np.float64),
        log_likelihood=np.log(p[np.arange(len(index)), index]),
        chance=majority(labels),
        entropy=float(-(shares * np.log(shares)).sum()),
    )


def _fit_predict(
    reader: Reader, train: Floats, labels: Integers, test: Floats, seed: int
) -> tuple[Integers, Floats]:
    """Returns the classes that were seen and their probabilities ``[M, classes]``."""
    seen = np.unique(labels)
    if len(seen) == 1:
        return seen, np.ones((len(test), 1))
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    model: Any = (
        LogisticRegression(max_iter=_STEPS)
        if reader == "logistic"
        else MLPClassifier(
            (_HIDDEN,), solver="lbfgs", alpha=1e-2, max_iter=_STEPS, random_state=seed
        )
    )
    with warnings.catch_warnings():
        # Codes that separate the classes drive the weights on without changing an answer.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, labels)
    return seen, np.asarray(model.predict_proba(test), dtype=np.float64)


def _columns() -> tuple[MetricInfo, ...]:
    found = []
    for code in _CODES:
        for what, kind in _WHAT.items():
            found.append(
                MetricInfo(
                    f"{code}_code_{what}_mlp_probe",
                    "higher" if (code == "identity") == (what == "identity") else "lower",
                    0.0,
                    1.0,
                    "share",
                    _VERSION,
                    f"Share of test labels that a small MLP reads from the {code} code, "
                    f"cross-validated ({kind} factors, mean over them).",
                )  # fmt: skip
            )
    for name, code, what in (
        ("identity_code_action_leakage", "identity", "action"),
        ("motion_code_identity_leakage", "motion", "identity"),
    ):
        text = (
            f"How much of what chance leaves the better of two cross-validated readers reads of "
            f"the {what} in the {code} code: (accuracy - chance) / (1 - chance)."
        )
        found.append(MetricInfo(name, "lower", None, 1.0, "share", _VERSION, text))
    for what, kind in _WHAT.items():
        text = (
            f"(I(own code; factor) - I(other code; factor)) / H(factor), mean over {kind} factors; "
            "lower bounds by the better of two cross-validated readers."
        )
        higher: Direction = "higher"
        found.append(
            MetricInfo(f"{what}_information_gap", higher, -1.0, 1.0, "share of H", _VERSION, text)
        )
    return tuple(found)


METRICS = _columns()


class Leakage(Evaluator):
    """Cross-validated logistic and MLP probes of both codes, leakage and information gap.

    Args:
        folds: of the cross-validation, two or more.
    """

    metrics: ClassVar[tuple[MetricInfo, ...]] = METRICS

    def __init__(self, *, folds: Annotated[int, Field(ge=2)] = 5) -> None:
        self.folds = folds

    def evaluate(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge | None
    ) -> Findings:
        """Probes the codes of the test clips; no judge is asked."""
        reason = outputs.missing("codes")
        if reason is not None:
            return Findings({m.name: Score(None, reason=reason) for m in METRICS})
        views = code_views(outputs.codes("test"))
        return findings({code: views[code] for code in _CODES}, request, self.folds)


def findings(views: Mapping[str, Floats], request: EvaluationRequest, folds: int = 5) -> Findings:
    """Computes every figure from the codes of the test clips.

    Args:
        views: ``identity`` and ``motion`` codes ``[N, K]``.
        request: labels, factors and the bootstrap's settings.
        folds: of the cross-validation.
    """
    from threadpoolctl import threadpool_limits

    labels, recordings = request.test.labels, request.test.recordings
    told = [f for f in request.scorable() if len(np.unique(labels[f.name])) > 1]
    with threadpool_limits(1):  # these matrices are too small to be shared out
        readings = {
            (code, factor.name, reader): read(
                views[code], labels[factor.name], reader, folds=folds, recordings=recordings
            )
            for code in _CODES
            for factor in told
            for reader in READERS
        }
    scores: dict[str, Score] = {}
    levels: dict[str, dict[str, float]] = {}
    for what, kind in _WHAT.items():
        factors = [factor for factor in told if factor.kind == kind]
        own, other = ("identity", "motion") if what == "identity" else ("motion", "identity")
        for code in _CODES:
            name = f"{code}_code_{what}_mlp_probe"
            found = [readings[code, factor.name, "mlp"] for factor in factors]
            scores[name] = _mean(request, found, lambda reading: reading.right)
            if found:
                levels[name] = {"majority": float(np.mean([r.chance for r in found]))}
        found = [_better(readings, other, factor) for factor in factors]
        scores[f"{other}_code_{what}_leakage"] = _mean(request, found, _excess)
        scores[f"{what}_information_gap"] = _gap(
            request,
            [(_better(readings, own, f), _better(readings, other, f)) for f in factors],
        )
    notes = [
        f"leakage: '{factor.name}' is left out: the test clips show one class of it"
        for factor in request.scorable()
        if factor not in told
    ]
    return Findings(scores, long=_long(readings, request), chance=levels, notes=notes)


def _better(
    readings: Mapping[tuple[str, str, Reader], Reading], code: str, factor: Factor
) -> Reading:
    return max(
        (readings[code, factor.name, reader] for reader in READERS),
        key=lambda reading: (float(reading.right.mean()), reading.information),
    )


def _excess(reading: Reading) -> Floats:
    return (reading.right - reading.chance) / (1 - reading.chance)


def _mean(
    request: EvaluationRequest, found: list[Reading], values: Callable[[Reading], Floats]
) -> Score:
    if not found:
        return Score(None, reason=_NOTHING)
    mean = np.mean([values(reading) for reading in found], axis=0)
    return bootstrap_mean(
        mean, resamples=request.bootstrap, seed=request.seed, groups=identities(request)
    )


def _gap(request: EvaluationRequest, pairs: list[tuple[Reading, Reading]]) -> Score:
    if not pairs:
        return Score(None, reason=_NOTHING)

    def gap(weights: Floats) -> Floats:  # [B, N] to [B]
        total = np.zeros(len(weights))
        for own, other in pairs:
            entropy = own.entropy
            known, leaked = (
                np.clip(entropy + weights @ reading.log_likelihood, 0.0, entropy)
                for reading in (own, other)
            )
            total += (known - leaked) / entropy
        return total / len(pairs)

    n = len(pairs[0][0].right)
    rng = generator(request.seed, "bootstrap", n)
    resampled = gap(rng.multinomial(n, np.full(n, 1 / n), size=request.bootstrap) / n)
    value = float(gap(np.full((1, n), 1 / n))[0])
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Score(value, min(float(low), value), max(float(high), value), n)


def _long(
    readings: Mapping[tuple[str, str, Reader], Reading], request: EvaluationRequest
) -> list[FactorScore]:
    rows = []
    for (code, factor, reader), reading in readings.items():
        accuracy = bootstrap_mean(
            reading.right,
            resamples=request.bootstrap,
            seed=request.seed,
            groups=identities(request),
        )
        rows.append(FactorScore(f"{code}_code_{reader}_probe_cv", factor, accuracy))
        information = Score(reading.information, n=len(reading.right))
        rows.append(FactorScore(f"{code}_code_{reader}_information", factor, information))
    return rows
