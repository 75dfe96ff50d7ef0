"""``vdsm-bench leaderboard``: the scores of all cells."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from vdsm_bench.cli.cell_options import Asked, cell_options
from vdsm_bench.cli.context import FIRST, Session, json_option, note, pass_session, print_json


@click.command("leaderboard")
@cell_options
@click.option("--csv", "as_csv", is_flag=True, help="Print every column as CSV.")
@click.option("--all", "everything", is_flag=True, help="A wide table, with intervals.")
@click.option("--reported", is_flag=True, help="Add rows quoted from papers, with their protocol.")
@click.option(
    "--curves",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw cells' training, epoch by epoch (PNG): of --suite, or --model and --dataset.",
)
@json_option
@pass_session
def command(
    session: Session,
    asked: Asked,
    as_csv: bool,
    everything: bool,
    reported: bool,
    curves: Path | None,
    as_json: bool,
) -> None:
    """Show the scores of all cells, with controls and the real-test ceiling.

    With --suite: one line per variant of the suite as Markdown, means over seeds. --model,
    --dataset and the like choose cells of the suite or, without one, those of --curves.
    """
    if asked.suite is not None:
        if everything or reported:
            from vdsm_bench.errors import UsageError

            option = "--all" if everything else "--reported"
            raise UsageError(
                f"{option} is not about a suite.", hint=f"vdsm-bench leaderboard {option}"
            )
        _show_suite(session, asked, as_csv=as_csv, as_json=as_json)
        if curves is not None:
            _draw_curves(session, asked, curves)
        return
    if curves is not None:
        _draw_curves(session, asked, curves)
    elif asked.given:
        from vdsm_bench.errors import UsageError

        raise UsageError(
            f"{asked.given[0]} is about the cells of a suite, or of --curves.", hint="--suite NAME"
        )
    from vdsm_bench.boards.leaderboard import leaderboard, reported_row, to_csv

    rows = leaderboard(session.runs_dir)
    if reported:
        from vdsm_bench.boards.reported import quoted_results
        from vdsm_bench.registry import registry

        rows += [reported_row(result) for result in quoted_results(registry())]
    if as_json:
        print_json(rows)
    elif as_csv:
        click.echo(to_csv(rows), nl=False)
    elif not rows:
        note(f"No rows under {session.runs_dir}.\n  next: {session.command(FIRST)}")
    else:
        import sys

        from rich.console import Console

        from vdsm_bench.boards.table import WIDTH, render

        width = None if sys.stdout.isatty() else WIDTH
        width = 2 * WIDTH if everything else width
        # uncropped: a table that no terminal bounds is as wide as what stands in it
        Console(width=width).print(render(rows, everything=everything), crop=False)


def _show_suite(session: Session, asked: Asked, *, as_csv: bool, as_json: bool) -> None:
    from vdsm_bench.boards.suite_table import suite_rows, to_csv, to_markdown
    from vdsm_bench.runs.suites import load_suite

    table = session.catalogue()
    cells = asked.cells(session, asked.layers())
    rows = suite_rows(table, cells, session.runs_dir, any_seed=asked.seeds is None)
    if as_json:
        print_json(rows)
    elif as_csv:
        click.echo(to_csv(rows), nl=False)
    else:
        variants = load_suite(table, str(asked.suite)).everything(table)
        click.echo(to_markdown(rows, {name: each.summary for name, each in variants.items()}))


def _draw_curves(session: Session, asked: Asked, path: Path) -> None:
    from vdsm_bench.boards.curves import write_curves
    from vdsm_bench.runs.cell import KnownCells
    from vdsm_bench.runs.suites import BASE

    known = KnownCells(session.catalogue(), session.runs_dir)
    any_seed = asked.suite is not None and asked.seeds is None  # as in the suite's table
    named = {}
    for cell in asked.cells(session, asked.layers()):
        config = cell.config
        where = f"{config.data.dataset}, {config.model.name}"
        variant = f": {cell.variant or BASE}" if asked.suite is not None else ""
        seeds = known.seeds(config)
        for seed in seeds if any_seed else [config.seed]:
            short = f"{where}{variant}, seed {seed}"
            named[short, cell.with_seed(seed).label] = seeds.get(seed)
    there = [(*names, record) for names, record in named.items() if record is not None]
    if not there:
        from vdsm_bench.errors import DataError

        raise DataError(
            f"There is nothing to draw: no such cell under {session.runs_dir}.",
            hint=f"vdsm-bench run {asked.typed}",
        )
    alike = Counter(short for short, _ in named)  # one model in two instances
    write_curves(
        path,
        {short if alike[short] == 1 else label: record.path for short, label, record in there},
    )
    note(f"curves: {path}")
