"""A suite as tables: one line per variant, means and spread over seeds. No torch here."""

from __future__ import annotations

import csv
import io
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from vdsm_bench.registry import Registry
from vdsm_bench.runs.cell import Cell, KnownCells
from vdsm_bench.runs.folder import CellRecord
from vdsm_bench.runs.suites import BASE

#: scores that the printed table shows, with their short names
SCORES = {
    "consistent_accuracy": "consistent",
    "dynamic_accuracy": "dynamic",
    "identity_accuracy": "all of who",
    "action_leak": "action leak",
    "identity_leak": "identity leak",
}
#: what a code tells of the other one's factors, above chance
PROBES = {
    "identity_code_action_probe": "action in s",
    "motion_code_identity_probe": "identity in d",
}
Row = dict[str, Any]


def suite_rows(
    table: Registry, cells: Sequence[Cell], runs_dir: Path, *, any_seed: bool
) -> list[Row]:
    """Returns a row per dataset, model and variant, from the cells that exist.

    Every figure is a mean over seeds; ``<name>_spread`` is their standard deviation where there
    are two or more. ``factors`` holds identity accuracy per static factor. After the figures of
    the printed table come all other scores, sorted. A cell that was stopped because a code had
    collapsed counts in ``collapsed`` and in no score; one that is of other data or another
    protocol than the newest of its row counts in neither.

    Args:
        table: the catalogue.
        cells: as planned.
        runs_dir: where cells live.
        any_seed: take whatever seeds there are, not only those of the plan.
    """
    known = KnownCells(table, runs_dir)
    rows: dict[tuple[str, str, str], Row] = {}
    found: dict[tuple[str, str, str], dict[int, CellRecord]] = {}
    for cell in cells:
        config = cell.config
        key = (config.data.dataset, config.model.name, f"{cell.instance} {cell.variant}")
        rows[key] = {
            "dataset": config.data.dataset,
            "part": config.evaluation.part,
            "model": cell.instance,
            "variant": cell.variant or BASE,
        }
        seeds = known.seeds(config)
        wanted = seeds if any_seed else {k: v for k, v in seeds.items() if k == config.seed}
        found.setdefault(key, {}).update(wanted)
    return [{**row, **_over_seeds(found[key])} for key, row in rows.items()]


