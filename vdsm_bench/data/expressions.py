"""How a drawn face moves: six expressions, their course over a clip, the nuisances of a take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: frames of the shortest and the longest clip
SHORTEST, LONGEST = 20, 32


class Expression(NamedTuple):
    """State of the moving parts of a face; lengths in pixels of a 64 x 64 frame.

    ``brow_lift`` raises the brows, ``brow_slope`` raises their inner ends; ``eye_open`` scales the
    opening, ``lid_slope`` raises the inner corner of the upper lid; ``mouth_width`` scales the
    width, ``corner`` lowers the corners, ``upper`` and ``lower`` open the lips up and down,
    ``boxy`` (0..1) squares the opening, ``teeth`` and ``low_teeth`` (0..1) fill it with teeth;
    ``tongue`` and ``tear`` are lengths; ``wrinkle`` and ``cheek`` (0..1) show at the nose and the
    cheeks; ``head_x``, ``head_y`` move the head.
    """

    brow_lift: float = 0.0
    brow_slope: float = 0.0
    eye_open: float = 1.0
    lid_slope: float = 0.0
    mouth_width: float = 1.0
    corner: float = 0.0
    upper: float = 0.0
    lower: float = 0.0
    boxy: float = 0.0
    teeth: float = 0.0
    low_teeth: float = 0.0
    tongue: float = 0.0
    tear: float = 0.0
    wrinkle: float = 0.0
    cheek: float = 0.0
    head_x: float = 0.0
    head_y: float = 0.0


NEUTRAL = Expression()
#: at the apex, at intensity 1
APEX: dict[str, Expression] = {
    "anger": Expression(
        brow_lift=-3.4, brow_slope=-3.0, eye_open=0.58, lid_slope=-1.6, mouth_width=1.3,
        corner=1.0, upper=2.8, lower=2.8, boxy=1.0, teeth=0.5, low_teeth=0.5, head_y=2.0,
    ),
    "disgust": Expression(
        brow_lift=-2.0, brow_slope=-0.6, eye_open=0.2, mouth_width=1.0, corner=3.0, upper=2.6,
        lower=0.8, boxy=0.2, tongue=8.0, wrinkle=1.0, cheek=0.4, head_x=-3.0,
    ),
    "fear": Expression(
        brow_lift=2.8, brow_slope=2.4, eye_open=1.6, lid_slope=0.6, mouth_width=1.6, corner=2.0,
        upper=1.8, lower=4.4, boxy=0.7, head_y=-1.2, head_x=2.6,
    ),
    "happiness": Expression(
        brow_lift=1.0, eye_open=0.62, mouth_width=1.6, corner=-5.0, upper=-1.2, lower=7.2,
        teeth=0.62, cheek=1.0, head_x=0.6, head_y=-0.6,
    ),
    "sadness": Expression(
        brow_lift=0.8, brow_slope=3.6, eye_open=0.5, lid_slope=1.9, mouth_width=0.82, corner=3.6,
        upper=0.3, lower=0.0, tear=10.0, head_x=-0.6, head_y=3.8,
    ),
    "surprise": Expression(
        brow_lift=5.0, eye_open=1.85, mouth_width=0.72, upper=4.4, lower=7.4, boxy=0.15,
        head_y=-3.6,
    ),
}  # fmt: skip
ACTIONS: tuple[str, ...] = tuple(APEX)


@dataclass(frozen=True)
class Take:
    """Everything of a clip that is not who is in it.

    Attributes:
        action: index into :data:`ACTIONS`.
        amounts: how far each frame is from neutral (0) to apex (1), times the intensity, ``[T]``.
        openings: eyelids by blinking, 1 open, ``[T]``.
        shift: position of the face, pixels ``(x, y)``.
        scale: its size.
        tilt: its rotation, radians.
        gain: brightness.
        gradient: change of brightness from edge to edge, ``(x, y)``.
    """

    action: int
    amounts: FloatArray
    openings: FloatArray
    shift: tuple[float, float]
    scale: float
    tilt: float
    gain: float
    gradient: tuple[float, float]

    def __len__(self) -> int:
        return len(self.amounts)

    def expression(self, frame: int) -> Expression:
        """Returns the state of the face in one frame."""
        amount, apex = self.amounts[frame], APEX[ACTIONS[self.action]]
        mixed = [low + amount * (high - low) for low, high in zip(NEUTRAL, apex, strict=True)]
        state = Expression(*map(float, mixed))
        return state._replace(eye_open=max(0.0, state.eye_open) * float(self.openings[frame]))


def draw_take(action: int, draw: np.random.Generator) -> Take:
    """Draws one take: neutral, eased rise, apex, eased fall, with nuisances."""
    length = int(draw.integers(SHORTEST, LONGEST + 1))
    onset, rise, fall, end = (
        draw.uniform(0.0, 0.06), draw.uniform(0.28, 0.42), draw.uniform(0.56, 0.70),
        draw.uniform(0.92, 1.0),
    )  # fmt: skip
    time = np.linspace(0.0, 1.0, length)
    course = np.interp(time, [onset, rise, fall, end], [0.0, 1.0, 1.0, 0.0])
    eased = course * course * (3.0 - 2.0 * course)
    openings = np.ones(length)
    blink = int(draw.integers(1, length - 3))
    if draw.random() < 0.3:
        openings[blink : blink + 3] = (0.5, 0.1, 0.5)
    return Take(
        action=action,
        amounts=eased * draw.uniform(0.85, 1.12),
        openings=openings,
        shift=(draw.uniform(-0.6, 0.6), draw.uniform(-0.6, 0.6)),
        scale=draw.uniform(0.985, 1.015),
        tilt=draw.uniform(-0.025, 0.025),
        gain=draw.uniform(0.96, 1.03),
        gradient=(draw.uniform(-0.04, 0.04), draw.uniform(-0.03, 0.03)),
    )
