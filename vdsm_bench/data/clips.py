"""From stored frames to clips: down-scaling, evaluation windows and the training sampler.

All pixels of the project pass through :func:`downscale`, so a clip looks the same to the
trainer, the judge and the evaluators.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vdsm_bench.data.store import ByteArray, ClipStore, IntArray
from vdsm_bench.errors import DataError, UsageError
from vdsm_bench.seeding import generator

if TYPE_CHECKING:
    from torch import Tensor

#: largest down-scaled training set that is held in memory, bytes
CACHE_LIMIT = 1 << 30
_CHUNK = 4096


def downscale(frames: ByteArray, image_size: int) -> ByteArray:
    """Averages frames down to a square, rounded to uint8 (half up).

    Args:
        frames: uint8 ``[N, H, W, C]``.
        image_size: height and width of the result, pixels.

    Returns:
        uint8 ``[N, image_size, image_size, C]``: the exact mean over blocks where the sizes
        divide, the mean over the overlapping pixels (adaptive) elsewhere.

    Raises:
        UsageError: the result would be larger than the stored frames.
    """
    _, height, width, _ = frames.shape
    if (height, width) == (image_size, image_size):
        return frames
    if image_size > min(height, width):
        raise UsageError(
            f"image_size {image_size} is larger than the stored {width}x{height} frames."
        )
    if height % image_size or width % image_size:
        return _downscale_adaptive(frames, image_size)
    rows, columns = height // image_size, width // image_size
    total = np.full(
        (len(frames), image_size, image_size, frames.shape[3]),
        rows * columns // 2,
        dtype=np.uint16 if rows * columns <= 256 else np.uint32,
    )
    for row in range(rows):
        for column in range(columns):
            total += frames[:, row::rows, column::columns]
    total //= rows * columns
    return total.astype(np.uint8)


def _downscale_adaptive(frames: ByteArray, image_size: int) -> ByteArray:
    """The same by torch's adaptive average pooling, which allows any ratio."""
    import torch

    planes = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.interpolate(planes, size=(image_size, image_size), mode="area")
    return (small + 0.5).floor().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def to_clip(windows: ByteArray, image_size: int) -> Tensor:
    """Turns stored windows into a clip.

    Args:
        windows: uint8 ``[B, T, H, W, C]``.
        image_size: height and width of the clip, at most those stored.

    Returns:
        float32 ``[B, T, C, image_size, image_size]`` in [0, 1]; every value is a multiple of
        1/255, because frames are rounded to uint8 after down-scaling.
    """
    import torch

    batch, length = windows.shape[:2]
    small = downscale(windows.reshape(-1, *windows.shape[2:]), image_size)
    clip = torch.from_numpy(np.ascontiguousarray(small.transpose(0, 3, 1, 2)))
    return clip.view(batch, length, *clip.shape[1:]).float().div_(255.0)


