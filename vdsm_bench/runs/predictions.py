"""Clips made elsewhere, as files: what is asked (``request.npz``) and what is handed in.

The schema is stated in ``docs/scoring-files.md``. Ids decide, not the order of rows. Everything is
checked before a judge is trained or asked.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vdsm_bench.config import content_key
from vdsm_bench.contracts import ClipSource, Integers
from vdsm_bench.data.safe_arrays import AnyArray, read_npz
from vdsm_bench.errors import ContractError, DataError, ProtocolError, suggest
from vdsm_bench.files import write_bytes, write_text
from vdsm_bench.runs.pairs_table import clip_ids, pair_ids
from vdsm_bench.runs.protocol import ScoringProtocol, tool

#: version of both files' schema; raised when a file of the older one could not be read any more
SCHEMA = 1
#: clips and the ids of their rows
PARTS = {"transfers": "pair_id", "reconstructions": "clip_id"}
_TEXTS = ("name", "citation", "supervision")
_KNOWN = ("schema", "protocol", *PARTS, *PARTS.values(), *_TEXTS)
_CHUNK = 64
_TOLERANCE = 1e-6
_SHOWN = 3
#: whose clips are asked for where a request does not say
_PART = "test"
#: fields of the protocol that a setting decides
_SETTINGS = {
    "dataset": "--dataset {}",
    "part": "--set evaluation.part={}",
    "split": "--set data.split={}",
    "image_size": "--set data.image_size={}",
    "frames": "--set data.frames={}",
    "stride": "--set data.stride={}",
    "clips": "--set evaluation.clips={}",
    "pairs": "--set evaluation.pairs={}",
}
_EXAMPLE = '''"""Writes predictions.npz for the request.npz beside this file; put your model in."""

from pathlib import Path

import numpy as np


def transfer(identity_of, motion_of):
    """Clips [B, T, C, H, W] in [0, 1]: who is in the first, doing what is done in the second."""
    return identity_of


def reconstruct(clips):
    """Clips regenerated from their own codes, [B, T, C, H, W] in [0, 1]."""
    return clips


def batches(rows, size=64):
    return (rows[start : start + size] for start in range(0, len(rows), size))


with np.load(Path(__file__).with_name("request.npz")) as file:
    request = dict(file)
clips = request["clips"].astype(np.float32) / 255
moved = [transfer(clips[pairs[:, 0]], clips[pairs[:, 1]]) for pairs in batches(request["pairs"])]
np.savez(
    "predictions.npz",
    schema=1,
    protocol=request["protocol"],
    name="my-model",
    supervision="none",
    pair_id=request["pair_id"],
    transfers=np.concatenate(moved),
    clip_id=request["clip_id"],
    reconstructions=np.concatenate([reconstruct(part) for part in batches(clips)]),
)
'''


@dataclass(frozen=True)
class Predictions:
    """Checked clips of a file, in the order of the request.

    Attributes:
        sources: ``transfers`` and ``reconstructions``, as far as the file holds them.
        texts: ``name``, ``citation`` and ``supervision``, as far as the file states them.
        digest: hash of the clips in the order of the request: equal for permuted files.
    """

    sources: Mapping[str, ClipSource]
    texts: Mapping[str, str]
    digest: str


def request_facts(protocol: ScoringProtocol) -> dict[str, Any]:
    """Returns what was asked: a file answers this protocol or is refused."""
    bench, request = protocol.bench, protocol.request
    data = bench.data
    part = {} if bench.part == _PART else {"part": bench.part}
    return {
        "schema": SCHEMA,
        "dataset": bench.store.name,
        **part,
        "content": bench.key["content"],
        "split": bench.splits.rule,
        "splits": bench.key["splits"],
        "image_size": data.image_size,
        "frames": data.frames,
        "stride": data.stride,
        "clips": len(request.test),
        "pairs": len(request.pairs),
        "pairs_version": tool(protocol.table, "pairs_version"),
        "ids": content_key([clip_ids(protocol), pair_ids(protocol)]),
    }


def write_template(folder: Path, protocol: ScoringProtocol) -> list[Path]:
    """Writes ``request.npz`` (the real clips and what is wanted of them) and ``example.py``.

    An ``example.py`` that is there is left alone.
    """
    request, bench = protocol.request, protocol.bench
    clips = [
        request.test.clips(rows).mul(255).round().to(torch.uint8).numpy()
        for rows in _chunks(len(request.test))
    ]
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        schema=SCHEMA,
        protocol=json.dumps(request_facts(protocol)),
        clip_id=np.array(clip_ids(protocol)),
        clips=np.concatenate(clips),
        pair_id=np.array(pair_ids(protocol)),
        pairs=request.pairs,
        train=bench.splits.train,
        validation=bench.splits.validation,
    )
    paths = [folder / "request.npz", folder / "example.py"]
    write_bytes(paths[0], stream.getvalue())
    if not paths[1].exists():
        write_text(paths[1], _EXAMPLE)
    return paths


def read_predictions(path: Path, protocol: ScoringProtocol) -> Predictions:
    """Reads and checks a file of predictions.

    Raises:
        DataError: missing, damaged, cut short, or not made of plain arrays.
        ContractError: a key, shape, dtype or value that the schema does not allow; ids that are
            missing, unknown or there twice.
        ProtocolError: it answers another request.
    """
    template = _template_command(protocol)
    try:
        arrays = read_npz(path, objects=False)
    except DataError as error:
        hint = (
            error.hint or f"write it anew with numpy.savez and plain arrays; {template} shows how"
        )
        raise DataError(error.message, hint=hint) from error
    for key in arrays:
        if key not in _KNOWN:
            raise ContractError(
                f"{path}: unknown key '{key}'{suggest(key, _KNOWN)}; known: {', '.join(_KNOWN)}.",
                hint=template,
            )
    _check_protocol(path, arrays, protocol)
    texts = {key: _text(path, key, arrays[key]) for key in _TEXTS if key in arrays}
    wanted = {"transfers": pair_ids(protocol), "reconstructions": clip_ids(protocol)}
    sources: dict[str, ClipSource] = {}
    digest = hashlib.sha256()
    for part, id_key in PARTS.items():
        if part not in arrays and id_key not in arrays:
            continue
        absent = [key for key in (part, id_key) if key not in arrays]
        if absent:
            raise ContractError(
                f"{path}: '{part}' and '{id_key}' belong together; '{absent[0]}' is missing.",
                hint=template,
            )
        order = _order(path, id_key, arrays[id_key], wanted[part], template)
        _check_clips(path, part, arrays[part], arrays[id_key], protocol)
        sources[part] = _source(arrays[part], order)
        digest.update(f"{part} {arrays[part].dtype}".encode())
        for rows in _chunks(len(order)):
            digest.update(np.ascontiguousarray(arrays[part][order[rows]]).tobytes())
    if not sources:
        raise ContractError(f"{path} holds no clips: neither {' nor '.join(PARTS)}.", hint=template)
    return Predictions(sources, texts, digest.hexdigest())


def _check_protocol(path: Path, arrays: Mapping[str, AnyArray], protocol: ScoringProtocol) -> None:
    template = _template_command(protocol)
    for key in ("schema", "protocol"):
        if key not in arrays:
            raise ContractError(f"{path}: the key '{key}' is missing.", hint=template)
    found = arrays["schema"]
    if found.shape != () or not np.issubdtype(found.dtype, np.integer) or int(found) != SCHEMA:
        raise ProtocolError(
            f"{path}: its schema is {found.tolist()!r}, this version reads {SCHEMA}.", hint=template
        )
    try:
        answered = json.loads(_text(path, "protocol", arrays["protocol"]))
    except ValueError as error:
        raise ContractError(
            f"{path}: 'protocol' is not the text of request.npz: {error}.", hint=template
        ) from error
    if not isinstance(answered, dict):
        raise ContractError(f"{path}: 'protocol' is not the text of request.npz.", hint=template)
    asked, answered = ({"part": _PART, **facts} for facts in (request_facts(protocol), answered))
    other = [key for key in asked if answered.get(key) != asked[key]]
    if set(other) - {"part"}:  # another part has other ids; older requests do not state it
        told = "; ".join(f"{key} {answered.get(key)!r}, here {asked[key]!r}" for key in other)
        follow = ("clips", "pairs") if "part" in other else ()  # a part has as many as it has
        stated = [k for k in other if k in _SETTINGS and k in answered and k not in follow]
        hints = [_SETTINGS[key].format(answered[key]) for key in stated]
        again = f"score it under its own request ({' '.join(hints)}), or " if hints else ""
        raise ProtocolError(
            f"{path} answers another request: {told}.", hint=f"{again}make it anew: {template}"
        )


def _order(path: Path, key: str, given: AnyArray, names: Sequence[str], template: str) -> Integers:
    """Returns for every wanted id the row that has it.

    Raises:
        ContractError: ids that are no text, missing, unknown or there twice.
    """
    if given.ndim != 1 or given.dtype.kind != "U":
        raise ContractError(
            f"{path}: '{key}' must be text [N], got {given.dtype} {list(given.shape)}.",
            hint=template,
        )
    rows = {str(name): row for row, name in enumerate(given)}
    known = set(names)
    counts = Counter(given.tolist())
    for what, odd in (
        ("more than once", [name for name in counts if counts[name] > 1]),
        ("not asked for", [name for name in rows if name not in known]),
        ("missing", [name for name in names if name not in rows]),
    ):
        if odd:
            raise ContractError(
                f"{path}: {len(odd)} of {len(names)} in '{key}' {what}: {_some(odd)}.",
                hint=f"one row for every {key} of request.npz; {template}",
            )
    return np.array([rows[name] for name in names], dtype=np.int64)


def _check_clips(
    path: Path, part: str, clips: AnyArray, ids: AnyArray, protocol: ScoringProtocol
) -> None:
    shape = protocol.bench.shape
    frame = (shape.frames, shape.channels, shape.height, shape.width)
    where = f"{path}: '{part}'"
    if clips.shape != (len(ids), *frame):
        last = (shape.frames, shape.height, shape.width, shape.channels)
        turn = f"numpy.moveaxis({part}, -1, 2)" if clips.shape[1:] == last else None
        raise ContractError(
            f"{where} must be [{len(ids)}, {', '.join(map(str, frame))}] (rows, frames, channels, "
            f"height, width), got {list(clips.shape)}.",
            hint=turn or _template_command(protocol),
        )
    if clips.dtype != np.uint8 and not np.issubdtype(clips.dtype, np.floating):
        raise ContractError(
            f"{where} must be float in [0, 1] or uint8 in 0..255, got {clips.dtype}.",
            hint=f"{part}.astype('float32') in [0, 1], or {part}.astype('uint8') in 0..255",
        )
    if clips.dtype == np.uint8:
        if clips.max() == 1:
            raise ContractError(
                f"{where} is uint8 with no value above 1: intensities in [0, 1] lost their "
                "fractions.",
                hint="save them as float32, or multiply by 255 before turning them into uint8",
            )
        return
    for rows in _chunks(len(clips)):
        _check_range(where, clips[rows], ids[rows])


def _check_range(where: str, clips: AnyArray, ids: AnyArray) -> None:
    flat = clips.reshape(len(clips), -1)
    broken = ~np.isfinite(flat).all(1)
    if broken.any():
        raise ContractError(
            f"{where} holds NaN or infinity, first in {ids[broken][0]}.",
            hint="look at what the model made of these clips; nothing is scored around them",
        )
    low, high = float(flat.min()), float(flat.max())
    if low >= -_TOLERANCE and high <= 1 + _TOLERANCE:
        return
    outside = ((flat < -_TOLERANCE) | (flat > 1 + _TOLERANCE)).any(1)
    if low < 0:
        hint = "numpy.clip(x, 0, 1), or (x + 1) / 2 where the model works in [-1, 1]"
    else:
        hint = "x / 255 where the model works in 0..255, else numpy.clip(x, 0, 1)"
    raise ContractError(
        f"{where} must lie in [0, 1], got [{low:.4g}, {high:.4g}], first in {ids[outside][0]}.",
        hint=hint,
    )


def _source(clips: AnyArray, order: Integers) -> ClipSource:
    def read(rows: Integers) -> Tensor:
        chosen = torch.from_numpy(clips[order[rows]].astype(np.float32))
        return chosen.div_(255.0) if clips.dtype == np.uint8 else chosen

    return read


def _text(path: Path, key: str, array: AnyArray) -> str:
    if array.shape != () or array.dtype.kind != "U":
        raise ContractError(
            f"{path}: '{key}' must be one text, got {array.dtype} {list(array.shape)}."
        )
    return str(array[()])


def _chunks(n: int) -> list[Integers]:
    return [
        np.arange(start, min(start + _CHUNK, n), dtype=np.int64) for start in range(0, n, _CHUNK)
    ]


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _template_command(protocol: ScoringProtocol) -> str:
    name = protocol.bench.store.name
    return (
        f"vdsm-bench score --template DIR --dataset {name}   (and the same --preset, --model and "
        "--set, where they were given)"
    )
