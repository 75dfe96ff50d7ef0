"""Results quoted from papers: slot ``reported``. Each keeps its own protocol and source.

A quoted number never stands in a column of this project's scores unless it asks the same question:
of all of them only VDSM's "accuracy consistency" does (agreement of the judge on real and
regenerated clips), and its judge was trained on the evaluation clips. The often repeated
comparison of 93.33 (VDSM) with 70.51 (S3VAE) sets that agreement against another question, action
accuracy with sampled identity; here they are different metrics.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from vdsm_bench.errors import DataError

_COLUMNS = ("model", "dataset", "metric", "value", "unit", "direction", "protocol", "source")
_SAME_QUESTION = {"accuracy_consistency": "consistent_accuracy"}


def reported_rows(path: Path | None = None) -> list[dict[str, Any]]:
    """Reads the quoted results, one per model, dataset and metric.

    Args:
        path: another file with the same columns; the project's own if None.

    Returns:
        Rows with ``slot``, model, dataset, metric, value (float as printed, or None), unit,
        direction, protocol (how it was measured there, in words), source, and ``reason`` where
        there is no value.

    Raises:
        DataError: the file does not read, lacks a column, a value is no number, or a row has no
            protocol or source.
    """
    path = path or Path(__file__).with_name("reported.csv")
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"The quoted results {path} do not read: {error}.") from error
    return [_row(line, f"{path.name}, line {number}") for number, line in enumerate(lines, start=2)]


def leaderboard_rows(model: str | None = None) -> list[dict[str, Any]]:
    """Gathers the quoted results into one row per model, dataset and protocol, for the leaderboard.

    Args:
        model: only this model's rows; all if None.

    Returns:
        Rows with ``slot``, model, dataset, protocol, ``note`` (every number as printed, and the
        source), and ``consistent_accuracy`` as a share where that very question was asked.
    """
    chosen = [row for row in reported_rows() if model in (None, row["model"])]
    return list(_gathered(chosen))


def _gathered(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    keys = ("model", "dataset", "protocol", "source")
    for key, group in groupby(rows, key=lambda row: tuple(row[name] for name in keys)):
        block = list(group)
        row: dict[str, Any] = {"slot": "reported", **dict(zip(keys[:3], key[:3], strict=True))}
        printed = [
            f"{one['metric']} {one['value']:g} {one['unit']}" for one in block if one["unit"]
        ]
        said = "; ".join(printed) or block[0]["reason"]
        row["note"] = f"{said} [{key[3]}]"
        for one in block:
            column = _SAME_QUESTION.get(one["metric"].partition(" ")[0])
            if column is not None and one["value"] is not None:
                row[column] = one["value"] / 100
        yield row


def _row(line: Mapping[Any, Any], where: str) -> dict[str, Any]:
    # The reader puts surplus fields under the key None, and None for those that are missing.
    if set(line) != set(_COLUMNS) or None in line.values():
        raise DataError(f"{where}: expected the columns {', '.join(_COLUMNS)}.")
    row = {"slot": "reported", **line}
    if not (row["model"] and row["dataset"] and row["protocol"] and row["source"]):
        raise DataError(f"{where}: model, dataset, protocol and source must be given.")
    if row["value"] == "":
        row.update(value=None, reason=row["protocol"])
        return row
    try:
        row["value"] = float(row["value"])
    except ValueError:
        raise DataError(f"{where}: '{row['value']}' is no number.") from None
    return row
