"""``vdsm-bench judge``: the classifier that scores, and whether it may speak."""

from __future__ import annotations

from typing import Any

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
                     shell_complete=complete_names("presets"), help="Size and length of clips."),
        click.option("--model", default="vdsm", show_default=True, metavar="NAME",
                     shell_complete=complete_names("models"),
                     help="Model whose preset counts, where presets differ by model."),
        click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE",
                     help="One setting, for example data.frames=10 or judge.epochs=20."),
    ):  # fmt: skip
        function = option(function)
    return function


@command.command("train")
@_protocol_options
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--fresh", is_flag=True, help="Train it anew; the old one is moved aside.")
@json_option
@pass_session
def train(
    session: Session,
    dataset: str,
    preset: str,
    model: str,
    assignments: tuple[str, ...],
    device: str,
    fresh: bool,
    as_json: bool,
) -> None:
    """Train the judge of DATASET for a preset's clips, or reuse it."""
    from vdsm_bench.cli.progress import reporter
    from vdsm_bench.config import resolve
    from vdsm_bench.notation import parse_assignments
    from vdsm_bench.runs.judging import judge_of

    config = resolve(
        session.catalogue(),
        model=model,
        dataset=_used(dataset, session),
        preset=preset,
        layers=[parse_assignments(assignments)],
    )
    with reporter() as listener:
        judge = judge_of(
            session.catalogue(),
            config,
            runs_dir=session.runs_dir,
            data_dir=session.data_dir,
            device=device,
            fresh=fresh,
            reporter=listener,
        )
    _answer({"folder": str(judge.folder), **judge.summary()}, as_json)


@command.command("show")
@click.argument("dataset", shell_complete=complete_names("datasets"))
@json_option
@pass_session
def show(session: Session, dataset: str, as_json: bool) -> None:
    """Show the cards of the judges of DATASET."""
    from vdsm_bench.errors import DataError
    from vdsm_bench.files import read_json

    used = _used(dataset, session)
    cards = sorted((session.runs_dir / "judges" / used).glob("[!.]*/card.json"))
    if not cards:
        raise DataError(
            f"There is no judge of {used} under {session.runs_dir}.",
            hint=f"vdsm-bench judge train {dataset}",
        )
    for path in cards:
        card = read_json(path)
        _answer({"folder": str(path.parent), **(card if as_json else _brief(card))}, as_json)


def _used(dataset: str, session: Session) -> str:
    from vdsm_bench.cli.run_command import stand_in

    return stand_in(dataset, session)


def _brief(card: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what is long: confusion matrices and the figures of every epoch."""
    left_out = {"history", "examinations", "factors"}
    brief = {key: value for key, value in card.items() if key not in left_out}
    brief["factors"] = [factor.get("name") for factor in card.get("factors", [])]
    brief["accuracy on real clips"] = {
        name: {"clips": found.get("n"), **found.get("accuracy", {})}
        for name, found in card.get("examinations", {}).items()
    }
    return brief


def _answer(card: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(card)
        return
    import yaml

    click.echo(yaml.safe_dump(card, sort_keys=False, width=100).rstrip())
