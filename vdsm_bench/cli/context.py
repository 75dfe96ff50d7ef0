"""What every command knows: where runs and data live, and how answers are printed."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from vdsm_bench.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])
#: what to type where there is nothing yet
FIRST = "run --model vdsm --dataset mug"


@dataclass
class Session:
    """The global options of one call.

    Attributes:
        runs_dir: where cells and judges live.
        data_dir: where clip stores live; None if the user named no place.
        debug: show tracebacks of unexpected errors.
        typed: the folders that were given on the command line, by the names of their options.
    """

    runs_dir: Path = Path("vdsm-runs")
    data_dir: Path | None = None
    debug: bool = False
    typed: dict[str, str] = field(default_factory=dict)

    def command(self, words: str) -> str:
        """Returns a command to type next, in the folders that were typed for this one."""
        folders = [word for pair in self.typed.items() for word in pair]
        return " ".join(filter(None, ["vdsm-bench", words, shlex.join(folders)]))

    def in_its_folders(self, text: str) -> str:
        """Returns a next step, its last command in the folders that were typed for this one.

        A remark behind a command is set off by three spaces; ``...`` stands for what was typed.
        """
        step, gap, remark = text.partition("   (")
        at = step.rfind("vdsm-bench ")
        if at < 0 or "..." in step:
            return text
        return step[:at] + self.command(step[at:].removeprefix("vdsm-bench ")) + gap + remark

    def catalogue(self) -> Registry:
        """Returns the catalogue with the user's own datasets, those in the data folder."""
        from vdsm_bench.data.locate import data_root, with_own_datasets
        from vdsm_bench.registry import registry

        return with_own_datasets(registry(), data_root(self.data_dir))


def session_options(command: F) -> F:
    """Adds the global options to a command, so that they may stand before or after its name."""

    def store(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        source = context.get_parameter_source(str(parameter.name))
        # the environment counts once, at the group: it must not beat an option given there
        used = ("COMMANDLINE",) if context.parent is not None else ("COMMANDLINE", "ENVIRONMENT")
        if source is not None and source.name in used:
            session = context.ensure_object(Session)
            setattr(session, str(parameter.name), value)
            if source.name == "COMMANDLINE" and isinstance(value, Path):
                session.typed[parameter.opts[0]] = str(value)

    folder = click.Path(file_okay=False, path_type=Path)
    for option in (
        click.option("--debug", is_flag=True, expose_value=False, callback=store,
                     help="Show the traceback of an unexpected error."),
        click.option("--data-dir", type=folder, envvar="VDSM_BENCH_DATA", show_envvar=True,
                     expose_value=False, callback=store, help="Folder of the clip stores."),
        click.option("--runs-dir", type=folder, envvar="VDSM_BENCH_RUNS", show_envvar=True,
                     expose_value=False, callback=store,
                     help="Folder of cells and judges (default ./vdsm-runs)."),
    ):  # fmt: skip
        command = option(command)
    return command


def pass_session(command: F) -> F:
    """Hands the session to a command as its first argument, and gives it the global options."""
    handed: F = click.make_pass_decorator(Session, ensure=True)(command)  # type: ignore[assignment]
    return session_options(handed)


def json_option(command: F) -> F:
    """Adds ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(command)


def device_option(command: F) -> F:
    """Adds ``--device``."""
    from vdsm_bench.devices import DEVICES

    return click.option(
        "--device", type=click.Choice(DEVICES), default="auto", show_default=True,
        help="Where it computes.",
    )(command)  # fmt: skip


def print_json(content: Any) -> None:
    """Prints an answer as JSON on stdout."""
    click.echo(json.dumps(content, indent=2))


def note(text: str) -> None:
    """Says something beside the answer, on stderr; what nobody hears any more stops no work."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def complete_names(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Returns a shell completion that offers the registry's names of one kind."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        table = (context.find_object(Session) or Session()).catalogue()
        return [name for name in table.names(kind) if name.startswith(incomplete)]

    return complete
