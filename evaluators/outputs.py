"""What is scored, by row number: a model or control at work, or clips that were made elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vdsm_bench.contracts import (
    ClipSource,
    Codes,
    EvaluationRequest,
    Integers,
    Outputs,
    VideoModel,
    check_clip,
)
from vdsm_bench.errors import ContractError

#: regenerated clips kept for the second evaluator that asks for them
_CACHE_BYTES = 2**30
Wanted = Literal["reconstructions", "transfers", "codes"]


class Subject(Protocol):
    """Anything that regenerates and transfers: a model, a control."""

    def reconstruct(self, clip: Tensor) -> Tensor:
        """Returns the clip ``[B, T, C, H, W]`` regenerated from its own codes."""

    def transfer(self, identity_of: Tensor, motion_of: Tensor) -> Tensor:
        """Returns clips with the identity of the first and the motion of the second."""


def batches(n: int, size: int) -> Iterator[Integers]:
    """Yields the row numbers 0..n-1 in runs of at most ``size``."""
    for start in range(0, n, size):
        yield np.arange(start, min(start + size, n), dtype=np.int64)


class SubjectOutputs(Outputs):
    """A subject at work on the clips of a request; without gradients, in evaluation mode.

    Args:
        subject: a model or a control. A model's mode is put back after every call.
        request: its clips and pairs.
    """

    def __init__(self, subject: Subject, request: EvaluationRequest) -> None:
        self.subject = subject
        self.request = request
        self._kept: dict[tuple[int, ...], Tensor] = {}
        self._room = _CACHE_BYTES

    def missing(self, what: Wanted) -> str | None:
        """Returns why it cannot be had, or None where it can."""
        name = type(self.subject).__name__
        if not isinstance(self.subject, VideoModel):
            return f"{name} has no codes" if what == "codes" else None
        needed = {"encode"} if what == "codes" else {"encode", "generate"}
        lacking = sorted(needed - set(self.subject.capabilities))
        return f"{name} cannot {' and '.join(lacking)}" if lacking else None

    def reconstructions(self, rows: Integers) -> Tensor:
        """Returns the regenerated test clips of the rows."""
        key = tuple(rows.tolist())
        if key not in self._kept:
            clip = self._clips(rows)
            found = self._run(lambda: self.subject.reconstruct(clip), clip, "reconstruct")
            size = found.numel() * found.element_size()
            if size > self._room:
                return found
            self._room -= size
            self._kept[key] = found
        return self._kept[key]

    def transfers(self, rows: Integers) -> Tensor:
        """Returns the clips of the rows of the pair list."""
        pairs = self.request.pairs[rows]
        identity_of, motion_of = self._clips(pairs[:, 0]), self._clips(pairs[:, 1])
        return self._run(
            lambda: self.subject.transfer(identity_of, motion_of), motion_of, "transfer"
        )

    def codes(self, clips: Tensor) -> Codes:
        """Returns the codes of clips ``[B, T, C, H, W]``."""
        if not isinstance(self.subject, VideoModel):
            raise ContractError(f"{type(self.subject).__name__} has no codes.")
        with _scoring(self.subject):
            found = self.subject.encode(clips.to(self.request.device))
        for part, value in (("identity", found.identity), ("motion", found.motion)):
            if value.ndim != 2 or len(value) != len(clips) or not value.isfinite().all():
                raise ContractError(
                    f"{type(self.subject).__name__}.encode: the {part} code must be finite "
                    f"[B, K], got {list(value.shape)} for {len(clips)} clips."
                )
        return found

    def _clips(self, rows: Integers) -> Tensor:
        return self.request.test.clips(rows).to(self.request.device)

    def _run(self, work: Callable[[], Tensor], like: Tensor, what: str) -> Tensor:
        where = f"{type(self.subject).__name__}.{what}"
        with _scoring(self.subject):
            found = check_clip(work(), where)
        if found.shape != like.shape:
            raise ContractError(f"{where}: expected {list(like.shape)}, got {list(found.shape)}.")
        return found.cpu()


class RenderedOutputs(Outputs):
    """Clips that were made elsewhere: another framework's files, the label oracle.

    Args:
        reconstructions: rows of the test clips to clips, or None.
        transfers: rows of the pair list to clips, or None.
        name: named in errors and reasons.
    """

    def __init__(
        self,
        *,
        reconstructions: ClipSource | None = None,
        transfers: ClipSource | None = None,
        name: str = "the file",
    ) -> None:
        self._sources = {"reconstructions": reconstructions, "transfers": transfers}
        self._name = name

    def missing(self, what: Wanted) -> str | None:
        """Returns why it cannot be had, or None where it can."""
        return None if self._sources.get(what) is not None else f"{self._name} holds no {what}"

    def reconstructions(self, rows: Integers) -> Tensor:
        """Returns the regenerated test clips of the rows."""
        return self._read("reconstructions", rows)

    def transfers(self, rows: Integers) -> Tensor:
        """Returns the clips of the rows of the pair list."""
        return self._read("transfers", rows)

    def codes(self, clips: Tensor) -> Codes:
        """Refuses: there are only clips."""
        raise ContractError(f"{self._name} holds no codes.")

    def _read(self, what: Wanted, rows: Integers) -> Tensor:
        source = self._sources[what]
        if source is None:
            raise ContractError(f"{self._name} holds no {what}.")
        found = check_clip(source(rows), f"{self._name}, {what}")
        if len(found) != len(rows):
            raise ContractError(
                f"{self._name}, {what}: asked for {len(rows)} clips, got {len(found)}."
            )
        return found


@contextmanager
def _scoring(subject: Subject) -> Iterator[None]:
    """No gradients, and evaluation mode for networks; every module's own mode is put back."""
    modules = list(subject.modules()) if isinstance(subject, nn.Module) else []
    before = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.training = mode
