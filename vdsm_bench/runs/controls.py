"""Rows with known answers, scored once per judge and kept beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vdsm_bench.config import content_key
from vdsm_bench.contracts import Integers, Outputs
from vdsm_bench.data.locate import build_dataset
from vdsm_bench.errors import DataError, UsageError
from vdsm_bench.files import hold, read_json, write_json
from vdsm_bench.runs.cell import NO_NUMBER
from vdsm_bench.runs.protocol import GatedJudge, ScoringProtocol, tool
from vdsm_bench.runs.reporting import Reporter

_CEILING = "The judge on the real clips themselves: the best any model can get."
_ORACLE = "The true transfers, drawn from the drawing parameters: about 1."


def controls_file(protocol: ScoringProtocol, judge: GatedJudge) -> Path:
    """Returns the file of the controls' rows, named by everything they depend on."""
    settings = protocol.evaluation.model_dump(exclude=set(NO_NUMBER["evaluation"]))
    return judge.folder / f"controls-{content_key([protocol.key, settings])}.json"


def obtain_controls(
    protocol: ScoringProtocol, judge: GatedJudge, reporter: Reporter
) -> list[dict[str, Any]]:
    """Returns the rows of all controls; scores them where that was not done, or is damaged."""
    path = controls_file(protocol, judge)
    with hold(path, f"controls of {protocol.bench.store.name}", say=reporter.say):
        try:
            return _rows_of(path, judge, protocol)
        except DataError:
            content = _score_all(protocol, judge, reporter)
            content["key"] = path.stem.removeprefix("controls-")
            write_json(path, content)
            return list(content["rows"])


def _rows_of(path: Path, judge: GatedJudge, protocol: ScoringProtocol) -> list[dict[str, Any]]:
    content = read_json(path)
    rows, said = content.get("rows"), content.get("judge")
    if not isinstance(said, dict) or said.get("weights") != judge.summary()["weights"]:
        raise DataError(f"{path} is of other judges.")
    if protocol.of_other_facts(content.get("own", {})) & protocol.evaluators.keys():
        raise DataError(f"{path} is of evaluators with other arguments or facts.")
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise DataError(f"{path} is damaged: it holds no rows.")
    return rows


def _score_all(protocol: ScoringProtocol, judge: GatedJudge, reporter: Reporter) -> dict[str, Any]:
    bench = protocol.bench
    subjects: dict[str, Any] = tool(protocol.table, "make_controls")(bench.train)
    task = f"controls {bench.store.name}"
    ceiling = tool(protocol.table, "evaluate_ceiling")(judge.judge, protocol.request).as_json()
    rows = [{"name": f"real-{bench.part}", "expected": _CEILING, **_scores(ceiling)}]
    for number, (name, subject) in enumerate(subjects.items()):
        reporter.progress(task, number, len(subjects), name)
        rows.append(
            {
                "name": name,
                "expected": subject.expected,
                **_scores(protocol.score(subject, judge, protocol.evaluators)),
            }
        )
    oracle = oracle_outputs(protocol)
    if oracle is not None:
        found = _scores(protocol.score(oracle, judge, protocol.evaluators))
        rows.append({"name": "label-oracle", "expected": _ORACLE, **found})
    reporter.progress(task, len(subjects), len(subjects))
    return {
        "dataset": bench.store.name,
        "split": bench.splits.rule,
        "image_size": bench.data.image_size,
        "frames": bench.data.frames,
        "judge": judge.summary(),
        "protocol": protocol.key,
        "own": {n: own for n, own in protocol.own_facts.items() if n in protocol.evaluators},
        "asked": {"clips": len(protocol.request.test), "pairs": len(protocol.request.pairs)},
        "chance": ceiling["chance"],
        "rows": rows,
    }


def oracle_outputs(protocol: ScoringProtocol) -> Outputs | None:
    """Returns the true transfers of a drawn dataset (DESIGN §7), or None for a filmed one."""
    bench, request = protocol.bench, protocol.request
    try:
        dataset = build_dataset(protocol.table, bench.store.name)
    except UsageError:  # a store whose dataset is not in this catalogue any more
        return None
    chosen = protocol.scored_indices
    window = {
        "frames": bench.data.frames,
        "stride": bench.data.stride,
        "image_size": bench.data.image_size,
    }

    drawn: dict[bytes, np.ndarray | None] = {}  # every judge is shown the same drawings

    def draw(identity_of: Integers, motion_of: Integers) -> np.ndarray | None:
        key = np.stack([identity_of, motion_of]).tobytes()
        if key not in drawn:
            drawn[key] = dataset.render_transfer(chosen[identity_of], chosen[motion_of], **window)
        return drawn[key]

    first = request.pairs[:1]
    if draw(first[:, 0], first[:, 1]) is None:
        return None

    def transfers(rows: Integers) -> Tensor:
        pairs = request.pairs[rows]
        return _clip(draw(pairs[:, 0], pairs[:, 1]))

    def reconstructions(rows: Integers) -> Tensor:
        return _clip(draw(rows, rows))

    outputs: Outputs = tool(protocol.table, "rendered")(
        transfers=transfers, reconstructions=reconstructions, name="the label oracle"
    )
    return outputs


def _clip(frames: np.ndarray | None) -> Tensor:
    if frames is None:
        raise DataError("The dataset drew some transfers and not others.")
    return torch.from_numpy(frames).movedim(-1, 2).float().div_(255.0)


def _scores(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("scores", "long")}
