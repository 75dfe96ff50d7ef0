"""``vdsm-bench transfer``: pictures of identity x motion swaps from a finished cell."""

from __future__ import annotations

from pathlib import Path

import click

from vdsm_bench.cli.context import Session, complete_names, device_option, pass_session
from vdsm_bench.devices import prepare_environment


@click.command("transfer")
@click.option(
    "--cell",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the cell, or the end of its path.",
)
@click.option(
    "--model",
    help="Model instance, where no --cell is given.",
    shell_complete=complete_names("models"),
)
@click.option("--dataset", shell_complete=complete_names("datasets"), help="Dataset.")
@click.option("--preset", shell_complete=complete_names("presets"), help="Preset.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed.")
@device_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the pictures (default: the cell's media).",
)
@pass_session
def command(
    session: Session,
    cell: Path | None,
    model: str | None,
    dataset: str | None,
    preset: str | None,
    seed: int | None,
    device: str,
    out: Path | None,
) -> None:
    """Write a swap grid as GIF and PNG: identities across, motions down."""
    prepare_environment()
    from vdsm_bench.cli.cell_options import stand_in
    from vdsm_bench.cli.progress import reporter
    from vdsm_bench.runs.pick import pick_cell

    if dataset is not None:
        dataset = stand_in(dataset, session)
    table = session.catalogue()
    record = pick_cell(
        table, session.runs_dir, cell=cell, model=model, dataset=dataset, preset=preset, seed=seed
    )
    from vdsm_bench.runs.restore import render_media

    with reporter() as listener:
        paths = render_media(
            table,
            record,
            data_dir=session.data_dir,
            device=device,
            out=out,
            reporter=listener,
        )
    for path in paths:
        click.echo(path)
