"""Moving shapes: a drawn set of several static and several dynamic factors, 64 x 64, exact labels.

In the manner of dSprites and 3D Shapes, in motion: shape, colour and ground stay, while the path,
the turning and the pulsing of a clip are chosen independently of each other. One side of every
shape is white: it shows how the shape is turned, also at half the size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vdsm_bench.contracts import DatasetCard, Factor
from vdsm_bench.data.drawn import CrossedDataset
from vdsm_bench.data.shading import (
    SIZE,
    Colour,
    FloatArray,
    Pixels,
    box,
    canvas,
    local,
    paint,
    to_bytes,
    triangle,
)
from vdsm_bench.data.store import ByteArray, IntArray

#: a cycle of the path, or a turn, takes about this many frames: the length of a clip
_CYCLE = 16
SHAPES = ("square", "triangle", "bar", "cross")
COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40),
    "orange": (236, 138, 28),
    "green": (36, 160, 64),
    "cyan": (40, 190, 206),
    "blue": (56, 84, 226),
    "magenta": (200, 64, 196),
}
GROUNDS: dict[str, Colour] = {
    "black": (14, 14, 16),
    "slate": (52, 62, 78),
    "brown": (92, 70, 48),
    "sand": (190, 180, 146),
}
#: how far a path reaches from the middle of the frame, as shares of :data:`REACH` along x and y
PATHS = {"level": (1.0, 0.0), "upright": (0.0, 1.0), "round": (1.0, 1.0)}
#: full turns per 16 frames, clockwise on the screen
SPINS = {"none": 0.0, "clockwise": 1.0, "counter-clockwise": -1.0}
#: share by which the size grows and shrinks
PULSES = {"steady": 0.0, "pulsing": 0.22}
REACH = 7.0
_WHITE: Colour = (250, 250, 250)
#: the white side begins so far from the middle of the shape
_WHITE_FROM = 2.0


@dataclass(frozen=True)
class Course:
    """Everything of a clip that is not who moves; time is in frames.

    Attributes:
        path: index into :data:`PATHS`.
        spin: index into :data:`SPINS`.
        pulse: index into :data:`PULSES`.
        pace: cycles of the path per 16 frames; negative: the other way round.
        phase: of the path in the first frame, cycles.
        spin_pace: factor on the turns of :data:`SPINS`.
        turn: in the first frame, radians.
        pulse_pace: pulses per 16 frames.
        pulse_phase: in the first frame, cycles.
        shift: middle of the path from the middle of the frame, pixels ``(x, y)``.
    """

    path: int
    spin: int
    pulse: int
    pace: float
    phase: float
    spin_pace: float
    turn: float
    pulse_pace: float
    pulse_phase: float
    shift: tuple[float, float]

    def centres(self, frames: IntArray) -> FloatArray:
        """Returns the places of the shape ``[T, 2]``, pixels."""
        wide, high = list(PATHS.values())[self.path]
        angle = 2 * np.pi * (self.phase + self.pace * frames / _CYCLE)
        offset: FloatArray = np.stack([wide * np.cos(angle), high * np.sin(angle)], axis=1)
        places: FloatArray = REACH * offset + SIZE / 2 + np.array(self.shift)
        return places

    def turns(self, frames: IntArray) -> FloatArray:
        """Returns how far the shape is turned ``[T]``, radians, clockwise on the screen."""
        rate = list(SPINS.values())[self.spin] * self.spin_pace
        return self.turn + 2 * np.pi * rate * frames / _CYCLE

    def scales(self, frames: IntArray) -> FloatArray:
        """Returns the size of the shape ``[T]``, 1 at rest."""
        share = list(PULSES.values())[self.pulse]
        cycles = self.pulse_phase + self.pulse_pace * frames / _CYCLE
        return 1 + share * np.sin(2 * np.pi * cycles)


def draw_course(path: int, spin: int, pulse: int, draw: np.random.Generator) -> Course:
    """Draws pace, phases and shift of a clip of these classes."""
    return Course(
        path=path,
        spin=spin,
        pulse=pulse,
        pace=float(draw.uniform(0.9, 1.1) * draw.choice([-1.0, 1.0])),
        phase=float(draw.uniform(0.0, 1.0)),
        spin_pace=float(draw.uniform(0.85, 1.15)),
        turn=float(draw.uniform(0.0, 2 * np.pi)),
        pulse_pace=float(draw.uniform(1.4, 1.7)),
        pulse_phase=float(draw.uniform(0.0, 1.0)),
        shift=(float(draw.uniform(-1.5, 1.5)), float(draw.uniform(-1.5, 1.5))),
    )


class MovingShapes(CrossedDataset):
    """Moving shapes, 96 identities x 18 motions, 16 frames; their true course has no end.

    Args:
        takes: clips per identity and motion.
        seed: of the takes.
    """

    card = DatasetCard(
        name="moving-shapes",
        summary="Drawn shapes in motion, 3 static and 3 dynamic factors, 96 x 18 combinations.",
        licence="MIT (drawn by this package)",
        access="embedded",
        source="drawn on demand, in the manner of dSprites and 3D Shapes",
        split="identities",
        frame_rate=8.0,
        megabytes=340,
    )
    endless = True
    factors = (
        Factor("shape", "static", SHAPES),
        Factor("colour", "static", tuple(COLOURS)),
        Factor("ground", "static", tuple(GROUNDS)),
        Factor("path", "dynamic", tuple(PATHS)),
        Factor("spin", "dynamic", tuple(SPINS)),
        Factor("pulse", "dynamic", tuple(PULSES)),
    )

    def __init__(self, *, takes: int = 1, seed: int = 0) -> None:
        super().__init__(takes=takes, seed=seed)

    def course(self, index: int) -> Course:
        """Returns everything of one clip but its identity."""
        labels = self.labels(index)
        return draw_course(labels["path"], labels["spin"], labels["pulse"], self.chance(index))

    def draw(self, who: int, what: int, frames: IntArray) -> ByteArray:
        """Draws the shape of one clip on the course of another, any frames."""
        labels, course = self.labels(who), self.course(what)
        return render(
            course,
            frames,
            shape=SHAPES[labels["shape"]],
            colour=list(COLOURS.values())[labels["colour"]],
            ground=list(GROUNDS.values())[labels["ground"]],
        )


def render(
    course: Course, frames: IntArray, *, shape: str, colour: Colour, ground: Colour
) -> ByteArray:
    """Draws these frames of a course; returns uint8 ``[T, 64, 64, 3]``."""
    pictures = canvas(len(frames), ground)
    x, y = local(course.centres(frames), course.turns(frames))
    scale = course.scales(frames).astype(np.float32)[:, None, None]
    outline = _outline(shape, x, y, scale)
    paint(pictures, outline, colour)
    paint(pictures, np.maximum(outline, y + _WHITE_FROM * scale), _WHITE)
    return to_bytes(pictures)


def _outline(shape: str, x: Pixels, y: Pixels, scale: Pixels) -> Pixels:
    if shape == "square":
        return box(x, y, 12.9 * scale, 12.9 * scale)
    if shape == "triangle":
        return triangle(x, y, 9.0 * scale)
    if shape == "bar":
        return box(x, y, 6.6 * scale, 17.1 * scale)
    return np.minimum(box(x, y, 5.7 * scale, 17.2 * scale), box(x, y, 17.2 * scale, 5.7 * scale))
