"""Every command of the README and the docs is one that exists, with options that exist."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import click
import pytest

from vdsm_bench.cli.main import cli, run_cli
from vdsm_bench.errors import DataError
from vdsm_bench.registry import registry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _commands():
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:2] == ["python3", "bootstrap.py"]:
                    words = words[2:]
                if words:
                    yield pytest.param(words, id=f"{page.name}: {' '.join(words)}"[:90])


def _walk(words):
    """Returns the sub-command that the words lead to, and the words that are left for it."""
    command, left = cli, list(words)
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        name = left.pop(0)
        command = command.get_command(click.Context(command), name)
        assert command is not None, name
    return command, left


@pytest.mark.parametrize("words", list(_commands()))
def test_command_exists(words):
    if words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
        source = (ROOT / words[2].replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
        shared = (ROOT / "benchmarks" / "machine.py").read_text(encoding="utf-8")
        options = [word for word in words[3:] if word.startswith("--")]
        assert all(f'"{option}"' in source + shared for option in options)
        return
    assert words[0] in {"vdsm-bench", "pytest", "git", "pip"}
    if words[0] == "vdsm-bench":
        command, left = _walk(words[1:])
        command.make_context(words[0], left)  # parses every option and argument; calls nothing


def _runs():
    """Yields the runs of datasets that the catalogue has, not of a reader's own."""
    known = {*registry().names("datasets")}
    for command in _commands():
        (words,) = command.values
        given = {after for word, after in pairwise(words) if word == "--dataset"}
        if words[:2] == ["vdsm-bench", "run"] and given <= known and "my.yaml" not in words:
            yield command


@pytest.mark.parametrize("words", list(_runs()))
def test_a_run_can_be_planned(words, tmp_path, capsys):
    """Keys, values, variants and names are right; files that are missing are another matter."""
    folders = ["--runs-dir", str(tmp_path / "runs"), "--data-dir", str(tmp_path / "data")]
    code = run_cli([*words[1:], *folders, "--dry-run"])
    answer = capsys.readouterr()
    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert code == (DataError.exit_code if errors else 0), answer.err
    assert all(" is not in " in line for line in errors), answer.err
    assert ": new" in answer.out


def _sections(page):
    """The anchors of a page's headings, as GitHub makes them."""
    for heading in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in [*re.findall(r"\]\(([^)]+)\)", text), *re.findall(r'src="([^"]+)"', text)]:
        if "://" in target:
            continue
        name, _, section = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not section or section in _sections(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_whole(page):
    """A blank line would cut a table in two, and what follows it would be shown as bare text."""
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(encoding="utf-8"), re.MULTILINE):
        _, rule, *rows = table.splitlines()
        assert re.fullmatch(r"\|(?: ?:?-+:? ?\|)+", rule), table
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {rule.count("|")}, table


def test_the_first_screen_has_the_two_commands():
    first = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:25])
    assert "python3 bootstrap.py vdsm-bench run --model vdsm --dataset mug" in first
    assert "python3 bootstrap.py pytest" in first
    assert "python3 bootstrap.py pytest" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
