"""VDSM's own protocol, as the authors' judge notebooks compute it: for comparison, not clean.

Published under it: 93.33 (MUG) and 99.53 (Sprites). What is kept of it: the judge learns from the
evaluation clips, real and regenerated ones mixed, drawn with replacement so that about half of the
clips it is tried on were learnt, and its last epoch; agreement of two predictions, not with the
label; entropies of heads of different sizes averaged, ln IS instead of IS. What is mended:
gradients are zeroed, the judge stands in evaluation mode, everything is seeded. How the authors
combined their heads into one number is not known; here it is the mean over heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor

from vdsm_bench.config import JudgeSettings
from vdsm_bench.contracts import (
    EvaluationRequest,
    Evaluator,
    FactorScore,
    Findings,
    Floats,
    Integers,
    Judge,
    LabelledClips,
    MetricInfo,
    Outputs,
    Predictions,
    Score,
)
from vdsm_bench.evaluators.entropy import entropies
from vdsm_bench.evaluators.judge_training import train_judge
from vdsm_bench.evaluators.outputs import SAMPLED_TOGETHER, batches
from vdsm_bench.evaluators.statistics import bootstrap_mean
from vdsm_bench.seeding import generator

_TRIED = 0.3
_DIRTY = "NOT CLEAN, VDSM's notebook: judge taught on evaluation clips, real and regenerated"
_CLEAN = "the same under the gated judge, which saw training clips only"

METRICS = (
    MetricInfo(
        "notebook_agreement", "higher", 0.0, 1.0, "share", 2,
        f"Share of clips judged alike as they are and regenerated, mean over heads ({_DIRTY}).",
    ),
    MetricInfo(
        "notebook_agreement_clean", "higher", 0.0, 1.0, "share", 1,
        f"Share of test clips judged alike as they are and regenerated, over heads ({_CLEAN}).",
    ),
    MetricInfo(
        "notebook_ln_inception_score", "higher", 0.0, None, "nats", 2,
        f"ln IS of clips drawn from the prior, mean over heads ({_DIRTY}).",
    ),
    MetricInfo(
        "notebook_ln_inception_score_clean", "higher", 0.0, None, "nats", 1,
        f"ln IS of clips drawn from the prior, mean over heads ({_CLEAN}).",
    ),
    MetricInfo(
        "notebook_H_y", "higher", 0.0, None, "nats", 2,
        f"H(y) of clips drawn from the prior, mean over heads ({_DIRTY}).",
    ),
    MetricInfo(
        "notebook_H_y_given_x", "lower", 0.0, None, "nats", 2,
        f"H(y|x) of clips drawn from the prior, mean over heads ({_DIRTY}).",
    ),
)  # fmt: skip
_OF_SAMPLES = tuple(metric.name for metric in METRICS[2:])


class Notebook(Evaluator):
    """``--protocol vdsm-notebook``: the published numbers' own question, and the clean one.

    Args:
        epochs: of the notebook's judge.
    """

    metrics: ClassVar[tuple[MetricInfo, ...]] = METRICS

    def __init__(self, *, epochs: PositiveInt = 12) -> None:
        self.epochs = epochs

    def evaluate(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge | None
    ) -> Findings:
        """Teaches the notebook's judge, then asks it and the gated one the same questions."""
        reason = outputs.missing("reconstructions")
        if reason is None and len(request.test) < 4:
            reason = "there are fewer than four test clips to teach and try a judge on"
        if reason is None and judge is None:
            reason = "there is no judge"
        if reason is not None or judge is None:
            return Findings({m.name: Score(None, reason=reason) for m in METRICS})
        tried, taught = mixed_clips(outputs, request)
        dirty: Judge = train_judge(
            taught,
            None,
            factors=request.scorable(),
            settings=JudgeSettings(epochs=self.epochs),
            device=request.device,
        ).judge
        scores: dict[str, Score] = {}
        long: list[FactorScore] = []
        for name, one, rows in (
            ("notebook_agreement", dirty, tried),
            ("notebook_agreement_clean", judge, np.arange(len(request.test))),
        ):
            alike = _alike(one, outputs, request, rows)
            scores[name] = _mean(np.mean(list(alike.values()), axis=0), request)
            long += [
                FactorScore(name, head, _mean(found, request)) for head, found in alike.items()
            ]
        reason = outputs.missing("samples")
        if reason is not None:
            scores.update(dict.fromkeys(_OF_SAMPLES, Score(None, reason=reason)))
        else:
            scores.update(_of_samples(outputs, request, dirty, judge))
        return Findings(scores, long=long, notes=[f"notebook_*: {_DIRTY}; never a headline"])


def mixed_clips(outputs: Outputs, request: EvaluationRequest) -> tuple[Integers, LabelledClips]:
    """Draws the notebook's clips: N of N with replacement, the first 30 % tried, the rest taught.

    Returns:
        The rows that are tried, and the clips that are taught, every one twice: as it is, and
        regenerated under the label of its source.
    """
    n = len(request.test)
    drawn = generator(request.seed, "notebook", n).integers(n, size=n)
    cut = max(1, round(_TRIED * n))
    rows = drawn[cut:]
    labels = {name: np.tile(values[rows], 2) for name, values in request.test.labels.items()}
    return drawn[:cut], LabelledClips(_both(outputs, request, rows), labels)


def _both(
    outputs: Outputs, request: EvaluationRequest, drawn: Integers
) -> Callable[[Integers], Tensor]:
    def clips(rows: Integers) -> Tensor:
        of = drawn[rows % len(drawn)]
        made = torch.as_tensor(rows >= len(drawn)).view(-1, 1, 1, 1, 1)
        return torch.where(made, outputs.reconstructions(of), request.test.clips(of).cpu())

    return clips


def _alike(
    judge: Judge, outputs: Outputs, request: EvaluationRequest, rows: Integers
) -> dict[str, Floats]:
    """Returns per head 1 where the judge says the same of a clip and of it regenerated."""
    found: dict[str, list[Floats]] = {factor.name: [] for factor in request.scorable()}
    for part in batches(len(rows), request.batch_size):
        real = judge.predict(request.test.clips(rows[part]))
        made = judge.predict(outputs.reconstructions(rows[part]))
        for name, values in found.items():
            same = real[name].argmax(1) == made[name].argmax(1)
            values.append(same.astype(np.float64))
    return {name: np.concatenate(values) for name, values in found.items()}


def _of_samples(
    outputs: Outputs, request: EvaluationRequest, dirty: Judge, clean: Judge
) -> dict[str, Score]:
    said: dict[str, list[Predictions]] = {"": [], "_clean": []}
    for rows in batches(len(request.test), SAMPLED_TOGETHER):
        clips = outputs.samples(rows, keep="nothing")
        said[""].append(dirty.predict(clips))
        said["_clean"].append(clean.predict(clips))
    found: dict[str, Score] = {}
    for suffix, parts in said.items():
        heads = [
            entropies(np.concatenate([part[factor.name] for part in parts]))
            for factor in request.scorable()
        ]
        n = len(request.test)
        information = float(np.mean([math.log(head.inception_score) for head in heads]))
        found[f"notebook_ln_inception_score{suffix}"] = Score(information, n=n)
        if not suffix:
            found["notebook_H_y"] = Score(float(np.mean([h.h_y for h in heads])), n=n)
            found["notebook_H_y_given_x"] = Score(
                float(np.mean([h.h_y_given_x for h in heads])), n=n
            )
    return found


def _mean(values: Floats, request: EvaluationRequest) -> Score:
    return bootstrap_mean(values, resamples=request.bootstrap, seed=request.seed)
