"""From stored frames to clips: down-scaling, evaluation windows and the training sampler.

All pixels of the project pass through :func:`downscale`, so a clip looks the same to the
trainer, the judge and the evaluators.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from vdsm_bench.data.pairing import Pairing
from vdsm_bench.data.store import ByteArray, ClipStore, IntArray
from vdsm_bench.errors import DataError, UsageError
from vdsm_bench.seeding import generator

if TYPE_CHECKING:
    from torch import Tensor

#: what is held in the computer's memory for training, bytes at most; on a GPU it may take this
#: share of what is free there
RESIDENT_LIMIT, RESIDENT_SHARE = 1 << 30, 0.3
_CHUNK = 4096


def may_stay(size: int, device: str) -> bool:
    """Returns whether so many bytes may stay on a device while a model trains there."""
    if not device.startswith("cuda"):
        return size <= RESIDENT_LIMIT
    import torch

    return size <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]


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
    small = downscale(windows.reshape(-1, *windows.shape[2:]), image_size)
    return to_unit(_to_planes(small).view(*windows.shape[:2], -1, image_size, image_size))


def to_unit(planes: Tensor) -> Tensor:
    """Returns uint8 as float32 in [0, 1], on its device, with the same bits on every device."""
    import torch

    # by a number, CUDA would multiply with the reciprocal; by a tensor, it divides
    return planes.float().div_(torch.full((), 255.0, device=planes.device))


def _to_planes(frames: ByteArray) -> Tensor:
    """Returns frames uint8 ``[N, H, W, C]`` as a tensor ``[N, C, H, W]``."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))


