"""Consistent, dynamic, identity and transfer accuracy, and the leaks, of one subject."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from vdsm_bench.contracts import (
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
from vdsm_bench.errors import ProtocolError
from vdsm_bench.evaluators.accuracy import (
    Said,
    agreement,
    at,
    chance,
    classes,
    differing,
    histogram,
)
from vdsm_bench.evaluators.outputs import batches
from vdsm_bench.evaluators.statistics import bootstrap_mean, identities

#: factor column of long rows that take all factors of a kind together
ALL = "all"


def _share(name: str, direction: Literal["higher", "lower"], definition: str) -> MetricInfo:
    return MetricInfo(name, direction, 0.0, 1.0, "share", 2, definition)


METRICS = (
    _share(
        "consistent_accuracy",
        "higher",
        "Share of test clips judged the same as regenerated from their codes, all factors at once.",
    ),
    _share("dynamic_accuracy", "higher", "Share of pairs whose transfer has the action of B."),
    _share(
        "identity_accuracy",
        "higher",
        "Share of pairs whose transfer has every static factor of A.",
    ),
    _share(
        "transfer_accuracy",
        "higher",
        "Share of pairs whose transfer has every static factor of A and the action of B.",
    ),
    _share("action_leak", "lower", "Share of pairs whose transfer has the action of A."),
    _share("identity_leak", "lower", "Share of pairs whose transfer has every static factor of B."),
)


class Accuracies(Evaluator):
    """What the judge says of regenerated and transferred clips; DESIGN §7, protocol notes 5."""

    metrics: ClassVar[tuple[MetricInfo, ...]] = METRICS

    def evaluate(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge | None
    ) -> Findings:
        """Judges real, regenerated and transferred clips; see :func:`findings`."""
        if judge is None:
            return Findings({m.name: Score(None, reason="there is no judge") for m in METRICS})
        known = {factor.name for factor in judge.factors}
        unknown = [factor.name for factor in request.scorable() if factor.name not in known]
        if unknown:
            raise ProtocolError(f"The judge does not judge: {', '.join(unknown)}.")
        n, size = len(request.test), request.batch_size
        real = judged(judge, request.test.clips, n, size)
        regenerated: Said | str = outputs.missing("reconstructions") or judged(
            judge, outputs.reconstructions, n, size
        )
        transferred: Said | str = outputs.missing("transfers") or judged(
            judge, outputs.transfers, len(request.pairs), size
        )
        return findings(request, real, regenerated, transferred)


def judged(judge: Judge, clips: Callable[[Integers], Tensor], n: int, batch_size: int) -> Said:
    """Asks the judge for the classes ``[n]`` per factor of n clips."""
    parts = [classes(judge.predict(clips(rows))) for rows in batches(n, batch_size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def findings(
    request: EvaluationRequest, real: Said, regenerated: Said | str, transferred: Said | str
) -> Findings:
    """Computes every accuracy from what the judge said.

    Args:
        request: labels, pairs, factors and the bootstrap's settings.
        real: the judge's classes of the real test clips.
        regenerated: the same of the regenerated clips, or why there are none.
        transferred: the same of the transfers of the pair list, or why there are none.

    Raises:
        ProtocolError: no scorable factor, or numbers of rows that do not fit.
    """
    table = _Table(request)
    seen = {"real": real}
    for factor in request.scorable():
        table.row("judge_accuracy", factor.name, agreement(real, table.labels, [factor.name]))
    if isinstance(regenerated, str):
        table.empty(["consistent_accuracy"], regenerated)
    else:
        seen["regenerated"] = regenerated
        _consistency(table, real, regenerated)
    if isinstance(transferred, str):
        table.empty([metric.name for metric in METRICS[1:]], transferred)
    else:
        seen["transferred"] = transferred
        _transfers(table, transferred)
    return Findings(
        scores=table.scores,
        long=table.long,
        chance=table.chance,
        histogram={name: histogram(said, request.scorable()) for name, said in seen.items()},
        notes=[f"'{name}' is left out: {reason}" for name, reason in request.unscorable.items()],
        per_pair=table.per_pair,
    )


class _Table:
    """Collects scores of one request."""

    def __init__(self, request: EvaluationRequest) -> None:
        self.request = request
        self.labels: Said = request.test.labels
        self.scores: dict[str, Score] = {}
        self.long: list[FactorScore] = []
        self.chance: dict[str, dict[str, float]] = {}
        self.per_pair: dict[str, Floats] = {}
        self.identity = identities(request)

    def mean(self, values: Floats, groups: Integers | None = None) -> Score:
        if len(values) == 0:
            return Score(None, reason="no pair of clips differs in it")
        return bootstrap_mean(
            values, resamples=self.request.bootstrap, seed=self.request.seed, groups=groups
        )

    def column(
        self, name: str, said: Said, wanted: Said, names: Sequence[str], groups: Integers
    ) -> Floats:
        """Scores answers against what is wanted; returns the value of every row.

        Args:
            name: of the column.
            said: the judge's classes of every row.
            wanted: classes that count as right.
            names: factors that must agree, all at once.
            groups: identities behind every row, ``[n]`` for clips, ``[n, 2]`` for pairs.
        """
        values = agreement(said, wanted, names)
        self.scores[name] = self.mean(values, groups)
        if self.scores[name].value is not None:
            self.chance[name] = chance(said, wanted, names)
        return values

    def over_pairs(self, name: str, said: Said, wanted: Said, names: Sequence[str]) -> None:
        """Scores a column over the whole pair list and keeps its value of every pair."""
        groups = self.identity[self.request.pairs]
        self.per_pair[name] = self.column(name, said, wanted, names, groups)

    def row(self, metric: str, factor: str, values: Floats) -> None:
        self.long.append(FactorScore(metric, factor, self.mean(values)))

    def empty(self, columns: Sequence[str], reason: str) -> None:
        for name in columns:
            self.scores[name] = Score(None, reason=reason)


def _consistency(table: _Table, real: Said, regenerated: Said) -> None:
    names = [factor.name for factor in table.request.scorable()]
    table.column("consistent_accuracy", regenerated, real, names, table.identity)
    for name in names:
        table.row("consistent_accuracy", name, agreement(regenerated, real, [name]))
        # Beside the agreement of two answers, the plain share of right ones.
        table.row("reconstruction_accuracy", name, agreement(regenerated, table.labels, [name]))


def _transfers(table: _Table, transferred: Said) -> None:
    """Scores the transfers of the pair list: identity of A, motion of B."""
    request = table.request
    of_a, of_b = at(table.labels, request.pairs[:, 0]), at(table.labels, request.pairs[:, 1])
    static, dynamic = request.scorable("static"), request.scorable("dynamic")
    if dynamic:
        _one_kind(table, transferred, dynamic, of_b, of_a, ("dynamic_accuracy", "action"))
    else:
        reason = _nobody(request, "dynamic")
        table.empty(["dynamic_accuracy", "action_leak", "transfer_accuracy"], reason)
    if static:
        _one_kind(table, transferred, static, of_a, of_b, ("identity_accuracy", "identity"))
    else:
        reason = _nobody(request, "static")
        table.empty(["identity_accuracy", "identity_leak", "transfer_accuracy"], reason)
    if static and dynamic:
        wanted = {f.name: (of_a if f.kind == "static" else of_b)[f.name] for f in request.factors}
        names = [factor.name for factor in (*static, *dynamic)]
        table.over_pairs("transfer_accuracy", transferred, wanted, names)
        _outcomes(table, transferred, of_a, of_b)


def _one_kind(
    table: _Table,
    said: Said,
    factors: Sequence[Factor],
    wanted: Said,
    other: Said,
    column_and_stem: tuple[str, str],
) -> None:
    """Scores accuracy, leak and the rest (neither) of one kind of factor.

    Leak and rest are taken over pairs that differ in the factor: elsewhere a leak cannot be told
    from a success. There accuracy + leak + other = 1.
    """
    column, stem = column_and_stem
    names = [factor.name for factor in factors]
    pairs, labels = table.request.pairs, table.labels
    table.over_pairs(column, said, wanted, names)
    rows = np.flatnonzero(differing(labels, pairs, names))
    table.column(
        f"{stem}_leak", at(said, rows), at(other, rows), names, table.identity[pairs[rows]]
    )
    for label, chosen in [(ALL, names), *((name, [name]) for name in names)]:
        apart = differing(labels, pairs, chosen)
        right, leak = agreement(said, wanted, chosen), agreement(said, other, chosen)
        if label != ALL:
            table.row(column, label, right)
            table.row(f"{stem}_leak", label, leak[apart])
        table.row(f"{column}_differing", label, right[apart])
        table.row(f"{stem}_other", label, (1 - right - leak)[apart])


def _outcomes(table: _Table, said: Said, of_a: Said, of_b: Said) -> None:
    """Splits the pairs by what became of them, all factors at once; the shares add up to 1.

    Over pairs that differ in a scorable factor of either kind: right, A handed back, B handed back,
    identity and motion exchanged, or something else.
    """
    request, labels = table.request, table.labels
    who = [factor.name for factor in request.scorable("static")]
    what = [factor.name for factor in request.scorable("dynamic")]
    apart = differing(labels, request.pairs, who) & differing(labels, request.pairs, what)
    rest = np.ones(int(apart.sum()))
    for outcome, identity, action in (
        ("transfer_accuracy_differing", of_a, of_b),
        ("transfer_copies_a", of_a, of_a),
        ("transfer_copies_b", of_b, of_b),
        ("transfer_exchanged", of_b, of_a),
    ):
        share = (agreement(said, identity, who) * agreement(said, action, what))[apart]
        table.row(outcome, ALL, share)
        rest -= share
    table.row("transfer_other", ALL, rest)


def _nobody(request: EvaluationRequest, kind: str) -> str:
    reasons = [
        f"'{factor.name}': {request.unscorable[factor.name]}"
        for factor in request.factors
        if factor.kind == kind and factor.name in request.unscorable
    ]
    return f"no {kind} factor can be judged ({'; '.join(reasons) or 'the dataset has none'})"
