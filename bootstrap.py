#!/usr/bin/env python3
"""Sets up an environment in .venv and runs a command in it; needs Python and nothing else.

    python3 bootstrap.py vdsm-bench run --model vdsm --dataset mug
    python3 bootstrap.py pytest

The environment is made once and made again when constraints.txt, pyproject.toml or the
Python version change.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")


def fingerprint() -> str:
    """Returns what the environment was made from."""
    digest = hashlib.sha256(sys.version.encode())
    for name in ("constraints.txt", "pyproject.toml", "setup.py"):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()


def set_up() -> None:
    """Makes the environment, unless it is there and still the right one."""
    stamp = VENV / "made-from"
    if stamp.exists() and stamp.read_text() == fingerprint():
        return
    print("bootstrap: setting up .venv (once; a few minutes)", file=sys.stderr, flush=True)
    venv.create(VENV, with_pip=True, clear=True)
    pip = [str(BIN / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    # some of the exact versions do not run on Python 3.10, which takes what its bounds allow
    exact = ["-c", "constraints.txt"] if sys.version_info >= (3, 11) else []
    subprocess.run([*pip, *exact, "-e", ".[dev]"], cwd=HERE, check=True)
    stamp.write_text(fingerprint())


def main() -> int:
    """Sets up and becomes the command; returns an exit code where that cannot be."""
    if sys.version_info < (3, 10):  # noqa: UP036 (this script is what tells an old Python so)
        print("bootstrap: vdsm-bench needs Python 3.10 or newer", file=sys.stderr)
        return 2
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    try:
        set_up()
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        print(f"bootstrap: {error}; mend it and type the command again", file=sys.stderr)
        return 4
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    command, *arguments = sys.argv[1:]
    program = shutil.which(command, path=str(BIN))
    if program is None:
        print(
            f"bootstrap: there is no {command!r} in {BIN}; commands are vdsm-bench, pytest and "
            "what else its packages bring, such as python",
            file=sys.stderr,
        )
        return 2
    typed = [program, *arguments]
    if command == "pytest":  # through the environment's Python, wherever it was called from
        typed = [str(BIN / "python"), "-m", "pytest", *arguments]
        os.chdir(HERE)
    if os.name != "nt":  # Ctrl-C and kill reach the command itself, and nobody in between
        os.execve(typed[0], typed, environment)
    return subprocess.call(typed, env=environment)


if __name__ == "__main__":
    sys.exit(main())
