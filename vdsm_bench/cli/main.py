"""The command line's entrance: finds the command, runs it, turns errors into exit codes."""

from __future__ import annotations

import importlib
import io
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import click

from vdsm_bench import __version__
from vdsm_bench.cli.context import Session, note, session_options
from vdsm_bench.errors import UsageError, refusal, suggest

#: command -> one line of help; each lives in the file of its name
COMMANDS = {
    "run": "Train and score models on datasets.",
    "score": "Score another framework's clips from a file, or write what is asked of it.",
    "leaderboard": "Show the scores of all cells.",
    "status": "Show where every cell stands.",
    "transfer": "Write pictures of identity x motion swaps from a finished cell.",
    "data": "List, prepare, check and preview datasets.",
    "judge": "Train, show or audit the judges of a dataset.",
    "list": "List the components of the zoo.",
    "show": "Show one component: defaults, stages, presets.",
    "doctor": "Check versions, device, disk and data.",
    "completion": "Print the completion script of a shell.",
}
BUG, INTERRUPTED, TERMINATED = 70, 130, 143
#: 128 and the number of SIGPIPE, as shells have it
UNHEARD = 141


class Terminated(BaseException):
    """SIGTERM arrived; work is kept, as after Ctrl-C."""


class LazyGroup(click.Group):
    """Imports a command's file when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the commands in the order in which people need them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports and returns one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"vdsm_bench.cli.{cmd_name}_command")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolves a command; an unknown one gets a suggestion."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"There is no command '{args[0]}'{suggest(args[0], COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vdsm-bench")
@session_options
def cli() -> None:
    """A model zoo and benchmark harness for video disentanglement.

    First call: vdsm-bench run --model vdsm --dataset mug
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with the code of the error tree (see ``errors``)."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a sign that it cannot encode is no bug
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run_cli(arguments))


def run_cli(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; the only place that decides one."""
    session, words = Session(), list(sys.argv[1:] if arguments is None else arguments)
    try:
        answer = cli.main(
            args=words,
            prog_name="vdsm-bench",
            standalone_mode=False,
            obj=session,
        )
        return answer if isinstance(answer, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        note(f"interrupted; {_goes_on(words)}.")
        return INTERRUPTED
    except Terminated:
        note(f"terminated; {_goes_on(words)}.")
        return TERMINATED
    except SystemExit as left:
        if left.code != 1:  # click leaves with 1 where nobody reads an answer to its end
            raise
        return UNHEARD
    except Exception as problem:
        if session.debug:
            traceback.print_exc()
        refused = refusal(problem)
        if refused is None:
            said = f"{type(problem).__name__}: {problem}"
            note(f"bug: {said}\n  next: the same command with --debug")
            return BUG
        if refused.hint is not None:
            refused.hint = session.in_its_folders(refused.hint)
        elif isinstance(refused, UsageError):
            refused.hint = _help(words)
        note(f"error: {refused}")
        return refused.exit_code


def _named(words: Sequence[str]) -> tuple[str, str]:
    """Returns the command among the words, and the one behind it; empty where there is none."""
    for word, below in zip(words, [*words[1:], ""], strict=True):
        if word in COMMANDS:
            return word, below
    return "", ""


def _help(words: Sequence[str]) -> str:
    """Returns the command that explains the one that was typed."""
    name, below = _named(words)
    group = cli.get_command(click.Context(cli), name)
    deeper = isinstance(group, click.Group) and below in group.commands
    return " ".join(filter(None, ["vdsm-bench", name, below if deeper else "", "--help"]))


def _goes_on(words: Sequence[str]) -> str:
    """Says what the same command will do."""
    name, fresh = _named(words)[0], "--fresh" in words
    same = "the same command without --fresh" if fresh else "the same command"
    if name == "judge":
        return f"{same} keeps the judges that are finished and trains the others from the start"
    if name != "run":
        return "the same command begins anew"
    kept = "; cells that it had not begun keep their old rows" if fresh else ""
    return f"{same} continues where it stopped{kept}"


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
