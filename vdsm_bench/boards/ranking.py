"""Ranks on the leaderboard: what cannot be told apart is tied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vdsm_bench.config import canonical_json
from vdsm_bench.errors import DataError
from vdsm_bench.runs.folder import CellRecord
from vdsm_bench.runs.pairs_table import PairsTable, read_pairs
from vdsm_bench.significance import Floats, Integers, enough_groups, ranks

#: the column that models are ranked by: all of the identity and the action at once
RANKED_BY = "transfer_accuracy"


@dataclass(frozen=True)
class _Entrant:
    row: dict[str, Any]
    values: Floats
    identities: Integers


def rank_rows(rows: Sequence[tuple[dict[str, Any], Sequence[CellRecord]]]) -> None:
    """Fills ``rank`` and ``contest`` of rows that are to be compared.

    A contest is all rows that were scored on the same pairs by the same judges under the same
    protocol; its number stands in ``contest``. A row's rank is 1 + the number of rows of its
    contest that are better beyond doubt; ``=`` behind it says that some other one cannot be told
    apart from it. That any two equal models of a contest are told apart has a nominal chance of
    5 % (paired, over identities and seeds, Holm).

    Args:
        rows: rows of finished models, each with the cells (seeds) behind it. Rows that have no
            other to be compared with, pairs of fewer than four identities, or no readable
            ``pairs.csv`` of numbers keep an empty rank.
    """
    contests: dict[Any, list[_Entrant]] = {}
    for row, cells in rows:
        try:
            found = [read_pairs(cell.path) for cell in cells]
        except DataError:
            continue
        first = found[0]
        if any(one.ids != first.ids or RANKED_BY not in one.columns for one in found):
            continue
        values = np.array([one.columns[RANKED_BY] for one in found])
        identities = np.array(first.identities)
        if not enough_groups(identities) or not np.isfinite(values).all():
            continue
        entrant = _Entrant(row, values, identities)
        contests.setdefault(_key(row, cells[0], first), []).append(entrant)
    real = [entrants for entrants in contests.values() if len(entrants) > 1]
    for number, entrants in enumerate(real, start=1):
        _rank(number, entrants)


def _key(row: dict[str, Any], cell: CellRecord, pairs: PairsTable) -> Any:
    content = cell.metrics or {}
    protocol = canonical_json(content["protocol"])
    judges = content.get("judge", {}).get("weights")
    return row["dataset"], protocol, judges, pairs.ids, pairs.identities


def _rank(contest: int, entrants: Sequence[_Entrant]) -> None:
    found = ranks([entrant.values for entrant in entrants], entrants[0].identities)
    for entrant, (place, tied) in zip(entrants, found, strict=True):
        entrant.row.update(rank=f"{place}{'=' if tied else ''}", contest=contest)
