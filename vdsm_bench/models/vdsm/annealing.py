"""What VDSM anneals: the temperature and the KL weights of every epoch of both stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from torch import Tensor

from vdsm_bench.errors import ContractError
from vdsm_bench.models.vdsm.schedules import cosine_ramp, geometric, quadratic_spline

Knots = tuple[float, float, float, float]
Range = tuple[float, float]
Weight: TypeAlias = float | Tensor


@dataclass(frozen=True)
class Annealing:
    """One epoch's temperature and weights, numbers or tensors without dimensions.

    A pose weight of None means that the pose is shut, a match of None that there is none.
    """

    temperature: Weight
    identity: Weight
    pose: Weight | None
    motion: Weight
    match: Weight | None = None

    @property
    def open_pose(self) -> Weight:
        """The pose weight of a stage that cannot do without the pose."""
        if self.pose is None:
            raise ContractError("Stage 'sequence' has no shut pose; give it a weight.")
        return self.pose

    def of_a_part(self, share: float) -> Annealing:
        """Returns what a part of a clip pays: the KL of s, and of d, is paid once per clip."""
        return replace(self, identity=self.identity * share, motion=self.motion * share)

    def figures(self) -> dict[str, Weight]:
        """Returns what is on, by its name in ``train.jsonl``."""
        named = {
            "temperature": self.temperature,
            "lambda_s": self.identity,
            "lambda_z": self.pose,
            "lambda_d": self.motion,
            "pose_match": self.match,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class AnnealingPlan:
    """Every epoch's annealing (supplement, figures 1 and 2); the fields are VDSM's arguments."""

    temperature: Range
    identity_kl: Range
    pose_kl: Knots
    pose_kl_shape: Literal["spline", "geometric"]
    pose_shut: float
    sequence_pose_kl: Knots
    pose_match: Range

    def pretrain(self, epoch: int, n_epochs: int) -> Annealing:
        """Returns the annealing of an epoch of stage ``pretrain``."""
        return Annealing(
            temperature=cosine_ramp(*self.temperature, 2, epoch=epoch, n_epochs=n_epochs),
            identity=cosine_ramp(*self.identity_kl, 3, epoch=epoch, n_epochs=n_epochs),
            pose=self._pose_weight(epoch, n_epochs),
            motion=0.0,
        )

    def sequence(self, epoch: int, n_epochs: int) -> Annealing:
        """Returns the annealing of an epoch of stage ``sequence``."""
        return Annealing(
            temperature=self.temperature[1],
            identity=self.identity_kl[1],
            pose=quadratic_spline(self.sequence_pose_kl, epoch=epoch, n_epochs=n_epochs),
            motion=cosine_ramp(0.1, 1.0, 1, epoch=epoch, n_epochs=n_epochs),
            match=cosine_ramp(*self.pose_match, 2, epoch=epoch, n_epochs=n_epochs) or None,
        )

    def _pose_weight(self, epoch: int, n_epochs: int) -> float | None:
        shut = min(round(self.pose_shut * n_epochs), n_epochs - 1)  # it opens in the end
        if epoch < shut:
            return None
        shape = quadratic_spline if self.pose_kl_shape == "spline" else geometric
        return shape(self.pose_kl, epoch=epoch - shut, n_epochs=n_epochs - shut)
