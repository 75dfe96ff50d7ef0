"""The bench of a dataset: its clips as one protocol cuts and splits them, for every model alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vdsm_bench.config import DataSettings, StageSettings, content_key
from vdsm_bench.contracts import ClipShape, Integers, LabelledClips
from vdsm_bench.data.clips import ClipSampler, evaluation_clips, span
from vdsm_bench.data.splits import Splits, make_splits
from vdsm_bench.data.store import ClipStore
from vdsm_bench.errors import UsageError

#: evaluation clips of a part of the split are kept in memory up to this size, bytes
_CACHE_LIMIT = 1 << 30
_CHUNK = 256


class EvaluationClips:
    """The centre windows of chosen clips, by row number; each cut once, if they fit.

    Args:
        store: the clips.
        indices: which clips of the store, one per row.
        data: window and size.
    """

    def __init__(self, store: ClipStore, indices: Integers, data: DataSettings) -> None:
        self._store, self._indices, self._data = store, indices, data
        self._have = np.zeros(len(indices), dtype=bool)

    def __call__(self, rows: Integers) -> Tensor:
        """Returns clips ``[n, T, C, H, W]`` of the rows; reads no other clip."""
        if self._cache is None:
            return self._cut(self._indices[rows])
        missing = np.unique(rows[~self._have[rows]])
        for start in range(0, len(missing), _CHUNK):
            part = missing[start : start + _CHUNK]
            clips = self._cut(self._indices[part]).mul_(255.0).round_().to(torch.uint8)
            self._cache[part] = clips.numpy()
            self._have[part] = True
        return torch.from_numpy(self._cache[rows]).float().div_(255.0)

    @cached_property
    def _cache(self) -> np.ndarray | None:
        """Room for every clip, filled as they are asked for; None where they do not fit."""
        data = self._data
        shape = (data.frames, self._store.image_shape[2], data.image_size, data.image_size)
        if math.prod(shape) * len(self._indices) > _CACHE_LIMIT:
            return None
        return np.empty((len(self._indices), *shape), dtype=np.uint8)

    def _cut(self, indices: Integers) -> Tensor:
        data = self._data
        return evaluation_clips(
            self._store, indices, frames=data.frames, stride=data.stride, image_size=data.image_size
        )


@dataclass(frozen=True)
class Bench:
    """A dataset under one rule of cutting and splitting.

    Attributes:
        store: the clips.
        splits: who is trained on and who is scored.
        data: window, size, rule.
        part: whose clips are scored.
    """

    store: ClipStore
    splits: Splits
    data: DataSettings
    part: Literal["test", "validation"] = "test"

    @classmethod
    def of(
        cls,
        store: ClipStore,
        data: DataSettings,
        part: Literal["test", "validation"] = "test",
    ) -> Bench:
        """Splits a store as the settings say.

        Raises:
            UsageError: clips larger than the stored frames are asked for.
        """
        height, width, _ = store.image_shape
        if data.image_size > min(height, width):
            raise UsageError(
                f"data.image_size {data.image_size} is larger than the {width} x {height} frames "
                f"of {store.name}.",
                hint=f"--set data.image_size={min(height, width)}   (or smaller)",
            )
        rule = data.split or store.card.get("split", "clips")
        return cls(store, make_splits(store, rule), data, part)

    @property
    def shape(self) -> ClipShape:
        """Shape of the clips a model is built for."""
        size = self.data.image_size
        return ClipShape(self.data.frames, self.store.image_shape[2], size, size)

    @property
    def key(self) -> dict[str, Any]:
        """What identifies clips, their preparation and splits, for keys of cells and judges.

        Where several clips were cut from one recording it counts which: identity pairs are of two.
        """
        store = self.store
        key: dict[str, Any] = {"content": store.content_hash, "splits": self.splits.content_key}
        if prepared := store.card.get("protocol"):
            key["prepared"] = prepared
        if len(np.unique(store.recordings)) < len(store):
            key["recordings"] = content_key(store.recordings.tolist())
        return key

    def clips(self, indices: Integers) -> LabelledClips:
        """Returns chosen clips, cut for evaluation, with their labels and recordings."""
        labels = {name: values[indices] for name, values in self.store.labels.items()}
        clips = EvaluationClips(self.store, indices, self.data)
        return LabelledClips(clips, labels, self.store.recordings[indices])

    @cached_property
    def train(self) -> LabelledClips:
        """Training clips, cut for evaluation: what a judge and probes learn from."""
        return self.clips(self.splits.train)

    @cached_property
    def validation(self) -> LabelledClips:
        """Validation clips."""
        return self.clips(self.splits.validation)

    @cached_property
    def test(self) -> LabelledClips:
        """All test clips."""
        return self.clips(self.splits.test)

    @property
    def scored(self) -> LabelledClips:
        """The clips that are scored: the test clips, or those of validation."""
        return self.test if self.part == "test" else self.validation

    @property
    def scored_indices(self) -> Integers:
        """Their numbers in the clip store."""
        return self.splits.parts()[self.part]

    @cached_property
    def cells(self) -> LabelledClips:
        """Clips of held-out identity x action cells, for the judge's gate."""
        return self.clips(self.splits.cells)

    def cautions(self, training: Mapping[str, StageSettings], alone: int) -> Iterator[str]:
        """Yields what is odd about these clips where such stages are trained on them.

        Args:
            training: the settings of each stage; of a pair a clip shows half of the frames.
            alone: how many identities have no two recordings that could be a pair.
        """
        stages = training.values()
        shown = [(stage.frames or 0) // (1 + stage.pairs) for stage in stages]
        frames, stride = max(self.data.frames, *shown), self.data.stride
        short = int((self.store.lengths < span(frames, stride)).sum())
        if short:
            yield (
                f"{short} of {len(self.store)} clips are shorter than {frames} frames at a stride "
                f"of {stride}, and their last frame repeats; fewer: --set data.frames=... (of a "
                "stage training.STAGE.frames=...) or data.stride=..."
            )
        if alone and any(stage.pairs for stage in stages):
            yield (
                "identities with one training recording, so that a pair shows one action twice: "
                f"{alone}"
            )

    def sampler(self, seed: int, device: str = "cpu") -> ClipSampler:
        """Returns the source of training batches of one seed, where they are wanted."""
        data = self.data
        return ClipSampler(
            self.store,
            self.splits.train,
            frames=data.frames,
            stride=data.stride,
            image_size=data.image_size,
            seed=seed,
            purpose="data",
            device=device,
        )
