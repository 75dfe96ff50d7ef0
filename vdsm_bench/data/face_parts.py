"""The moving parts of a drawn face: brows, eyes, nose wrinkles, cheeks, mouth."""

from __future__ import annotations

import numpy as np

from vdsm_bench.data.expressions import Expression
from vdsm_bench.data.faces import CIRCLE, Colour, FloatArray, Pen, Person, mix, shade

_EYE_Y, _BROW_Y, _MOUTH_Y = -4.0, -9.6, 10.2
_U = np.linspace(-1.0, 1.0, 17)
_HALF = np.sqrt(1.0 - _U**2)
_WHITE: Colour = (250, 250, 248)
_DARK: Colour = (34, 20, 24)
_INSIDE: Colour = (92, 16, 28)
_TONGUE: Colour = (240, 96, 120)
_TEAR: Colour = (130, 210, 255)


def draw_moving_parts(pen: Pen, person: Person, state: Expression) -> None:
    """Draws everything an expression moves, in the state given."""
    for side in (-1, 1):
        _draw_eye(pen, person, state, side)
        _draw_brow(pen, person, state, side)
        _draw_cheek(pen, person, state, side)
    if state.wrinkle > 0:
        for row in (-3.6, -1.6, 0.4):
            line = np.array([[-2.6, row], [0.0, row - 1.4], [2.6, row]])
            pen.stroke(line, 1.0 * state.wrinkle, shade(person.skin_colour, 0.55))
    _draw_mouth(pen, person, state)


def _draw_eye(pen: Pen, person: Person, state: Expression, side: int) -> None:
    wide = person.eye_width
    high = person.eye_height * max(state.eye_open, 0.08)
    x = side * person.eye_gap
    # positive lid_slope raises the inner end of the upper lid, which lies towards -side
    slope = -state.lid_slope * _U * -side * np.minimum(1.0, state.eye_open)
    upper = _EYE_Y - high * _HALF + slope * 0.5
    lower = _EYE_Y + 0.8 * high * _HALF
    upper = np.minimum(upper, lower)
    columns = x + wide * _U
    pen.polygon(_band(columns, upper, lower), _WHITE)
    radius = min(2.5, 0.62 * person.eye_width)
    for size, colour in ((radius, person.iris), (radius * 0.52, _DARK)):
        disc = CIRCLE * size + (x, _EYE_Y)
        disc[:, 1] = np.clip(
            disc[:, 1], np.interp(disc[:, 0], columns, upper), np.interp(disc[:, 0], columns, lower)
        )
        pen.polygon(disc, colour)
    pen.polygon(_band(columns, upper - 1.1, upper + 0.25), _DARK)
    if state.tear > 0:
        drop = min(state.tear, 9.0)
        pen.ellipse(x + side * 0.6, _EYE_Y + 3.2 + drop / 2, 1.5, 0.6 + drop / 2, _TEAR)


def _draw_brow(pen: Pen, person: Person, state: Expression, side: int) -> None:
    wide = person.eye_width + 1.2
    columns = side * person.eye_gap + wide * _U
    inner_up = -state.brow_slope * _U * -side
    centre = _BROW_Y - state.brow_lift + inner_up - (person.brow_arch + 0.4) * (1 - _U**2)
    thick = person.brow_thickness * (0.55 + 0.45 * _HALF) / 2 + 0.2
    colour = mix(shade(person.hair_colour, 0.62), _DARK, 0.25)
    pen.polygon(_band(columns, centre - thick, centre + thick), colour)


def _draw_cheek(pen: Pen, person: Person, state: Expression, side: int) -> None:
    if state.cheek <= 0:
        return
    x = side * person.half_width * 0.60
    colour = mix(person.skin_colour, (230, 70, 70), 0.35 * state.cheek)
    pen.ellipse(x, 3.6, 2.6, 1.8 * state.cheek, colour)


def _draw_mouth(pen: Pen, person: Person, state: Expression) -> None:
    wide = person.mouth_width * state.mouth_width
    columns = wide * _U
    boxy = max(0.0, state.boxy)
    opening = (1 - boxy) * (1 - _U**2) + boxy * (1 - np.abs(_U) ** 7)
    middle = _MOUTH_Y + state.corner * (_U**2 - 0.5)
    upper = middle - state.upper * opening
    lower = np.maximum(middle + state.lower * opening, upper)
    lips = mix(mix(person.skin_colour, (190, 40, 60), 0.55), _DARK, 0.12)
    rim = person.lip * (0.35 + 0.65 * _HALF)
    pen.polygon(_band(columns * (1 + 0.8 / wide), upper - rim, lower + rim), lips)
    if (lower - upper).max() < 0.4:
        line = np.stack([columns, (upper + lower) / 2], axis=1)
        pen.stroke(line, 0.8, shade(lips, 0.45))
    else:
        pen.polygon(_band(columns, upper, lower), _INSIDE)
        gap = lower - upper
        if state.teeth > 0:
            pen.polygon(_band(columns, upper, upper + gap * min(state.teeth, 0.95)), _WHITE)
        if state.low_teeth > 0:
            bottom = lower - gap * min(state.low_teeth, 0.95)
            pen.polygon(_band(columns, bottom, lower), _WHITE)
            pen.stroke(np.stack([columns, bottom], axis=1), 0.7, _INSIDE)
            for column in (-0.5, 0.0, 0.5):
                ends = np.interp(column, _U, upper), np.interp(column, _U, lower)
                pen.stroke(np.array([[column * wide, y] for y in ends]), 0.5, _INSIDE)
    if state.tongue > 0:
        top = float((upper[8] + lower[8]) / 2)
        pen.ellipse(0, top + state.tongue / 2, 0.46 * wide, state.tongue / 2 + 0.4, _TONGUE)
        pen.stroke(
            np.array([[0.0, top + 0.5], [0.0, top + state.tongue * 0.7]]), 0.7, shade(_TONGUE, 0.7)
        )


def _band(columns: FloatArray, upper: FloatArray, lower: FloatArray) -> FloatArray:
    """Returns the polygon between two curves over the same columns."""
    n = len(columns)
    points = np.empty((2 * n, 2))
    points[:n, 0], points[:n, 1] = columns, upper
    points[n:, 0], points[n:, 1] = columns[::-1], lower[::-1]
    return points
