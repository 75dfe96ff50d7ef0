"""What a model offers (codes, clips from codes) and how it is trained (stages, players)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from vdsm_bench.contracts.components import FrameDecoder, FrameEncoder
from vdsm_bench.errors import ContractError

Capability = Literal["encode", "generate", "sample"]


@dataclass(frozen=True)
class Codes:
    """The codes of B clips: identity ``[B, K_s]``, motion ``[B, K_d]``, pose ``[B, T, K_z]``."""

    identity: Tensor
    motion: Tensor
    pose: Tensor | None = None


def check_codes(codes: Any, n: int, where: str) -> Codes:
    """Checks the codes of n clips; returns them.

    Args:
        codes: what a model's ``encode`` handed over.
        n: number of clips.
        where: named in the error.

    Raises:
        ContractError: no :class:`Codes`; a code that is no tensor, of another shape or number of
            clips, or not finite.
    """
    hint = "return Codes(identity, motion) of [B, K] tensors, and pose [B, T, K] if there is one"
    if not isinstance(codes, Codes):
        raise ContractError(f"{where}: expected Codes, got {type(codes).__name__}.", hint=hint)
    for name, axes in (("identity", 2), ("motion", 2), ("pose", 3)):
        code = getattr(codes, name)
        if name == "pose" and code is None:
            continue
        if not isinstance(code, Tensor):
            raise ContractError(
                f"{where}: the {name} code must be a tensor, got {type(code).__name__}.", hint=hint
            )
        empty = code.ndim == axes and 0 in code.shape[1:]
        if code.ndim != axes or len(code) != n or empty or not code.isfinite().all():
            raise ContractError(
                f"{where}: the {name} code must be finite {'[B, K]' if axes == 2 else '[B, T, K]'},"
                f" got {list(code.shape)} for {n} clips.",
                hint=hint,
            )
    return codes


def check_posteriors(found: Any, n: int, where: str) -> tuple[Codes, Codes]:
    """Checks means and standard deviations of the codes of n clips; returns them.

    Args:
        found: what a model's ``posteriors`` handed over.
        n: number of clips.
        where: named in the error.

    Raises:
        ContractError: no two :class:`Codes` of equal shapes (see :func:`check_codes`).
    """
    hint = "return Codes of means and Codes of standard deviations, or None"
    if not isinstance(found, tuple) or len(found) != 2:
        raise ContractError(f"{where}: expected two Codes, got {type(found).__name__}.", hint=hint)
    mean, scale = (check_codes(each, n, where) for each in found)
    for name in ("identity", "motion", "pose"):
        one, other = (getattr(each, name) for each in (mean, scale))
        shapes = [None if each is None else list(each.shape) for each in (one, other)]
        if shapes[0] != shapes[1]:
            raise ContractError(
                f"{where}: the {name} code has means of {shapes[0]} and deviations of {shapes[1]}.",
                hint=hint,
            )
    return mean, scale


@dataclass(frozen=True)
class Batch:
    """What a player's loss sees. Training is label-free: there are no labels in it.

    Attributes:
        clip: ``[B, T, C, H, W]`` in [0, 1]. With ``pairs`` the two halves of T are two
            different clips of the same identity.
        pairs: whether identity grouping (weak supervision) was used to build it.
        features: what the stage's ``features`` makes of each frame ``[B, T, F]``, where that has
            been computed already.
    """

    clip: Tensor
    pairs: bool = False
    features: Tensor | None = None


@dataclass(frozen=True)
class Progress:
    """Where training stands in a stage.

    Attributes:
        epoch: in [0, n_epochs).
        n_epochs: of the stage.
        step: in [0, n_steps).
        n_steps: of the stage.
        scheduled: what the stage's schedule gives for the epoch; empty where it has none.
    """

    epoch: int
    n_epochs: int
    step: int
    n_steps: int
    scheduled: Mapping[str, float | Tensor | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Losses:
    """A player's loss: ``total`` is minimised (scalar); ``terms`` are logged (detached scalars)."""

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


