"""Rows quoted from papers: they stand apart, each with its own protocol and source."""

from __future__ import annotations

from typing import Any

from vdsm_bench.registry import Registry, import_target


def quoted_results(table: Registry) -> list[dict[str, Any]]:
    """Returns the quoted rows of every baseline whose slot is ``reported``.

    A baseline names the function that reads its rows in its setting ``rows``.
    """
    rows: list[dict[str, Any]] = []
    for name in table.names("baselines"):
        settings = table.peek("baselines", name).settings
        if settings.get("slot") == "reported":
            rows += import_target(settings["rows"], f"baselines/{name}")(name)
    return rows
