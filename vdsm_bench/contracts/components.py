"""The interchangeable parts of a model: frame encoders and frame decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class FrameEncoder(nn.Module, ABC):
    """Frames ``[N, C, H, W]`` in [0, 1] to features ``[N, feature_dim]``.

    Built as ``Encoder(clip=ClipShape, **arguments)``.
    """

    feature_dim: int

    @abstractmethod
    def forward(self, frames: Tensor) -> Tensor:
        """Returns features ``[N, feature_dim]``."""

    def meet(self, clip: Tensor) -> None:
        """Is shown the first batch ``[B, T, C, H, W]`` before the first step; does nothing here."""


class FrameDecoder(nn.Module, ABC):
    """Pose ``[B, T, pose_dim]`` and identity weights ``[B, identity_dim]`` to a clip.

    Built as ``Decoder(clip=ClipShape, pose_dim=int, identity_dim=int, **arguments)``.
    """

    @abstractmethod
    def logits(self, pose: Tensor, weights: Tensor) -> Tensor:
        """Returns pixel logits ``[B, T, C, H, W]``."""

    def meet(self, clip: Tensor) -> None:
        """Is shown the first batch ``[B, T, C, H, W]`` before the first step; does nothing here."""

    def forward(self, pose: Tensor, weights: Tensor) -> Tensor:
        """Returns the clip ``[B, T, C, H, W]`` in [0, 1]."""
        return torch.sigmoid(self.logits(pose, weights))
