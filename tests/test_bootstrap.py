"""bootstrap.py: made once, made again when what it was made from changes, codes handed on."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "bootstrap.py"


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script over a folder of its own, whose environment is a folder with two commands."""
    specification = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    for name in ("constraints.txt", "pyproject.toml", "setup.py"):
        (tmp_path / name).write_text(name)
    for name, value in (
        ("HERE", tmp_path),
        ("VENV", tmp_path / ".venv"),
        ("BIN", tmp_path / ".venv" / "bin"),
    ):
        monkeypatch.setattr(module, name, value)

    def create(folder: Path, **_: object) -> None:
        made.append(folder)
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        for name, code in (("python", 'exit "${STATUS:-0}"'), ("tool", 'echo "$1 $PATH"; exit 7')):
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{code}\n")
            (folder / "bin" / name).chmod(0o755)

    made: list[Path] = []
    module.made = made  # type: ignore[attr-defined]
    monkeypatch.setattr(module.venv, "create", create)
    return module


def start(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", *arguments])
    return int(bootstrap.main())


def test_the_command_gets_its_arguments_and_its_code_comes_back(bootstrap, monkeypatch, capfd):
    assert start(bootstrap, monkeypatch, "tool", "--seeds") == 7
    said = capfd.readouterr().out.strip()
    assert said.startswith(f"--seeds {bootstrap.BIN}")


def test_the_environment_is_made_once_and_again_when_its_sources_change(bootstrap, monkeypatch):
    start(bootstrap, monkeypatch, "tool")
    start(bootstrap, monkeypatch, "tool")
    assert len(bootstrap.made) == 1
    (bootstrap.HERE / "constraints.txt").write_text("another")
    start(bootstrap, monkeypatch, "tool")
    assert len(bootstrap.made) == 2


def test_an_environment_whose_packages_did_not_install_is_made_again(bootstrap, monkeypatch, capfd):
    monkeypatch.setenv("STATUS", "1")
    assert start(bootstrap, monkeypatch, "tool") == 4
    assert "mend it and type the command again" in capfd.readouterr().err
    monkeypatch.setenv("STATUS", "0")
    assert start(bootstrap, monkeypatch, "tool") == 7
    assert len(bootstrap.made) == 2


def test_a_command_that_is_not_there_is_named(bootstrap, monkeypatch, capfd):
    assert start(bootstrap, monkeypatch, "nonsense") == 2
    assert "there is no 'nonsense'" in capfd.readouterr().err


def test_without_a_command_it_says_what_it_does():
    process = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert "bootstrap.py pytest" in process.stdout
