"""What a component must do to take part: the only package every component may import.

Words are the field's: a *clip* is float32 ``[B, T, C, H, W]`` in [0, 1]; *identity*
is who is in it (one code per clip), *motion* what they do (one code per clip),
*pose* how each frame looks along the motion (one code per frame).

The contracts of models, parts and scores need torch, which takes long to import; they are imported
when they are first asked for, so that a dataset can say what it is without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

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
from vdsm_bench.contracts.datasets import DatasetCard, RemoteFile, Report, VideoDataset

if TYPE_CHECKING:
    from vdsm_bench.contracts.components import FrameDecoder, FrameEncoder
    from vdsm_bench.contracts.evaluators import (
        Direction,
        EvaluationRequest,
        Evaluator,
        FactorScore,
        Findings,
        Judge,
        Kept,
        LabelledClips,
        MetricInfo,
        Outputs,
        Predictions,
        Score,
        Wanted,
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
        check_codes,
        check_losses,
        check_posteriors,
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
    "Kept",
    "LabelledClips",
    "Losses",
    "MetricInfo",
    "Outputs",
    "Player",
    "Predictions",
    "Progress",
    "RemoteFile",
    "Report",
    "Score",
    "Stage",
    "VideoDataset",
    "VideoModel",
    "Wanted",
    "check_clip",
    "check_codes",
    "check_losses",
    "check_posteriors",
    "check_unique",
]

_WITH_TORCH = ("components", "evaluators", "models")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for part in _WITH_TORCH:
            module = importlib.import_module(f"{__name__}.{part}")
            if name in vars(module):
                return vars(module)[name]
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
