"""What protocols of the same judges differ in: versions of scores, the pair list, factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vdsm_bench.config import canonical_json

#: differences that are named; more are counted
_NAMED = 3
_NAMES = {"pairs": "pair list", "left_out": "left out"}
Row = Mapping[str, Any]


def versions_of(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a row's protocol has beside judge and part, the versions of scores by name."""
    apart = ("judge", "part", "metrics")
    rest = {_NAMES.get(name, name): v for name, v in protocol.items() if name not in apart}
    return {**rest, **protocol.get("metrics", {})}


def newest_first(versions: Mapping[str, Any] | None) -> tuple[int, str]:
    """Returns what sorts the versions of rows, so that equal ones stand together."""
    numbers = [value for value in (versions or {}).values() if isinstance(value, int)]
    return -sum(numbers), canonical_json(versions)


def versions_apart(rows: Sequence[Row]) -> list[str | None]:
    """Returns for each row which of its versions others of its protocol do not have.

    Args:
        rows: with ``dataset``, ``protocol`` (the judge's), ``part`` and ``versions``.

    Returns:
        As ``dynamic_accuracy 2, mse 2 and 7 more``; None where all rows of the protocol agree.
    """
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["versions"] is not None:
            groups.setdefault(_protocol(row), []).append(row["versions"])
    return [
        None if row["versions"] is None else _told(row["versions"], groups[_protocol(row)])
        for row in rows
    ]


def _protocol(row: Row) -> tuple[Any, ...]:
    return row["dataset"], row["protocol"], row["part"]


def _told(own: Mapping[str, Any], all_of_them: Sequence[Mapping[str, Any]]) -> str | None:
    names = sorted(
        name
        for name in set().union(*all_of_them)
        if any(name not in each or each[name] != all_of_them[0].get(name) for each in all_of_them)
    )
    told = [f"{name} {_shown(own[name])}" if name in own else f"no {name}" for name in names]
    more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return ", ".join(told[:_NAMED]) + more if told else None


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
