"""Scores that a row lacks or has old after its cell is done: computed from its weights, added."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vdsm_bench.contracts import Evaluator, VideoModel
from vdsm_bench.errors import DataError, VdsmBenchError
from vdsm_bench.files import write_json
from vdsm_bench.registry import split_part
from vdsm_bench.runs.controls import obtain_controls
from vdsm_bench.runs.folder import CellFolder, read_cell
from vdsm_bench.runs.pairs_table import read_pairs, write_pairs
from vdsm_bench.runs.protocol import ScoringProtocol
from vdsm_bench.runs.reporting import Reporter
from vdsm_bench.training.checkpoint import load_weights, read_checkpoint


def lacking(protocol: ScoringProtocol, row: Mapping[str, Any]) -> dict[str, Evaluator]:
    """Returns the evaluators whose scores the row has not, or has old.

    Those are some of the asked ones, and those of other packages whose arguments or facts changed.
    """
    there, facts = row.get("asked", {}), protocol.asked_facts
    old = protocol.of_other_facts(row.get("own", {}))
    old |= {name for name in facts if there.get(name) != facts[name]}
    everyone = {**protocol.evaluators, **protocol.asked}
    return {name: evaluator for name, evaluator in everyone.items() if name in old}


def finished_row(
    folder: CellFolder,
    protocol: ScoringProtocol,
    runs_dir: Path,
    reporter: Reporter,
    say: Callable[[str], None],
) -> dict[str, Any] | None:
    """Returns the row of a finished cell, or None: what is damaged is made again.

    So is what other judges scored than lie there now, for instance those of another machine:
    rows of one table are to be comparable; and what has lost its scores per pair, without which it
    has no rank. It stays as it is where its training is gone, or a judge does not speak.
    """
    row = read_cell(folder.path).metrics
    if row is None:
        return None
    if lacking(protocol, row):  # judges that lie nowhere are trained for what the row lacks
        protocol.obtain_judge(runs_dir, reporter)
    reason = _outdated(row, folder, protocol, runs_dir)
    if reason is None:
        return row
    try:
        read_checkpoint(folder.checkpoint_file)
        protocol.obtain_judge(runs_dir, reporter)
    except VdsmBenchError as problem:
        say(f"{reason}; it cannot be scored again, and stays as it is: {problem}")
        return row
    say(f"{reason}: it is scored again{without_dear_scores(row, protocol)}")
    return None


def _outdated(
    row: Mapping[str, Any], folder: CellFolder, protocol: ScoringProtocol, runs_dir: Path
) -> str | None:
    if of_other_judges(row, protocol, runs_dir):
        return "other judges scored it than lie there now, or nobody noted which"
    try:
        read_pairs(folder.path)
    except DataError as problem:
        return problem.message.rstrip(".")
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

    Nothing is trained, and no other score changes.

    Raises:
        DataError: weights or judge damaged.
        ProtocolError: the judge failed a gate.
    """
    reporter.say(f"{label}: adding {', '.join(lacking(protocol, row))}")
    load_weights(folder.weights_file, model)
    return add_to_row(row, model.to(device).eval(), folder, protocol, runs_dir, reporter)


def add_to_row(
    row: Mapping[str, Any],
    subject: Any,
    folder: CellFolder,
    protocol: ScoringProtocol,
    runs_dir: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    """Scores a subject with the evaluators its row lacks, and so the controls; writes the row."""
    wanted = lacking(protocol, row)
    judge = protocol.obtain_judge(runs_dir, reporter)
    obtain_controls(protocol, judge, reporter)
    found = protocol.evaluate(subject, judge, wanted)
    new = found.as_json()
    gone = _replaced(row, new, "scores")
    if found.per_pair or gone & row["scores"].keys():
        before = read_pairs(folder.path).columns
        kept = {name: np.array(v) for name, v in before.items() if name not in gone}
        write_pairs(folder.path, protocol, {**kept, **found.per_pair})
    asked, own = protocol.asked_facts, protocol.own_facts
    whole = {
        **row,
        **merged(row, new),
        "asked": {**row.get("asked", {}), **{n: asked[n] for n in wanted if n in asked}},
        "own": {**row.get("own", {}), **{n: own[n] for n in wanted if n in own}},
    }
    write_json(folder.metrics_file, whole)
    folder.log(f"added {', '.join(wanted)}")
    return whole


def merged(row: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of ``metrics.json`` that evaluators fill, the new beside the old.

    What an evaluator filled that is scored again goes, whatever its columns and notes were then.
    """
    gone = {what: _replaced(row, found, what) for what in ("scores", "long", "histogram", "notes")}
    of = {"scores": "scores", "chance": "scores", "versions": "scores", "histogram": "histogram"}
    both = {
        key: {n: one for n, one in row.get(key, {}).items() if n not in gone[what]} | found[key]
        for key, what in of.items()
    }
    new = {(line["metric"], line["factor"]) for line in found["long"]}
    lines = [
        line
        for line in row.get("long", [])
        if line["metric"] not in gone["long"] and (line["metric"], line["factor"]) not in new
    ]
    # a row from before it said who filled what: a note begins with what it is of
    owned = {note for filled in row.get("filled", {}).values() for note in filled["notes"]}
    begun = {note.partition(":")[0] for note in found["notes"] if ":" in note}
    kept = [
        note
        for note in row.get("notes", [])
        if note not in gone["notes"] and (note in owned or note.partition(":")[0] not in begun)
    ]
    return {
        **both,
        "long": lines + list(found["long"]),
        "notes": kept + [note for note in found["notes"] if note not in kept],
        "filled": {**row.get("filled", {}), **found["filled"]},
    }


def _replaced(row: Mapping[str, Any], found: Mapping[str, Any], what: str) -> set[str]:
    """Returns what the evaluators that are scored again filled or fill, and no other did."""
    then, again = row.get("filled", {}), found["filled"]
    theirs = [one[name][what] for one in (then, again) for name in one.keys() & again.keys()]
    others = [then[name][what] for name in then.keys() - again.keys()]
    return {*chain(*theirs)} - {*chain(*others)}
