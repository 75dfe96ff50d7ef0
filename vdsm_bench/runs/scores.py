"""Scores that are asked for after a cell is done: computed from its weights, added to its row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vdsm_bench.contracts import Evaluator, VideoModel
from vdsm_bench.errors import VdsmBenchError
from vdsm_bench.files import write_json
from vdsm_bench.registry import split_part
from vdsm_bench.runs.folder import CellFolder, read_cell
from vdsm_bench.runs.protocol import ScoringProtocol
from vdsm_bench.runs.reporting import Reporter
from vdsm_bench.training.checkpoint import load_weights, read_checkpoint


def lacking(protocol: ScoringProtocol, row: Mapping[str, Any]) -> dict[str, Evaluator]:
    """Returns the evaluators that were asked for and whose scores the row has not, or has old."""
    if not protocol.evaluation.scores:
        return {}
    there, facts = row.get("asked", {}), protocol.asked_facts
    return {
        name: evaluator
        for name, evaluator in protocol.asked.items()
        if there.get(name) != facts[name]
    }


def finished_row(
    folder: CellFolder,
    protocol: ScoringProtocol,
    runs_dir: Path,
    reporter: Reporter,
    say: Callable[[str], None],
) -> dict[str, Any] | None:
    """Returns the row of a finished cell, or None: what is damaged is made again.

    So is what other judges scored than lie there now, for instance those of another machine:
    rows of one table are to be comparable. It stays as it is where its training is gone, or a
    judge does not speak.
    """
    row = read_cell(folder.path).metrics
    if row is None:
        return None
    if lacking(protocol, row):  # judges that lie nowhere are trained for what the row lacks
        protocol.obtain_judge(runs_dir, reporter)
    if not of_other_judges(row, protocol, runs_dir):
        return row
    try:
        read_checkpoint(folder.checkpoint_file)
        protocol.obtain_judge(runs_dir, reporter)
    except VdsmBenchError as problem:
        say(f"it was not scored by the judges that lie there now, and stays as it is: {problem}")
        return row
    say(
        "other judges scored it than lie there now, or nobody noted which: it is scored again"
        + without_dear_scores(row, protocol)
    )
    return None


def without_dear_scores(row: Mapping[str, Any], protocol: ScoringProtocol) -> str:
    """Says which dear scores a row loses that is scored again; empty where it loses none."""
    wanted = dict(split_part(score) for score in protocol.evaluation.scores)
    had = {name: facts["arguments"] for name, facts in row.get("asked", {}).items()}
    gone = [name for name in had if name not in wanted]
    if not gone:
        return ""
    both = [{"name": name, **given} if given else name for name, given in (had | wanted).items()]
    ask = f"--set 'evaluation.scores={json.dumps(both)}'"
    return f", without {', '.join(gone)} (to have them too: {ask})"


def of_other_judges(row: Mapping[str, Any], protocol: ScoringProtocol, runs_dir: Path) -> bool:
    """Says whether other judges scored a row than lie there now; not where none lies there."""
    there = protocol.judge_weights(runs_dir)
    return there is not None and there != row.get("judge", {}).get("weights")


def add_scores(
    row: Mapping[str, Any],
    folder: CellFolder,
    model: VideoModel,
    protocol: ScoringProtocol,
    device: str,
    runs_dir: Path,
    label: str,
    reporter: Reporter,
) -> dict[str, Any]:
    """Scores a finished cell with the evaluators its row lacks; returns the whole row.

    Nothing is trained, and no score that is there changes.

    Raises:
        DataError: weights or judge damaged.
        ProtocolError: the judge failed a gate.
    """
    wanted = lacking(protocol, row)
    reporter.say(f"{label}: adding {', '.join(wanted)}")
    load_weights(folder.weights_file, model)
    judge = protocol.obtain_judge(runs_dir, reporter)
    found = protocol.score(model.to(device).eval(), judge, wanted)
    return write_added(row, found, folder, protocol, wanted)


def write_added(
    row: Mapping[str, Any],
    found: Mapping[str, Any],
    folder: CellFolder,
    protocol: ScoringProtocol,
    wanted: Mapping[str, Evaluator],
) -> dict[str, Any]:
    """Writes a row with what the wanted evaluators found beside what it had; returns it."""
    facts = {name: protocol.asked_facts[name] for name in wanted}
    whole = {**row, **merged(row, found), "asked": {**row.get("asked", {}), **facts}}
    write_json(folder.metrics_file, whole)
    folder.log(f"added {', '.join(wanted)}")
    return whole


def merged(row: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of ``metrics.json`` that evaluators fill, the new beside the old.

    A note says which evaluator it is of before its colon; those of one that is scored again go.
    """
    both = {
        key: {**row.get(key, {}), **found[key]}
        for key in ("scores", "chance", "histogram", "versions")
    }
    new = {(line["metric"], line["factor"]) for line in found["long"]}
    kept = [line for line in row.get("long", []) if (line["metric"], line["factor"]) not in new]
    again = {note.partition(":")[0] for note in found["notes"]} | set(found["scores"])
    notes = [note for note in row.get("notes", []) if note.partition(":")[0] not in again]
    return {**both, "long": kept + list(found["long"]), "notes": notes + list(found["notes"])}
