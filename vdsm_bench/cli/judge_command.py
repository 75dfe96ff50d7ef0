"""``vdsm-bench judge``: the classifier that scores, and whether it may speak."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from vdsm_bench.cli.context import (
    F,
    Session,
    complete_names,
    device_option,
    json_option,
    pass_session,
    print_json,
)
from vdsm_bench.devices import prepare_environment

if TYPE_CHECKING:
    from vdsm_bench.runs.protocol import ScoringProtocol
    from vdsm_bench.runs.reporting import Reporter


@click.group("judge")
def command() -> None:
    """Train, show or audit the judges of a dataset."""


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
@device_option
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
    prepare_environment()
    from vdsm_bench.cli.progress import reporter
    from vdsm_bench.notation import parse_assignments
    from vdsm_bench.runs.judging import judge_of

    layers = [parse_assignments(assignments)]
    with reporter() as listener:
        protocol = _protocol(session, dataset, preset, model, layers, device, listener)
        judge = judge_of(protocol, session.runs_dir, fresh=fresh, reporter=listener)
    _answer({"folder": str(judge.folder), **judge.summary()}, as_json)


@command.command("audit")
@_protocol_options
@device_option
@click.option(
    "--retrain",
    is_flag=True,
    help="Also train every judge anew: the proof that no held-out clip taught it.",
)
@json_option
@pass_session
def audit(
    session: Session,
    dataset: str,
    preset: str,
    model: str,
    assignments: tuple[str, ...],
    device: str,
    retrain: bool,
    as_json: bool,
) -> None:
    """Say whether the scores of DATASET can be trusted, before any model is trained.

    Two architectures of judges, three seeds each (--set judge.architectures=[...] and
    judge.seeds=[...] choose others), have to pass every gate, agree, and give every control the
    score that is known beforehand. Exit code 6 where they do not.
    """
    prepare_environment()
    from vdsm_bench.cli.progress import reporter
    from vdsm_bench.errors import ProtocolError
    from vdsm_bench.notation import parse_assignments
    from vdsm_bench.runs.judging import AUDIT_JUDGES, audit_of

    layers = [AUDIT_JUDGES, parse_assignments(assignments)]
    with reporter() as listener:
        protocol = _protocol(session, dataset, preset, model, layers, device, listener)
        found = audit_of(protocol, session.runs_dir, retrain=retrain, reporter=listener)
    if as_json:
        print_json(found)
    else:
        click.echo(_told(found))
    failed = [check["name"] for check in found["checks"] if not check["passed"]]
    if failed:
        raise ProtocolError(
            f"The protocol of {found['dataset']} cannot be trusted: {'; '.join(failed)}.",
            hint=f"vdsm-bench judge show {dataset}   (the judges' cards)",
        )


@command.command("show")
@click.argument("dataset", shell_complete=complete_names("datasets"))
@json_option
@pass_session
def show(session: Session, dataset: str, as_json: bool) -> None:
    """Show the cards of the judges of DATASET, and how they agree."""
    from vdsm_bench.errors import DataError
    from vdsm_bench.files import read_json

    used = _used(dataset, session)
    cards = sorted((session.runs_dir / "judges" / used).glob("[!.]*/card.json"))
    if not cards:
        raise DataError(
            f"There is no judge of {used} under {session.runs_dir}.",
            hint=f"vdsm-bench judge train {dataset}",
        )
    panels = sorted((session.runs_dir / "judges" / used).glob("[!.]*/panel.json"))
    found = []
    for path in [*cards, *panels]:
        try:
            found.append({"folder": str(path.parent), **read_json(path)})
        except DataError as error:  # a panel's file is made of its judges' cards
            what = ["rm", str(path)] if path in panels else ["rm", "-r", str(path.parent)]
            error.hint = f"{shlex.join(what)}   (the next run makes it anew)"
            raise
    if as_json:
        print_json(found)
        return
    for content in found:
        _answer(_brief(content) if "weights_sha256" in content else content, as_json=False)


def _protocol(
    session: Session,
    dataset: str,
    preset: str,
    model: str,
    layers: Sequence[Mapping[str, Any]],
    device: str,
    listener: Reporter,
) -> ScoringProtocol:
    from vdsm_bench.config import resolve
    from vdsm_bench.runs.judging import open_protocol

    used, table = _used(dataset, session), session.catalogue()
    config = resolve(table, model=model, dataset=used, preset=preset, layers=layers)
    return open_protocol(table, config, data_dir=session.data_dir, device=device, reporter=listener)


def _told(found: Mapping[str, Any]) -> str:
    """Returns an audit as lines: the controls, then what was checked, then the verdict."""
    columns = ("consistent_accuracy", "dynamic_accuracy", "identity_accuracy", "transfer_accuracy")
    rows = {row["name"]: {c: row["scores"].get(c, {}).get("value") for c in columns}
            for row in found["controls"]}  # fmt: skip
    rows["(a constant judge)"] = {c: found["constant_judge"].get(c) for c in columns}
    lines = [
        f"{found['dataset']}: {len(found['judge']['judges'])} judges, {found['clips']} test clips, "
        f"{found['pairs']} pairs",
        "",
        f"{'':22}" + "".join(f"{c.partition('_')[0]:>12}" for c in columns),
    ]
    for name, scores in rows.items():
        values = ("–" if value is None else f"{value:.3f}" for value in scores.values())
        lines.append(f"{name:22}" + "".join(f"{value:>12}" for value in values))
    lines.append("")
    for check in found["checks"]:
        verdict = "ok" if check["passed"] else "FAILED"
        lines.append(f"{verdict:7}{check['name']:55}{check['value']:7.3f}   {check['wanted']}")
    answer = "yes" if found["trusted"] else "no"
    return "\n".join([*lines, "", f"can be trusted: {answer}", f"folder: {found['folder']}"])


def _used(dataset: str, session: Session) -> str:
    from vdsm_bench.cli.cell_options import stand_in

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
    test = card.get("examinations", {}).get("test", {}).get("calibration", {})
    brief["expected calibration error"] = {name: found.get("ece") for name, found in test.items()}
    return brief


def _answer(card: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(card)
        return
    import yaml

    click.echo(yaml.safe_dump(card, sort_keys=False, width=100).rstrip())
