"""What a component must do to take part: the only package every component may import.

Words are the field's: a *clip* is float32 ``[B, T, C, H, W]`` in [0, 1]; *identity*
is who is in it (one code per clip), *motion* what they do (one code per clip),
*pose* how each frame looks along the motion (one code per frame).
"""

from vdsm_bench.contracts.clips import (
    ClipShape,
    ClipSource,
    Factor,
    FactorKind,
    Floats,
    Integers,
    check_clip,
    check_unique,
)
from vdsm_bench.contracts.components import FrameDecoder, FrameEncoder
from vdsm_bench.contracts.datasets import DatasetCard, RemoteFile, VideoDataset
from vdsm_bench.contracts.evaluators import (
    Direction,
    EvaluationRequest,
    Evaluator,
    FactorScore,
    Findings,
    Judge,
    LabelledClips,
    MetricInfo,
    Outputs,
    Predictions,
    Score,
)
from vdsm_bench.contracts.models import (
    Batch,
    Capability,
    Codes,
    Losses,
    Player,
    Progress,
    Stage,
    VideoModel,
)

__all__ = [
    "Batch",
    "Capability",
    "ClipShape",
    "ClipSource",
    "Codes",
    "DatasetCard",
    "Direction",
    "EvaluationRequest",
    "Evaluator",
    "Factor",
    "FactorKind",
    "FactorScore",
    "Findings",
    "Floats",
    "FrameDecoder",
    "FrameEncoder",
    "Integers",
    "Judge",
    "LabelledClips",
    "Losses",
    "MetricInfo",
    "Outputs",
    "Player",
    "Predictions",
    "Progress",
    "RemoteFile",
    "Score",
    "Stage",
    "VideoDataset",
    "VideoModel",
    "check_clip",
    "check_unique",
]
