"""Frechet distance and kernel distance between features of real and of made clips.

d^2 = |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)), the trace of the root from eigenvalues of the
symmetric S1^(1/2) S2 S1^(1/2): a matrix root of singular covariances returns noise. Both sides have
the same number of clips N, which is reported; real clips of the training set stand on one side,
so that the floor (real test clips on the other) is what a model would score that regenerates them
perfectly. Perfect transfers lie above it where some actions are rare: the pair list shows all of
them evenly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from pydantic import PositiveInt
from torch import Tensor

from vdsm_bench.contracts import (
    EvaluationRequest,
    Evaluator,
    Findings,
    Floats,
    Integers,
    Judge,
    MetricInfo,
    Outputs,
    Score,
)
from vdsm_bench.errors import ContractError
from vdsm_bench.evaluators.outputs import batches
from vdsm_bench.evaluators.pairs import choose_clips

#: clips ``[B, T, C, H, W]`` to features ``[B, D]``
Extractor = Callable[[Tensor], Floats]


def frechet_distance(first: Floats, second: Floats) -> float:
    """Computes the (squared) Frechet distance of two Gaussians fitted to features.

    Args:
        first: ``[N, D]``, N >= 2.
        second: ``[M, D]``, M >= 2.

    Raises:
        ContractError: shapes that do not fit, or NaN.
    """
    _check(first, second)
    (mean_1, cov_1), (mean_2, cov_2) = _moments(first), _moments(second)
    values, vectors = np.linalg.eigh(cov_1)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inner = root @ cov_2 @ root
    trace_of_root = np.sqrt(np.clip(np.linalg.eigvalsh((inner + inner.T) / 2), 0, None)).sum()
    distance = ((mean_1 - mean_2) ** 2).sum() + np.trace(cov_1) + np.trace(cov_2)
    return float(max(distance - 2 * trace_of_root, 0.0))


def kernel_distance(first: Floats, second: Floats) -> float:
    """Computes KID: the unbiased squared MMD under (x.y / D + 1)^3; may fall below 0.

    Args:
        first: ``[N, D]``, N >= 2.
        second: ``[M, D]``, M >= 2.

    Raises:
        ContractError: shapes that do not fit, or NaN.
    """
    _check(first, second)
    size = first.shape[1]
    own_1, own_2, across = (
        (a @ b.T / size + 1) ** 3 for a, b in ((first, first), (second, second), (first, second))
    )
    n, m = len(first), len(second)
    return float(
        (own_1.sum() - np.trace(own_1)) / (n * (n - 1))
        + (own_2.sum() - np.trace(own_2)) / (m * (m - 1))
        - 2 * across.mean()
    )


def judge_features(judge: Judge) -> Extractor:
    """Returns what the judge's heads see: features of motion and of frames, ``[B, D]``.

    Raises:
        ContractError: the judge is no network with heads.
    """
    features: Extractor | None = getattr(judge, "features", None)
    if features is None:
        raise ContractError("The judge has no heads to take features from.")
    return features


def distance_columns(features: str, told: str) -> tuple[MetricInfo, ...]:
    """Returns the columns of Frechet and kernel distances on one kind of features."""
    found = []
    for name, what in (
        ("regenerated", "clips regenerated from their codes"),
        ("transferred", "transfers of the pair list"),
        ("floor", "real test clips"),
    ):
        text = f"between {what} and as many real training clips, on {told}."
        for stem, label, low in (
            ("fvd", "Frechet distance", 0.0),
            ("kid", "Kernel distance", None),
        ):
            info = MetricInfo(
                f"{stem}_{features}_{name}", "none" if name == "floor" else "lower", low, None,
                "squared feature", 1, f"{label} {text}",
            )  # fmt: skip
            found.append(info)
    return tuple(found)


class Distances:
    """Distances of one subject on given features; keeps those of real clips for the next one.

    Args:
        features: the middle of the columns' names.
        clips: largest N.
    """

    def __init__(self, features: str, clips: int) -> None:
        self.features, self.clips = features, clips
        self._real: tuple[object, object, Floats, Floats] | None = None

    def findings(
        self, outputs: Outputs, request: EvaluationRequest, extract: Extractor, of: object
    ) -> Findings:
        """Computes every column.

        Args:
            outputs: whose clips are measured.
            request: the real clips.
            extract: the features.
            of: what the features belong to; real clips are measured once for each.
        """
        train = request.train
        if train is None:
            return self.empty("no training clips were given to compare with")
        n = min(len(request.test), len(request.pairs), self.clips, len(train))
        if n < 2:
            return self.empty("fewer than two clips on one side")
        size = request.batch_size
        if self._real is None or self._real[0] is not of or self._real[1] is not request:
            known = _features(extract, train.clips, choose_clips(len(train), n), size)
            held_out = _features(
                extract, request.test.clips, choose_clips(len(request.test), n), size
            )
            self._real = (of, request, known, held_out)
        _, _, known, held_out = self._real
        sides: dict[str, Floats | str] = {"floor": held_out}
        sides["regenerated"] = outputs.missing("reconstructions") or _features(
            extract, outputs.reconstructions, choose_clips(len(request.test), n), size
        )
        sides["transferred"] = outputs.missing("transfers") or _features(
            extract, outputs.transfers, choose_clips(len(request.pairs), n), size
        )
        scores: dict[str, Score] = {}
        for name, side in sides.items():
            for stem, distance in (("fvd", frechet_distance), ("kid", kernel_distance)):
                scores[f"{stem}_{self.features}_{name}"] = (
                    Score(None, reason=side)
                    if isinstance(side, str)
                    else Score(distance(known, side), n=n)
                )
        dimension = known.shape[1]
        note = f"fvd_{self.features}: {n} clips on either side, {dimension} features"
        if n <= dimension:
            note += "; with so few clips the covariances are singular: read kid beside it"
        return Findings(scores, notes=[note])

    def empty(self, reason: str) -> Findings:
        """Returns every column without a value."""
        names = [metric.name for metric in distance_columns(self.features, "")]
        return Findings(dict.fromkeys(names, Score(None, reason=reason)))


class JudgeDistances(Evaluator):
    """Frechet and kernel distance on the judge's own features: always to be had, so labelled.

    Not comparable with distances on Kinetics features, nor between judges.

    Args:
        clips: largest number of clips on either side.
    """

    metrics: ClassVar[tuple[MetricInfo, ...]] = distance_columns("judge", "the judge's features")

    def __init__(self, *, clips: PositiveInt = 500) -> None:
        self._distances = Distances("judge", clips)

    def evaluate(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge | None
    ) -> Findings:
        """Measures regenerated and transferred clips, and the floor."""
        if judge is None:
            return self._distances.empty("there is no judge")
        try:
            extract = judge_features(judge)
        except ContractError as error:
            return self._distances.empty(error.message)
        return self._distances.findings(outputs, request, extract, judge)


def _features(
    extract: Extractor, source: Callable[[Integers], Tensor], rows: Integers, size: int
) -> Floats:
    return np.concatenate([extract(source(rows[part])) for part in batches(len(rows), size)])


def _moments(features: Floats) -> tuple[Floats, Floats]:
    return features.mean(0), np.atleast_2d(np.cov(features, rowvar=False))


def _check(first: Floats, second: Floats) -> None:
    for features in (first, second):
        if features.ndim != 2 or len(features) < 2 or not np.isfinite(features).all():
            raise ContractError(
                f"Distances need finite features [N, D] with N >= 2, got {list(features.shape)}."
            )
    if first.shape[1] != second.shape[1]:
        raise ContractError("Distances need as many features on either side.")
