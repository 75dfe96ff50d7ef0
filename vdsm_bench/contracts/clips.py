"""Clips, their labelled factors, and the checks at every border they cross."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from vdsm_bench.errors import ContractError

if TYPE_CHECKING:
    from torch import Tensor

FactorKind = Literal["static", "dynamic"]
#: row numbers, labels and arg-max predictions
Integers = npt.NDArray[np.int64]
#: values and log-probabilities
Floats = npt.NDArray[np.float64]
#: row numbers ``[n]`` to their clips ``[n, T, C, H, W]``; so a big set need not be in memory
ClipSource = Callable[[Integers], "Tensor"]


@dataclass(frozen=True)
class ClipShape:
    """Shape of the clips a model is built for: ``[frames, channels, height, width]``."""

    frames: int
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Factor:
    """A labelled attribute of a clip.

    Attributes:
        name: lower-case name, unique in its dataset.
        kind: ``static`` (who) or ``dynamic`` (what they do).
        classes: class names; a label is an index into them.
    """

    name: str
    kind: FactorKind
    classes: tuple[str, ...]


def check_clip(clip: Tensor, where: str, *, frames: int | None = None) -> Tensor:
    """Checks that a tensor is a clip ``[B, T, C, H, W]``, float, finite and in [0, 1]; returns it.

    Args:
        clip: what a component handed over.
        where: named in the error.
        frames: expected T, where it is known.

    Raises:
        ContractError: no tensor, wrong number of axes, dtype, frame count, NaN, or values outside
            [0, 1].
    """
    if not hasattr(clip, "is_floating_point"):
        raise ContractError(
            f"{where}: a clip is a float tensor [B, T, C, H, W], got {type(clip).__name__}."
        )
    if clip.ndim != 5 or not clip.is_floating_point():
        raise ContractError(
            f"{where}: a clip is float [B, T, C, H, W], got {clip.dtype} {list(clip.shape)}."
        )
    if frames is not None and clip.shape[1] != frames:
        raise ContractError(f"{where}: expected {frames} frames, got {clip.shape[1]}.")
    low, high = clip.amin().item(), clip.amax().item()
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # written so that NaN fails too
        raise ContractError(f"{where}: pixels must lie in [0, 1], got [{low:.4g}, {high:.4g}].")
    return clip


def check_unique(names: Iterable[str], where: str) -> None:
    """Raises ContractError when a name occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ContractError(f"{where}: the name '{name}' occurs twice.")
        seen.add(name)
