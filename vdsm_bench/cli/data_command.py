"""``vdsm-bench data``: datasets on disk."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from vdsm_bench.cli.context import (
    Session,
    complete_names,
    json_option,
    pass_session,
    print_json,
)
from vdsm_bench.cli.folder_options import folder_options

_ANEW = "--replace   (and --from FOLDER, where it is made from files that you have)"
_FOLDER = click.Path(file_okay=False, path_type=Path)
_DATASET = click.argument("dataset", shell_complete=complete_names("datasets"))


@click.group("data")
def command() -> None:
    """List, show, prepare, check and preview datasets."""


@command.command("list")
@json_option
@pass_session
def list_datasets(session: Session, as_json: bool) -> None:
    """List the datasets: prepared or not, size, licence."""
    from vdsm_bench.runs.datasets import dataset_states

    states = dataset_states(session.catalogue(), session.data_dir)
    if as_json:
        print_json(states)
        return
    width = max((len(state["name"]) for state in states), default=0)
    for state in states:
        access = state.get("access", "")
        how = session.in_its_folders(state["state"])
        click.echo(f"{state['name'].ljust(width)}  {access:9}{size_of(state):>9}  {how}")
        click.echo(f"{' ' * width}  {state['summary']}")
        if state["licence"]:
            click.echo(f"{' ' * width}  licence: {state['licence']}")


def size_of(state: dict[str, Any]) -> str:
    """Returns the size of a store as people read it; a ``~`` marks one that is not there yet."""
    megabytes = state.get("megabytes")
    if megabytes is None:
        return "-"
    return f"{'' if state['prepared'] else '~'}{megabytes:.{0 if megabytes >= 10 else 1}f} MB"


@command.command("show")
@_DATASET
@json_option
@pass_session
def show(session: Session, dataset: str, as_json: bool) -> None:
    """Show DATASET: licence, source, state, clips, factors and their classes."""
    import yaml

    from vdsm_bench.runs.datasets import describe_dataset

    content = describe_dataset(session.catalogue(), dataset, session.data_dir)
    if as_json:
        print_json(content)
        return
    for factor in content.get("factors", {}).values():
        names = factor["classes"]
        factor["classes"] = f"{len(names)}: " + (
            ", ".join(names) if len(names) <= 16 else f"{names[0]} ... {names[-1]}"
        )
    click.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100).rstrip())


@command.command("prepare")
@_DATASET
@click.option("--from", "source", type=_FOLDER, help="Folder of the files you have.")
@click.option("--only", is_flag=True, help="Leave out the sets that come from the same files.")
@click.option("--replace", is_flag=True, help="Make it anew, also where it is prepared already.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="How many may work at once (default: all cores); the bytes written are the same.",
)
@folder_options
@pass_session
def prepare(
    session: Session,
    dataset: str,
    source: Path | None,
    only: bool,
    replace: bool,
    processes: int | None,
    folder: dict[str, Any],
) -> None:
    """Write the clip store of DATASET, and of the sets that come from the same files.

    A name of your own and the columns of a labels file make a set of your own clips:
    data prepare my-set --from FOLDER --static person --dynamic action
    """
    from vdsm_bench.cli.progress import reporter
    from vdsm_bench.data.locate import data_root
    from vdsm_bench.runs.datasets import prepare_store, table_for

    root = data_root(session.data_dir)
    table = table_for(session.catalogue(), dataset, folder, root, replace=replace)
    also = table.get("datasets", dataset).settings.get("also", [])
    with reporter() as listener:
        for name in [dataset, *([] if only else also)]:
            store = prepare_store(
                table,
                name,
                session.data_dir,
                source=source,
                replace=replace,
                reporter=listener,
                processes=processes,
            )
            click.echo(f"{name}: {store}")


@command.command("check")
@_DATASET
@click.option("--from", "source", type=_FOLDER, help="Look at these files, before preparing.")
@click.option("--cells", is_flag=True, help="Print the clips per identity and action.")
@json_option
@pass_session
def check(session: Session, dataset: str, source: Path | None, cells: bool, as_json: bool) -> None:
    """Look for faults of DATASET: checksums, labels, balance, duplicates, splits that leak."""
    from vdsm_bench.cli.progress import reporter
    from vdsm_bench.data.check import cells_table
    from vdsm_bench.errors import DataError
    from vdsm_bench.runs.datasets import check_dataset, survey_files

    with reporter() as listener:
        if source is not None:
            report = survey_files(session.catalogue(), dataset, source, listener)
        else:
            report = check_dataset(session.catalogue(), dataset, session.data_dir, listener)
    if as_json:
        print_json(report.as_json())
    else:
        for line in (
            *report.lines,
            *(cells_table(report.cells) if cells else ()),
            *(f"note: {note}" for note in report.notes),
            *(f"fault: {problem}" for problem in report.problems),
        ):
            click.echo(line)
    if report.problems:
        count = f"{len(report.problems)} fault{'s' if len(report.problems) > 1 else ''}"
        raise DataError(
            f"{source or dataset} has {count}; the first: {report.problems[0]}",
            hint=f"mend {source or 'its source'}, then: vdsm-bench data prepare {dataset} "
            + (f"--from {shlex.quote(str(source))}" if source else _ANEW),
        )


@command.command("preview")
@_DATASET
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="PNG file (default DATASET.png); a GIF is written beside it.",
)
@click.option("--identities", type=click.IntRange(1), default=12, show_default=True, help="Rows.")
@click.option("--actions", type=click.IntRange(1), default=12, show_default=True, help="Columns.")
@click.option(
    "--frames", type=click.IntRange(1), default=24, show_default=True, help="Frames of the GIF."
)
@pass_session
def preview(
    session: Session, dataset: str, out: Path | None, identities: int, actions: int, frames: int
) -> None:
    """Draw DATASET as a PNG and a GIF: identities down, actions across."""
    from vdsm_bench.boards.preview import write_preview
    from vdsm_bench.cli.progress import reporter
    from vdsm_bench.runs.datasets import open_store

    with reporter() as listener:
        store = open_store(session.catalogue(), dataset, session.data_dir, listener)
        path = out if out is not None else Path(f"{store.name}.png")
        files = write_preview(store, path, identities=identities, actions=actions, frames=frames)
    for file in files:
        click.echo(file)