def check_losses(losses: Any, where: str) -> Losses:
    """Checks what a player's loss handed over; returns it.

    Raises:
        ContractError: no :class:`Losses`; a total or a term that is no scalar tensor.
    """
    hint = "return Losses(total, {name: term.detach()}) of tensors without dimensions"
    if not isinstance(losses, Losses):
        raise ContractError(f"{where}: expected Losses, got {type(losses).__name__}.", hint=hint)
    for name, value in (("total", losses.total), *losses.terms.items()):
        if not isinstance(value, Tensor) or value.ndim:
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ContractError(f"{where}: '{name}' must be a scalar, got {found}.", hint=hint)
    return losses


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

    Attributes:
        name: unique in its model.
        players: in the order of their turns.
        schedule: gives, once per epoch, the numbers in which the losses depend on the progress,
            by name; None stands for something that is off. A stage that has one promises that its
            losses take nothing but ``scheduled`` from their progress, where a number may come as
            a tensor without dimensions, and that they neither wait for the device nor decide by
            a tensor's value. Its steps may then be recorded once and repeated (a CUDA graph).
        moving: the code of the movement that it trains; one that comes to hold nothing is a
            collapse, as an identity code of no use is. At the end the motion code counts.
        features: what frozen parts make of frames, ``[N, C, H, W]`` to ``[N, F]``, each by itself.
            It is the same in every step, so the trainer computes it once for all frames where
            they lie in memory, and gives it with the batch; otherwise the loss has to call it.
    """

    name: str
    players: tuple[Player, ...]
    schedule: Callable[[Progress], Mapping[str, float | None]] | None = None
    moving: Literal["motion", "pose"] = "motion"
    features: Callable[[Tensor], Tensor] | None = None


class VideoModel(nn.Module, ABC):
    """A model that learns identity apart from motion.

    Built as ``Model(clip=ClipShape, **arguments)``; arguments are keyword-only, typed and
    JSON-able, except those its registry entry lists under ``parts``, which arrive as factories
    of components.

    Attributes:
        capabilities: what it can do; a score that needs more is left empty with the reason.
        supervision: what it is told beside pixels (``none``, ``action labels`` ...); identity
            pairs are added by the harness where a stage asks for them.
        settles: share of the first stage by whose end its codes have to be in use; before it
            nobody is alarmed.
        default_stages: training settings per stage (see ``config.StageSettings``), for models
            that come from another package; built-in ones keep theirs in registry.yaml.
    """

    capabilities: frozenset[Capability] = frozenset({"encode", "generate", "sample"})
    supervision: str = "none"
    settles: float = 0.5
    default_stages: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def meet(self, clip: Tensor) -> None:
        """Is shown the first batch ``[B, T, C, H, W]`` before the first step of all.

        What starts from the data starts here; a training that resumes does not come by again.
        Here the model's frame encoders and decoders are shown it.
        """
        for module in self.modules():
            if isinstance(module, FrameEncoder | FrameDecoder):
                module.meet(clip)

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

        A given code is shown as :meth:`generate` shows it.

        Raises:
            ContractError: the model has no prior (``sample`` is not among its capabilities).
        """
        raise ContractError(f"{type(self).__name__} cannot sample: it has no prior.")

    def idle_arguments(self, paired: Collection[str]) -> Sequence[str]:
        """Returns which of its arguments can do nothing, each with the reason in a few words.

        They are warned of before the model is trained.

        Args:
            paired: the stages in which clips come in identity pairs.
        """
        return ()

    def reconstruct(self, clip: Tensor) -> Tensor:
        """Returns the clip regenerated from its own codes, the pose path from its motion code."""
        return self.generate(self.encode(clip), clip.shape[1])

    def regenerate(self, codes: Codes, n_frames: int, stage: str) -> Tensor:
        """Returns clips of codes by what ``stage`` trains; what is watched while it does.

        That is :meth:`generate`, unless the stage leaves the way from motion to frames alone and
        trains to draw from ``codes.pose``.
        """
        return self.generate(codes, n_frames)

    def transfer(self, identity_of: Tensor, motion_of: Tensor) -> Tensor:
        """Returns clips with the identity of the first and the motion of the second."""
        who, what = self.encode(identity_of), self.encode(motion_of)
        return self.generate(Codes(who.identity, what.motion), motion_of.shape[1])

    def posteriors(self, clip: Tensor) -> tuple[Codes, Codes] | None:
        """Returns mean and standard deviation of the codes' normal posteriors, if they have such.

        The means are what :meth:`encode` returns. What each code holds of a clip is shown while
        the model trains.
        """
        return None

    def mixing_weights(self, identity: Tensor) -> Tensor | None:
        """Returns how identity codes mix the model's experts, ``[B, K]``, if it has any.

        How they differ between clips is shown while the model trains.
        """
        return None
