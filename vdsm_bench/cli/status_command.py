"""``vdsm-bench status``: where every cell stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vdsm_bench.cli.context import FIRST, Session, json_option, note, pass_session, print_json

if TYPE_CHECKING:
    from vdsm_bench.runs.folder import CellRecord


@click.command("status")
@json_option
@pass_session
def command(session: Session, as_json: bool) -> None:
    """Show where every cell stands."""
    from vdsm_bench.runs.folder import scan_cells

    rows = [row_of(record) for record in scan_cells(session.runs_dir)]
    if as_json:
        print_json(rows)
    elif not rows:
        note(f"No cells under {session.runs_dir}.\n  next: {session.command(FIRST)}")
    else:
        width = max(len(row["state"]) for row in rows)
        for row in rows:
            place = f"  {row['stage']} epoch {row['epoch']}" if row["stage"] else ""
            reason = f"  {row['note']}" if row["note"] else ""
            click.echo(f"{row['state'].ljust(width)}  {row['cell']}{place}{reason}")


def row_of(record: CellRecord) -> dict[str, Any]:
    """Returns one cell's line as a mapping."""
    status = record.status
    config = (record.config or {}).get("config")
    working = record.state in ("training", "interrupted", "killed", "collapsed", "diverged")
    return {
        "cell": record.label,
        "state": record.state,
        "stage": status.stage if status is not None and working else None,
        "epoch": status.epoch if status is not None and working else None,
        "precision": config.get("precision", "32")
        if isinstance(config, dict) and record.slot == "native"
        else None,
        "time": status.time if status is not None else None,
        "note": record.problem or (status.note if status is not None else None),
        "folder": str(record.path),
    }
