"""Puts the package where an installer would, without one: modules and a dist-info folder."""

import configparser
import shutil
from pathlib import Path

HERE = Path(__file__).parent


def install(folder: Path) -> Path:
    """Installs toy-zoo into a folder that the caller puts on PYTHONPATH; returns the folder."""
    shutil.copytree(HERE / "toy_zoo", folder / "toy_zoo")
    project = configparser.ConfigParser()
    project.read(HERE / "pyproject.toml", encoding="utf-8")
    lines = []
    for section in project.sections():
        if section.startswith("project.entry-points."):
            lines.append("[" + section.removeprefix("project.entry-points.").strip('"') + "]")
            targets = project[section].items()
            lines += [f"{name} = {target.strip(chr(34))}" for name, target in targets]
    info = folder / "toy_zoo-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-zoo\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder
