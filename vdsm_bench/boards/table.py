"""The leaderboard on a terminal: one narrow table per dataset and protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

#: columns where the output is no terminal
WIDTH = 120
_MAIN = {
    "consistent_accuracy": "consist",
    "dynamic_accuracy": "dynamic",
    "identity_accuracy": "ident.",
    "transfer_accuracy": "both",
    "action_leak": "leak.a",
    "identity_leak": "leak.i",
}
_MORE = {"mse": "MSE", "psnr": "PSNR", "ssim": "SSIM"}
_RANK_FOOT = (
    "rank: 1 + the models that are better beyond doubt by transfer accuracy; = : tied, some other"
    " model cannot be told apart (paired over identities, Holm, nominally 5 % for the whole table)"
)
_FOOT = (
    "consist: consistent accuracy · both: transfer accuracy · leak.a: action of the identity clip"
    " · leak.i: identity of the motion clip · dim: controls, their answers are known"
)
#: slots of rows that stand for a model
_MODELS = ("native", "external")
Row = Mapping[str, Any]


def render(rows: Sequence[Row], *, everything: bool = False) -> RenderableType:
    """Returns the rows as tables, one per dataset and protocol, with what is amiss beneath.

    Args:
        rows: rows of :func:`vdsm_bench.boards.leaderboard.leaderboard`, in its order.
        everything: intervals, pixel scores, supervision, training time and every chance level
            too (wide).
    """
    blocks: list[RenderableType] = []
    done = [row for row in rows if row["status"] == "done" and (everything or not _minor(row))]
    for title, block in groupby(done, key=_title):
        members = list(block)
        changed = list(dict.fromkeys(_changes(row) for row in members if _changes(row)))
        blocks.append(_table(title, members, changed, everything))
        for number, text in enumerate(changed, start=1):
            blocks.append(Text(f"({number}) beside the preset: {text}\n"))
        told = [row for row in members if row["slot"] in _MODELS and row["identity_by_factor"]]
        for row in told:
            name = f"{row['model']} {_run(row, changed)}"
            blocks.append(Text(f"{name}, identity by factor: {row['identity_by_factor']}\n"))
    if done:
        blocks.append(Text(_FOOT, style="dim"))
    if any(row["rank"] for row in done):
        blocks.append(Text(_RANK_FOOT, style="dim"))
    blocks += _remarks("remarks:", [row for row in done if row["slot"] in _MODELS])
    blocks += _remarks("not done:", [r for r in rows if r["status"] not in ("done", "reported")])
    quoted = [row for row in rows if row["status"] == "reported"]
    if quoted:
        blocks.append(Text("\nas published, each under its own protocol (not comparable):"))
    for row in quoted:
        where = f"{row['model']} on {row['dataset']}" if row["dataset"] else str(row["model"])
        blocks.append(Text(f"  {where}: {row['note']}; protocol: {row['protocol']}"))
    return Group(*blocks)


def _minor(row: Row) -> bool:
    return row["slot"] == "control" and row["model"] in ("chance-labels", "chance-permutation")


def _remarks(title: str, rows: Sequence[Row]) -> list[RenderableType]:
    told = [row for row in rows if row["note"] or row["status"] != "done"]
    lines = [Text(f"\n{title}", style="bold")] if told else []
    for row in told:
        name = "/".join(str(row[key] or "?") for key in ("dataset", "model", "preset"))
        state = "" if row["status"] == "done" else f"{row['status']}  "
        reason = f": {row['note']}" if row["note"] else ""
        lines.append(Text(f"  {state}{name} seed {row['seeds']}{reason}"))
    return list(lines)


def _title(row: Row) -> str:
    judge = row["judge_accuracy"]
    said = "" if judge is None else f" · judge ≥ {judge:.3f}"
    part = "" if row["part"] == "test" else f" ({row['part']} clips)"
    return (
        f"{row['dataset']} · held out: {row['split']}{part} · {row['image_size']} px · "
        f"{row['frames']} frames{said} · protocol {row['protocol']}"
    )


def _changes(row: Row) -> str:
    """Returns the settings that leave the preset, from ``preset[key=value,...]``."""
    return str(row["preset"] or "").partition("[")[2].removesuffix("]").replace(",", ", ")


def _run(row: Row, changed: Sequence[str]) -> str:
    """Returns preset and seeds; what leaves the preset by its number beneath the table."""
    if not row["n_seeds"]:
        return ""
    mark = f" ({changed.index(_changes(row)) + 1})" if _changes(row) else ""
    return f"{str(row['preset']).partition('[')[0]}{mark} ×{row['n_seeds']}"


def _table(title: str, rows: Sequence[Row], changed: Sequence[str], everything: bool) -> Table:
    table = Table(
        title=Text(title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    scores = {**_MAIN, **_MORE} if everything else _MAIN
    trailing = ["slot", "supervision", "training_minutes"] if everything else []
    ranked = any(row["rank"] for row in rows)
    if ranked:
        table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("model", min_width=18, overflow="fold")
    table.add_column("run", min_width=7, overflow="fold")
    for label in scores.values():
        table.add_column(label, justify="right", no_wrap=True)
    for name in trailing:
        table.add_column(name.replace("training_minutes", "minutes"), overflow="fold")
    table.add_column("", no_wrap=True)
    for row in rows:
        # Text: a model instance is called name[key=value], and rich reads brackets as markup
        cells: list[RenderableType] = [row["rank"] or ""] if ranked else []
        cells += [Text(str(row["model"])), Text(_run(row, changed))]
        cells += [_score(row, name, everything) for name in scores]
        cells += [str(row[name]) if row[name] is not None else "" for name in trailing]
        cells.append(
            "external" * (row["slot"] == "external") + "collapsed" * bool(row["collapsed"])
        )
        table.add_row(*cells, style="dim" if row["slot"] == "control" else None)
    return table


def _score(row: Row, name: str, interval: bool) -> str:
    value = row[name]
    if value is None:
        return "–"
    text = f"{value:.2f}" if name == "psnr" else f"{value:.3f}"
    spread, low, high = (row[f"{name}{end}"] for end in ("_spread", "_low", "_high"))
    if spread is not None:
        text += f"±{spread:.2f}"
    if interval and low is not None and high is not None:
        text += f" [{low:.3f}, {high:.3f}]"
    return text
