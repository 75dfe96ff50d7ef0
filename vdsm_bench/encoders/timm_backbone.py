"""Any timm backbone as a frame encoder."""

from __future__ import annotations

from torch import Tensor

from vdsm_bench.contracts import ClipShape, FrameEncoder
from vdsm_bench.errors import UsageError, suggest
from vdsm_bench.optional import import_timm


class TimmEncoder(FrameEncoder):
    """Frames ``[N, C, H, W]`` to the pooled features ``[N, feature_dim]`` of a timm backbone.

    Args:
        clip: shape of the clips.
        backbone: a timm model name, for example ``resnet18`` or ``convnext_atto``.
        pretrained: start from timm's published weights (downloaded by timm).
    """

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
        self.backbone = timm.create_model(
            backbone, pretrained=pretrained, num_classes=0, in_chans=clip.channels
        )
        self.feature_dim = int(self.backbone.num_features)

    def forward(self, frames: Tensor) -> Tensor:
        """Returns features ``[N, feature_dim]``."""
        features: Tensor = self.backbone(frames)
        return features
