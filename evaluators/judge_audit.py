"""Whether a protocol can be trusted, from answers that are known before any model is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vdsm_bench.config import JudgeSettings
from vdsm_bench.contracts import (
    EvaluationRequest,
    Factor,
    LabelledClips,
    Predictions,
)
from vdsm_bench.evaluators.judge_card import JudgeClips
from vdsm_bench.evaluators.judge_examination import examine
from vdsm_bench.evaluators.judge_gates import gates
from vdsm_bench.evaluators.judge_panel import PanelCard
from vdsm_bench.evaluators.suite import evaluate_ceiling

#: what a control without any information may score above the best constant answer
_SLACK = 0.02
_COLUMNS = (
    "consistent_accuracy",
    "dynamic_accuracy",
    "identity_accuracy",
    "transfer_accuracy",
)
#: rows that show what is to be seen
_TRUE = ("real-test", "real-validation", "label-oracle")
_Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Check:
    """One thing that has to hold for a protocol to be trusted.

    Attributes:
        name: what was looked at.
        value: what was found.
        wanted: what it has to be, in words.
        passed: whether it is.
    """

    name: str
    value: float
    wanted: str
    passed: bool


class ConstantJudge:
    """A judge that gives one answer per factor whatever it sees; the gates have to refuse it.

    Args:
        factors: what it judges.
        answers: its class per factor.
    """

    def __init__(self, factors: Sequence[Factor], answers: Mapping[str, int]) -> None:
        self._factors, self._answers = tuple(factors), dict(answers)

    @classmethod
    def of(cls, factors: Sequence[Factor], train: LabelledClips) -> ConstantJudge:
        """Returns the best constant judge: it answers the most frequent training label."""
        frequent = {
            factor.name: int(np.bincount(train.labels[factor.name]).argmax()) for factor in factors
        }
        return cls(factors, frequent)

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The factors it judges."""
        return self._factors

    def predict(self, clips: Tensor) -> Predictions:
        """Returns log-probability 0 of its answer, -inf of every other, ``[B, classes]``."""
        found = {}
        for factor in self._factors:
            values = np.full((len(clips), len(factor.classes)), -np.inf)
            values[:, self._answers[factor.name]] = 0.0
            found[factor.name] = values
        return found


