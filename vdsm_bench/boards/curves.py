"""What training looked like from epoch to epoch: curves of one or several cells as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vdsm_bench.boards.figures import write_png
from vdsm_bench.training.journal import JOURNAL, read_looks

#: what is drawn, one panel each
PANELS = {
    "identity_information": "s, nats",
    "motion_information": "d, nats",
    "pose_information": "pose, nats",
    "weight_information": "mixing weights, nats",
    "swap_gap": "swap gap",
    "motion_gap": "motion gap",
    "drift": "drift",
    "consistent_accuracy": "consistent",
    "dynamic_accuracy": "dynamic",
    "identity_accuracy": "identity",
}
#: what lies below a fixed top, so that chance does not look like success
_TOPS = {"consistent_accuracy": 1.0, "dynamic_accuracy": 1.0, "identity_accuracy": 1.0}
_WIDTH, _HEIGHT, _LEFT, _GAP = 640, 120, 150, 24
_INK, _RULE = (20, 20, 20), (205, 205, 205)
_COLOURS = (
    (31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 190, 207),
    (140, 86, 75), (227, 119, 194), (127, 127, 127), (188, 189, 34),
)  # fmt: skip


def epoch_figures(cell: Path) -> dict[int, Mapping[str, Any]]:
    """Returns the figures of a cell's looks by epoch, counted from 0 through all stages."""
    found: dict[int, Mapping[str, Any]] = {}
    begun, stage = 0, None
    for look in read_looks(cell / JOURNAL):
        if look.stage != stage:  # a stage's last epoch is always looked at
            begun, stage = max(found, default=-1) + 1, look.stage
        found[begun + look.epoch] = look.figures
    return found


def write_curves(path: Path, cells: Mapping[str, Path]) -> None:
    """Draws the curves of cells, by name, over the epochs of all stages, one panel a figure.

    Args:
        path: the PNG.
        cells: folders by name; the names are the legend. Figures that a cell lacks are left out,
            and so is the panel of what none has.
    """
    looks = {name: epoch_figures(folder) for name, folder in cells.items()}
    there = {figure for rows in looks.values() for each in rows.values() for figure in each}
    panels = {figure: text for figure, text in PANELS.items() if figure in there}
    longest = max((epoch + 1 for each in looks.values() for epoch in each), default=0)
    legend = _GAP * (1 + len(cells))
    size = (_LEFT + _WIDTH + _GAP, len(panels) * (_HEIGHT + _GAP) + legend)
    sheet = Image.new("RGB", size, (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for number, (figure, text) in enumerate(panels.items()):
        top = _GAP // 2 + number * (_HEIGHT + _GAP)
        values = {
            name: [
                (epoch, float(each[figure]))
                for epoch, each in rows.items()
                if isinstance(each.get(figure), int | float)
            ]
            for name, rows in looks.items()
        }
        known = [value for points in values.values() for _, value in points]
        low, high = min([0.0, *known]), max([*known, _TOPS.get(figure, 1e-9)])
        pen.rectangle((_LEFT, top, _LEFT + _WIDTH, top + _HEIGHT), outline=_RULE)
        pen.text((4, top + _HEIGHT // 2 - 6), text, fill=_INK, font=font)
        for value, y in ((high, top), (low, top + _HEIGHT - 12)):
            pen.text((_LEFT - 44, y), f"{value:.2f}", fill=_INK, font=font)
        for order, points in enumerate(values.values()):
            places = [
                (
                    _LEFT + _WIDTH * epoch / max(longest - 1, 1),
                    top + _HEIGHT * (high - value) / (high - low),
                )
                for epoch, value in points
            ]
            _draw(pen, places, _COLOURS[order % len(_COLOURS)])
    bottom = len(panels) * (_HEIGHT + _GAP)
    pen.text((_LEFT, bottom - 8), f"epochs 1 to {longest}, all stages", fill=_INK, font=font)
    for number, name in enumerate(cells):
        y = bottom + _GAP * number + 16
        colour = _COLOURS[number % len(_COLOURS)]
        pen.line((_LEFT, y + 6, _LEFT + 30, y + 6), fill=colour, width=2)
        pen.text((_LEFT + 40, y), name, fill=_INK, font=font)
    write_png(path, sheet)


def _draw(
    pen: ImageDraw.ImageDraw, places: Sequence[tuple[float, float]], colour: tuple[int, int, int]
) -> None:
    if len(places) > 1:
        pen.line(list(places), fill=colour, width=2)
    elif places:
        (x, y) = places[0]
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
