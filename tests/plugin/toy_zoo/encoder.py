"""One linear map per frame."""

from torch import Tensor, nn

from vdsm_bench.contracts import ClipShape, FrameEncoder


class ToyLinear(FrameEncoder):
    """A linear frame encoder."""

    def __init__(self, clip: ClipShape, *, features: int = 24) -> None:
        super().__init__()
        self.feature_dim = features
        self.layer = nn.Linear(clip.channels * clip.height * clip.width, features)

    def forward(self, frames: Tensor) -> Tensor:
        return self.layer(frames.flatten(1)).tanh()
