"""What a component must do to take part: the only module every component may import.

Words are the field's: a *clip* is float32 ``[B, T, C, H, W]`` in [0, 1]; *identity*
is who is in it (one code per clip), *motion* what they do (one code per clip),
*pose* how each frame looks along the motion (one code per frame).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vdsm_bench.errors import ContractError

FactorKind = Literal["static", "dynamic"]
Capability = Literal["encode", "generate", "sample"]
Direction = Literal["higher", "lower", "none"]

#: row numbers, labels and arg-max predictions
Integers = npt.NDArray[np.int64]
#: values and log-probabilities
Floats = npt.NDArray[np.float64]
#: row numbers ``[n]`` to their clips ``[n, T, C, H, W]``; so a big set need not be in memory
ClipSource = Callable[[Integers], Tensor]
#: log-probabilities ``[N, classes]`` per factor
Predictions = Mapping[str, Floats]


@dataclass(frozen=True)
class ClipShape:
    """Shape of the clips a model is built for: ``[frames, channels, height, width]``."""

    frames: int
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Factor:
    """A labelled attribute of a clip.

    Attributes:
        name: lower-case name, unique in its dataset.
        kind: ``static`` (who) or ``dynamic`` (what they do).
        classes: class names; a label is an index into them.
    """

    name: str
    kind: FactorKind
    classes: tuple[str, ...]


@dataclass(frozen=True)
class DatasetCard:
    """What a dataset is, before any file of it is read.

    Attributes:
        name: registry name.
        summary: one line.
        licence: the licence of the clips.
        access: ``embedded`` (drawn on demand), ``import`` (from the owner's files).
        source: where it comes from (citation or address).
        split: default split rule (``clips``, ``identities`` or ``cells``).
        frame_rate: frames per second at which its clips are shown.
    """

    name: str
    summary: str
    licence: str
    access: Literal["embedded", "import"]
    source: str
    split: Literal["clips", "identities", "cells"]
    frame_rate: float = 12.0


class VideoDataset(ABC):
    """A source of labelled clips that can write itself into a clip store."""

    card: DatasetCard

    @abstractmethod
    def prepare(
        self,
        destination: Path,
        *,
        source: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Writes the clip store, whole or not at all.

        Args:
            destination: folder of the store; does not exist yet.
            source: the user's files, for ``import`` datasets.
            progress: called with (clips done, clips in all).

        Raises:
            DataError: the source is missing, damaged or mislabelled.
        """

    def render_transfer(
        self,
        identity_of: npt.ArrayLike,
        motion_of: npt.ArrayLike,
        *,
        frames: int,
        stride: int,
        image_size: int,
    ) -> npt.NDArray[np.uint8] | None:
        """The label oracle of a drawn dataset: the true transfer, rendered from drawing parameters.

        Args:
            identity_of: clip indices (A) ``[B]``: who is drawn.
            motion_of: clip indices (B) ``[B]``: what they do, when and how strongly, and the
                nuisances; the window is the one evaluation cuts from these clips.
            frames: frames per clip.
            stride: every stride-th frame is used.
            image_size: height and width in pixels.

        Returns:
            uint8 ``[B, frames, image_size, image_size, C]``, or None: the dataset is not drawn.
        """
        return None


class FrameEncoder(nn.Module, ABC):
    """Frames ``[N, C, H, W]`` in [0, 1] to features ``[N, feature_dim]``.

    Built as ``Encoder(clip=ClipShape, **arguments)``.
    """

    feature_dim: int

    @abstractmethod
    def forward(self, frames: Tensor) -> Tensor:
        """Returns features ``[N, feature_dim]``."""


class FrameDecoder(nn.Module, ABC):
    """Pose ``[B, T, pose_dim]`` and identity weights ``[B, identity_dim]`` to a clip.

    Built as ``Decoder(clip=ClipShape, pose_dim=int, identity_dim=int, **arguments)``.
    """

    @abstractmethod
    def logits(self, pose: Tensor, weights: Tensor) -> Tensor:
        """Returns pixel logits ``[B, T, C, H, W]``."""

    def forward(self, pose: Tensor, weights: Tensor) -> Tensor:
        """Returns the clip ``[B, T, C, H, W]`` in [0, 1]."""
        return torch.sigmoid(self.logits(pose, weights))


@dataclass(frozen=True)
class Codes:
    """The codes of B clips: identity ``[B, K_s]``, motion ``[B, K_d]``, pose ``[B, T, K_z]``."""

    identity: Tensor
    motion: Tensor
    pose: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """What a player's loss sees. Training is label-free: there are no labels in it.

    Attributes:
        clip: ``[B, T, C, H, W]`` in [0, 1]. With ``pairs`` the two halves of T are two
            different clips of the same identity.
        pairs: whether identity grouping (weak supervision) was used to build it.
    """

    clip: Tensor
    pairs: bool = False


@dataclass(frozen=True)
class Progress:
    """Where training stands in a stage: ``epoch`` in [0, n_epochs), ``step`` in [0, n_steps)."""

    epoch: int
    n_epochs: int
    step: int
    n_steps: int


@dataclass(frozen=True)
class Losses:
    """A player's loss: ``total`` is minimised (scalar); ``terms`` are logged (detached scalars)."""

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Player:
    """One optimiser's share of a stage.

    Attributes:
        name: unique in its stage.
        parameters: what its Adam moves.
        loss: called with the batch and the progress.
        betas: Adam's moment decay rates.
        rate: multiplies the stage's learning rate.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Batch, Progress], Losses]
    betas: tuple[float, float] = (0.9, 0.999)
    rate: float = 1.0


@dataclass(frozen=True)
class Stage:
    """A phase of training; its players take one step each, in order, per batch.

    Parameters that belong to no player of the stage are frozen in it.
    """

    name: str
    players: tuple[Player, ...]


class VideoModel(nn.Module, ABC):
    """A model that learns identity apart from motion.

    Built as ``Model(clip=ClipShape, **arguments)``; arguments are keyword-only, typed and
    JSON-able, except those its registry entry lists under ``parts``, which arrive as factories
    of components.

    Attributes:
        capabilities: what it can do; a score that needs more is left empty with the reason.
        supervision: what it is told beside pixels (``none``, ``action labels`` ...); identity
            pairs are added by the harness where a stage asks for them.
        default_stages: training settings per stage (see ``config.StageSettings``), for models
            that come from another package; built-in ones keep theirs in registry.yaml.
    """

    capabilities: frozenset[Capability] = frozenset({"encode", "generate", "sample"})
    supervision: str = "none"
    default_stages: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """Returns the stages in the order in which they are trained."""

    @abstractmethod
    def encode(self, clip: Tensor) -> Codes:
        """Returns the codes of clips ``[B, T, C, H, W]``; deterministic (posterior means)."""

    @abstractmethod
    def generate(self, codes: Codes, n_frames: int) -> Tensor:
        """Returns clips ``[B, n_frames, C, H, W]`` from identity and motion alone.

        The pose path is generated from ``codes.motion``; ``codes.pose`` is not read. Deterministic.
        """

    def sample(
        self,
        n: int,
        n_frames: int,
        *,
        identity: Tensor | None = None,
        motion: Tensor | None = None,
    ) -> Tensor:
        """Returns new clips ``[n, n_frames, C, H, W]``; codes not given come from the prior.

        Raises:
            ContractError: the model has no prior (``sample`` is not among its capabilities).
        """
        raise ContractError(f"{type(self).__name__} cannot sample: it has no prior.")

    def reconstruct(self, clip: Tensor) -> Tensor:
        """Returns the clip regenerated from its own codes, the pose path from its motion code."""
        return self.generate(self.encode(clip), clip.shape[1])

    def transfer(self, identity_of: Tensor, motion_of: Tensor) -> Tensor:
        """Returns clips with the identity of the first and the motion of the second."""
        who, what = self.encode(identity_of), self.encode(motion_of)
        return self.generate(Codes(who.identity, what.motion), motion_of.shape[1])

    def mixing_weights(self, identity: Tensor) -> Tensor | None:
        """Returns how identity codes mix the model's experts, ``[B, K]``, if it has any.

        Weights that are the same for every clip are a collapsed identity code; runs that end
        so say it.
        """
        return None

    def diagnose(self, clip: Tensor) -> dict[str, float]:
        """Returns label-free health figures of the codes for the training log (may be empty)."""
        return {}


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
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns ``{value, low, high, n}``, or ``{reason}`` where there is no value."""
        if self.value is None:
            return {"reason": self.reason or "not measured"}
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


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
        chance: column name to chance levels by kind.
        histogram: name to (factor to counts per class), shown beside the scores.
        notes: what was left out, and why.
    """

    scores: Mapping[str, Score]
    long: Sequence[FactorScore] = ()
    chance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    histogram: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class LabelledClips:
    """Clips by row number with their labels.

    Attributes:
        clips: rows ``[n]`` to clips ``[n, T, C, H, W]``.
        labels: int64 class indices ``[N]`` per factor.
    """

    clips: ClipSource
    labels: Mapping[str, Integers]

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
        batch_size: clips per forward pass; does not change any number.
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
    def missing(self, what: Literal["reconstructions", "transfers", "codes"]) -> str | None:
        """Returns why it cannot be had, or None where it can."""

    @abstractmethod
    def reconstructions(self, rows: Integers) -> Tensor:
        """Returns the regenerated test clips of the rows."""

    @abstractmethod
    def transfers(self, rows: Integers) -> Tensor:
        """Returns the clips of the rows of the pair list."""

    @abstractmethod
    def codes(self, clips: Tensor) -> Codes:
        """Returns the codes of clips ``[B, T, C, H, W]``."""


class Evaluator(ABC):
    """A score of a model on held-out clips: a thin object round pure functions on arrays.

    Attributes:
        metrics: one entry per column that it fills; a column it cannot fill it leaves empty with
            the reason. ``Findings.scores`` has exactly these columns.
    """

    metrics: ClassVar[tuple[MetricInfo, ...]]

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


def check_clip(clip: Tensor, where: str, *, frames: int | None = None) -> Tensor:
    """Checks that a tensor is a clip ``[B, T, C, H, W]``, float, finite and in [0, 1]; returns it.

    Args:
        clip: what a component handed over.
        where: named in the error.
        frames: expected T, where it is known.

    Raises:
        ContractError: wrong number of axes, dtype, frame count, NaN or values outside [0, 1].
    """
    if clip.ndim != 5 or not clip.is_floating_point():
        raise ContractError(
            f"{where}: a clip is float [B, T, C, H, W], got {clip.dtype} {list(clip.shape)}."
        )
    if frames is not None and clip.shape[1] != frames:
        raise ContractError(f"{where}: expected {frames} frames, got {clip.shape[1]}.")
    low, high = clip.amin().item(), clip.amax().item()
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # written so that NaN fails too
        raise ContractError(f"{where}: pixels must lie in [0, 1], got [{low:.4g}, {high:.4g}].")
    return clip


def check_unique(names: Iterable[str], where: str) -> None:
    """Raises ContractError when a name occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ContractError(f"{where}: the name '{name}' occurs twice.")
        seen.add(name)
