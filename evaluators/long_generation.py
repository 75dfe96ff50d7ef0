"""Longer than trained: whether identity and action last for 2 and 3 times the frames."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import PositiveInt
from torch import Tensor

from vdsm_bench.contracts import (
    Codes,
    EvaluationRequest,
    Evaluator,
    FactorScore,
    Findings,
    Integers,
    Judge,
    MetricInfo,
    Outputs,
    Score,
)
from vdsm_bench.evaluators.accuracies import METRICS, findings, judged
from vdsm_bench.evaluators.accuracy import Said
from vdsm_bench.evaluators.pairs import subset

#: multiples of the frames that models are trained and judged on
TIMES = (2, 3)


class LongGeneration(Evaluator):
    """The accuracies and leaks of clips generated for longer; judged on their last T frames.

    The judge knows clips of T frames, so of a clip of 2 T or 3 T frames it sees the last T. Motions
    that end, as an expression does, may rightly be over by then: compare models, and datasets whose
    motions repeat. The first pairs of the list and the clips in them are generated, no more.

    Args:
        pairs: how many pairs.
    """

    metrics: ClassVar[tuple[MetricInfo, ...]] = tuple(
        replace(
            metric,
            name=f"{metric.name}_{times}x",
            definition=f"{metric.definition} Last T of {times} T frames generated.",
        )
        for times in TIMES
        for metric in METRICS
    )

    def __init__(self, *, pairs: PositiveInt = 40) -> None:
        self.pairs = pairs

    def evaluate(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge | None
    ) -> Findings:
        """Generates from the codes of real clips, 2 and 3 times as long, and judges the ends."""
        reason = outputs.missing("codes") or outputs.missing("generations")
        if judge is None:
            reason = "there is no judge"
        if judge is None or reason is not None:
            return Findings({m.name: Score(None, reason=reason) for m in self.metrics})
        rows, inside = np.unique(request.pairs[: self.pairs], return_inverse=True)
        few = replace(request, test=subset(request.test, rows), pairs=inside.reshape(-1, 2))
        real = judged(judge, few.test.clips, len(rows), few.batch_size)
        everyone = np.arange(len(rows), dtype=np.int64)
        found = []
        for times in TIMES:
            regenerated = _ends(outputs, judge, few, rows, everyone, everyone, times)
            moved = _ends(outputs, judge, few, rows, few.pairs[:, 0], few.pairs[:, 1], times)
            found.append(findings(few, real, regenerated, moved))
        return _joined(found)


def _ends(
    outputs: Outputs,
    judge: Judge,
    request: EvaluationRequest,
    rows: Integers,
    identity_of: Integers,
    motion_of: Integers,
    times: int,
) -> Said:
    """Judges the last T frames of clips of ``times`` T frames."""
    codes, frames = outputs.codes("test"), request.test.clips(np.zeros(1, np.int64)).shape[1]

    def make(some: Integers) -> Tensor:
        who, what = rows[identity_of[some]], rows[motion_of[some]]
        mixed = Codes(codes.identity[who], codes.motion[what])
        return outputs.generations(mixed, times * frames)[:, -frames:]

    return judged(judge, make, len(identity_of), request.batch_size)


def _joined(found: list[Findings]) -> Findings:
    """Puts the findings of every length side by side, under names that end in 2x and 3x."""
    pairs = list(zip(TIMES, found, strict=True))
    return Findings(
        scores={f"{name}_{times}x": one for times, f in pairs for name, one in f.scores.items()},
        long=[
            FactorScore(f"{row.metric}_{times}x", row.factor, row.score)
            for times, f in pairs
            for row in f.long
        ],
        chance={f"{name}_{times}x": one for times, f in pairs for name, one in f.chance.items()},
    )
