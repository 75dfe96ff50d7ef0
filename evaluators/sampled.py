"""The sampled protocol of S3VAE to DBSE: keep one code, draw the other, ask the judge.

Action: keep the motion code of a test clip, draw an identity; the judge should see the clip's
action. Identity: keep the identity code, draw a motion; it should see every static factor.
Drawing from the model's prior and mixing codes of test clips (as SKD does, which has no prior)
are different questions, so they have columns of their own and never stand in for each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor

from vdsm_bench.contracts import (
    Codes,
    Direction,
    EvaluationRequest,
    Evaluator,
    FactorScore,
    Findings,
    Floats,
    Integers,
    Judge,
    MetricInfo,
    Outputs,
    Score,
)
from vdsm_bench.evaluators.accuracy import agreement, chance
from vdsm_bench.evaluators.entropy import balanced, entropies, entropy_scores
from vdsm_bench.evaluators.outputs import SAMPLED_TOGETHER, batches
from vdsm_bench.evaluators.statistics import bootstrap_mean
from vdsm_bench.seeding import generator

Origin = Literal["prior", "mixed"]
Side = Literal["motion", "identity"]
#: log-probabilities ``[R, N, C]`` per factor, for R draws of each of N clips
Drawn = Mapping[str, Floats]
_FIGURES = ("H_y", "H_y_given_x", "inception_score")
_ORIGINS = {
    "prior": "drawn from the model's prior",
    "mixed": "a random convex combination of two other test clips' codes, not a draw from a prior",
}


def _columns(origin: Origin) -> tuple[MetricInfo, ...]:
    how = _ORIGINS[origin]
    # prior 2: a kept code is shown as ``generate`` shows it; last: one draw's IS has no interval
    version = 3 if origin == "prior" else 2

    def column(
        name: str, direction: Direction, low: float, high: float | None, unit: str, text: str
    ) -> MetricInfo:
        return MetricInfo(
            f"sampled_{origin}_{name}", direction, low, high, unit, version, f"{text} ({how})."
        )

    action = "of the action judged on clips with a kept motion code and a new identity"
    return (
        column(
            "dynamic_accuracy", "higher", 0.0, 1.0, "share",
            "Share of clips with a kept motion code whose action is judged right; identity",
        ),
        column(
            "identity_accuracy", "higher", 0.0, 1.0, "share",
            "Share of clips with a kept identity code whose static factors are all judged right; "
            "motion",
        ),
        column("H_y", "higher", 0.0, None, "nats", f"H(y) {action}"),
        column("H_y_given_x", "lower", 0.0, None, "nats", f"H(y|x) {action}"),
        column("inception_score", "higher", 1.0, None, "score", f"exp(H(y) - H(y|x)) {action}"),
    )  # fmt: skip


class _Sampled(Evaluator):
    """The sampled protocol with one origin of the code that is not kept."""

    origin: ClassVar[Origin]
    _needs: ClassVar[tuple[Literal["codes", "samples", "generations"], ...]]

    repetitions: int

    def evaluate(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge | None
    ) -> Findings:
        """Samples every test clip anew on either side and asks the judge; see :func:`findings`."""
        reasons = [reason for what in self._needs if (reason := outputs.missing(what)) is not None]
        if judge is None:
            reasons.append("there is no judge")
        if reasons or judge is None:
            return Findings({m.name: Score(None, reason=reasons[0]) for m in self.metrics})
        sides: tuple[Side, Side] = ("motion", "identity")
        drawn = {
            side: self._judged(judge, partial(self._clips, outputs, request, side))
            for side in sides
        }
        return findings(request, drawn["motion"], drawn["identity"], self.origin)

    def _judged(self, judge: Judge, clips: Callable[[int], Iterator[Tensor]]) -> Drawn:
        repetitions = [[judge.predict(part) for part in clips(r)] for r in range(self.repetitions)]
        return {
            factor.name: np.stack(
                [np.concatenate([part[factor.name] for part in parts]) for parts in repetitions]
            )
            for factor in judge.factors
        }

    def _clips(
        self, outputs: Outputs, request: EvaluationRequest, keep: Side, repetition: int
    ) -> Iterator[Tensor]:
        raise NotImplementedError


class PriorSamples(_Sampled):
    """The sampled protocol; the code that is not kept comes from the model's prior.

    Args:
        repetitions: draws per test clip; all of them are one sample, and what each gives alone is
            in the long table.
    """

    origin = "prior"
    metrics: ClassVar[tuple[MetricInfo, ...]] = _columns("prior")
    _needs = ("samples", "codes")

    def __init__(self, *, repetitions: PositiveInt = 2) -> None:
        self.repetitions = repetitions

    def _clips(
        self, outputs: Outputs, request: EvaluationRequest, keep: Side, repetition: int
    ) -> Iterator[Tensor]:
        for rows in batches(len(request.test), SAMPLED_TOGETHER):
            yield outputs.samples(rows, keep=keep, repetition=repetition)


class MixedCodes(_Sampled):
    """The sampled protocol; the code that is not kept is mixed of two other test clips' codes.

    Args:
        repetitions: draws per test clip; all of them are one sample, and what each gives alone is
            in the long table.
    """

    origin = "mixed"
    metrics: ClassVar[tuple[MetricInfo, ...]] = _columns("mixed")
    _needs = ("codes", "generations")

    def __init__(self, *, repetitions: PositiveInt = 2) -> None:
        self.repetitions = repetitions

    def _clips(
        self, outputs: Outputs, request: EvaluationRequest, keep: Side, repetition: int
    ) -> Iterator[Tensor]:
        codes = outputs.codes("test")
        other = codes.identity if keep == "motion" else codes.motion
        new = mixed(other, seed=request.seed, purpose=f"{keep}-{repetition}")
        for rows in batches(len(request.test), request.batch_size):
            yield outputs.generations(
                Codes(new[rows], codes.motion[rows])
                if keep == "motion"
                else Codes(codes.identity[rows], new[rows])
            )


def mixed(codes: Tensor, *, seed: int, purpose: str) -> Tensor:
    """Replaces every code ``[N, K]`` by u c_j + (1 - u) c_k of two other rows, u uniform in [0, 1].

    With fewer than three rows one of the two may be the row itself.
    """
    n = len(codes)
    rng = generator(seed, "mixed", purpose, n)
    steps = 1 + np.argsort(rng.random((n, max(n - 1, 2))), axis=1)[:, :2]
    first, second = ((np.arange(n) + steps[:, side]) % n for side in (0, 1))
    u = torch.as_tensor(rng.random((n, 1))).to(codes)
    return u * codes[torch.as_tensor(first)] + (1 - u) * codes[torch.as_tensor(second)]


def findings(
    request: EvaluationRequest, motion_kept: Drawn, identity_kept: Drawn, origin: Origin
) -> Findings:
    """Computes accuracies, entropies and inception scores from what the judge said.

    Args:
        request: labels, factors and the bootstrap's settings.
        motion_kept: of clips with the motion code of the test clip and another identity.
        identity_kept: of clips with its identity code and another motion.
        origin: where the other code came from; it names the columns.
    """
    stem = f"sampled_{origin}"
    scores: dict[str, Score] = {}
    levels: dict[str, dict[str, float]] = {}
    long: list[FactorScore] = []
    for kept, drawn in (("motion", motion_kept), ("identity", identity_kept)):
        for factor in request.scorable():
            names = [factor.name]
            right = _right(drawn, request, names)
            found = {"accuracy": bootstrap_mean(right, **_bootstrap(request))}
            found |= _figures(drawn[factor.name], request, factor.name)
            long += [
                FactorScore(f"{stem}_{name}_{kept}_kept", factor.name, score)
                for name, score in found.items()
            ]
    dynamic = [factor.name for factor in request.scorable("dynamic")]
    static = [factor.name for factor in request.scorable("static")]
    for column, names, drawn in (
        ("dynamic_accuracy", dynamic, motion_kept),
        ("identity_accuracy", static, identity_kept),
    ):
        name = f"{stem}_{column}"
        if not names:
            scores[name] = Score(None, reason="no such factor can be judged")
            continue
        scores[name] = bootstrap_mean(_right(drawn, request, names), **_bootstrap(request))
        levels[name] = chance(*_flat(drawn, request, names), names)
    if len(dynamic) == 1:
        sizes = {factor.name: len(factor.classes) for factor in request.factors}
        for figure, score in _figures(motion_kept[dynamic[0]], request, dynamic[0]).items():
            if figure in _FIGURES:
                scores[f"{stem}_{figure}"] = score
        levels[f"{stem}_H_y"] = {"largest": math.log(sizes[dynamic[0]])}
        levels[f"{stem}_inception_score"] = {"largest": float(sizes[dynamic[0]])}
    else:
        reason = f"there are {len(dynamic)} dynamic factors to judge, not one; see the long table"
        scores.update({f"{stem}_{figure}": Score(None, reason=reason) for figure in _FIGURES})
    return Findings(scores, long=long, chance=levels)


def _figures(logs: Floats, request: EvaluationRequest, factor: str) -> dict[str, Score]:
    """Entropies and IS of one factor on the class-balanced subset, and of each repetition alone."""
    rows = balanced(request.test.labels[factor])
    found = entropy_scores(logs[:, rows], **_bootstrap(request))
    alone = [entropies(draw[rows]).inception_score for draw in logs]
    found["inception_score_of_a_repetition"] = Score(float(np.mean(alone)), n=len(alone))
    return found


def _right(drawn: Drawn, request: EvaluationRequest, names: list[str]) -> Floats:
    """Returns per clip the share of draws in which every named factor is judged right, ``[N]``."""
    said, wanted = _flat(drawn, request, names)
    repetitions = len(drawn[names[0]])
    right: Floats = agreement(said, wanted, names).reshape(repetitions, -1).mean(0)
    return right


def _flat(
    drawn: Drawn, request: EvaluationRequest, names: list[str]
) -> tuple[dict[str, Integers], dict[str, Integers]]:
    repetitions = len(drawn[names[0]])
    said = {name: drawn[name].argmax(2).reshape(-1).astype(np.int64) for name in names}
    return said, {name: np.tile(request.test.labels[name], repetitions) for name in names}


def _bootstrap(request: EvaluationRequest) -> dict[str, Any]:
    return {"resamples": request.bootstrap, "seed": request.seed}
