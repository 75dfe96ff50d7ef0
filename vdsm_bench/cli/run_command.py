"""``vdsm-bench run``: from a model and a dataset to a row."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from vdsm_bench.cli.cell_options import Asked, cell_options
from vdsm_bench.cli.context import (
    Session,
    device_option,
    json_option,
    note,
    pass_session,
    print_json,
)
from vdsm_bench.devices import prepare_environment

if TYPE_CHECKING:
    from vdsm_bench.runs.cell import Cell
    from vdsm_bench.runs.execute import Outcome


@click.command("run")
@cell_options
@click.option(
    "--protocol",
    type=click.Choice(["vdsm-notebook"]),
    help="Add the scores of another protocol, also to rows that are done.",
)
@device_option
@click.option(
    "--precision",
    type=click.Choice(["auto", "32", "bf16"]),
    default="auto",
    show_default=True,
    help="What training computes in; auto measures once, and takes bf16 where it pays.",
)
@click.option(
    "--profile",
    is_flag=True,
    help="Also write a trace and a table of where a step goes; a finished cell is not trained.",
)
@click.option("--fresh", is_flag=True, help="Start over; the old folder is moved aside.")
@click.option("--no-wait", is_flag=True, help="Refuse if another process works on the cell.")
@click.option("--stop-on-collapse", is_flag=True, help="Stop a cell whose codes have collapsed.")
@click.option(
    "--judge-looks",
    is_flag=True,
    help="Also judge transfers of validation clips (if few, training clips too) while it trains.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan, do nothing.")
@json_option
@pass_session
def command(
    session: Session,
    asked: Asked,
    protocol: str | None,
    device: str,
    precision: str,
    profile: bool,
    fresh: bool,
    no_wait: bool,
    stop_on_collapse: bool,
    judge_looks: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Train and score models on datasets; typing it twice continues or reuses."""
    layers = asked.layers()
    cells = asked.cells(session, layers)
    if protocol is not None:
        cells = [cell.asking(protocol) for cell in cells]
    if dry_run:
        short = asked.suite is not None
        _show_plan(session, cells, precision, fresh, as_json, short=short)
        return _tell_missing(session, cells)
    prepare_environment()
    if profile:  # torch's profiler talks unless it is told not to before torch is loaded
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from vdsm_bench.cli.progress import reporter
    from vdsm_bench.runs.execute import RunContext, run_cells

    with reporter() as listener:
        context = RunContext(
            table=session.catalogue(),
            runs_dir=session.runs_dir,
            data_dir=session.data_dir,
            device=device,
            precision=precision,
            profile=profile,
            fresh=fresh,
            wait=not no_wait,
            reporter=listener,
            stop_on_collapse=stop_on_collapse,
            judge_looks=judge_looks,
        )
        outcomes = run_cells(cells, context)
    if as_json:
        print_json([outcome.as_json() for outcome in outcomes])
    else:
        show_outcomes(session, outcomes, short=asked.suite is not None)
    if judge_looks and (before := sum(outcome.reused for outcome in outcomes)):
        note(
            f"--judge-looks: {before} of {len(outcomes)} cells had been trained before, and judges "
            "look while a model trains; --fresh trains anew"
        )
    if asked.suite is not None:
        note(f"next: {session.command(f'leaderboard {asked.typed}')}")
    return exit_code(outcomes)


def exit_code(outcomes: list[Outcome]) -> int:
    """Returns 0, the code all cells failed with, or 1 where only some failed or they differ."""
    codes = {outcome.exit_code for outcome in outcomes}
    return codes.pop() if len(codes) == 1 else 1


def show_outcomes(session: Session, outcomes: list[Outcome], *, short: bool = False) -> None:
    """Prints the rows, the pictures and the failures; one line of each cell if ``short``."""
    for outcome in outcomes:
        if outcome.metrics is None:
            click.echo(f"{outcome.label}: {outcome.state}")
            note(f"error: {session.in_its_folders(outcome.error or '')}")
            continue
        click.echo(f"{outcome.label}: {'reused' if outcome.reused else 'done'}")
        if short:
            continue
        for line in row_lines(outcome.metrics):
            click.echo(f"  {line}")
        for picture in outcome.pictures:
            click.echo(f"  picture: {picture}")
        click.echo(f"  folder: {outcome.folder}")


def row_lines(metrics: dict[str, Any]) -> list[str]:
    """Returns a row as lines of text: scores with intervals and chance, leaks, warnings."""
    from vdsm_bench.boards.leaderboard import SCORES, by_factor

    lines = [
        f"{metrics['image_size']} px, {metrics['frames']} frames, held out: {metrics['split']}, "
        f"supervision: {metrics['supervision']}, judge ≥ {metrics['judge']['lowest_accuracy']:.3f}"
        f"{', trained in bf16' if metrics.get('precision') == 'bf16' else ''}"
    ]
    names = [*SCORES, *(name for name in metrics["scores"] if name not in SCORES)]
    width = max(map(len, names))
    for name in names:
        score = metrics["scores"].get(name)
        if score is None:
            continue
        if score.get("value") is None:
            lines.append(f"{name.ljust(width)}  –  ({score.get('reason')})")
            continue
        interval = (
            f"  [{score['low']:.3f}, {score['high']:.3f}]" if score.get("low") is not None else ""
        )
        lines.append(f"{name.ljust(width)}  {score['value']:.3f}{interval}")
    factors = by_factor([metrics.get("long", [])])
    if factors is not None:
        lines.append(f"identity by factor: {factors}")
    lines += [f"note: {note}" for note in metrics.get("notes", [])]
    if metrics.get("note"):
        lines.append(f"warning: {metrics['note']}")
    return lines


def _tell_missing(session: Session, cells: list[Cell]) -> int:
    """Says which datasets the plan lacks, and what to do; returns the exit code it would have."""
    from vdsm_bench.data.locate import data_root, missing_files

    table, root, code = session.catalogue(), data_root(session.data_dir), 0
    for name in dict.fromkeys(cell.config.data.dataset for cell in cells):
        error = missing_files(table, name, root)
        if error is not None:
            error.hint = session.in_its_folders(error.hint or "")
            note(f"error: {error}")
            code = error.exit_code
    return code


def _show_plan(
    session: Session, cells: list[Cell], precision: str, fresh: bool, as_json: bool, *, short: bool
) -> None:
    from vdsm_bench.runs.plan import describe_plan

    table, runs_dir = session.catalogue(), session.runs_dir
    plan = describe_plan(table, cells, runs_dir, precision=precision, fresh=fresh)
    if as_json:
        print_json(plan)
        return
    for item in plan:
        click.echo(f"{item['cell']}: {item['action']}")
        if short:
            continue
        click.echo(
            f"  clips: {item['image_size']} px, {item['frames']} frames, stride {item['stride']}, "
            f"held out: {item['split'] or 'as the dataset says'}"
        )
        for name, text in item["stages"].items():
            click.echo(f"  stage {name}: {text}")
        click.echo(f"  precision: {item['precision']}")
        click.echo(f"  judge: {item['judge']}\n  scored on at most: {item['scored']}")
    if short:
        done = sum(item["action"] == "reuse" for item in plan)
        click.echo(f"{len(plan)} cells, {done} of them done")
