"""Options of ``data prepare`` for a set of one's own clips; each is an argument of the set."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

_POSITIVE = click.IntRange(min=1)
_FLAG = {"is_flag": True, "default": None}
_OPTIONS: dict[str, dict[str, Any]] = {
    "static": {"multiple": True, "metavar": "COLUMN",
               "help": "Column of labels.csv that says who is in a clip; may be repeated."},
    "dynamic": {"multiple": True, "metavar": "COLUMN",
                "help": "Column that says what they do; may be repeated."},
    "labels": {"metavar": "FILE", "help": "Labels file in the folder (labels.csv)."},
    "size": {"type": click.IntRange(min=8), "metavar": "PIXELS",
             "help": "Height and width of the stored frames (64)."},
    "fit": {"type": click.Choice(["crop", "pad", "stretch"]),
            "help": "How other shapes become square (crop)."},
    "colour": {"type": click.Choice(["rgb", "grey"]), "help": "Colour or grey (rgb)."},
    "window": {"type": click.IntRange(min=2), "metavar": "FRAMES",
               "help": "Cut clips of so many frames out of each file (a file is a clip)."},
    "window_step": {"type": _POSITIVE, "metavar": "FRAMES",
                    "help": "From the start of one window to the next (the window's length)."},
    "stride": {"type": _POSITIVE, "metavar": "N", "help": "Keep every N-th frame (1)."},
    "frame_rate": {"type": float, "metavar": "FPS",
                   "help": "Bring videos and GIFs to so many frames per second (as they are)."},
    "strip": {"type": click.Choice(["auto", "horizontal", "vertical"]),
              "help": "Along which side frames lie in one image (auto: the longer)."},
    "strip_frames": {"type": _POSITIVE, "metavar": "N",
                     "help": "Frames of a strip (as many as squares fit)."},
    "split": {"type": click.Choice(["clips", "identities", "cells", "given"]),
              "help": "What is held out (given, where labels.csv has a column 'split'; or clips)."},
    "licence": {"metavar": "TEXT", "help": "Licence of the clips, for the card."},
    "leave_out_odd": {**_FLAG, "help": "Import the rest where something is odd."},
    "trust_labels": {**_FLAG, "help": "Take labels that look like slips of the pen as they are."},
}  # fmt: skip
_NAMES = tuple(_OPTIONS)


def folder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; what the user gave arrives as one mapping, ``folder``."""

    @wraps(command)
    def gathered(*arguments: Any, **values: Any) -> Any:
        given = {name: values.pop(name) for name in _NAMES}
        folder = {name: value for name, value in given.items() if value not in (None, ())}
        return command(*arguments, folder=folder, **values)

    for name in reversed(_NAMES):
        gathered = click.option(f"--{name.replace('_', '-')}", name, **_OPTIONS[name])(gathered)
    return gathered
