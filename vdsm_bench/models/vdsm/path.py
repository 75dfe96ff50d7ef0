"""Pose paths as single random variables: one site for z_1 .. z_T instead of one for every step.

Drawing has to go step by step. Scoring a drawn path has not: every z_{t-1} is known, so that all
steps are one product, and the divergence between posterior and prior is one expression.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Normal, kl_divergence, register_kl

from vdsm_bench.errors import ContractError
from vdsm_bench.models.vdsm.parts import Combiner, GatedTransition


class _Path(TorchDistribution):
    """A path ``[B, T, pose_dim]`` of normals, each given the pose before it."""

    arg_constraints: dict[str, Any] = {}
    has_rsample = True

    def __init__(self, like: Tensor, n_frames: int, pose_dim: int) -> None:
        self._like = like
        super().__init__(
            torch.Size([like.shape[0]]), torch.Size([n_frames, pose_dim]), validate_args=False
        )

    def steps(self, path: Tensor) -> Normal:
        """Returns the normals of all steps ``[B, T, pose_dim]``, given the poses before them."""
        raise NotImplementedError

    def log_prob(self, path: Tensor) -> Tensor:
        """Returns the log density of whole paths ``[B]``."""
        steps: Any = self.steps(path)
        density: Tensor = steps.log_prob(path).sum((1, 2))
        return density

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Path:
        """Returns itself: a path is as wide as the batch already, and Pyro's plate asks anyway."""
        if torch.Size(batch_shape) != self.batch_shape:
            raise ContractError(
                f"A pose path of batch {tuple(self.batch_shape)} is not {tuple(batch_shape)}."
            )
        return self

    def _noise(self) -> Tensor:
        return torch.randn(
            (*self.batch_shape, *self.event_shape),
            dtype=self._like.dtype,
            device=self._like.device,
        )


class PosteriorPath(_Path):
    """q(z_1..z_T | x, d): the combiner joins the pose before with each step's message.

    Args:
        first: z_0 ``[pose_dim]``.
        combiner: gives loc and scale of a step.
        messages: of all steps ``[B, T, width]``.
    """

    def __init__(self, first: Tensor, combiner: Combiner, messages: Tensor) -> None:
        self._first, self._combiner, self._messages = first, combiner, messages
        self._drawn: tuple[Tensor, Normal] | None = None
        super().__init__(messages, messages.shape[1], first.shape[0])

    def steps(self, path: Tensor) -> Normal:
        """Returns the normals of all steps; those of the last drawn path are at hand."""
        if self._drawn is not None and self._drawn[0] is path:
            return self._drawn[1]
        before = torch.cat([self._first.expand(len(path), 1, -1), path[:, :-1]], dim=1)
        loc, scale = self._combiner(before, self._messages)
        return Normal(loc, scale, validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws a path ``[B, T, pose_dim]``."""
        noise = self._noise().unbind(1)
        z, drawn = self._first.expand(len(self._messages), -1), []
        for step, message in enumerate(self._messages.unbind(1)):
            loc, scale = self._combiner(z, message)
            z = loc + scale * noise[step]
            drawn.append((z, loc, scale))
        path, locs, scales = (torch.stack(each, dim=1) for each in zip(*drawn, strict=True))
        self._drawn = path, Normal(locs, scales, validate_args=False)
        return path

    def follow_means(self) -> Tensor:
        """Returns the path ``[B, T, pose_dim]`` whose every step is its mean given that before."""
        z, path = self._first.expand(len(self._messages), -1), []
        for message in self._messages.unbind(1):
            z, _ = self._combiner(z, message)
            path.append(z)
        return torch.stack(path, dim=1)

    @property
    def drawn(self) -> Tensor:
        """The path that was drawn last."""
        if self._drawn is None:
            raise RuntimeError("nothing has been drawn yet")
        return self._drawn[0]


class PriorPath(_Path):
    """p(z_1..z_T | d): z_1 ~ N(0, I), then the gated transition.

    Args:
        transition: gives loc and scale of a step.
        motion: d ``[B, motion_dim]``.
        n_frames: T.
        pose_dim: K_z.
    """

    def __init__(
        self, transition: GatedTransition, motion: Tensor, n_frames: int, pose_dim: int
    ) -> None:
        self._transition, self._motion = transition, motion
        super().__init__(motion, n_frames, pose_dim)

    def steps(self, path: Tensor) -> Normal:
        """Returns the normals of all steps, given the poses before them."""
        first = path[:, :1]
        if path.shape[1] == 1:
            return Normal(torch.zeros_like(first), torch.ones_like(first), validate_args=False)
        motion = self._motion.unsqueeze(1).expand(-1, path.shape[1] - 1, -1)
        loc, scale = self._transition(path[:, :-1], motion)
        return Normal(
            torch.cat([torch.zeros_like(first), loc], dim=1),
            torch.cat([torch.ones_like(first), scale], dim=1),
            validate_args=False,
        )

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws a path ``[B, T, pose_dim]``."""
        noise = self._noise().unbind(1)
        path = [noise[0]]
        for each in noise[1:]:
            loc, scale = self._transition(path[-1], self._motion)
            path.append(loc + scale * each)
        return torch.stack(path, dim=1)


@register_kl(PosteriorPath, PriorPath)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_of_paths(posterior: PosteriorPath, prior: PriorPath) -> Tensor:
    """sum_t KL(q(z_t | z_{t-1}) || p(z_t | z_{t-1})) along the path that was drawn ``[B]``."""
    path = posterior.drawn
    divergence: Tensor = kl_divergence(posterior.steps(path), prior.steps(path)).sum((1, 2))
    return divergence
