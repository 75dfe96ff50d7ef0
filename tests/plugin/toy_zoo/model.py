"""An autoencoder with one code for who and one for what they do."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vdsm_bench.contracts import (
    Batch,
    ClipShape,
    Codes,
    Losses,
    Player,
    Progress,
    Stage,
    VideoModel,
)


class ToyAutoencoder(VideoModel):
    """A linear autoencoder of clips."""

    parts = {"encoder": "encoders"}
    default_stages = {"fit": {"epochs": 3, "batches_per_epoch": 3, "batch_size": 8}}
    supervision = "none"

    def __init__(self, clip: ClipShape, *, encoder: Any = "toy-linear", code: int = 6) -> None:
        super().__init__()
        self.clip_shape = clip
        self.encoder = encoder(clip=clip)
        width = self.encoder.feature_dim
        self.identity = nn.Linear(width, code)
        self.motion = nn.Linear(width * clip.frames, code)
        size = clip.frames * clip.channels * clip.height * clip.width
        self.decoder = nn.Linear(2 * code, size)

    def stages(self) -> Sequence[Stage]:
        return [Stage("fit", (Player("autoencoder", list(self.parameters()), self._loss),))]

    def _loss(self, batch: Batch, progress: Progress) -> Losses:
        error = (self.reconstruct(batch.clip) - batch.clip).square().mean()
        return Losses(error, {"error": error.detach()})

    def encode(self, clip: Tensor) -> Codes:
        features = self.encoder(clip.flatten(0, 1)).unflatten(0, clip.shape[:2])
        return Codes(self.identity(features.mean(1)), self.motion(features.flatten(1)))

    def generate(self, codes: Codes, n_frames: int) -> Tensor:
        pixels = self.decoder(torch.cat([codes.identity, codes.motion], 1)).sigmoid()
        shape = self.clip_shape
        clip = pixels.view(-1, shape.frames, shape.channels, shape.height, shape.width)
        return clip[:, torch.arange(n_frames) % shape.frames]
