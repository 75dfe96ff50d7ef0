"""``pairs.csv`` of a cell: every pair of the list with its scores. No torch here.

One row per pair: which clips, whose identities, and per column the pair's own value. It is what
models are compared by, pair for pair.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vdsm_bench.errors import DataError
from vdsm_bench.files import write_text

if TYPE_CHECKING:
    from vdsm_bench.contracts import Floats
    from vdsm_bench.runs.protocol import ScoringProtocol

NAME = "pairs.csv"
_LEADING = ("pair_id", "identity_of_a", "identity_of_b")


@dataclass(frozen=True)
class PairsTable:
    """Scores per pair, as read.

    Attributes:
        ids: ids of the pairs.
        identities: numbers of the identities of A and of B.
        columns: column name to the value of every pair.
    """

    ids: tuple[str, ...]
    identities: tuple[tuple[int, int], ...]
    columns: Mapping[str, list[float]]


def clip_ids(protocol: ScoringProtocol) -> list[str]:
    """Returns the ids of the scored clips: their numbers in the clip store, as text."""
    return [f"{index:06d}" for index in protocol.scored_indices]


def pair_ids(protocol: ScoringProtocol) -> list[str]:
    """Returns the ids of the pair list: ``<id of A>-<id of B>``."""
    ids = clip_ids(protocol)
    return [f"{ids[a]}-{ids[b]}" for a, b in protocol.request.pairs]


def write_pairs(folder: Path, protocol: ScoringProtocol, per_pair: Mapping[str, Floats]) -> None:
    """Writes the table of a cell; ``per_pair`` maps columns to values ``[P]``."""
    identities = protocol.bench.store.identities[protocol.scored_indices][protocol.request.pairs]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_LEADING, *per_pair])
    values = zip(*(each.tolist() for each in per_pair.values()), strict=True)
    cells = values if per_pair else ([] for _ in identities)
    for name, sides, row in zip(pair_ids(protocol), identities.tolist(), cells, strict=True):
        writer.writerow([name, *sides, *(f"{value:.9g}" for value in row)])
    write_text(folder / NAME, stream.getvalue())


def read_pairs(folder: Path) -> PairsTable:
    """Reads the table of a cell.

    Raises:
        DataError: missing or damaged.
    """
    path = folder / NAME
    try:
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        if tuple(header[:3]) != _LEADING or not rows or {len(row) for row in rows} != {len(header)}:
            raise DataError(f"{path} is damaged: it is no table of pairs.")
        columns = {
            name: [float(row[place]) for row in rows]
            for place, name in enumerate(header)
            if place >= len(_LEADING)
        }
        sides = tuple((int(row[1]), int(row[2])) for row in rows)
        return PairsTable(tuple(row[0] for row in rows), sides, columns)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} does not read: {error}.") from error
