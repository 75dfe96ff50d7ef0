"""The leaderboard: a view over all cell folders, computed anew each time, never stored."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vdsm_bench.boards.versions import newest_first, versions_apart, versions_of
from vdsm_bench.errors import DataError
from vdsm_bench.files import read_json
from vdsm_bench.runs.folder import CellRecord, scan_cells

#: scores that every board has a column for, each with value, interval and spread over seeds
SCORES = (
    "consistent_accuracy",
    "dynamic_accuracy",
    "identity_accuracy",
    "transfer_accuracy",
    "action_leak",
    "identity_leak",
    "identity_code_identity_probe",
    "identity_code_action_probe",
    "motion_code_identity_probe",
    "motion_code_action_probe",
    "mse",
    "psnr",
    "ssim",
    "sampled_prior_dynamic_accuracy",
    "sampled_prior_identity_accuracy",
    "sampled_prior_H_y",
    "sampled_prior_H_y_given_x",
    "sampled_prior_inception_score",
    "fvd_judge_regenerated",
    "fvd_judge_transferred",
    "kid_judge_regenerated",
    "kid_judge_transferred",
)
_LEADING = (
    "slot", "dataset", "model", "preset", "image_size", "frames", "split", "part", "supervision",
    "precision", "seeds", "n_seeds",
)  # fmt: skip
_TRAILING = (
    "identity_by_factor", "judge_accuracy", "collapsed", "training_minutes", "status", "protocol",
    "key", "note",
)  # fmt: skip
_ENDS = ("", "_low", "_high", "_spread")
_SCORE_COLUMNS = tuple(f"{score}{end}" for score in SCORES for end in _ENDS)
_CHANCE = {
    "labels": "chance: answers drawn as the labels are distributed",
    "majority": "chance: the most frequent answer, always",
    "permutation": "chance: the judge's answers on real clips, shuffled",
}
#: the columns of any table, in order, before those of further scores; a golden test holds them
COLUMNS: tuple[str, ...] = (
    *_LEADING,
    *_SCORE_COLUMNS,
    *_TRAILING,
)
#: not in the CSV: a rank belongs to a table of rows, not to a row, and versions are many
_NO_COLUMNS = ("rank", "contest", "versions")
_SLOT_ORDER = {"native": 0, "external": 1, "control": 2, "reported": 3}
Row = dict[str, Any]


def leaderboard(runs_dir: Path) -> list[Row]:
    """Returns the rows of every cell and control under a runs folder.

    A row stands for one dataset x model instance x preset x protocol over its seeds; cells scored
    by judges of the same settings that were trained apart have a row each. Settings that
    leave the preset stand beside its name, ``small[training.fit.epochs=9]``. Scores are means of
    the seeds' values and interval bounds, as spread their standard deviation; ``rank`` is among
    the rows scored on the same pairs (:mod:`vdsm_bench.boards.ranking`). Scores without a column
    in :data:`COLUMNS`, those of other packages and dear ones, are in all rows as soon as one has
    them, see :func:`further_scores`. ``versions`` are those of the scores and the pair list; rows
    of other versions of one protocol say so in their notes and stand apart, and controls of
    versions that none of a protocol's rows has any more are left out. Cells that are not done
    have a row each with their state and reason and no scores.
    """
    records = scan_cells(runs_dir)
    done: dict[tuple[str, Any], list[CellRecord]] = {}
    rows: list[Row] = []
    for record in records:
        if record.metrics is not None:
            judges = record.metrics.get("judge", {}).get("weights")
            done.setdefault((record.metrics["group"], judges), []).append(record)
        else:
            rows.append(_unfinished_row(record))
    finished = [(_done_row(group), group) for group in done.values()]
    _tell_judges_apart(finished, [judges for _, judges in done])
    if len(finished) > 1:
        from vdsm_bench.boards.ranking import rank_rows  # SciPy, only where there is a contest

        rank_rows(finished)
    rows += [row for row, _ in finished]
    rows += _controls_beside([row for row, _ in finished], _control_rows(runs_dir))
    for row, told in zip(rows, versions_apart(rows), strict=True):
        if told is not None:
            _add_note(row, f"versions: {told}; rows of other versions stand beside it")
    further = dict.fromkeys(_columns(further_scores(rows)))
    return sorted(({**further, **row} for row in rows), key=_order)


def further_scores(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns the sorted names of scores in the rows that have no fixed column."""
    keys = {key for row in rows for key in row}.difference(COLUMNS)
    return sorted(key for key in keys if f"{key}_spread" in keys)


def _columns(scores: Iterable[str]) -> list[str]:
    return [f"{score}{end}" for score in scores for end in _ENDS]


def _tell_judges_apart(
    finished: Sequence[tuple[Row, list[CellRecord]]], weights: Sequence[str | None]
) -> None:
    """Notes by whom rows of one protocol were scored, where that is not the same for all."""
    seen: dict[Any, set[str | None]] = {}
    for (row, _), judges in zip(finished, weights, strict=True):
        seen.setdefault((row["dataset"], row["protocol"]), set()).add(judges)
    for (row, _), judges in zip(finished, weights, strict=True):
        if len(seen[row["dataset"], row["protocol"]]) > 1:
            who = "which judges scored it is not recorded" if judges is None else f"judges {judges}"
            apart = f"{who}; rows of other judges stand beside it"
            _add_note(row, apart)


