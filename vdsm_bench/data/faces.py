"""Who is drawn: the looks of the 52 people of the synthetic set, and their still layers.

Lengths are pixels of a 64 x 64 frame; drawing happens on a four times larger canvas that is
averaged down, which smooths every edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

FloatArray = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

SIZE, OVER = 64, 4
PEOPLE = 52
CENTRE = (32.0, 33.0)
BACKGROUND: Colour = (118, 130, 138)
SKINS: dict[str, Colour] = {
    "fair": (250, 221, 200),
    "peach": (232, 180, 138),
    "olive": (190, 146, 88),
    "brown": (142, 88, 58),
    "dark": (84, 52, 42),
}
HAIRS: dict[str, Colour] = {
    "black": (26, 23, 28),
    "brown": (98, 56, 26),
    "blond": (238, 202, 92),
    "red": (196, 66, 24),
    "silver": (214, 218, 226),
    "blue": (44, 84, 206),
}
STYLES = ("crop", "long", "bob", "curls", "parted", "bald", "bun", "spikes", "fringe")
BEARDS = ("none", "none", "none", "moustache", "full", "goatee")
GLASSES = ("none", "none", "none", "round", "square")
SHIRTS: tuple[Colour, ...] = (
    (200, 40, 50), (245, 245, 240), (30, 120, 70), (240, 190, 30), (40, 50, 90), (150, 60, 160),
    (235, 120, 150), (20, 160, 180), (60, 60, 60),
)  # fmt: skip
IRISES: tuple[Colour, ...] = ((84, 48, 22), (50, 110, 190), (50, 130, 70), (110, 110, 116))
_ANGLES = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)
CIRCLE: FloatArray = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


@dataclass(frozen=True)
class Person:
    """The looks of one identity; indices point into the tables of this module."""

    skin: int
    hair: int
    style: str
    beard: str
    glasses: str
    shirt: Colour
    iris: Colour
    half_width: float
    half_height: float
    jaw: float
    eye_gap: float
    eye_width: float
    eye_height: float
    brow_thickness: float
    brow_arch: float
    nose_width: float
    nose_length: float
    mouth_width: float
    lip: float
    freckles: bool

    @property
    def skin_colour(self) -> Colour:
        """RGB of the skin."""
        return tuple(SKINS.values())[self.skin]

    @property
    def hair_colour(self) -> Colour:
        """RGB of the hair."""
        return tuple(HAIRS.values())[self.hair]


def draw_people(draw: np.random.Generator) -> list[Person]:
    """Draws 52 people: skins and hair colours balanced and crossed.

    Every skin x hair colour pair has one or two people, whose styles, shirts and proportions
    differ; shapes come from evenly spread values, not from independent draws, so that the whole
    range is used.
    """
    pairs = [(skin, hair) for skin in range(len(SKINS)) for hair in range(len(HAIRS))]
    order = [pairs[place] for place in draw.permutation(len(pairs))]
    # the second round leaves out one diagonal, so that skins and hairs stay balanced
    second = [pair for pair in order if (pair[0] + pair[1]) % 4 != 3][: PEOPLE - len(order)]
    looks = order + second
    spread = {
        name: draw.permutation(np.linspace(0.0, 1.0, PEOPLE))
        for name in ("width", "height", "jaw", "gap", "eye", "lid", "brow", "arch", "nose", "long",
                     "mouth", "lip")
    }  # fmt: skip
    people = []
    styles: dict[tuple[int, int], list[str]] = {}
    for place, (skin, hair) in enumerate(looks):
        free = [style for style in STYLES if style not in styles.get((skin, hair), [])]
        style = free[(place * 5 + place // len(STYLES)) % len(free)]
        styles.setdefault((skin, hair), []).append(style)

        def between(name: str, low: float, high: float, place: int = place) -> float:
            return float(low + (high - low) * spread[name][place])

        people.append(
            Person(
                skin=skin,
                hair=hair,
                style=style,
                beard=BEARDS[int(draw.integers(len(BEARDS)))],
                glasses=GLASSES[int(draw.integers(len(GLASSES)))],
                shirt=SHIRTS[(place * 4 + place // len(SHIRTS)) % len(SHIRTS)],
                iris=IRISES[int(draw.integers(len(IRISES)))],
                half_width=between("width", 13.5, 17.5),
                half_height=between("height", 18.0, 20.5),
                jaw=between("jaw", 1.7, 3.4),
                eye_gap=between("gap", 6.2, 8.2),
                eye_width=between("eye", 3.6, 5.0),
                eye_height=between("lid", 2.3, 3.1),
                brow_thickness=between("brow", 1.1, 2.6),
                brow_arch=between("arch", 0.0, 1.6),
                nose_width=between("nose", 1.8, 4.2),
                nose_length=between("long", 5.0, 8.5),
                mouth_width=between("mouth", 5.2, 7.0),
                lip=between("lip", 0.8, 1.7),
                freckles=bool(draw.random() < 0.2),
            )
        )
    return people


def shade(colour: Colour, factor: float) -> Colour:
    """Returns a darker (factor < 1) or lighter colour."""
    red, green, blue = (min(255, round(value * factor)) for value in colour)
    return red, green, blue


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Returns a mixture with this share of the other colour."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(one, other, strict=True))
    return red, green, blue


class Pen:
    """Draws shapes given in face coordinates (origin between eyes and mouth) on a canvas."""

    def __init__(self, image: Image.Image, matrix: FloatArray, offset: FloatArray) -> None:
        self._draw = ImageDraw.Draw(image)
        self._matrix = matrix
        self._offset = offset

    def polygon(self, points: FloatArray, colour: Colour) -> None:
        """Fills a polygon ``[n, 2]``."""
        self._draw.polygon((points @ self._matrix + self._offset).ravel().tolist(), fill=colour)

    def ellipse(self, x: float, y: float, wide: float, high: float, colour: Colour) -> None:
        """Fills an ellipse with these half axes."""
        self.polygon(CIRCLE * (wide, high) + (x, y), colour)

    def stroke(
        self, points: FloatArray, width: float, colour: Colour, closed: bool = False
    ) -> None:
        """Draws a line of this width along points ``[n, 2]``."""
        path = np.concatenate([points, points[:2]]) if closed else points
        self._draw.line(
            (path @ self._matrix + self._offset).ravel().tolist(),
            fill=colour,
            width=max(1, round(width * OVER)),
            joint="curve",
        )


def outline(person: Person, grow: float = 0.0) -> FloatArray:
    """Returns the face's outline ``[n, 2]``: a superellipse that narrows towards the chin."""
    wide, high = person.half_width + grow, person.half_height + grow
    x, y = CIRCLE[:, 0], CIRCLE[:, 1]
    power = np.where(y > 0, 2.0 / person.jaw, 2.0 / 2.2)
    columns = np.sign(x) * np.abs(x) ** power * wide
    rows = np.sign(y) * np.abs(y) ** power * high
    narrow = 1.0 - np.clip(rows / high, 0.0, 1.0) ** 2 * (0.34 - 0.07 * person.jaw)
    return np.stack([columns * narrow, rows], axis=1)


