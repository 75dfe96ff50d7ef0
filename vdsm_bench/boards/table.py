"""The leaderboard on a terminal: one narrow table per dataset and protocol."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from vdsm_bench.boards.leaderboard import further_scores
from vdsm_bench.boards.versions import versions_apart

#: columns at which the lines about the tables are wrapped where the output is no terminal
WIDTH = 120
#: columns that are enough for any table
_UNBOUNDED = 10_000
#: columns that the model's name keeps on a narrow terminal, where it is folded
_NAME = 18
_MAIN = {
    "consistent_accuracy": "consist",
    "dynamic_accuracy": "dynamic",
    "identity_accuracy": "ident.",
    "transfer_accuracy": "both",
    "action_leak": "leak.a",
    "identity_leak": "leak.i",
}
#: scores that a narrow terminal goes without, the first one first
_SPARED = (
    "identity_leak", "action_leak", "consistent_accuracy", "dynamic_accuracy", "identity_accuracy",
)  # fmt: skip
_MORE = {"mse": "MSE", "psnr": "PSNR", "ssim": "SSIM"}
_RANK_FOOT = (
    "rank: 1 + the models that are better beyond doubt by transfer accuracy; = : tied, some other"
    " model cannot be told apart (paired over identities, Holm, nominally 5 % for all that are"
    " compared)"
)
_CONTEST_FOOT = (
    "a, b …: models of one letter answered the same pairs of the same judges; ranks of two letters"
    " have not been compared"
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

    On a terminal that is too narrow a table has the spreads on lines of their own, then fewer
    scores, and says so. Elsewhere, and with everything, it is as wide as what stands in it, so
    print with ``crop=False``.

    Args:
        rows: rows of :func:`vdsm_bench.boards.leaderboard.leaderboard`, in its order.
        everything: intervals, pixel and further scores, supervision, training time and every
            chance level too (wide).
    """
    blocks: list[RenderableType] = []
    done = [row for row in rows if row["status"] == "done" and (everything or not _minor(row))]
    titled = zip(map(_title, done, versions_apart(done)), done, strict=True)
    for title, block in groupby(titled, key=itemgetter(0)):
        members = [row for _, row in block]
        changed = list(dict.fromkeys(_changes(row) for row in members if _changes(row)))
        blocks.append(_Block(title, members, changed, everything))
        for number, text in enumerate(changed, start=1):
            blocks.append(Text(f"({number}) beside the preset: {text}\n"))
        told = [row for row in members if row["slot"] in _MODELS and row["identity_by_factor"]]
        for row in told:
            name = f"{row['model']} {_run(row, changed)}"
            blocks.append(Text(f"{name}, identity by factor: {row['identity_by_factor']}\n"))
        blocks += _supervision(members, changed)
        if everything:
            blocks += _further(members, changed)
    if done:
        blocks.append(Text(_FOOT, style="dim"))
    if any(row["rank"] for row in done):
        blocks.append(Text(_RANK_FOOT, style="dim"))
    if any(isinstance(block, _Block) and len(block.contests) > 1 for block in blocks):
        blocks.append(Text(_CONTEST_FOOT, style="dim"))
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


def _supervision(rows: Sequence[Row], changed: Sequence[str]) -> Iterator[Text]:
    """Yields a line on what models were told beside pixels, with their names where it differs."""
    told: dict[str, list[str]] = {}
    for row in rows:
        if row["slot"] in _MODELS:
            who = f"{row['model']} {_run(row, changed)}".strip()
            told.setdefault(str(row["supervision"]), []).append(who)
    if told:
        said = (f"{what} ({', '.join(who)})" for what, who in told.items())
        yield Text(f"supervision: {next(iter(told)) if len(told) == 1 else '; '.join(said)}\n")


def _further(rows: Sequence[Row], changed: Sequence[str]) -> Iterator[Text]:
    """Yields a line for every row with scores that have no column: too many for a table."""
    names = further_scores(rows)
    for row in rows:
        told = [
            f"{name} {_score(row, name, interval=True, stacked=False)}"
            for name in names
            if row[name] is not None
        ]
        if told:
            who = f"{row['model']} {_run(row, changed)}".strip()
            yield Text(f"{who}, further scores: {' · '.join(told)}\n")


def _remarks(title: str, rows: Sequence[Row]) -> list[RenderableType]:
    told = [row for row in rows if row["note"] or row["status"] != "done"]
    lines = [Text(f"\n{title}", style="bold")] if told else []
    for row in told:
        name = "/".join(str(row[key] or "?") for key in ("dataset", "model", "preset"))
        state = "" if row["status"] == "done" else f"{row['status']}  "
        reason = f": {row['note']}" if row["note"] else ""
        lines.append(Text(f"  {state}{name} seed {row['seeds']}{reason}"))
    return list(lines)


