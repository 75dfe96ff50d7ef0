"""``vdsm-bench completion``: the shell's completion script."""

from __future__ import annotations

import click

from vdsm_bench.cli.context import Session, pass_session


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_session
def command(session: Session, shell: str) -> None:
    """Print the completion script of a SHELL, to be sourced in its start file."""
    from click.shell_completion import get_completion_class

    from vdsm_bench.cli.main import cli

    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(cli, {}, "vdsm-bench", "_VDSM_BENCH_COMPLETE").source())
