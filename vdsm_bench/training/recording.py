"""A step's work on the device, recorded once and repeated: a CUDA graph.

A step issues thousands of small operations, and a GPU ends each before the host has issued the
next. Repeated from a recording they cost one launch. What a recording reads lies in fixed places:
the batch is copied into them, and learning rates and scheduled numbers are tensors that are
written in place. Noise follows the generator's seed as outside of a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import torch
from torch import Tensor

#: steps of a form that are taken one by one before it is recorded: libraries pick their kernels
#: and workspaces, Adam makes its moments
WARM_UP = 3

Work = Callable[[], None]


class Recorder(Protocol):
    """Something that records what is done on a device."""

    def warm_up(self, work: Work) -> None:
        """Does the work, as it will be done while it is recorded."""

    def record(self, work: Work) -> Work:
        """Returns what repeats the work; the work itself is not done yet."""


class CudaRecorder:
    """Records CUDA graphs.

    Args:
        device: of the work.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # one stream for warming up and recording: the workspaces of cuBLAS belong to a stream
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, work: Work) -> None:
        """Does the work on the stream that it will be recorded on."""
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            work()
        here.wait_stream(self._stream)

    def record(self, work: Work) -> Work:
        """Records the work; where that fails, stream and generator are as they were before."""
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[self._stream.device_index]
        spare = generator.clone_state()
        try:
            # torch leaves the stream of a failed recording current, so it is entered here too;
            # other threads may go on: one reads the next batch into pinned memory
            with (
                torch.cuda.stream(self._stream),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                work()
        except BaseException:
            generator.graphsafe_set_state(spare)  # the failed recording's would refuse to draw
            raise
        return graph.replay


def recorder_for(device: torch.device) -> Recorder | None:
    """Returns the recorder of a device, or None where it has none."""
    return CudaRecorder(device) if device.type == "cuda" else None


class Repeater:
    """Does the same work on one batch after another, from a recording as soon as there is one.

    A recording that fails is no error: from then on the work is done step by step.

    Args:
        work: done on a batch; from the second time on it reads and writes the same memory.
        recorder: records it.
        tell: called once with the reason where a recording fails.
    """

    def __init__(
        self, work: Callable[..., None], recorder: Recorder, tell: Callable[[str], None]
    ) -> None:
        self._work, self._recorder, self._tell = work, recorder, tell
        self._form: Hashable = None
        self._replay: Work | None = None
        self._places: list[Tensor] = []
        self._warm = 0
        self._failure: str | None = None

    @property
    def decided(self) -> bool:
        """Whether it is known if the work can be recorded: after too few steps it is not."""
        return self._failure is not None or self._replay is not None

    @property
    def obstacle(self) -> str | None:
        """Why the work is not repeated from a recording, or None where it is."""
        if not self.decided:
            return f"fewer than {WARM_UP + 1} steps of the same form"
        return self._failure

    def __call__(self, batch: Sequence[Tensor], structure: Hashable) -> None:
        """Does the work on a batch.

        Args:
            batch: the tensors that the work takes, on the device.
            structure: what the work's course depends on; another one is recorded anew.
        """
        if self._failure is not None:
            self._work(*batch)
            return
        form = (structure, tuple((each.shape, each.dtype) for each in batch))
        if form != self._form:
            self._form, self._replay, self._warm = form, None, 0
            self._places = [torch.empty_like(each) for each in batch]
        for place, each in zip(self._places, batch, strict=True):
            place.copy_(each)
        if self._replay is None and self._warm == WARM_UP:
            self._record()
        if self._replay is not None:
            self._replay()
        elif self._failure is not None:
            self._work_in_place()
        else:
            self._warm += 1
            self._recorder.warm_up(self._work_in_place)

    def _work_in_place(self) -> None:
        self._work(*self._places)

    def _record(self) -> None:
        try:
            self._replay = self._recorder.record(self._work_in_place)
        except Exception as error:  # whatever it is: if the step cannot be taken, taking it says so
            text = str(error).strip().partition("\n")[0] or "no reason given"
            self._failure = f"{type(error).__name__}: {text}"
            self._tell(self._failure)