def _title(row: Row, versions: str | None) -> str:
    judge = row["judge_accuracy"]
    said = "" if judge is None else f" · judge ≥ {judge:.3f}"
    part = "" if row["part"] == "test" else f" ({row['part']} clips)"
    return (
        f"{row['dataset']} · held out: {row['split']}{part} · {row['image_size']} px · "
        f"{row['frames']} frames{said} · protocol {row['protocol']}"
        + ("" if versions is None else f", versions: {versions}")
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


@dataclass(frozen=True)
class _Block:
    """The rows of one table, which takes its form where it is printed.

    Attributes:
        title: of the table.
        rows: in their order.
        changed: what leaves a preset, in the order of its numbers.
        everything: every column there is.
    """

    title: str
    rows: Sequence[Row]
    changed: Sequence[str]
    everything: bool

    @property
    def contests(self) -> list[int]:
        """The contests that its ranks are of, in the order of their letters."""
        return list(dict.fromkeys(row["contest"] for row in self.rows if row["rank"]))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(max_width=_UNBOUNDED)
        if self.everything or not console.is_terminal:
            every = {**_MAIN, **_MORE} if self.everything else _MAIN
            yield from console.render(self._table(every), unbounded)
            return
        for scores, stacked in _forms():
            least = self._table(scores, stacked=stacked, longest_name=_NAME)
            if Measurement.get(console, unbounded, least).maximum <= options.max_width:
                break
        yield self._table(scores, stacked=stacked)
        if left_out := [label for name, label in _MAIN.items() if name not in scores]:
            where = "a wider terminal, --all and --csv have them"
            yield Text(f"no room for {', '.join(left_out)}: {where}\n", style="dim")

    def _table(
        self,
        scores: Mapping[str, str],
        *,
        stacked: bool = False,
        longest_name: int | None = None,
    ) -> Table:
        table = Table(
            title=Text(self.title),
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        trailing = ["slot", "supervision", "training_minutes"] if self.everything else []
        ranked = any(row["rank"] for row in self.rows)
        if ranked:
            table.add_column("rank", justify="right", no_wrap=True)
        table.add_column("model", min_width=_NAME, max_width=longest_name, overflow="fold")
        table.add_column("run", min_width=7, no_wrap=True)
        for label in scores.values():
            table.add_column(label, justify="right", no_wrap=True)
        for name in trailing:
            table.add_column(name.replace("training_minutes", "minutes"), no_wrap=True)
        table.add_column("", no_wrap=True)
        for row in self.rows:
            # Text: an instance is called name[key=value], and rich reads brackets as markup
            cells: list[RenderableType] = [self._rank(row)] if ranked else []
            cells += [Text(str(row["model"])), Text(_run(row, self.changed))]
            cells += [
                Text(_score(row, name, interval=self.everything, stacked=stacked))
                for name in scores
            ]
            cells += [str(row[name]) if row[name] is not None else "" for name in trailing]
            cells.append(
                "external" * (row["slot"] == "external") + "collapsed" * bool(row["collapsed"])
            )
            table.add_row(*cells, style="dim" if row["slot"] == "control" else None)
        return table

    def _rank(self, row: Row) -> str:
        if not row["rank"] or len(self.contests) == 1:
            return row["rank"] or ""
        return f"{chr(ord('a') + self.contests.index(row['contest']))}{row['rank']}"


def _forms() -> Iterator[tuple[Mapping[str, str], bool]]:
    """Yields what a table may show, from the widest: scores with their labels, spreads beneath."""
    yield _MAIN, False
    for n in range(len(_SPARED) + 1):
        yield {name: label for name, label in _MAIN.items() if name not in _SPARED[:n]}, True


def _score(row: Row, name: str, *, interval: bool, stacked: bool) -> str:
    value = row[name]
    if value is None:
        return "–"
    digits = _digits(name, value)
    text = f"{value:.{digits}f}"
    spread, low, high = (row[f"{name}{end}"] for end in ("_spread", "_low", "_high"))
    if spread is not None:
        text += "\n" * stacked + f"±{spread:.{digits}f}"
    if interval and low is not None and high is not None:
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text


def _digits(name: str, value: float) -> int:
    """Returns the digits behind the point: three significant ones of a mean squared error."""
    if name == "mse" and 0 < value < 1:
        return 2 - math.floor(math.log10(value))
    return 2 if name == "psnr" else 3
