"""The leaderboard on a terminal: one narrow table per dataset and protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_MAIN = {
    "consistent_accuracy": "consist.",
    "dynamic_accuracy": "dynamic",
    "identity_accuracy": "identity",
    "transfer_accuracy": "both",
    "action_leak": "leak act.",
    "identity_leak": "leak id.",
}
_MORE = {"mse": "MSE", "psnr": "PSNR", "ssim": "SSIM"}


def render(rows: Sequence[Mapping[str, Any]], *, everything: bool = False) -> RenderableType:
    """Returns the rows as tables, one per dataset and protocol, with notes beneath.

    Args:
        rows: rows of :func:`vdsm_bench.boards.leaderboard.leaderboard`, in its order.
        everything: intervals, pixel scores, supervision and training time too (wide).
    """
    blocks: list[RenderableType] = []
    scored = [row for row in rows if row["status"] in ("done", "reported")]
    for title, block in groupby(scored, key=_title):
        blocks.append(_table(title, list(block), everything))
    failed = [row for row in rows if row["status"] not in ("done", "reported")]
    if failed:
        blocks.append(Text("not done:", style="bold"))
        for row in failed:
            name = "/".join(str(row[key] or "?") for key in ("dataset", "model", "preset"))
            reason = f": {row['note']}" if row["note"] else ""
            blocks.append(Text(f"  {row['status']}  {name} seed {row['seeds']}{reason}"))
    return Group(*blocks)


def _title(row: Mapping[str, Any]) -> str:
    if row["slot"] == "reported":
        return f"{row['dataset']}: as published, each under its own protocol (not comparable)"
    judge = row["judge_accuracy"]
    said = "" if judge is None else f" · judge ≥ {judge:.3f}"
    return (
        f"{row['dataset']} · held out: {row['split']} · {row['image_size']} px · "
        f"{row['frames']} frames{said} · protocol {row['protocol']}"
    )


def _table(title: str, rows: Sequence[Mapping[str, Any]], everything: bool) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    scores = {**_MAIN, **_MORE} if everything else _MAIN
    leading = ["slot", "model", "preset", "seeds"]
    for name in leading:
        table.add_column(name, overflow="fold")
    for label in scores.values():
        table.add_column(label, justify="right", no_wrap=True)
    trailing = ["supervision", "training_minutes"] if everything else []
    for name in trailing:
        table.add_column(name.replace("training_minutes", "minutes"), overflow="fold")
    table.add_column("", no_wrap=True)
    for row in rows:
        cells = [str(row[name]) if row[name] is not None else "" for name in leading]
        cells += [_score(row, name, everything) for name in scores]
        cells += [str(row[name]) if row[name] is not None else "" for name in trailing]
        cells.append("collapsed" if row["collapsed"] else "")
        table.add_row(*cells, style="dim" if row["slot"] == "control" else None)
    return table


def _score(row: Mapping[str, Any], name: str, interval: bool) -> str:
    value = row[name]
    if value is None:
        return "–"
    if not isinstance(value, (int, float)):
        return str(value)
    text = f"{value:.2f}" if name == "psnr" else f"{value:.3f}"
    spread, low, high = (row[f"{name}{end}"] for end in ("_spread", "_low", "_high"))
    if spread is not None:
        text += f" ±{spread:.3f}"
    if interval and low is not None and high is not None:
        text += f" [{low:.3f}, {high:.3f}]"
    return text
