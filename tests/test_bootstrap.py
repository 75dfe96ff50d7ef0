"""bootstrap.py: made once, made again when what it was made from changes, then the command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "bootstrap.py"
#: stands beside the copy of the script, so that it is found before Python's own
VENV = """
import pathlib

def create(folder, **_):
    with open(folder.parent / "made", "a") as file:
        file.write("once\\n")
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    for name, code in COMMANDS.items():
        (folder / "bin" / name).write_text("#!/bin/sh\\n" + code + "\\n")
        (folder / "bin" / name).chmod(0o755)
"""
#: the environment's commands; its python stands for pip and pytest
COMMANDS = {
    "python": 'if [ "$2" = pytest ]; then echo "$@ in $PWD"; fi; exit "${STATUS:-0}"',
    "pytest": "exit 9",
    "tool": 'echo "$1 $PATH"; exit 7',
    "slow": "trap 'sleep 1; echo kept; exit 143' TERM; echo started; while :; do sleep .1; done",
}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in commands are shell scripts")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the script whose environments are folders with a few commands."""
    shutil.copy(SCRIPT, tmp_path)
    (tmp_path / "venv.py").write_text(f"COMMANDS = {COMMANDS!r}\n{VENV}")
    for name in ("constraints.txt", "pyproject.toml", "setup.py"):
        (tmp_path / name).write_text(name)
    return tmp_path


def call(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "bootstrap.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**os.environ, **(env or {})},
    )


def made(folder: Path) -> int:
    return len((folder / "made").read_text().splitlines())


def test_the_command_gets_its_arguments_and_its_code_comes_back(folder):
    process = call(folder, "tool", "--seeds")
    assert process.returncode == 7
    assert process.stdout.startswith(f"--seeds {folder / '.venv' / 'bin'}:")


def test_pytest_is_the_environments_own_in_the_checkout(folder):
    process = call(folder, "pytest", "-x")
    assert (process.returncode, process.stdout) == (0, f"-m pytest -x in {folder}\n")


def test_the_environment_is_made_once_and_again_when_its_sources_change(folder):
    call(folder, "tool")
    call(folder, "tool")
    assert made(folder) == 1
    (folder / "constraints.txt").write_text("another")
    call(folder, "tool")
    assert made(folder) == 2


def test_an_environment_whose_packages_did_not_install_is_made_again(folder):
    failed = call(folder, "tool", env={"STATUS": "1"})
    assert failed.returncode == 4
    assert "mend it and type the command again" in failed.stderr
    assert call(folder, "tool").returncode == 7
    assert made(folder) == 2


def test_what_cannot_be_made_is_said_without_a_traceback(folder):
    (folder / ".venv").write_text("a file")
    process = call(folder, "tool")
    assert process.returncode == 4
    assert process.stderr.splitlines()[-1].startswith("bootstrap: ")


def test_a_command_that_is_not_there_is_named(folder):
    process = call(folder, "nonsense")
    assert process.returncode == 2
    assert "there is no 'nonsense'" in process.stderr


def test_a_command_that_is_told_to_stop_has_the_time_to_keep_its_work(folder):
    with subprocess.Popen(
        [sys.executable, str(folder / "bootstrap.py"), "slow"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "kept\n"
        assert process.wait() == 143


def test_without_a_command_it_says_what_it_does(folder):
    process = call(folder)
    assert process.returncode == 2
    assert "bootstrap.py pytest" in process.stdout