def draw_body(pen: Pen, person: Person) -> None:
    """Draws neck and shirt, which do not move with the head."""
    skin = shade(person.skin_colour, 0.82)
    pen.polygon(np.array([[-6.0, 12], [6, 12], [7, 30], [-7, 30]]), skin)
    pen.ellipse(0, 36, 27, 14, person.shirt)
    pen.polygon(np.array([[-6.0, 20], [6, 20], [0, 27]]), skin)


def draw_head(pen: Pen, person: Person) -> None:
    """Draws what is behind the moving parts: hair behind, ears, face, beard, nose."""
    wide, high, hair = person.half_width, person.half_height, person.hair_colour
    _hair_behind(pen, person)
    for side in (-1, 1):
        pen.ellipse(side * wide, 0, 2.6, 4.2, shade(person.skin_colour, 0.9))
    pen.polygon(outline(person), person.skin_colour)
    if person.beard == "full":
        beard = outline(person, 0.5)
        beard = beard[beard[:, 1] > 1.5]
        beard = beard[np.argsort(beard[:, 0])]
        inner = np.array([[0.72, 3.0], [0.5, 6.5], [-0.5, 6.5], [-0.72, 3.0]]) * (wide, 1.0)
        pen.polygon(np.concatenate([beard, inner]), hair)
    elif person.beard == "goatee":
        pen.ellipse(0, high - 3.2, 4.6, 4.4, hair)
    if person.freckles:
        for x, y in ((-9, 5), (-7, 6.4), (-10.4, 6.8), (9, 5), (7, 6.4), (10.4, 6.8)):
            pen.ellipse(x, y, 0.7, 0.6, shade(person.skin_colour, 0.7))
    flank, tip = person.nose_width, person.nose_length
    nose = np.array([[0.0, -2.5], [flank, tip - 4.1], [0, tip - 2.5], [-flank, tip - 4.1]])
    pen.polygon(nose, shade(person.skin_colour, 0.80))


