"""The house rules that tools can check: ruff and mypy are clean."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_ruff_finds_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_check(tmp_path):
    """Over the tree as it is installed: baselines and evaluators inside vdsm_bench."""
    package = tmp_path / "vdsm_bench"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "vdsm_bench", package, ignore=ignore)
    for name in ("baselines", "evaluators"):
        shutil.copytree(ROOT / name, package / name, ignore=ignore)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