def centre_starts(lengths: npt.ArrayLike, *, frames: int, stride: int) -> IntArray:
    """Returns the first frame of the centre window of clips of these lengths, int64.

    The one window rule of evaluation. Clips shorter than the window start at frame 0.
    """
    return np.maximum(0, (np.asarray(lengths, np.int64) - span(frames, stride)) // 2)


def evaluation_clips(
    store: ClipStore,
    indices: npt.ArrayLike,
    *,
    frames: int,
    stride: int,
    image_size: int,
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


class _Step(NamedTuple):
    """Which batch."""

    stage: str
    step: int
    batch_size: int
    pairs: bool
    frames: int


class ClipSampler:
    """Training batches as a pure function of (seed, stage, step): nothing to save or restore.

    Walks through fresh permutations of the clips, pass by pass: inside a pass no clip comes
    twice. Windows start anywhere inside their clip.

    Frames lie down-scaled in the device's memory where they fit. Otherwise they are read from
    the memory map, one step ahead of training, and copied through pinned memory.

    Args:
        store: the clips.
        indices: the clips to draw from ``[n]``.
        frames: frames per batch item.
        stride: every stride-th stored frame is used.
        image_size: height and width in pixels.
        seed: the cell's seed.
        purpose: keeps this stream apart from others of the same seed.
        device: where batches are wanted.
        resident: whether the device's memory holds all frames; if None, whether they fit.
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
        device: str = "cpu",
        resident: bool | None = None,
    ) -> None:
        self._store = store
        self._indices = np.unique(np.asarray(indices, dtype=np.int64))
        if not len(self._indices):
            raise DataError(f"{store.name}: there are no clips to draw from.")
        self._frames, self._stride, self._size = frames, stride, image_size
        self._seed, self._purpose, self._device = seed, purpose, device
        self._permutations: dict[tuple[str, int], IntArray] = {}
        self._pairing = Pairing(store.identities[self._indices], store.recordings[self._indices])
        lengths = store.lengths[self._indices]
        self._offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._resident = self._load() if (self._fits() if resident is None else resident) else None
        self._ahead: tuple[_Step, Future[Tensor]] | None = None
        self._sent: tuple[_Step, Tensor] | None = None
        self._reader = ThreadPoolExecutor(1, "clips")

    def __len__(self) -> int:
        """Returns the number of clips in a pass."""
        return len(self._indices)

    @property
    def alone(self) -> int:
        """How many identities have one recording only, whose clips show what it shows."""
        return self._pairing.alone

    def batch(
        self,
        stage: str,
        step: int,
        batch_size: int,
        pairs: bool,
        frames: int | None = None,
    ) -> Tensor:
        """Returns the batch of one step.

        Args:
            stage: stage name; each stage walks through its own permutations.
            step: step inside the stage, from 0.
            batch_size: items.
            pairs: each item is two clips of the same identity, half of the frames from each,
                joined in time. They are cut from different recordings where the identity has
                several, else they are two clips of the one, or that clip twice.
            frames: frames per item where the stage departs from the sampler's.

        Returns:
            float32 ``[batch_size, frames, C, image_size, image_size]`` in [0, 1].

        Raises:
            UsageError: pairs of an odd number of frames.
        """
        return to_unit(self.load(stage, step, batch_size, pairs, frames))

    def load(
        self,
        stage: str,
        step: int,
        batch_size: int,
        pairs: bool,
        frames: int | None = None,
    ) -> Tensor:
        """Returns what :meth:`batch` does as it is stored, uint8, on the device."""
        if self._resident is not None:
            rows = self.rows(stage, step, batch_size, pairs, frames)
            planes = self._resident.index_select(0, rows.view(-1))
            return planes.view(*rows.shape, *planes.shape[1:])
        wanted = _Step(stage, step, batch_size, pairs, frames or self._frames)
        known, future = self._ahead or (None, None)
        if future is None or known != wanted:
            future = self._reader.submit(self._read, wanted)
        following = wanted._replace(step=step + 1)
        self._ahead = following, self._reader.submit(self._read, following)
        return self._send(future.result())

    @property
    def resident(self) -> Tensor | None:
        """All frames ``[N, C, H, W]``, uint8, on the device; None where they do not fit there."""
        return self._resident

    @property
    def n_frames(self) -> int:
        """How many frames all clips have together."""
        return int(self._offsets[-1])

    def some_frames(self, first: int, end: int) -> Tensor:
        """Returns those from ``first`` up to ``end``: uint8 ``[n, C, H, W]``, on the device."""
        if self._resident is not None:
            return self._resident[first:end]
        return self._frames_at(np.arange(first, end)).to(self._device)

    def rows(
        self,
        stage: str,
        step: int,
        batch_size: int,
        pairs: bool,
        frames: int | None = None,
    ) -> Tensor:
        """Returns which of all frames :meth:`batch` shows ``[batch_size, frames]``."""
        import torch

        wanted = _Step(stage, step, batch_size, pairs, frames or self._frames)
        known, rows = self._sent or (None, None)
        if rows is None or known != wanted:
            rows = self._send(torch.from_numpy(self._rows(wanted)))
            self._sent = wanted, rows
        return rows

    def _send(self, tensor: Tensor) -> Tensor:
        """Copies to the device; pinned, because of other memory torch awaits the copy's end."""
        if self._device.startswith("cuda"):
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)

    def _rows(self, wanted: _Step) -> IntArray:
        """Draws the frames of a batch: their places among the frames of the chosen clips."""
        first = self._walk(wanted.stage, wanted.step, wanted.batch_size)
        draw = generator(self._seed, self._purpose, wanted.stage, "start", wanted.step)
        if not wanted.pairs:
            return self._windows(first, draw.random(wanted.batch_size), wanted.frames)
        if wanted.frames % 2:
            raise UsageError(
                f"Stage '{wanted.stage}' joins pairs of clips, so its frames must be even, "
                f"not {wanted.frames}."
            )
        second = self._pairing.partners(first, draw.random(wanted.batch_size))
        halves = [
            self._windows(which, draw.random(wanted.batch_size), wanted.frames // 2)
            for which in (first, second)
        ]
        return np.concatenate(halves, axis=1)

    def _read(self, wanted: _Step) -> Tensor:
        """Reads a batch from the memory map, uint8 ``[B, T, C, H, W]``, pinned for CUDA."""
        rows = self._rows(wanted)
        planes = self._frames_at(rows.reshape(-1)).view(*rows.shape, -1, self._size, self._size)
        return planes.pin_memory() if self._device.startswith("cuda") else planes

    def _frames_at(self, rows: IntArray) -> Tensor:
        """Reads frames by their places among all ``[n]``: uint8 ``[n, C, H, W]``."""
        clip = np.searchsorted(self._offsets, rows, side="right") - 1
        frames = self._store.frames_at(self._indices[clip], rows - self._offsets[clip])
        return _to_planes(downscale(frames, self._size))

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
        found = self._permutations.get(key)  # the reader's thread draws too, and may clear
        if found is None:
            if len(self._permutations) > 8:
                self._permutations.clear()
            draw = generator(self._seed, self._purpose, stage, number)
            found = self._permutations[key] = draw.permutation(len(self))
        return found

    def _windows(
        self, positions: IntArray, uniform: npt.NDArray[np.float64], frames: int
    ) -> IntArray:
        """Returns the places of one window per clip; past its end a clip's last frame repeats."""
        lengths = self._store.lengths[self._indices[positions]]
        room = np.maximum(lengths - span(frames, self._stride), 0) + 1
        starts = (uniform * room).astype(np.int64)
        inside = np.minimum(
            starts[:, None] + self._stride * np.arange(frames), lengths[:, None] - 1
        )
        rows: IntArray = self._offsets[positions][:, None] + inside
        return rows

    def _fits(self) -> bool:
        size = self.n_frames * self._size**2 * self._store.image_shape[2]
        return may_stay(size, self._device)

    def _load(self) -> Tensor:
        """Down-scales once what training will read thousands of times: uint8 ``[N, C, H, W]``."""
        import torch

        shape = (
            self.n_frames,
            self._store.image_shape[2],
            self._size,
            self._size,
        )
        resident = torch.empty(shape, dtype=torch.uint8, device=self._device)
        begin = 0
        while begin < len(self):
            end = begin + 1
            while end < len(self) and self._offsets[end + 1] - self._offsets[begin] <= _CHUNK:
                end += 1
            pieces = [self._store.frames(int(i)) for i in self._indices[begin:end]]
            small = downscale(np.concatenate(pieces), self._size)
            resident[self._offsets[begin] : self._offsets[end]] = _to_planes(small)
            begin = end
        return resident


def span(frames: int, stride: int) -> int:
    """Returns the stored frames a window reaches over."""
    return (frames - 1) * stride + 1