def draw_front(pen: Pen, person: Person) -> None:
    """Draws what lies over the moving parts: hair on the forehead, moustache, glasses."""
    hair = person.hair_colour
    _hair_on_forehead(pen, person)
    if person.beard == "moustache":
        pen.polygon(
            np.array([[-6.5, 7.8], [-2.5, 5.0], [0, 5.6], [2.5, 5.0], [6.5, 7.8], [0, 7.2]]), hair
        )
    if person.glasses != "none":
        frame = (150, 20, 40) if person.hair == 0 else (20, 20, 24)
        for side in (-1, 1):
            shape = (
                CIRCLE if person.glasses == "round" else np.sign(CIRCLE) * np.abs(CIRCLE) ** 0.35
            )
            ring = shape * (person.eye_width + 1.4, 5.0) + (side * person.eye_gap, -4.0)
            pen.stroke(ring, 1.1, frame, closed=True)
        pen.stroke(np.array([[-1.8, -4.4], [1.8, -4.4]]), 1.1, frame)


def _above(points: FloatArray, row: float) -> FloatArray:
    """Returns the part of a closed outline that lies above a row (y grows downwards)."""
    part = points[points[:, 1] < row]
    return part[np.argsort(np.arctan2(part[:, 0], row - part[:, 1]))]


def _hair_behind(pen: Pen, person: Person) -> None:
    hair, wide, high = person.hair_colour, person.half_width, person.half_height
    if person.style == "long":
        pen.polygon(outline(person, 3.6), hair)
        curtain = [[-wide - 4, -4], [wide + 4, -4], [wide + 5.5, 28], [-wide - 5.5, 28]]
        pen.polygon(np.array(curtain), hair)
    elif person.style == "bob":
        pen.polygon(_above(outline(person, 3.4), 8.0), hair)
        curtain = [[-wide - 4, -6], [wide + 4, -6], [wide + 6, 11], [-wide - 6, 11]]
        pen.polygon(np.array(curtain), hair)
    elif person.style == "curls":
        for angle in np.linspace(-0.35, np.pi + 0.35, 11):
            x, y = -np.cos(angle) * (wide + 2.5), -np.sin(angle) * (high + 1.5) - 1
            pen.ellipse(x, y, 5.8, 5.8, hair)
    elif person.style == "bun":
        pen.ellipse(0, -high - 3.0, 6.5, 6.0, hair)
        pen.polygon(_above(outline(person, 1.8), -2.0), hair)
    elif person.style == "spikes":
        for x in np.linspace(-wide * 0.85, wide * 0.85, 5):
            tip = np.array(
                [[x - 4.5, -high * 0.6], [x * 1.25, -high - 7.5], [x + 4.5, -high * 0.6]]
            )
            pen.polygon(tip, hair)
    elif person.style in ("crop", "parted", "fringe"):
        pen.polygon(_above(outline(person, 2.2), 1.0), hair)
    elif person.style == "bald":
        for side in (-1, 1):
            pen.ellipse(side * wide * 1.04, -3.0, 4.4, 7.6, hair)


def _hair_on_forehead(pen: Pen, person: Person) -> None:
    hair, wide, high = person.hair_colour, person.half_width, person.half_height
    top = outline(person, 1.2)
    cap = top[top[:, 1] < -high * 0.60]
    cap = cap[np.argsort(cap[:, 0])]
    left, right = cap[0], cap[-1]
    lower: dict[str, list[list[float]]] = {
        "crop": [[0, -high * 0.66]],
        "long": [[wide * 0.45, -high * 0.66], [0, -high * 0.98], [-wide * 0.45, -high * 0.66]],
        "bob": [[wide * 0.75, -high * 0.50], [-wide * 0.75, -high * 0.50]],
        "curls": [[wide * 0.5, -high * 0.70], [0, -high * 0.62], [-wide * 0.5, -high * 0.70]],
        "parted": [[wide * 0.8, -high * 0.58], [-wide * 0.30, -high * 0.95]],
        "bun": [[0, -high * 0.86]],
        "spikes": [[0, -high * 0.70]],
        "fringe": [
            [wide * 0.85, -high * 0.62],
            [-wide * 0.2, -high * 0.52],
            [-wide * 0.95, -high * 0.30],
        ],
    }
    if person.style in lower:
        middle = np.array([right, *lower[person.style], left], dtype=float)
        pen.polygon(np.concatenate([cap, middle]), hair)
