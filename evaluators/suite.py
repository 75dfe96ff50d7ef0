"""The suite: all evaluators on one subject, under one request for all subjects."""

from __future__ import annotations

import math
import numbers
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from vdsm_bench.config import EvaluationSettings
from vdsm_bench.contracts import (
    EvaluationRequest,
    Evaluator,
    Factor,
    FactorScore,
    Findings,
    Floats,
    Judge,
    LabelledClips,
    MetricInfo,
    Outputs,
    Score,
)
from vdsm_bench.errors import ContractError, VdsmBenchError
from vdsm_bench.evaluators.accuracies import Accuracies, findings, judged
from vdsm_bench.evaluators.accuracy import transferred_reality
from vdsm_bench.evaluators.outputs import Subject, SubjectOutputs
from vdsm_bench.evaluators.pairs import (
    check_labels,
    choose_clips,
    pair_list,
    subset,
    telling_factors,
)

#: training clips that probes of codes learn from
_PROBE_CLIPS = 2000
#: where classes live whose mistakes are bugs of this package
_BUILT_IN = "vdsm_bench."


@dataclass
class Evaluation:
    """Everything that was found about one subject; see :meth:`as_json`.

    Attributes:
        scores: column to score; what could not be scored is there with its reason.
        long: rows per factor.
        chance: column to chance levels by kind.
        histogram: the judge's answers per class, for real, regenerated and transferred clips.
        notes: what was left out, and why.
        metrics: what each column means.
        per_pair: column to its value of every pair of the list; not in ``metrics.json``.
        filled: evaluator to what it filled: its ``scores``, ``histogram`` and ``notes``, and the
            metrics of its ``long`` rows. By it a row lets go of what is scored again.
    """

    scores: dict[str, Score] = field(default_factory=dict)
    long: list[FactorScore] = field(default_factory=list)
    chance: dict[str, Mapping[str, float]] = field(default_factory=dict)
    histogram: dict[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    metrics: dict[str, MetricInfo] = field(default_factory=dict)
    per_pair: dict[str, Floats] = field(default_factory=dict)
    filled: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def add(self, found: Findings, metrics: Sequence[MetricInfo], name: str) -> None:
        """Takes in what one evaluator found, by its name; see :func:`ask`.

        Raises:
            ContractError: another evaluator has one of its columns or histograms.
        """
        for what, own, known in (
            ("column", {metric.name for metric in metrics}, self.scores),
            ("histogram", set(found.histogram), self.histogram),
        ):
            taken = sorted(own & set(known))
            if taken:
                raise ContractError(
                    f"evaluators/{name}: the {what} '{taken[0]}' is another evaluator's."
                )
        self.scores.update(found.scores)
        self.long.extend(found.long)
        self.chance.update(found.chance)
        self.histogram.update(found.histogram)
        self.notes.extend(note for note in found.notes if note not in self.notes)
        self.per_pair.update(found.per_pair)
        self.metrics.update({metric.name: metric for metric in metrics})
        self.filled[name] = {
            "scores": sorted(found.scores),
            "long": sorted({row.metric for row in found.long}),
            "histogram": sorted(found.histogram),
            "notes": list(found.notes),
        }

    def as_json(self) -> dict[str, Any]:
        """Returns the content of ``metrics.json``: plain dicts, lists, numbers and strings."""
        return {
            "scores": {name: score.as_json() for name, score in self.scores.items()},
            "long": [
                {"metric": row.metric, "factor": row.factor, **row.score.as_json()}
                for row in self.long
            ],
            "chance": {name: dict(levels) for name, levels in self.chance.items()},
            "histogram": {
                name: {factor: list(counts) for factor, counts in by_factor.items()}
                for name, by_factor in self.histogram.items()
            },
            "notes": list(self.notes),
            "versions": {name: metric.version for name, metric in self.metrics.items()},
            "filled": self.filled,
        }


def ask(
    name: str,
    evaluator: Evaluator,
    outputs: Outputs,
    request: EvaluationRequest,
    judge: Judge | None,
) -> Findings:
    """Asks one evaluator about one subject; returns what it found, all figures plain numbers.

    Raises:
        ContractError: it breaks its declaration, or it is of another package and fails.
    """
    where = f"evaluators/{name}"
    try:
        found = evaluator.evaluate(outputs, request, judge)
        return _checked(found, evaluator.metrics, len(request.pairs), where)
    except VdsmBenchError:
        raise
    except Exception as error:
        if type(evaluator).__module__.startswith(_BUILT_IN):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ContractError(
            f"{where} fails: {type(error).__name__}: {error} ({place.filename}, line "
            f"{place.lineno}).",
            hint="mend it, or uninstall its package, and type the command again: what is trained "
            "is kept",
        ) from error


def _checked(found: Findings, metrics: Sequence[MetricInfo], n_pairs: int, where: str) -> Findings:
    """Returns findings with every figure a plain number; refuses what is none."""
    if not isinstance(found, Findings):
        raise ContractError(
            f"{where}: it returns {type(found).__name__}, not Findings.",
            hint="return vdsm_bench.contracts.Findings({column: Score(value)})",
        )
    declared = {metric.name for metric in metrics}
    odd = (set(found.scores) ^ declared) | ({*found.per_pair, *found.chance} - declared)
    if odd:
        raise ContractError(
            f"{where}: columns found and declared differ in: {', '.join(sorted(odd))}."
        )
    for name, values in found.per_pair.items():
        if np.shape(values) != (n_pairs,):
            raise ContractError(
                f"{where}: '{name}' has values per pair of the shape {list(np.shape(values))}, "
                f"expected [{n_pairs}], one for every pair of the request."
            )
        bad = n_pairs - int(np.isfinite(np.asarray(values, dtype=np.float64)).sum())
        if bad:
            raise ContractError(
                f"{where}: '{name}' has {bad} of {n_pairs} values per pair NaN or infinite."
            )
    return replace(
        found,
        scores={name: _plain(score, f"{where}: '{name}'") for name, score in found.scores.items()},
        long=[
            replace(row, score=_plain(row.score, f"{where}: '{row.metric} of {row.factor}'"))
            for row in found.long
        ],
        chance={
            name: {kind: _number(level, f"{where}: '{name}'", kind) for kind, level in by.items()}
            for name, by in found.chance.items()
        },
        histogram={
            name: {factor: [int(count) for count in counts] for factor, counts in by.items()}
            for name, by in found.histogram.items()
        },
        per_pair={name: np.asarray(values) for name, values in found.per_pair.items()},
    )


def _plain(score: Score, what: str) -> Score:
    if not isinstance(score, Score):
        raise ContractError(f"{what} is a {type(score).__name__}, not a Score.")
    value, low, high = (
        None if figure is None else _number(figure, what, key)
        for key, figure in (("value", score.value), ("low", score.low), ("high", score.high))
    )
    by_identity = score.by_identity
    if by_identity is not None:
        first, last = by_identity
        by_identity = _number(first, what, "identity_low"), _number(last, what, "identity_high")
    return replace(score, value=value, low=low, high=high, n=int(score.n), by_identity=by_identity)


def _number(value: Any, what: str, key: str) -> float:
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        shown = value if isinstance(value, numbers.Real) else repr(value)
        raise ContractError(
            f"{what} has {key} = {shown}.",
            hint="a figure is a float (of a tensor, .item()); a score that cannot be had has the "
            "value None, and a reason",
        )
    return float(value)


def build_request(
    test: LabelledClips,
    *,
    factors: Sequence[Factor],
    settings: EvaluationSettings,
    unscorable: Mapping[str, str] | None = None,
    train: LabelledClips | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> EvaluationRequest:
    """Fixes what is scored: which test clips, and the pair list. The same for every subject.

    Args:
        test: all held-out real clips; at most ``settings.clips`` of them are taken.
        factors: every factor of the dataset.
        settings: numbers of clips and pairs, bootstrap, batch size.
        unscorable: factors that cannot be judged, with the reason.
        train: training clips for probes of codes; a subset is taken.
        seed: seed of the bootstrap.
        device: where subjects run.

    Raises:
        DataError: labels missing or out of range.
        ProtocolError: no pair of clips differs in identity and action.
    """
    unscorable = dict(unscorable or {})
    n = check_labels(test.labels, factors, "test clips")
    test = subset(test, choose_clips(n, settings.clips))
    if train is not None:
        n_train = check_labels(train.labels, factors, "training clips")
        train = subset(train, choose_clips(n_train, _PROBE_CLIPS))
    return EvaluationRequest(
        test=test,
        factors=tuple(factors),
        pairs=pair_list(test.labels, telling_factors(factors, unscorable), settings.pairs),
        unscorable=unscorable,
        train=train,
        batch_size=settings.batch_size,
        bootstrap=settings.bootstrap,
        seed=seed,
        device=torch.device(device),
    )


def evaluate(
    subject: Subject | Outputs,
    judge: Judge | None,
    request: EvaluationRequest,
    evaluators: Mapping[str, Evaluator],
) -> Evaluation:
    """Scores one subject.

    Args:
        subject: a model or control, or outputs that were made elsewhere.
        judge: the gated judge, or None: then what needs one is empty with the reason.
        request: see :func:`build_request`.
        evaluators: by registry name, those of other packages included.

    Raises:
        ContractError: outputs that are no clips, an evaluator that breaks its declaration, or one
            of another package that fails.
    """
    outputs = subject if isinstance(subject, Outputs) else SubjectOutputs(subject, request)
    result = Evaluation()
    for name, evaluator in evaluators.items():
        found = ask(name, evaluator, outputs, request, judge)
        result.add(found, evaluator.metrics, name)
    return result


def evaluate_ceiling(judge: Judge, request: EvaluationRequest) -> Evaluation:
    """Scores the real clips themselves: what the best possible subject would get from this judge.

    A pair counts as transferred when the judge is right about the static factors of A itself and
    the dynamic ones of B itself; consistency is 1 by definition.
    """
    real = judged(judge, request.test.clips, len(request.test), request.batch_size)
    result = Evaluation()
    transferred = transferred_reality(real, request.pairs, request.factors)
    where = "real-test ceiling"
    found = findings(request, real, real, transferred)
    found = _checked(found, Accuracies.metrics, len(request.pairs), where)
    result.add(found, Accuracies.metrics, where)
    return result