def _add_note(row: Row, text: str) -> None:
    row["note"] = "; ".join(filter(None, [row["note"], text]))


def reported_row(baseline: Mapping[str, Any]) -> Row:
    """Returns the row of a quoted result: its scores as printed, its protocol, its source."""
    row = _empty_row(slot="reported", status="reported")
    for key, value in baseline.items():
        if key in row and value is not None:
            row[key] = value
    return row


def by_factor(tables: Sequence[Sequence[Mapping[str, Any]]]) -> str | None:
    """Returns identity accuracy per factor as text, mean over the seeds' long tables."""
    values: dict[str, list[float]] = {}
    for line in (line for lines in tables for line in lines):
        if line.get("metric") == "identity_accuracy" and line.get("value") is not None:
            values.setdefault(str(line["factor"]), []).append(line["value"])
    parts = [f"{factor} {statistics.fmean(found):.3f}" for factor, found in values.items()]
    return " · ".join(parts) or None


def to_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns the rows as CSV; an absent score is an empty field, never 0.

    The columns are :data:`COLUMNS`, then those of further scores.
    """
    rows = list(rows)
    columns = [*COLUMNS, *_columns(further_scores(rows))]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _empty_row(**known: Any) -> Row:
    return {**dict.fromkeys((*COLUMNS, *_NO_COLUMNS)), **known}


def _done_row(records: Sequence[CellRecord]) -> Row:
    cells = [record.metrics for record in records if record.metrics is not None]
    first = cells[0]
    seeds = sorted(cell["seed"] for cell in cells)
    collapsed = [cell["collapsed"] for cell in cells if cell["collapsed"] is not None]
    trained = [c["training_seconds"] for c in cells if c["training_seconds"] is not None]
    row = _empty_row(
        **{key: first[key] for key in _LEADING[:9] if key not in ("preset", "part")},
        part=first["protocol"].get("part", "test"),
        preset=_preset(first["preset"], records[0].config),
        precision=_precision(first["slot"], first),
        seeds=" ".join(map(str, seeds)),
        n_seeds=len(seeds),
        identity_by_factor=by_factor([cell.get("long", []) for cell in cells]),
        judge_accuracy=first.get("judge", {}).get("lowest_accuracy"),
        collapsed=any(collapsed) if collapsed else None,
        training_minutes=round(statistics.fmean(trained) / 60, 2) if trained else None,
        status="done",
        protocol=first["protocol"].get("judge"),
        versions=versions_of(first["protocol"]),
        key=first["group"],
        note=_notes(cells),
    )
    row.update(_scores_over_seeds([cell["scores"] for cell in cells]))
    return row


def _precision(slot: str, known: Mapping[str, Any]) -> Any:
    """Returns what a model was trained in, where it was trained here."""
    return known.get("precision", "32") if slot == "native" else None


def _preset(name: Any, config: Mapping[str, Any] | None) -> str:
    """Returns ``name``, or ``name[key=value,...]`` where settings leave the preset."""
    changed = (config or {}).get("changes")
    if not isinstance(changed, dict) or not changed:
        return str(name)
    said = (f"{key}={json.dumps(value).strip(chr(34))}" for key, value in sorted(changed.items()))
    return f"{name}[{','.join(said)}]"


def _scores_over_seeds(cells: Sequence[Mapping[str, Any]]) -> Row:
    values: Row = {}
    for name in _names(cells):
        scores = [cell[name] for cell in cells if cell.get(name, {}).get("value") is not None]
        if not scores:
            continue
        values |= dict.fromkeys(_columns([name]))
        for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
            known = [score[key] for score in scores if score.get(key) is not None]
            values[name + suffix] = statistics.fmean(known) if known else None
        if len(scores) > 1:
            values[f"{name}_spread"] = statistics.stdev(score["value"] for score in scores)
    return values


def _names(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the fixed scores and those that the cells have beside them, sorted."""
    further = {name for cell in cells for name in cell}.difference(COLUMNS, _NO_COLUMNS)
    return [*SCORES, *sorted(further)]


def _notes(cells: Sequence[Mapping[str, Any]]) -> str | None:
    """Returns warnings, citations, and the columns that are empty, those of one reason together.

    So are those that only some of the seeds have.
    """
    columns: dict[str, list[str]] = {}
    for name in _names([cell["scores"] for cell in cells]):
        having = [c for c in cells if c["scores"].get(name, {}).get("value") is not None]
        if 0 < len(having) < len(cells):
            seeds = ", ".join(str(cell["seed"]) for cell in having)
            columns.setdefault(f"of seed {seeds} alone", []).append(name)
        for reason in {cell["scores"].get(name, {}).get("reason") for cell in cells} - {None}:
            columns.setdefault(reason, []).append(name)
    reasons = [f"{', '.join(names)}: {reason}" for reason, names in columns.items()]
    warnings = {cell["note"] for cell in cells if cell.get("note")}
    cited = {f"cites {cell['citation']}" for cell in cells if cell.get("citation")}
    return "; ".join(sorted(warnings) + sorted(cited) + sorted(reasons)) or None


