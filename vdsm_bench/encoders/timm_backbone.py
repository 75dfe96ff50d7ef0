"""Any timm backbone as a frame encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vdsm_bench.contracts import ClipShape, FrameEncoder
from vdsm_bench.errors import DataError, UsageError, suggest
from vdsm_bench.initialisation import weights_count
from vdsm_bench.optional import import_timm


class TimmEncoder(FrameEncoder):
    """Frames ``[N, C, H, W]`` to the pooled features ``[N, feature_dim]`` of a timm backbone.

    Args:
        clip: shape of the clips.
        backbone: a timm model name, for example ``resnet18`` or ``convnext_atto``.
        pretrained: start from timm's published weights (downloaded by timm), which are shown
            frames of the mean and spread that they have learnt from.

    Raises:
        UsageError: no such backbone, no such weights of it, or none for frames of this size.
        DataError: the weights do not download; a saved model's are not asked for.
    """

    mean: Tensor
    spread: Tensor

    def __init__(
        self, *, clip: ClipShape, backbone: str = "resnet18", pretrained: bool = False
    ) -> None:
        super().__init__()
        timm = import_timm()
        known = timm.list_models()
        if backbone.partition(".")[0] not in known:
            raise UsageError(
                f"timm has no backbone '{backbone}'{suggest(backbone, known)}.",
                hint="python -c \"import timm; print(timm.list_models('*resnet*'))\"",
            )
        fetched = pretrained and weights_count()
        self.backbone = _create(backbone, pretrained=fetched, channels=clip.channels)
        told = self.backbone.pretrained_cfg if pretrained and clip.channels == 3 else {}
        for name, key, usual in (("mean", "mean", 0.0), ("spread", "std", 1.0)):
            values = torch.tensor(told.get(key) or [usual]).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.feature_dim = self._width(backbone, clip)

    def _width(self, backbone: str, clip: ClipShape) -> int:
        """Returns how many features there are: what timm calls so is not always what comes out."""
        frame = torch.zeros(1, clip.channels, clip.height, clip.width)
        self.backbone.eval()
        try:
            with torch.no_grad():
                features = self.backbone(frame)
        except (AssertionError, RuntimeError) as error:
            raise UsageError(
                f"timm's {backbone} does not take {clip.height} x {clip.width} frames: {error}.",
                hint="another data.image_size, or a backbone for any size, for example resnet18",
            ) from error
        self.backbone.train()
        return int(features.shape[1])

    def forward(self, frames: Tensor) -> Tensor:
        """Returns features ``[N, feature_dim]``.

        Raises:
            UsageError: in training, a single frame where the backbone normalises over a batch.
        """
        seen = (frames - self.mean) / self.spread
        try:
            features: Tensor = self.backbone(seen)
        except ValueError as error:  # of normalisation over a batch of one
            if len(frames) > 1:
                raise
            raise UsageError(
                f"timm's backbone does not train on a single frame: {error}.",
                hint="more clips or frames: --set training.STAGE.batch_size=2",
            ) from error
        return features


def _create(backbone: str, *, pretrained: bool, channels: int) -> Any:
    family = backbone.partition(".")[0]
    try:
        return import_timm().create_model(
            backbone, pretrained=pretrained, num_classes=0, in_chans=channels
        )
    except OSError as error:
        raise DataError(
            f"The weights of timm's {backbone} do not download: {error}",
            hint="the same command with a network, or HF_HOME=<a cache that holds them> before it; "
            "to do without: model.encoder.pretrained=false",
        ) from error
    except RuntimeError as error:
        raise UsageError(
            f"timm does not make {backbone}: {error}",
            hint=f"python -c \"import timm; print(timm.list_pretrained('{family}*'))\""
            "   (those that have weights)",
        ) from error
