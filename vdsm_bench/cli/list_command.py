"""``vdsm-bench list``: the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vdsm_bench.cli.context import Session, json_option, pass_session, print_json

if TYPE_CHECKING:
    from vdsm_bench.registry import Entry


@click.command("list")
@click.argument("kind", required=False)
@json_option
@pass_session
def command(session: Session, kind: str | None, as_json: bool) -> None:
    """List the components of the zoo, of one KIND or of all."""
    from vdsm_bench.errors import UsageError, suggest
    from vdsm_bench.registry import KINDS

    if kind is not None and kind not in KINDS:
        raise UsageError(
            f"There is no kind '{kind}'{suggest(kind, KINDS)}; kinds: {', '.join(KINDS)}.",
            hint="vdsm-bench list",
        )
    table = session.catalogue()
    kinds = [kind] if kind else list(KINDS)
    entries = {each: {name: table.peek(each, name) for name in table.names(each)} for each in kinds}
    if as_json:
        print_json({k: {n: _plain(e) for n, e in found.items()} for k, found in entries.items()})
        return
    for each, found in entries.items():
        click.echo(f"{each}:" if found else f"{each}: none")
        width = max(map(len, found), default=0)
        for name, entry in found.items():
            click.echo(f"  {name.ljust(width)}  {entry.summary}")


def _plain(entry: Entry) -> dict[str, str]:
    return {"summary": entry.summary, "origin": entry.origin}