def _unfinished_row(record: CellRecord) -> Row:
    row = _empty_row(
        slot=record.slot,
        dataset=record.path.parts[-3],
        model=record.path.parts[-2],
        status=record.state,
        key=record.path.name.rpartition("-")[2],
        note=record.problem or (record.status.note if record.status is not None else None),
    )
    content = record.config
    if content is None or not isinstance(content.get("config"), dict):
        return row
    config, data = content["config"], content["config"].get("data")
    row["model"] = content.get("instance", row["model"])
    row["preset"] = _preset(config.get("preset"), content)
    row["precision"] = _precision(record.slot, config)
    row["seeds"] = str(config.get("seed"))
    row["part"] = config.get("evaluation", {}).get("part")
    if isinstance(data, dict):
        row.update({key: data.get(key) for key in ("image_size", "frames", "split")})
    return row


def _controls_beside(finished: Sequence[Row], controls: Sequence[Row]) -> list[Row]:
    """Returns the controls without those whose protocol has rows, but of other versions alone."""
    scored: dict[Any, list[Any]] = {}
    for row in finished:
        scored.setdefault((row["dataset"], row["protocol"]), []).append(row["versions"])
    return [
        row
        for row in controls
        if row["versions"] in scored.get((row["dataset"], row["protocol"]), [row["versions"]])
    ]


def _control_rows(runs_dir: Path) -> list[Row]:
    rows: list[Row] = []
    for path in sorted((runs_dir / "judges").glob("*/*/controls-*.json")):
        if path.parent.name.startswith("."):
            continue  # moved aside by --fresh
        try:
            rows += _controls_of(read_json(path))
        except (DataError, LookupError, TypeError, AttributeError) as error:
            damaged = f"{path} is damaged ({error}); the next run makes it anew."
            rows.append(
                _empty_row(
                    slot="control",
                    dataset=path.parts[-3],
                    model="controls",
                    status="damaged",
                    note=damaged,
                )
            )
    return rows


def _controls_of(content: Mapping[str, Any]) -> list[Row]:
    _check_controls(content)
    shared = {key: content[key] for key in ("dataset", "image_size", "frames", "split")}
    numbers = content.get("asked", {})  # controls of other settings may stand in the same table
    asked = ", ".join(f"{number} {name}" for name, number in numbers.items())
    rows = []
    for control in content["rows"]:
        row = _empty_row(
            slot="control",
            model=control["name"],
            identity_by_factor=by_factor([control.get("long", [])]),
            judge_accuracy=content["judge"]["lowest_accuracy"],
            status="done",
            part=content["protocol"].get("part", "test"),
            protocol=content["protocol"]["judge"],
            versions=versions_of(content["protocol"]),
            key=content["key"],
            note=" ".join(filter(None, [control["expected"], asked and f"({asked})"])),
            **shared,
        )
        row.update(_scores_over_seeds([control["scores"]]))
        rows.append(row)
    levels = {kind for by_kind in content["chance"].values() for kind in by_kind}
    scores = (*_SCORE_COLUMNS, *_columns(further_scores(rows)), "identity_by_factor")
    for kind in sorted(levels):
        row = {**rows[-1], **dict.fromkeys(scores)}
        row.update(model=f"chance-{kind}", note=_CHANCE.get(kind, "what needs no model"))
        row.update({name: v[kind] for name, v in content["chance"].items() if kind in v})
        rows.append(row)
    return rows


def _check_controls(content: Mapping[str, Any]) -> None:
    """Raises TypeError where what tables are sorted and laid out by is of the wrong kind."""
    texts = [content["dataset"], content["protocol"]["judge"]]
    levels = [level for by_kind in content["chance"].values() for level in by_kind.values()]
    numbers = [content["judge"]["lowest_accuracy"], *levels]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("'dataset' or 'protocol.judge' is no text")
    if not all(isinstance(number, int | float) for number in numbers):
        raise TypeError("'judge.lowest_accuracy' or a chance level is no number")


def _order(row: Row) -> tuple[Any, ...]:
    best = row["transfer_accuracy"] if row["transfer_accuracy"] is not None else -1.0
    if row["slot"] == "control" and str(row["model"]).startswith("chance-"):
        best = -2.0  # last
    return (
        str(row["dataset"]),
        str(row["protocol"] or "~"),
        row["part"] == "validation",
        newest_first(row["versions"]),
        row["judge_accuracy"] or 0.0,  # a table has one
        _SLOT_ORDER.get(row["slot"], 9),
        row["status"] != "done",
        -best,
        str(row["model"]),
        str(row["preset"]),
        str(row["seeds"]),
    )
