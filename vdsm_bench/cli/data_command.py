"""``vdsm-bench data``: datasets on disk."""

from __future__ import annotations

from pathlib import Path

import click

from vdsm_bench.cli.context import (
    Session,
    complete_names,
    json_option,
    pass_session,
    print_json,
)

_FOLDER = click.Path(file_okay=False, path_type=Path)
_DATASET = click.argument("dataset", shell_complete=complete_names("datasets"))


@click.group("data")
def command() -> None:
    """List, prepare, check and preview datasets."""


@command.command("list")
@json_option
@pass_session
def list_datasets(session: Session, as_json: bool) -> None:
    """List the datasets: prepared or not, size, licence."""
    from vdsm_bench.registry import registry
    from vdsm_bench.runs.datasets import dataset_states

    states = dataset_states(registry(), session.data_dir)
    if as_json:
        print_json(states)
        return
    width = max((len(state["name"]) for state in states), default=0)
    for state in states:
        click.echo(f"{state['name'].ljust(width)}  {state['state']}")
        click.echo(f"{' ' * width}  {state['summary']}")
        if state["licence"]:
            click.echo(f"{' ' * width}  licence: {state['licence']}")


@command.command("prepare")
@_DATASET
@click.option("--from", "source", type=_FOLDER, help="Folder of the files you have.")
@click.option("--only", is_flag=True, help="Leave out the sets that come from the same files.")
@click.option("--replace", is_flag=True, help="Make it anew, also where it is prepared already.")
@pass_session
def prepare(session: Session, dataset: str, source: Path | None, only: bool, replace: bool) -> None:
    """Write the clip store of DATASET, and of the sets that come from the same files."""
    from vdsm_bench.cli.progress import reporter
    from vdsm_bench.registry import registry
    from vdsm_bench.runs.datasets import prepare_store

    also = registry().get("datasets", dataset).settings.get("also", [])
    with reporter() as listener:
        for name in [dataset, *([] if only else also)]:
            folder = prepare_store(
                registry(),
                name,
                session.data_dir,
                source=source,
                replace=replace,
                reporter=listener,
            )
            click.echo(f"{name}: {folder}")


@command.command("check")
@_DATASET
@pass_session
def check(session: Session, dataset: str) -> None:
    """Read every file of DATASET against its checksums, and prove its splits disjoint."""
    from vdsm_bench.cli.progress import reporter
    from vdsm_bench.registry import registry
    from vdsm_bench.runs.datasets import check_dataset

    with reporter() as listener:
        for line in check_dataset(registry(), dataset, session.data_dir, listener):
            click.echo(line)


@command.command("preview")
@_DATASET
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="PNG file (default DATASET.png)."
)
@click.option(
    "--zoom",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="Every pixel is repeated this often.",
)
@pass_session
def preview(session: Session, dataset: str, out: Path | None, zoom: int) -> None:
    """Write a contact sheet of DATASET: identities down, actions across."""
    from vdsm_bench.cli.progress import reporter
    from vdsm_bench.data.preview import write_preview
    from vdsm_bench.registry import registry
    from vdsm_bench.runs.datasets import open_store

    with reporter() as listener:
        store = open_store(registry(), dataset, session.data_dir, listener)
        path = out if out is not None else Path(f"{store.name}.png")
        write_preview(store, path, zoom=zoom)
    click.echo(path)
