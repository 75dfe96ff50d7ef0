"""``vdsm-bench judge``: the classifier that scores, and whether it may speak."""

from __future__ import annotations

import click

from vdsm_bench.cli.context import (
    F,
    Session,
    complete_names,
    json_option,
    pass_session,
    print_json,
)


@click.group("judge")
def command() -> None:
    """Train or show the judge of a dataset."""


def _protocol_options(function: F) -> F:
    for option in (
        click.argument("dataset", shell_complete=complete_names("datasets")),
        click.option("--preset", default="small", show_default=True, metavar="NAME",
                     shell_complete=complete_names("presets"), help="Whose clips it judges."),
        click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE",
                     help="One setting, for example data.frames=10 or judge.epochs=20."),
    ):  # fmt: skip
        function = option(function)
    return function


@command.command("train")
@_protocol_options
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--fresh", is_flag=True, help="Train it anew; the old one is moved aside.")
@json_option
@pass_session
def train(
    session: Session,
    dataset: str,
    preset: str,
    assignments: tuple[str, ...],
    device: str,
    fresh: bool,
    as_json: bool,
) -> None:
    """Train the judge of DATASET for a preset's clips, or reuse it."""
    from vdsm_bench.cli.progress import reporter
    from vdsm_bench.registry import registry
    from vdsm_bench.runs.judging import protocol_settings, train_judge_for

    settings = protocol_settings(registry(), _used(dataset, session), preset, assignments)
    with reporter() as listener:
        folder, card = train_judge_for(
            registry(),
            settings,
            runs_dir=session.runs_dir,
            data_dir=session.data_dir,
            device=device,
            fresh=fresh,
            reporter=listener,
        )
    _answer({"folder": str(folder), **card}, as_json)


@command.command("show")
@click.argument("dataset", shell_complete=complete_names("datasets"))
@json_option
@pass_session
def show(session: Session, dataset: str, as_json: bool) -> None:
    """Show the cards of the judges of DATASET."""
    from vdsm_bench.errors import DataError
    from vdsm_bench.files import read_json

    used = _used(dataset, session)
    cards = sorted((session.runs_dir / "judges" / used).glob("*/card.json"))
    if not cards:
        raise DataError(
            f"There is no judge of {used} under {session.runs_dir}.",
            hint=f"vdsm-bench judge train {dataset}",
        )
    for path in cards:
        _answer({"folder": str(path.parent), **read_json(path)}, as_json)


def _used(dataset: str, session: Session) -> str:
    from vdsm_bench.cli.run_command import stand_in

    return stand_in(dataset, session)


def _answer(card: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(card)
        return
    import yaml

    brief = {key: value for key, value in card.items() if key != "confusion"}
    click.echo(yaml.safe_dump(brief, sort_keys=False, width=100).rstrip())
