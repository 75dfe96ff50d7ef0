"""What is scored, by whom, and the form of what was found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from vdsm_bench.contracts.clips import ClipSource, Factor, FactorKind, Floats, Integers
from vdsm_bench.contracts.models import Codes
from vdsm_bench.errors import ContractError

Direction = Literal["higher", "lower", "none"]
#: what an evaluator can ask outputs for
Wanted = Literal["reconstructions", "transfers", "codes", "samples", "generations"]
#: the code of a test clip that a sampled clip keeps
Kept = Literal["identity", "motion", "nothing"]
#: log-probabilities ``[N, classes]`` per factor
Predictions = Mapping[str, Floats]


@dataclass(frozen=True)
class MetricInfo:
    """What a score means.

    Attributes:
        name: column name.
        direction: whether higher or lower is better, or neither.
        low: smallest possible value, or None.
        high: largest possible value, or None.
        unit: unit as printed (``share``, ``dB``, ``nats``).
        version: raised whenever the number could change for the same clips.
        definition: one sentence.
    """

    name: str
    direction: Direction
    low: float | None
    high: float | None
    unit: str
    version: int
    definition: str


@dataclass(frozen=True)
class Score:
    """A mean over clips with its bootstrap interval, or nothing and the reason.

    Attributes:
        value: the mean; None where it cannot be had (then ``reason`` says why), never 0 instead.
        low: lower end of the 95 % interval over clips.
        high: its upper end.
        n: clips or pairs behind it.
        reason: why there is no value.
        by_identity: ends of the 95 % interval over identities, or None.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None
    by_identity: tuple[float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns ``{value, low, high, n}``, or ``{reason}`` where there is no value.

        Where there is an interval over identities, ``identity_low`` and ``identity_high`` too.
        """
        if self.value is None:
            return {"reason": self.reason or "not measured"}
        found = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        if self.by_identity is not None:
            found["identity_low"], found["identity_high"] = self.by_identity
        return found


@dataclass(frozen=True)
class FactorScore:
    """One row of the long table: a metric of one factor."""

    metric: str
    factor: str
    score: Score


@dataclass(frozen=True)
class Findings:
    """What one evaluator found; everything in it is JSON-able.

    Attributes:
        scores: column name to score.
        long: the same per factor.
        chance: column name to chance levels by kind; of the evaluator's own columns.
        histogram: name to (factor to counts per class), shown beside the scores; no two evaluators
            have one of the same name.
        notes: what was left out, and why.
        per_pair: column name to its value of every pair ``[P]``, finite, in the order of the pair
            list; what two subjects are compared by.
    """

    scores: Mapping[str, Score]
    long: Sequence[FactorScore] = ()
    chance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    histogram: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    per_pair: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelledClips:
    """Clips by row number with their labels.

    Attributes:
        clips: rows ``[n]`` to clips ``[n, T, C, H, W]``.
        labels: int64 class indices ``[N]`` per factor.
        recordings: what each clip was cut from ``[N]``, equal numbers for one recording; None where
            every clip is a recording of its own.
    """

    clips: ClipSource
    labels: Mapping[str, Integers]
    recordings: Integers | None = None

    def __len__(self) -> int:
        return len(next(iter(self.labels.values()), ()))


@dataclass(frozen=True)
class EvaluationRequest:
    """What is scored, the same for every subject.

    Attributes:
        test: the held-out real clips.
        factors: every factor of the dataset.
        pairs: rows of ``test`` ``[P, 2]``: identity of the first, motion of the second.
        unscorable: factors that cannot be judged (classes never seen in training), with the reason.
        train: clips for probes of codes, or None.
        batch_size: clips per forward pass; changes nothing but rounding (1e-7 of a pixel).
        bootstrap: resamples behind every interval.
        seed: seed of the resamples.
        device: where the subject runs.
    """

    test: LabelledClips
    factors: tuple[Factor, ...]
    pairs: Integers
    unscorable: Mapping[str, str] = field(default_factory=dict)
    train: LabelledClips | None = None
    batch_size: int = 64
    bootstrap: int = 1000
    seed: int = 0
    device: torch.device = torch.device("cpu")

    def scorable(self, kind: FactorKind | None = None) -> tuple[Factor, ...]:
        """Returns the factors that can be judged, of one kind or of both."""
        return tuple(
            factor
            for factor in self.factors
            if factor.name not in self.unscorable and kind in (None, factor.kind)
        )


class Judge(Protocol):
    """A classifier of every factor, trained on real training clips."""

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The factors it judges."""

    def predict(self, clips: Tensor) -> Predictions:
        """Returns log-probabilities ``[B, classes]`` per factor for clips ``[B, T, C, H, W]``."""


class Outputs(ABC):
    """What is scored, by row number: a model at work, a control, or clips read from files."""

    @abstractmethod
    def missing(self, what: Wanted) -> str | None:
        """Returns why it cannot be had, or None where it can."""

    @abstractmethod
    def reconstructions(self, rows: Integers) -> Tensor:
        """Returns the regenerated test clips of the rows."""

    @abstractmethod
    def transfers(self, rows: Integers) -> Tensor:
        """Returns the clips of the rows of the pair list."""

    def codes(self, part: Literal["test", "train"]) -> Codes:
        """Returns the codes of all test clips, or of all clips that probes learn from.

        Raises:
            ContractError: there are no codes (see :meth:`missing`), or they are not finite.
        """
        raise ContractError(f"{type(self).__name__} has no codes.")

    def samples(self, rows: Integers, *, keep: Kept, repetition: int = 0) -> Tensor:
        """Returns clips that keep one code of the test clips of the rows; the rest is drawn anew.

        The same row and repetition give the same clip, whatever other rows are asked for.

        Args:
            rows: rows of the test clips.
            keep: the code (a posterior mean) that is kept, or ``nothing``: a draw from the prior.
            repetition: number of the draw.

        Raises:
            ContractError: there is no prior (see :meth:`missing`).
        """
        raise ContractError(f"{type(self).__name__} cannot sample.")

    def generations(self, codes: Codes, n_frames: int | None = None) -> Tensor:
        """Returns the clips of identity and motion codes ``[B, K]``; the pose is not read.

        They are as long as the test clips where no number of frames is named.

        Raises:
            ContractError: nothing can be generated from codes (see :meth:`missing`).
        """
        raise ContractError(f"{type(self).__name__} generates nothing from codes.")


class Evaluator(ABC):
    """A score of a model on held-out clips: a thin object round pure functions on arrays.

    Attributes:
        metrics: one entry per column that it fills; a column it cannot fill it leaves empty with
            the reason. ``Findings.scores`` has exactly these columns.
        asked: whether it is dear, and scores only where ``evaluation.scores`` names it, with
            arguments or without; read from classes of other packages (of built-in ones
            ``registry.yaml`` says it). One that is not asked scores every cell, with its defaults.
    """

    metrics: ClassVar[tuple[MetricInfo, ...]]
    asked: ClassVar[bool] = False

    @property
    def facts(self) -> Mapping[str, str]:
        """What the numbers depend on beside arguments and versions, such as a file's digest."""
        return {}

    @abstractmethod
    def evaluate(
        self, outputs: Outputs, request: EvaluationRequest, judge: Judge | None
    ) -> Findings:
        """Scores one subject.

        Args:
            outputs: what the subject makes of the request's clips.
            request: clips, labels, pairs and settings.
            judge: the gated judge, or None where there is none.
        """