def centre_starts(lengths: npt.ArrayLike, *, frames: int, stride: int) -> IntArray:
    """Returns the first frame of the centre window of clips of these lengths, int64.

    The one window rule of evaluation. Clips shorter than the window start at frame 0.
    """
    return np.maximum(0, (np.asarray(lengths, np.int64) - _span(frames, stride)) // 2)


def evaluation_clips(
    store: ClipStore, indices: npt.ArrayLike, *, frames: int, stride: int, image_size: int
) -> Tensor:
    """Returns the centre window of each clip; deterministic.

    Args:
        store: the clips.
        indices: which ``[B]``.
        frames: frames per clip; a clip shorter than the window repeats its last frame.
        stride: every stride-th stored frame is used.
        image_size: height and width in pixels.

    Returns:
        float32 ``[B, frames, C, image_size, image_size]`` in [0, 1].
    """
    which = np.asarray(indices, dtype=np.int64)
    starts = centre_starts(store.lengths[which], frames=frames, stride=stride)
    return to_clip(store.windows(which, starts, frames=frames, stride=stride), image_size)


class ClipSampler:
    """Training batches as a pure function of (seed, stage, step): nothing to save or restore.

    Walks through fresh permutations of the clips, pass by pass: inside a pass no clip comes
    twice. Windows start anywhere inside their clip.

    Args:
        store: the clips.
        indices: the clips to draw from ``[n]``.
        frames: frames per batch item.
        stride: every stride-th stored frame is used.
        image_size: height and width in pixels.
        seed: the cell's seed.
        purpose: keeps this stream apart from others of the same seed.
    """

    def __init__(
        self,
        store: ClipStore,
        indices: npt.ArrayLike,
        *,
        frames: int,
        stride: int,
        image_size: int,
        seed: int,
        purpose: str,
    ) -> None:
        self._store = store
        self._indices = np.unique(np.asarray(indices, dtype=np.int64))
        if not len(self._indices):
            raise DataError(f"{store.name}: there are no clips to draw from.")
        self._frames, self._stride, self._size = frames, stride, image_size
        self._seed, self._purpose = seed, purpose
        self._permutations: dict[tuple[str, int], IntArray] = {}
        identities = store.identities[self._indices]
        self._by_identity = np.argsort(identities, kind="stable")
        self._rank = np.argsort(self._by_identity)
        ordered = identities[self._by_identity]
        self._group_start = np.searchsorted(ordered, identities, side="left")
        self._group_size = np.searchsorted(ordered, identities, side="right") - self._group_start
        self._cache, self._cache_offsets = self._build_cache()

    def __len__(self) -> int:
        """Returns the number of clips in a pass."""
        return len(self._indices)

    def batch(
        self, stage: str, step: int, batch_size: int, pairs: bool, frames: int | None = None
    ) -> Tensor:
        """Returns the batch of one step.

        Args:
            stage: stage name; each stage walks through its own permutations.
            step: step inside the stage, from 0.
            batch_size: items.
            pairs: each item is two different clips of the same identity (the same clip where an
                identity has only one), half of the frames from each, joined in time.
            frames: frames per item where the stage departs from the sampler's.

        Returns:
            float32 ``[batch_size, frames, C, image_size, image_size]`` in [0, 1].

        Raises:
            UsageError: pairs of an odd number of frames.
        """
        length = frames or self._frames
        first = self._walk(stage, step, batch_size)
        draw = generator(self._seed, self._purpose, stage, "start", step)
        if not pairs:
            return to_clip(self._windows(first, draw.random(batch_size), length), self._size)
        if length % 2:
            raise UsageError(
                f"Stage '{stage}' joins pairs of clips, so its frames must be even, not {length}."
            )
        second = self._partners(first, draw.random(batch_size))
        halves = [
            self._windows(which, draw.random(batch_size), length // 2) for which in (first, second)
        ]
        return to_clip(np.concatenate(halves, axis=1), self._size)

    def _walk(self, stage: str, step: int, batch_size: int) -> IntArray:
        """Returns positions in the index list: the step's stretch of the endless walk."""
        places = np.arange(step * batch_size, (step + 1) * batch_size)
        passes, inside = np.divmod(places, len(self))
        result = np.empty(batch_size, dtype=np.int64)
        for number in np.unique(passes):
            here = passes == number
            result[here] = self._permutation(stage, int(number))[inside[here]]
        return result

    def _permutation(self, stage: str, number: int) -> IntArray:
        key = (stage, number)
        if key not in self._permutations:
            if len(self._permutations) > 8:
                self._permutations.clear()
            draw = generator(self._seed, self._purpose, stage, number)
            self._permutations[key] = draw.permutation(len(self))
        return self._permutations[key]

    def _partners(self, first: IntArray, uniform: npt.NDArray[np.float64]) -> IntArray:
        size, start = self._group_size[first], self._group_start[first]
        others = np.maximum(size - 1, 1)
        pick = (uniform * others).astype(np.int64)
        own = self._rank[first] - start
        pick += (pick >= own) & (size > 1)
        partners: IntArray = self._by_identity[start + pick]
        return partners

    def _windows(
        self, positions: IntArray, uniform: npt.NDArray[np.float64], frames: int
    ) -> ByteArray:
        which = self._indices[positions]
        room = np.maximum(self._store.lengths[which] - _span(frames, self._stride), 0) + 1
        starts = (uniform * room).astype(np.int64)
        if self._cache is None:
            return self._store.windows(which, starts, frames=frames, stride=self._stride)
        inside = starts[:, None] + self._stride * np.arange(frames)
        inside = np.minimum(inside, self._store.lengths[which][:, None] - 1)
        windows: ByteArray = self._cache[self._cache_offsets[positions][:, None] + inside]
        return windows

    def _build_cache(self) -> tuple[ByteArray | None, IntArray]:
        """Down-scales once what training will read thousands of times."""
        lengths = self._store.lengths[self._indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        height, width, channels = self._store.image_shape
        size = int(offsets[-1]) * self._size * self._size * channels
        if (height, width) == (self._size, self._size) or size > CACHE_LIMIT:
            return None, offsets
        cache = np.empty((offsets[-1], self._size, self._size, channels), dtype=np.uint8)
        begin = 0
        while begin < len(self):
            end = begin + 1
            while end < len(self) and offsets[end + 1] - offsets[begin] <= _CHUNK:
                end += 1
            pieces = [self._store.frames(int(i)) for i in self._indices[begin:end]]
            cache[offsets[begin] : offsets[end]] = downscale(np.concatenate(pieces), self._size)
            begin = end
        return cache, offsets


def _span(frames: int, stride: int) -> int:
    """Returns the stored frames a window reaches over."""
    return (frames - 1) * stride + 1
