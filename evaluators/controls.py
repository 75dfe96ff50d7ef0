"""Controls: subjects whose scores are known beforehand; a score that a control wins is no headline.

Each has the face of a model for scoring, ``reconstruct(clip)`` and ``transfer(identity_of,
motion_of)``, and says what it must score. The real-test ceiling is
:func:`vdsm_bench.evaluators.suite.evaluate_ceiling`; a label oracle is scored as
:class:`vdsm_bench.evaluators.outputs.RenderedOutputs`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from vdsm_bench.contracts import LabelledClips
from vdsm_bench.errors import DataError
from vdsm_bench.evaluators.outputs import batches
from vdsm_bench.evaluators.pairs import choose_clips

#: training clips behind the mean clip
_MEAN_OF = 2000


class Control(ABC):
    """A subject with known scores.

    Attributes:
        name: name of its row.
        expected: what it must score with a perfect judge.
    """

    name: ClassVar[str]
    expected: ClassVar[str]

    @abstractmethod
    def reconstruct(self, clip: Tensor) -> Tensor:
        """Returns what stands in for the clip ``[B, T, C, H, W]`` regenerated."""

    @abstractmethod
    def transfer(self, identity_of: Tensor, motion_of: Tensor) -> Tensor:
        """Returns what stands in for the identity of the first with the motion of the second."""


class CopyIdentityClip(Control):
    """Hands back A: all of the identity, none of the motion."""

    name = "copy-identity-clip"
    expected = "identity 1, dynamic 0, action leak 1; consistent 1"

    def reconstruct(self, clip: Tensor) -> Tensor:
        """Returns the clip itself."""
        return clip

    def transfer(self, identity_of: Tensor, motion_of: Tensor) -> Tensor:
        """Returns A."""
        return identity_of


class CopyMotionClip(Control):
    """Hands back B: all of the motion, none of the identity."""

    name = "copy-motion-clip"
    expected = "dynamic 1, identity 0, identity leak 1; consistent 1"

    def reconstruct(self, clip: Tensor) -> Tensor:
        """Returns the clip itself."""
        return clip

    def transfer(self, identity_of: Tensor, motion_of: Tensor) -> Tensor:
        """Returns B."""
        return motion_of


class FrozenFrame(Control):
    """Hands back the first frame of A, held still: the identity without any motion."""

    name = "frozen-frame"
    expected = "identity high, dynamic at or below chance; consistent well below 1"

    def reconstruct(self, clip: Tensor) -> Tensor:
        """Returns the first frame, T times."""
        return clip[:, :1].expand_as(clip)

    def transfer(self, identity_of: Tensor, motion_of: Tensor) -> Tensor:
        """Returns the first frame of A, T times."""
        return self.reconstruct(identity_of)


class MeanClip(Control):
    """Hands back the mean of the training clips, whatever it is given.

    Args:
        mean: ``[T, C, H, W]`` in [0, 1], see :func:`mean_clip`.
    """

    name = "mean-clip"
    expected = "one answer for all: every score at or near its chance level"

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean

    def reconstruct(self, clip: Tensor) -> Tensor:
        """Returns the mean clip."""
        return self.mean.to(clip).expand_as(clip)

    def transfer(self, identity_of: Tensor, motion_of: Tensor) -> Tensor:
        """Returns the mean clip."""
        return self.reconstruct(motion_of)


def mean_clip(train: LabelledClips, batch_size: int = 64) -> Tensor:
    """Computes the mean of (at most 2,000) training clips, ``[T, C, H, W]`` in [0, 1]."""
    rows = choose_clips(len(train), _MEAN_OF)
    total = torch.stack(
        [train.clips(rows[part]).double().sum(0) for part in batches(len(rows), batch_size)]
    ).sum(0)
    return (total / len(rows)).float().clamp(0, 1)


def make_controls(train: LabelledClips, batch_size: int = 64) -> dict[str, Control]:
    """Builds every control by the name of its row.

    Raises:
        DataError: there are no training clips to take the mean of.
    """
    if len(train) == 0:
        raise DataError("There are no training clips to take the mean clip of.")
    controls = (
        CopyIdentityClip(),
        CopyMotionClip(),
        FrozenFrame(),
        MeanClip(mean_clip(train, batch_size)),
    )
    return {control.name: control for control in controls}
