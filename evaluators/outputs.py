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
    Kept,
    LabelledClips,
    Outputs,
    VideoModel,
    Wanted,
    check_clip,
    check_codes,
)
from vdsm_bench.errors import ContractError
from vdsm_bench.seeding import derive_seed

#: clips kept for the second evaluator that asks for them
_CACHE_BYTES = 2**30
#: rows that are sampled together, whatever the batch size: noise belongs to its row
SAMPLED_TOGETHER = 64
_NEEDED: dict[str, set[str]] = {
    "codes": {"encode"},
    "samples": {"sample"},
    "generations": {"generate"},
}


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
        self._kept: dict[tuple[str, int], Tensor] = {}
        self._room = _CACHE_BYTES
        self._codes: dict[str, Codes] = {}

    def missing(self, what: Wanted) -> str | None:
        """Returns why it cannot be had, or None where it can."""
        name = type(self.subject).__name__
        if not isinstance(self.subject, VideoModel):
            return None if what not in _NEEDED else f"{name} has no codes and no prior"
        needed = _NEEDED.get(what, {"encode", "generate"})
        able = set(self.subject.capabilities)
        if type(self.subject).sample is VideoModel.sample:
            able.discard("sample")  # declared by default, and not written
        lacking = sorted(needed - able)
        return f"{name} cannot {' and '.join(lacking)}" if lacking else None

    def reconstructions(self, rows: Integers) -> Tensor:
        """Returns the regenerated test clips of the rows."""

        def make(rows: Integers) -> Tensor:
            if self._from_codes("reconstruct"):
                return self._mixed(rows, rows)
            clip = self._clips(rows)
            return self._run(lambda: self.subject.reconstruct(clip), clip, "reconstruct")

        return self._once("reconstructions", rows, make)

    def transfers(self, rows: Integers) -> Tensor:
        """Returns the clips of the rows of the pair list."""

        def make(rows: Integers) -> Tensor:
            pairs = self.request.pairs[rows]
            if self._from_codes("transfer"):
                return self._mixed(pairs[:, 0], pairs[:, 1])
            who, what = self._clips(pairs[:, 0]), self._clips(pairs[:, 1])
            return self._run(lambda: self.subject.transfer(who, what), what, "transfer")

        return self._once("transfers", rows, make)

    def codes(self, part: Literal["test", "train"]) -> Codes:
        """Returns the codes of all test clips, or of all clips that probes learn from."""
        if part not in self._codes:
            clips = self.request.test if part == "test" else self.request.train
            if clips is None:
                raise ContractError("There are no training clips to encode.")
            self._codes[part] = self._encode(clips)
        return self._codes[part]

    def samples(self, rows: Integers, *, keep: Kept, repetition: int = 0) -> Tensor:
        """Returns clips that keep one code of the test clips of the rows; the rest is drawn."""

        def make(rows: Integers) -> Tensor:
            found = {
                block: self._sample(block, keep, repetition)
                for block in np.unique(rows // SAMPLED_TOGETHER).tolist()
            }
            return torch.stack(
                [found[row // SAMPLED_TOGETHER][row % SAMPLED_TOGETHER] for row in rows.tolist()]
            )

        return self._once(f"samples {keep} {repetition}", rows, make)

    def generations(self, codes: Codes, n_frames: int | None = None) -> Tensor:
        """Returns the clips of identity and motion codes ``[B, K]``."""
        model, device = self._model("generate"), self.request.device
        moved = Codes(codes.identity.to(device), codes.motion.to(device))
        like = self._like(len(codes.identity), n_frames)
        return self._run(lambda: model.generate(moved, like.shape[1]), like, "generate")

    def _from_codes(self, what: Literal["reconstruct", "transfer"]) -> bool:
        """Says whether the subject does this as every model does: encode, then generate.

        Then every test clip is encoded once, however many pairs it is in.
        """
        return isinstance(self.subject, VideoModel) and getattr(
            type(self.subject), what
        ) is getattr(VideoModel, what)

    def _mixed(self, identity_of: Integers, motion_of: Integers) -> Tensor:
        codes = self.codes("test")
        return self.generations(Codes(codes.identity[identity_of], codes.motion[motion_of]))

    def _encode(self, clips: LabelledClips) -> Codes:
        model = self._model("encode")
        parts: list[Codes] = []
        for rows in batches(len(clips), self.request.batch_size):
            clip = clips.clips(rows).to(self.request.device)
            with _scoring(model):
                found = model.encode(clip)
            parts.append(check_codes(found, len(clip), f"{type(model).__name__}.encode"))
        poses = [part.pose for part in parts if part.pose is not None]
        return Codes(
            torch.cat([part.identity for part in parts]),
            torch.cat([part.motion for part in parts]),
            torch.cat(poses) if len(poses) == len(parts) else None,
        )

    def _sample(self, block: int, keep: Kept, repetition: int) -> Tensor:
        model, device = self._model("sample"), self.request.device
        start = block * SAMPLED_TOGETHER
        rows = slice(start, min(start + SAMPLED_TOGETHER, len(self.request.test)))
        kept = {} if keep == "nothing" else {keep: getattr(self.codes("test"), keep)[rows]}
        like = self._like(rows.stop - rows.start)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.request.seed, "sample", keep, repetition, block))
            return self._run(lambda: model.sample(*like.shape[:2], **kept), like, "sample")

    def _model(self, what: Literal["encode", "generate", "sample"]) -> VideoModel:
        if not isinstance(self.subject, VideoModel):
            raise ContractError(f"{type(self.subject).__name__} cannot {what}.")
        return self.subject

    def _like(self, n: int, n_frames: int | None = None) -> Tensor:
        """Returns zeros of the shape of n test clips."""
        one = self.request.test.clips(np.zeros(1, dtype=np.int64))
        return one.new_zeros(()).expand(n, n_frames or one.shape[1], *one.shape[2:])

    def _clips(self, rows: Integers) -> Tensor:
        return self.request.test.clips(rows).to(self.request.device)

    def _once(self, what: str, rows: Integers, make: Callable[[Integers], Tensor]) -> Tensor:
        """Makes the clips of rows that were not made before; keeps them while there is room."""
        wanted = rows.tolist()
        lacking = sorted({row for row in wanted if (what, row) not in self._kept})
        found: dict[int, Tensor] = {}
        if lacking:
            made = make(np.array(lacking, dtype=np.int64))
            found = dict(zip(lacking, made, strict=True))
            size = made.numel() * made.element_size()
            if size <= self._room:
                self._room -= size
                self._kept.update({(what, row): clip for row, clip in found.items()})
        return torch.stack(
            [found[row] if row in found else self._kept[what, row] for row in wanted]
        )

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
    """No gradients, and evaluation mode for networks; every module's own mode is put back.

    Not inference mode: a model that fits its codes by gradient descent could not leave it again.
    """
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
