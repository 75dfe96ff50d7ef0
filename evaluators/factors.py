"""MSD-Benchmark's multi-factor scores of a model's codes: interventions, frames, DCI.

Of factors of one kind where one determines the other, such as who it is and the colour of the hair,
the determined one is left out: what serves the one serves the other, and no model could score 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor

from vdsm_bench.contracts import (
    Codes,
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
from vdsm_bench.evaluators.accuracy import classes
from vdsm_bench.evaluators.latents import (
    Explored,
    assign,
    compactness,
    determined,
    explore,
    frame_consistency,
    intervention_score,
    modularity,
    partners,
)
from vdsm_bench.evaluators.outputs import batches
from vdsm_bench.evaluators.pairs import choose_clips
from vdsm_bench.evaluators.statistics import bootstrap_mean
from vdsm_bench.seeding import generator

#: test clips whose frames are judged one by one
_FRAMES_OF = 200


def _info(name: str, definition: str, version: int = 2) -> MetricInfo:
    return MetricInfo(name, "higher", 0.0, 1.0, "share", version, definition)


METRICS = (
    _info(
        "intervention_score",
        "1 - (mean |A[k,k] - 1| + mean |A[k,f] - floor_f|) / 2 (MSD), A[k,f] the accuracy for f "
        "when only k's latent dimensions are kept and the rest is another clip's.",
    ),
    _info("intervention_two_factor_score", "The same with all static and all dynamic factors."),
    _info(
        "frame_consistency_swap",
        "Share of single frames judged to have the static factors that a swap should give them.",
        version=3,
    ),
    _info("frame_consistency_clip", "Share of frames judged as most frames of their clip.", 3),
    _info("frame_consistency_neighbours", "Share of neighbouring frames judged alike.", 3),
    _info("dci_modularity", "How far every latent dimension serves one factor alone."),
    _info("dci_compactness", "How few latent dimensions serve a factor, mean over factors."),
    _info("dci_explicitness", "Share of test labels forests read from all dimensions, mean."),
)


@dataclass(frozen=True)
class Swaps:
    """What the judge said of swapped clips.

    Attributes:
        partner: the clip that gave the other dimensions, ``[R, N]``.
        said: classes by factor name ``[K, R, N]``; K the factors whose dimensions were kept.
        two: the same for K = 2: all static, then all dynamic dimensions kept.
        frames: classes of single frames by static factor ``[M, T]`` of clips whose static
            dimensions were kept.
        rows: those M clips.
    """

    partner: Integers
    said: Mapping[str, Integers]
    two: Mapping[str, Integers]
    frames: Mapping[str, Integers]
    rows: Integers


class FactorScores(Evaluator):
    """Intervention matrix, frame-level consistency and DCI over all latent dimensions.

    Args:
        repetitions: partners per test clip.
    """

    metrics: ClassVar[tuple[MetricInfo, ...]] = METRICS

    def __init__(self, *, repetitions: PositiveInt = 2) -> None:
        self.repetitions = repetitions

    def evaluate(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge | None
    ) -> Findings:
        """Explores training codes, swaps dimensions of test codes and asks the judge."""
        request, notes = _apart(request)
        reason = outputs.missing("codes") or outputs.missing("generations")
        factors = request.scorable()
        if request.train is None:
            reason = reason or "no training clips were given to learn the latent dimensions from"
        elif len(factors) < 2 or not request.scorable("static") or not request.scorable("dynamic"):
            reason = reason or "fewer than one static and one dynamic factor can be judged"
        elif len(request.test) < 2:
            reason = reason or "there is one test clip only; nothing can be swapped"
        if reason is not None or request.train is None:
            return Findings({m.name: Score(None, reason=reason) for m in METRICS})
        train, test = (outputs.codes(part) for part in ("train", "test"))
        explored = explore(
            _latents(train),
            [request.train.labels[factor.name] for factor in factors],
            _latents(test),
            [request.test.labels[factor.name] for factor in factors],
            request.seed,
        )
        swaps = None if judge is None else self._swap(outputs, request, judge, explored)
        found = findings(request, explored, swaps)
        return replace(found, notes=[*notes, *found.notes])

    def _swap(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge, explored: Explored
    ) -> Swaps:
        factors = request.scorable()
        owner = assign(explored.importance)
        kind = np.array([factor.kind for factor in factors])
        kept = [owner == k for k in range(len(factors))]
        sides = [np.isin(owner, np.flatnonzero(kind == side)) for side in ("static", "dynamic")]
        n = len(request.test)
        partner = np.stack([partners(n, request.seed, str(r)) for r in range(self.repetitions)])
        swapped = partial(_swapped, outputs.codes("test"))
        names = [factor.name for factor in factors]

        def judged(mask: np.ndarray) -> dict[str, Integers]:
            found: list[dict[str, Integers]] = []
            for other in partner:
                for rows in batches(n, request.batch_size):
                    codes = swapped(mask, rows, other[rows])
                    found.append(classes(judge.predict(outputs.generations(codes))))
            return {
                name: np.concatenate([part[name] for part in found]).reshape(len(partner), n)
                for name in names
            }

        by_factor, by_side = [judged(mask) for mask in kept], [judged(mask) for mask in sides]
        chosen = choose_clips(n, _FRAMES_OF)
        static = [factor.name for factor in request.scorable("static")]
        parts = [
            _judge_frames(
                judge,
                outputs.generations(swapped(sides[0], chosen[rows], partner[0][chosen[rows]])),
                static,
            )
            for rows in batches(len(chosen), request.batch_size)
        ]
        return Swaps(
            partner,
            {name: np.stack([found[name] for found in by_factor]) for name in names},
            {name: np.stack([found[name] for found in by_side]) for name in names},
            {name: np.concatenate([part[name] for part in parts]) for name in static},
            chosen,
        )


def findings(request: EvaluationRequest, explored: Explored, swaps: Swaps | None) -> Findings:
    """Computes every figure from the forests and from what the judge said.

    Args:
        request: labels, factors and the bootstrap's settings.
        explored: of the scorable factors, in their order.
        swaps: what the judge said of swapped clips; None where there is no judge.
    """
    factors = request.scorable()
    scores = _dci(request, explored)
    long = [
        FactorScore("dci_compactness", factor.name, Score(float(value), n=len(request.test)))
        for factor, value in zip(factors, compactness(explored.importance), strict=True)
        if np.isfinite(value)
    ]
    if swaps is None:
        missing = [metric.name for metric in METRICS if metric.name not in scores]
        return Findings(
            {**scores, **dict.fromkeys(missing, Score(None, reason="there is no judge"))}, long=long
        )
    labels, owner = request.test.labels, assign(explored.importance)
    hits = np.stack([swaps.said[f.name] == labels[f.name] for f in factors], axis=-1)  # [K,R,N,F]
    same = np.stack([labels[f.name][swaps.partner] == labels[f.name] for f in factors], axis=-1)
    served = np.isin(np.arange(len(factors)), owner)
    scores["intervention_score"] = _scored(request, hits, same, served)
    for k, kept in enumerate(factors):
        for f, factor in enumerate(factors):
            value = _mean(request, hits[k, :, :, f].mean(0))
            long.append(FactorScore(f"intervention_keeping_{kept.name}", factor.name, value))
    long += [
        FactorScore("intervention_floor", factor.name, _mean(request, same[..., f].mean(0)))
        for f, factor in enumerate(factors)
    ]
    sides = [[f.name for f in request.scorable(side)] for side in ("static", "dynamic")]
    both = [
        np.stack([np.all([said[n] == labels[n] for n in names], axis=0) for names in sides], -1)
        for said in (
            swaps.two,
            {n: labels[n][swaps.partner] for names in sides for n in names},
        )
    ]
    kinds = np.array([f.kind for f in factors])
    there = np.array([served[kinds == side].any() for side in ("static", "dynamic")])
    scores["intervention_two_factor_score"] = _scored(request, both[0], both[1], there)
    wanted = {name: labels[name][swaps.rows][:, None] for name in sides[0]}
    right = np.mean([(swaps.frames[name] == wanted[name]).mean(1) for name in sides[0]], axis=0)
    scores["frame_consistency_swap"] = _mean(request, right)
    clip, neighbours = frame_consistency(swaps.frames)
    scores["frame_consistency_clip"] = _mean(request, clip)
    scores["frame_consistency_neighbours"] = _mean(request, neighbours)
    unserved = [f.name for f, has in zip(factors, served, strict=True) if not has]
    notes = [f"no latent dimension serves '{name}'; it counts as the worst" for name in unserved]
    return Findings(scores, long=long, notes=notes)


def _apart(request: EvaluationRequest) -> tuple[EvaluationRequest, list[str]]:
    """Leaves out factors that another one of their kind determines; returns notes that say so."""
    clips = [part for part in (request.train, request.test) if part is not None]
    found: dict[str, str] = {}
    for kind in ("static", "dynamic"):
        names = [factor.name for factor in request.scorable(kind)]
        found |= determined({n: np.concatenate([part.labels[n] for part in clips]) for n in names})
    left_out = {name: f"'{other}' determines it" for name, other in found.items()}
    notes = [f"factors: '{name}' is left out: {reason}" for name, reason in left_out.items()]
    return replace(request, unscorable={**request.unscorable, **left_out}), notes


def _dci(request: EvaluationRequest, explored: Explored) -> dict[str, Score]:
    n = len(request.test)
    compact = compactness(explored.importance)
    served = compact[np.isfinite(compact)]
    tidy = {
        "dci_modularity": modularity(explored.importance),
        "dci_compactness": float(served.mean()) if len(served) else np.nan,
    }
    nothing = Score(None, reason="no latent dimension tells any factor")
    scores = {
        name: Score(float(value), n=n) if np.isfinite(value) else nothing
        for name, value in tidy.items()
    }
    scores["dci_explicitness"] = _mean(request, explored.accuracy.mean(1))
    return scores


def _scored(
    request: EvaluationRequest, hits: np.ndarray, same: np.ndarray, served: np.ndarray
) -> Score:
    """Scores ``hits`` ``[K, R, N, F]`` against ``same`` ``[R, N, F]``, resampling clips."""
    hit, floor = hits.mean(1), same.mean(0)  # [K, N, F], [N, F]
    n = len(floor)
    rng = generator(request.seed, "bootstrap", n)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=request.bootstrap) / n
    resampled = intervention_score(np.einsum("bn,knf->bkf", weights, hit), weights @ floor, served)
    value = float(intervention_score(hit.mean(1), floor.mean(0), served))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Score(value, min(float(low), value), max(float(high), value), n)


def _mean(request: EvaluationRequest, values: Floats) -> Score:
    return bootstrap_mean(values, resamples=request.bootstrap, seed=request.seed)


def _latents(codes: Codes) -> Floats:
    both = torch.cat([codes.identity, codes.motion], dim=1)
    return np.asarray(both.detach().cpu().double().numpy())


def _swapped(codes: Codes, mask: np.ndarray, rows: Integers, other: Integers) -> Codes:
    """Keeps the masked dimensions of ``rows``; the others are those of ``other``."""
    split = codes.identity.shape[1]

    def take(code: Tensor, keep: np.ndarray) -> Tensor:
        where = torch.as_tensor(keep).to(code.device)
        return torch.where(where, code[torch.as_tensor(rows)], code[torch.as_tensor(other)])

    return Codes(take(codes.identity, mask[:split]), take(codes.motion, mask[split:]))


def _judge_frames(judge: Judge, clips: Tensor, names: list[str]) -> dict[str, Integers]:
    """Returns classes ``[B, T]`` of every frame by itself, as a clip that stands still.

    Not of one frame: the convolutions over time of some judges have learnt from clips.
    """
    still = clips.flatten(0, 1)[:, None].expand(-1, clips.shape[1], -1, -1, -1)
    said = classes(judge.predict(still))
    return {name: said[name].reshape(clips.shape[:2]) for name in names}