def to_markdown(rows: Sequence[Row], summaries: Mapping[str, str]) -> str:
    """Returns a table per dataset, with what is not measured yet beneath it.

    Args:
        rows: of :func:`suite_rows`.
        summaries: of the variants, by name.
    """
    blocks = []
    models = _models(rows)
    for (dataset, part), group in groupby(sorted(rows, key=_table), key=_table):
        members = list(group)
        measured = [row for row in members if row["n_seeds"] or row["collapsed"]]
        factors = list(dict.fromkeys(name for row in measured for name in row["factors"]))
        names = ["variant", "seeds", *list(SCORES.values())[:3], *factors, "mean of factors"]
        names += [*list(SCORES.values())[3:], *PROBES.values(), "collapsed", "minutes"]
        lines = [f"### {dataset}, scored on {part} clips"]
        if measured:
            lines += ["", _line([*names, "supervision", "what"])]
            lines += [_line(["---", *["---:"] * (len(names) - 1), "---", "---"])]
        lines += [_line(_cells(row, factors, models, summaries)) for row in measured]
        missing = [
            _name(row, models) + (f" ({row['not_done']})" if row["not_done"] else "")
            for row in members
            if row["not_done"] or row not in measured
        ]
        if missing:
            lines += ["", f"Not measured: {', '.join(missing)}."]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def to_csv(rows: Iterable[Row]) -> str:
    """Returns the rows as CSV, one column per figure and factor; what is absent is empty."""
    flat = [
        {
            **{key: value for key, value in row.items() if key != "factors"},
            **{f"identity_accuracy_{name}": value for name, value in row["factors"].items()},
        }
        for row in rows
    ]
    stream = io.StringIO()
    columns = list(dict.fromkeys(key for row in flat for key in row))
    writer = csv.DictWriter(stream, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(flat)
    return stream.getvalue()


def _over_seeds(records: Mapping[int, CellRecord]) -> Row:
    older = _older(records)
    done = [
        record.metrics
        for seed, record in records.items()
        if record.metrics is not None and seed not in older
    ]
    states = {seed: record.state for seed, record in records.items() if record.state != "done"}
    states |= dict.fromkeys(older, "of other data, protocol, judges or precision")
    stopped = [seed for seed, state in states.items() if state == "collapsed"]
    verdicts = [row["collapsed"] for row in done if row["collapsed"] is not None]
    verdicts += [True] * len(stopped)
    row: Row = {
        "seeds": " ".join(str(seed) for seed in records if seed not in states),
        "n_seeds": len(done),
        "supervision": ", ".join(dict.fromkeys(each["supervision"] for each in done)),
    }
    for name in SCORES:
        row.update(_mean(name, [_value(each, name) for each in done]))
    for name in PROBES:
        row.update(_mean(f"{name}_above_chance", [_above_chance(each, name) for each in done]))
    row["factors"] = {}
    for factor in dict.fromkeys(name for each in done for name in _factors(each)):
        having = [values[factor] for values in map(_factors, done) if factor in values]
        row["factors"][factor] = statistics.fmean(having)
    row["mean_of_factors"] = statistics.fmean(row["factors"].values()) if row["factors"] else None
    row["collapsed"] = statistics.fmean(verdicts) if verdicts else None
    minutes = [row["training_seconds"] / 60 for row in done if row["training_seconds"] is not None]
    row.update(_mean("training_minutes", minutes))
    row["not_done"] = ", ".join(f"seed {seed}: {state}" for seed, state in states.items())
    for name in sorted({name for each in done for name in each["scores"]} - row.keys()):
        row.update(_mean(name, [_value(each, name) for each in done]))
    return row


def _older(records: Mapping[int, CellRecord]) -> set[int]:
    """Returns the seeds that are not to be counted with the newest one.

    Beside their configuration they have to share data, protocol and the precision they were
    trained in, and those with a row the judges' weights.
    """
    ended = {
        seed: record
        for seed, record in records.items()
        if record.metrics is not None or record.state == "collapsed"
    }
    alike = _as_the_newest(ended, _conditions)
    scored = {seed: record for seed, record in alike.items() if record.metrics is not None}
    judged_alike = _as_the_newest(scored, _judges)
    return ended.keys() - (alike.keys() - scored.keys()) - judged_alike.keys()


def _as_the_newest(
    records: Mapping[int, CellRecord], rule: Callable[[CellRecord], Any]
) -> dict[int, CellRecord]:
    if not records:
        return {}
    newest = rule(max(records.values(), key=_time))
    return {seed: record for seed, record in records.items() if rule(record) == newest}


def _conditions(record: CellRecord) -> tuple[Any, ...]:
    inputs, row = (record.config or {})["inputs"], record.metrics or {}
    precision = row.get("precision", inputs["config"].get("precision", "32"))
    return inputs.get("data"), inputs.get("protocol"), precision


def _judges(record: CellRecord) -> Any:
    return (record.metrics or {}).get("judge", {}).get("weights")


def _time(record: CellRecord) -> str:
    return record.status.time if record.status else ""


def _mean(name: str, values: Iterable[float | None]) -> Row:
    known = [value for value in values if value is not None]
    return {
        name: statistics.fmean(known) if known else None,
        f"{name}_spread": statistics.stdev(known) if len(known) > 1 else None,
    }


def _value(metrics: Mapping[str, Any], name: str) -> float | None:
    value: float | None = metrics["scores"].get(name, {}).get("value")
    return value


def _above_chance(metrics: Mapping[str, Any], name: str) -> float | None:
    value = _value(metrics, name)
    chance = metrics.get("chance", {}).get(name, {}).get("majority")
    return None if value is None or chance is None else value - chance


def _factors(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {
        line["factor"]: line["value"]
        for line in metrics.get("long", [])
        if line.get("metric") == "identity_accuracy" and line.get("value") is not None
    }


def _table(row: Row) -> tuple[str, str]:
    return row["dataset"], row["part"]


def _cells(
    row: Row, factors: Sequence[str], models: Mapping[str, str], summaries: Mapping[str, str]
) -> list[str]:
    main = [_shown(row, score) for score in SCORES]
    return [
        _name(row, models),
        str(row["n_seeds"]),
        *main[:3],
        *("–" if factor not in row["factors"] else f"{row['factors'][factor]:.3f}"
          for factor in factors),
        _shown(row, "mean_of_factors"),
        *main[3:],
        *(_shown(row, f"{probe}_above_chance") for probe in PROBES),
        "–" if row["collapsed"] is None else f"{row['collapsed']:.0%}",
        _shown(row, "training_minutes", digits=1),
        row["supervision"] or "–",
        summaries.get(row["variant"], ""),
    ]  # fmt: skip


def _models(rows: Sequence[Row]) -> dict[str, str]:
    """Returns what the models are called, by instance; nothing where there is one.

    That is their name, and the whole instance where there are several of that name. Variants
    change the instance too, so models are counted variant by variant.
    """
    names = {row["model"]: row["model"].partition("[")[0] for row in rows}
    models = Counter((row["dataset"], row["variant"]) for row in rows)
    alike = Counter((row["dataset"], row["variant"], names[row["model"]]) for row in rows)
    if max(models.values(), default=0) < 2:
        return {}
    twice = {name for (*_, name), count in alike.items() if count > 1}
    return {model: model if name in twice else name for model, name in names.items()}


def _name(row: Row, models: Mapping[str, str]) -> str:
    return f"{models[row['model']]}: {row['variant']}" if models else str(row["variant"])


def _shown(row: Row, name: str, digits: int = 3) -> str:
    value, spread = row[name], row.get(f"{name}_spread")
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