def audit(
    clips: JudgeClips,
    request: EvaluationRequest,
    card: PanelCard,
    settings: JudgeSettings,
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Checks judges that passed their gates, and the controls they scored.

    Args:
        clips: the real clips the judges were examined on.
        request: test clips and pairs.
        card: the judges' cards and how they agree.
        settings: the floors.
        rows: the controls, each with ``name``, ``scores`` and ``long``.

    Returns:
        ``checks`` (see :class:`Check`) and ``constant_judge``: what a judge that always gives one
        answer would make of any subject, for comparison. JSON-able.
    """
    by_name = {row["name"]: row for row in rows}
    constant = ConstantJudge.of(request.scorable(), clips.train)
    fooled = evaluate_ceiling(constant, request).as_json()
    levels = fooled["chance"]
    checks = [
        *_judges(card, settings),
        _refused(constant, clips, settings),
        *_copies(by_name, settings.floor),
        *_empty(by_name, levels),
        *_oracle(by_name, settings.floor),
        *_headline(by_name, levels, settings.floor),
        *_spreads(by_name, settings.floor),
    ]
    return {
        "checks": [asdict(check) for check in checks],
        "constant_judge": {
            column: fooled["scores"][column]["value"]
            for column in _COLUMNS
            if "value" in fooled["scores"][column]
        },
    }


def _judges(card: PanelCard, settings: JudgeSettings) -> list[Check]:
    """The worst judge's worst factor at every gate, and how the judges agree."""
    asked = [gates(each.examinations, settings) for each in card.cards.values()]
    found = [
        _least(f"gate {same[0].name}, worst judge", min(g.lowest for g in same), same[0].floor)
        for same in zip(*asked, strict=True)
    ]
    if card.agreement:
        worst = min(shares["pairs"] for shares in card.agreement.values())
        found.append(_least("agreement of two judges, worst factor", worst, settings.floor))
    return found


def _refused(constant: ConstantJudge, clips: JudgeClips, settings: JudgeSettings) -> Check:
    (gate,) = gates({"test": examine(constant, clips.test)}, settings)
    wanted = f"refused: below {gate.floor:.3f}"
    return Check("a constant judge at gate test", gate.lowest, wanted, bool(gate.failed))


def _copies(rows: _Rows, floor: float) -> list[Check]:
    """A copy is judged exactly as the real clip that it is."""
    found = []
    real = next(rows[name] for name in _TRUE if name in rows)
    for name, kept, lost, leak in (
        ("copy-identity-clip", "identity_accuracy", "dynamic_accuracy", "action_leak"),
        ("copy-motion-clip", "dynamic_accuracy", "identity_accuracy", "identity_leak"),
    ):
        for column, value in _values(rows[name], (kept, lost, leak)).items():
            label = f"{name}: {column}"
            if column == lost:
                found.append(_most(label, value, 1 - floor))
                continue
            found.append(_least(label, value, floor))
            ceiling = _values(real, (column,)).get(column)
            if column == kept and ceiling is not None:
                same = abs(value - ceiling) < 1e-9
                found.append(Check(f"{label}, as real clips", value, f"{ceiling:.3f}", same))
    return found


def _empty(rows: _Rows, levels: Mapping[str, Mapping[str, float]]) -> list[Check]:
    """What holds no motion, or nothing at all, cannot beat the best constant answer."""
    asked: dict[str, tuple[str, ...]] = {
        "frozen-frame": ("dynamic_accuracy",),
        "mean-clip": ("dynamic_accuracy", "identity_accuracy"),
    }
    return [
        _most(f"{name}: {column}", value, levels[column]["majority"] + _SLACK)
        for name, columns in asked.items()
        for column, value in _values(rows[name], columns).items()
    ]


def _oracle(rows: _Rows, floor: float) -> list[Check]:
    """Real clips, and the true transfers where they can be drawn, are recognised."""
    return [
        _least(f"{name}: {column}", value, floor)
        for name in _TRUE
        if name in rows
        for column, value in _values(rows[name], _COLUMNS).items()
    ]


def _headline(rows: _Rows, levels: Mapping[str, Mapping[str, float]], floor: float) -> list[Check]:
    """No control without a model in it may win transfer accuracy.

    A frozen frame has all of the identity, and the action of the best constant answer.
    """
    names = [name for name in rows if name not in _TRUE]
    values = [_values(rows[name], ("transfer_accuracy",)) for name in names]
    known = [value["transfer_accuracy"] for value in values if value]
    if not known:
        return []
    bound = max(1 - floor, levels["dynamic_accuracy"]["majority"] + _SLACK)
    return [_most("transfer_accuracy of the best control", max(known), bound)]


def _spreads(rows: _Rows, floor: float) -> list[Check]:
    """What is there to be seen, every judge sees; what is not, each may guess in its own way."""
    wanted = {f"{column}_judge_spread" for column in _COLUMNS}
    known = [
        line["value"]
        for name in (*_TRUE, "copy-identity-clip", "copy-motion-clip")
        for line in rows.get(name, {"long": ()})["long"]
        if line["metric"] in wanted and line["factor"] == "all" and "value" in line
    ]
    name = "spread over the judges, real, true and copied clips"
    return [_most(name, max(known), 1 - floor)] if known else []


def _values(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, float]:
    """Returns the scores that could be had."""
    scores = row["scores"]
    return {c: scores[c]["value"] for c in columns if scores.get(c, {}).get("value") is not None}


def _least(name: str, value: float, bound: float) -> Check:
    return Check(name, value, f"at least {bound:.3f}", value >= bound)


def _most(name: str, value: float, bound: float) -> Check:
    return Check(name, value, f"at most {bound:.3f}", value <= bound + 1e-9)
