"""``vdsm-bench score``: from another framework's clips to the same row as a native model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vdsm_bench.cli.context import (
    Session,
    complete_names,
    device_option,
    json_option,
    note,
    pass_session,
    print_json,
)
from vdsm_bench.devices import prepare_environment

if TYPE_CHECKING:
    from vdsm_bench.config import CellConfig
    from vdsm_bench.registry import Registry

#: the file's model is trained already: what a stage of a native model forbids does not count
_NO_TRAINING = {"training": {"*": {"pairs": False}}}


@click.command("score")
@click.argument("predictions", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--template",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write request.npz (real clips, pair list) and example.py to this folder instead.",
)
@click.option(
    "--dataset",
    required=True,
    metavar="NAME",
    shell_complete=complete_names("datasets"),
    help="Dataset.",
)
@click.option(
    "--preset",
    default="small",
    show_default=True,
    metavar="NAME",
    shell_complete=complete_names("presets"),
    help="Size of the clips; that of the native rows to compare with.",
)
@click.option(
    "--model",
    default="vdsm",
    show_default=True,
    metavar="NAME",
    shell_complete=complete_names("models"),
    help="Native model whose preset counts, where presets differ by model.",
)
@click.option("--name", metavar="TEXT", help="Name of the row (else the file's).")
@click.option(
    "--supervision",
    metavar="TEXT",
    help="What the model was told beside pixels: none, identity-pairs, action-labels ...",
)
@click.option("--citation", metavar="TEXT", help="Where the model is described.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Which training of the model this is; several become one row with mean and spread.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting of data, judge or evaluation, for example data.frames=10.",
)
@device_option
@click.option("--fresh", is_flag=True, help="Replace the row; the old folder is moved aside.")
@click.option("--no-wait", is_flag=True, help="Refuse if another process works on the row.")
@json_option
@pass_session
def command(
    session: Session,
    predictions: Path | None,
    template: Path | None,
    dataset: str,
    preset: str,
    model: str,
    name: str | None,
    supervision: str | None,
    citation: str | None,
    seed: int,
    assignments: tuple[str, ...],
    device: str,
    fresh: bool,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Score PREDICTIONS (.npz): clips that another framework made for the request.

    First write the request:  vdsm-bench score --template DIR --dataset NAME
    """
    from vdsm_bench.errors import UsageError

    if (predictions is None) == (template is None):
        raise UsageError(
            "Give a file of predictions to score, or --template DIR to write what is asked of it.",
            hint=f"vdsm-bench score --template request --dataset {dataset}",
        )
    prepare_environment()
    from vdsm_bench.cli.cell_options import stand_in
    from vdsm_bench.cli.progress import reporter
    from vdsm_bench.cli.run_command import show_outcomes

    used, table = stand_in(dataset, session), session.catalogue()
    config = _config(table, model, used, preset, seed, assignments)
    from vdsm_bench.runs.execute import RunContext
    from vdsm_bench.runs.external import score_file, template_of

    with reporter() as listener:
        context = RunContext(
            table, session.runs_dir, session.data_dir, device, fresh, not no_wait, listener
        )
        if predictions is None:
            asked = template_of(config, context, template or Path())
            again = session.command(
                f"score predictions.npz {_again(dataset, model, preset, assignments)}"
            )
            _show_template(asked, again, as_json)
            return
        options = {"name": name, "supervision": supervision, "citation": citation}
        outcome = score_file(predictions, config, context, options)
    if as_json:
        print_json([outcome.as_json()])
    else:
        show_outcomes(session, [outcome])


def _config(
    table: Registry,
    model: str,
    dataset: str,
    preset: str,
    seed: int,
    assignments: tuple[str, ...],
) -> CellConfig:
    from vdsm_bench.config import resolve
    from vdsm_bench.notation import parse_assignments

    layers = [_protocol_layer(parse_assignments(assignments)), _NO_TRAINING]
    return resolve(table, model=model, dataset=dataset, preset=preset, seed=seed, layers=layers)


def _protocol_layer(layer: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that were given.

    Raises:
        UsageError: one of them is about a model or its training.
    """
    from vdsm_bench.errors import UsageError

    for section in ("model", "training"):
        if section in layer:
            raise UsageError(
                f"'{section}' cannot be set here: the model behind a file is its own.",
                hint="--set data.KEY=VALUE, judge.KEY=VALUE or evaluation.KEY=VALUE",
            )
    return layer


def _again(dataset: str, model: str, preset: str, assignments: tuple[str, ...]) -> str:
    """Returns the options that ask for the same request once more."""
    options = ["--dataset", dataset]
    for flag, value, usual in (("--model", model, "vdsm"), ("--preset", preset, "small")):
        options += [] if value == usual else [flag, value]
    return shlex.join([*options, *(part for one in assignments for part in ("--set", one))])


def _show_template(paths: list[Path], again: str, as_json: bool) -> None:
    if as_json:
        print_json({"files": [str(path) for path in paths]})
        return
    for path in paths:
        click.echo(path)
    note(f"next: write predictions.npz as {paths[1]} does, then\n  {again}")
