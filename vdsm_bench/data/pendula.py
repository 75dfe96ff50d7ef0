"""Pendula: coloured pendulums that swing or whirl, 64 x 64, from the equation of motion.

Who: the colour and kind of the bob and the length of the rod. What they do: how far they swing and
how fast. The angle obeys ``angle'' = -rate^2 sin(angle)`` (no friction), integrated from the state
of the first frame; ``rate = sqrt(gravity / length)``. The rate is a part of the motion, not of the
pendulum: gravity is chosen with the rod, so that a long pendulum can swing as fast as a short one
and a motion looks the same on all of them. The true course can be gone on with for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin, sqrt

import numpy as np

from vdsm_bench.contracts import DatasetCard, Factor
from vdsm_bench.data.drawn import CrossedDataset
from vdsm_bench.data.shading import (
    SIZE,
    Colour,
    FloatArray,
    box,
    canvas,
    disc,
    local,
    paint,
    to_bytes,
)
from vdsm_bench.data.store import ByteArray, IntArray

#: steps of the integrator per frame
STEPS = 8
COLOURS: dict[str, Colour] = {
    "red": (226, 44, 44),
    "orange": (246, 142, 30),
    "yellow": (246, 230, 60),
    "green": (44, 176, 70),
    "cyan": (60, 214, 226),
    "blue": (52, 92, 236),
    "pink": (244, 120, 200),
    "white": (244, 244, 244),
}
#: from the pivot to the middle of the bob, pixels
LENGTHS = {"short": 11.0, "middle": 16.0, "long": 21.0}
BOBS = ("disc", "ring", "hammer")
#: energy in units of rate^2, with the lowest point at -1: below 1 it swings as far as
#: arccos(-energy), above 1 it goes over the top
ENERGIES = {
    "narrow": (-cos(pi * 18 / 180), -cos(pi * 30 / 180)),
    "wide": (-cos(pi * 60 / 180), -cos(pi * 85 / 180)),
    "whirl": (1.3, 1.7),
}
#: natural frequency, radians per frame
RATES = {"slow": (0.205, 0.235), "medium": (0.30, 0.34), "quick": (0.43, 0.49)}
_BACKGROUND: Colour = (24, 26, 34)
_ROD: Colour = (150, 154, 164)


@dataclass(frozen=True)
class Swing:
    """Everything of a clip that is not who swings.

    Attributes:
        rate: natural frequency, radians per frame.
        angle: in the first frame, radians from hanging straight down, counter-clockwise.
        speed: in the first frame, radians per frame.
        pivot: where it hangs, pixels ``(x, y)``.
        gain: brightness.
    """

    rate: float
    angle: float
    speed: float
    pivot: tuple[float, float]
    gain: float

    def energy(self, angle: float, speed: float) -> float:
        """Returns the energy of a state in units of rate^2; hanging still has -1."""
        return (speed / self.rate) ** 2 / 2 - cos(angle)


def draw_swing(reach: int, tempo: int, draw: np.random.Generator) -> Swing:
    """Draws a swing: energy and rate inside their bins, any place and direction on the way.

    Args:
        reach: index into :data:`ENERGIES`.
        tempo: index into :data:`RATES`.
        draw: source of random numbers.
    """
    energy = float(draw.uniform(*list(ENERGIES.values())[reach]))
    rate = float(draw.uniform(*list(RATES.values())[tempo]))
    furthest = pi if energy > 1 else float(np.arccos(-energy))
    angle = float(draw.uniform(-furthest, furthest))
    speed = rate * sqrt(max(0.0, 2 * (energy + cos(angle))))
    return Swing(
        rate=rate,
        angle=angle,
        speed=speed if draw.random() < 0.5 else -speed,
        pivot=(SIZE / 2 + draw.uniform(-1.0, 1.0), SIZE / 2 + draw.uniform(-1.0, 1.0)),
        gain=float(draw.uniform(0.93, 1.0)),
    )


def integrate(swing: Swing, frames: int) -> FloatArray:
    """Integrates the equation of motion by the classical Runge-Kutta method of fourth order.

    Args:
        swing: state of the first frame, and the rate.
        frames: how many, the first included.

    Returns:
        Angle and speed in every frame, ``[frames, 2]``; more frames never change earlier ones.
    """
    step, square = 1.0 / STEPS, swing.rate**2
    states = [(swing.angle, swing.speed)]
    for _ in range(frames - 1):
        angle, speed = states[-1]
        for _ in range(STEPS):
            pull_1 = -square * sin(angle)
            speed_2 = speed + step / 2 * pull_1
            pull_2 = -square * sin(angle + step / 2 * speed)
            speed_3 = speed + step / 2 * pull_2
            pull_3 = -square * sin(angle + step / 2 * speed_2)
            speed_4 = speed + step * pull_3
            pull_4 = -square * sin(angle + step * speed_3)
            angle += step / 6 * (speed + 2 * speed_2 + 2 * speed_3 + speed_4)
            speed += step / 6 * (pull_1 + 2 * pull_2 + 2 * pull_3 + pull_4)
        states.append((angle, speed))
    return np.array(states)


class Pendula(CrossedDataset):
    """Coloured pendulums, 72 identities x 9 motions, 16 frames; their true course has no end.

    Args:
        takes: clips per identity and motion.
        seed: of the takes.
    """

    card = DatasetCard(
        name="pendula",
        summary="Drawn pendulums, 72 identities x 9 motions, from the equation of motion.",
        licence="MIT (drawn by this package)",
        access="embedded",
        source="drawn on demand; the set of VDSM's paper was not published",
        split="identities",
        frame_rate=8.0,
        megabytes=382,
    )
    endless = True
    factors = (
        Factor("colour", "static", tuple(COLOURS)),
        Factor("length", "static", tuple(LENGTHS)),
        Factor("bob", "static", BOBS),
        Factor("reach", "dynamic", tuple(ENERGIES)),
        Factor("tempo", "dynamic", tuple(RATES)),
    )

    def __init__(self, *, takes: int = 3, seed: int = 0) -> None:
        super().__init__(takes=takes, seed=seed)

    def swing(self, index: int) -> Swing:
        """Returns everything of one clip but its identity."""
        labels = self.labels(index)
        return draw_swing(labels["reach"], labels["tempo"], self.chance(index))

    def draw(self, who: int, what: int, frames: IntArray) -> ByteArray:
        """Draws the pendulum of one clip in the swing of another, any frames."""
        swing, labels = self.swing(what), self.labels(who)
        angles = integrate(swing, int(frames.max()) + 1)[frames, 0]
        return render(
            angles,
            swing,
            colour=list(COLOURS.values())[labels["colour"]],
            length=list(LENGTHS.values())[labels["length"]],
            bob=BOBS[labels["bob"]],
        )


def render(
    angles: FloatArray, swing: Swing, *, colour: Colour, length: float, bob: str
) -> ByteArray:
    """Draws a pendulum at these angles ``[T]``; returns uint8 ``[T, 64, 64, 3]``."""
    frames = canvas(len(angles), _BACKGROUND)
    pivots = np.tile(np.array(swing.pivot), (len(angles), 1))
    # turned by -angle, the rod points down
    x, y = local(pivots, -angles)
    paint(frames, box(x, y - length / 2, 1.2, length / 2), _ROD)
    paint(frames, disc(x, y, 2.4), _ROD)
    if bob == "disc":
        distance = disc(x, y - length, 7.0)
    elif bob == "ring":
        distance = np.abs(disc(x, y - length, 5.8)) - 1.7
        paint(frames, disc(x, y - length, 5.8), _BACKGROUND)
    else:
        distance = box(x, y - length, 9.5, 3.6)
    paint(frames, distance, colour)
    return to_bytes(frames, swing.gain)
