"""Two linear maps per frame."""

import torch
from torch import Tensor, nn

from vdsm_bench.contracts import ClipShape, FrameDecoder


class ToyPicture(FrameDecoder):
    """A decoder that starts at grey and knows nothing of neighbouring pixels."""

    def __init__(
        self, *, clip: ClipShape, pose_dim: int, identity_dim: int, features: int = 24
    ) -> None:
        super().__init__()
        self.clip_shape = clip
        self.inner = nn.Linear(pose_dim + identity_dim, features)
        self.outer = nn.Linear(features, clip.channels * clip.height * clip.width)
        nn.init.zeros_(self.outer.bias)

    def logits(self, pose: Tensor, weights: Tensor) -> Tensor:
        inputs = torch.cat([pose, weights.unsqueeze(1).expand(-1, pose.shape[1], -1)], 2)
        shape = self.clip_shape
        picture = self.outer(self.inner(inputs).tanh())
        return picture.unflatten(2, (shape.channels, shape.height, shape.width))
