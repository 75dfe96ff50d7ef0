"""A VDSM small enough to check by hand."""

import torch

from vdsm_bench.contracts import ClipShape
from vdsm_bench.models.vdsm.model import VDSM
from vdsm_bench.registry import load_registry

CLIP = ClipShape(frames=5, channels=3, height=16, width=16)


def build(seed: int = 0, **arguments: object) -> VDSM:
    torch.manual_seed(seed)
    chosen = {
        "encoder": {"name": "blurpool", "channels": [6, 8, 8]},
        "decoder": {"name": "mixture-of-experts", "widths": [8, 6]},
        "pose_dim": 5,
        "identity_dim": 4,
        "motion_dim": 6,
        "rnn_width": 7,
        "rnn_layers": 2,
        "rnn_dropout": 0.0,
        "transition_width": 9,
    }
    model: VDSM = load_registry().factory("models", "vdsm", {**chosen, **arguments})(clip=CLIP)
    return model
