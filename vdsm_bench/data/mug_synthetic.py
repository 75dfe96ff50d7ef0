"""MUG's embedded stand-in: drawn faces, 52 identities x 6 expressions, 64 x 64.

Every clip goes from neutral to the apex of its expression and back. A clip is a pure function
of who is in it and of its take (expression, course, nuisances), so the true transfer of one
clip's motion to another clip's identity can be rendered.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from vdsm_bench.contracts import DatasetCard, Factor
from vdsm_bench.data.drawn import DrawnDataset
from vdsm_bench.data.expressions import ACTIONS, Take, draw_take
from vdsm_bench.data.face_parts import draw_moving_parts
from vdsm_bench.data.faces import (
    BACKGROUND,
    CENTRE,
    HAIRS,
    OVER,
    PEOPLE,
    SIZE,
    SKINS,
    Colour,
    FloatArray,
    Pen,
    Person,
    draw_body,
    draw_front,
    draw_head,
    draw_people,
)
from vdsm_bench.data.store import ByteArray, IntArray
from vdsm_bench.errors import DataError
from vdsm_bench.seeding import generator

_NAME = "mug-synthetic"
_CANVAS = SIZE * OVER
#: the face fills the frame, as in the aligned crops of MUG: an expression is worth its pixels
_ZOOM = 1.4


class MugSynthetic(DrawnDataset):
    """Drawn faces with MUG's schema.

    Args:
        takes: clips per identity and expression.
        seed: of people and takes; another seed gives other people.
    """

    card = DatasetCard(
        name=_NAME,
        summary="Drawn faces, 52 identities x 6 expressions; the embedded stand-in for MUG.",
        licence="MIT (drawn by this package)",
        access="embedded",
        source="drawn on demand; no photograph or person is behind it",
        split="clips",
        frame_rate=12.0,
        megabytes=396,
    )

    def __init__(self, *, takes: int = 4, seed: int = 0) -> None:
        if takes < 1:
            raise DataError(f"{_NAME}: takes must be at least 1, not {takes}.")
        self._takes, self._seed = takes, seed
        self._people = draw_people(generator(seed, _NAME, "people"))
        self.factors = (
            Factor("identity", "static", tuple(f"person-{i:02d}" for i in range(PEOPLE))),
            Factor("skin", "static", tuple(SKINS)),
            Factor("hair", "static", tuple(HAIRS)),
            Factor("action", "dynamic", ACTIONS),
        )

    def __len__(self) -> int:
        """Returns the number of clips."""
        return PEOPLE * len(ACTIONS) * self._takes

    def labels(self, index: int) -> dict[str, int]:
        """Returns the class of every factor of one clip."""
        who = index // (len(ACTIONS) * self._takes)
        person = self._people[who]
        return {
            "identity": who,
            "skin": person.skin,
            "hair": person.hair,
            "action": index // self._takes % len(ACTIONS),
        }

    def take(self, index: int) -> Take:
        """Returns everything of one clip but its identity."""
        labels = self.labels(index)
        draw = generator(
            self._seed, _NAME, "take", labels["identity"], labels["action"], index % self._takes
        )
        return draw_take(labels["action"], draw)

    def length(self, index: int) -> int:
        """Returns the frames of one clip."""
        return len(self.take(index))

    def draw(self, who: int, what: int, frames: IntArray) -> ByteArray:
        """Draws the person of one clip in the take of another."""
        return render(self._people[self.labels(who)["identity"]], self.take(what), frames)


def render(person: Person, take: Take, frames: IntArray | None = None) -> ByteArray:
    """Draws one clip.

    Args:
        person: who.
        take: what they do, and the nuisances.
        frames: which frames (all by default).

    Returns:
        uint8 ``[T, 64, 64, 3]``.
    """
    scale = _ZOOM * take.scale
    cosine, sine = np.cos(take.tilt) * scale, np.sin(take.tilt) * scale
    matrix = OVER * np.array([[cosine, sine], [-sine, cosine]])
    offset = OVER * (np.array(CENTRE) + take.shift)
    body = Image.new("RGB", (_CANVAS, _CANVAS), BACKGROUND)
    draw_body(Pen(body, OVER * np.eye(2) * scale, offset), person)
    head, front = (
        _layer(functools.partial(draw, person=person), matrix, offset)
        for draw in (draw_head, draw_front)
    )
    which = np.arange(len(take)) if frames is None else frames
    images = np.empty((len(which), SIZE, SIZE, 3), dtype=np.uint8)
    for place, frame in enumerate(which):
        state = take.expression(int(frame))
        move = (round(state.head_x * scale * OVER), round(state.head_y * scale * OVER))
        canvas = body.copy()
        _paste(canvas, head, move)
        draw_moving_parts(Pen(canvas, matrix, offset + move), person, state)
        _paste(canvas, front, move)
        images[place] = np.asarray(canvas.reduce(OVER))
    light = _light(take)
    lit: ByteArray = np.clip(images * light + 0.5, 0, 255).astype(np.uint8)
    return lit


_Layer = tuple[Image.Image, Image.Image, tuple[int, int]]


def _layer(draw: Callable[[Pen], None], matrix: FloatArray, offset: FloatArray) -> _Layer | None:
    """Draws a still layer once per clip; returns colours, mask and place of what it covers."""
    colours = Image.new("RGB", (_CANVAS, _CANVAS))
    mask = Image.new("1", (_CANVAS, _CANVAS))  # all or nothing: pasting mixes no colours
    draw(Pen(colours, matrix, offset))
    draw(_MaskPen(mask, matrix, offset))
    box = mask.getbbox()
    if box is None:
        return None
    return colours.crop(box), mask.crop(box), (box[0], box[1])


class _MaskPen(Pen):
    """Draws the same shapes in white: what a layer covers."""

    def polygon(self, points: FloatArray, colour: Colour) -> None:
        self._draw.polygon((points @ self._matrix + self._offset).ravel().tolist(), fill=1)

    def stroke(
        self, points: FloatArray, width: float, colour: Colour, closed: bool = False
    ) -> None:
        path = np.concatenate([points, points[:2]]) if closed else points
        line = (path @ self._matrix + self._offset).ravel().tolist()
        self._draw.line(line, fill=1, width=max(1, round(width * OVER)), joint="curve")


def _paste(canvas: Image.Image, layer: _Layer | None, move: tuple[int, int]) -> None:
    if layer is not None:
        colours, mask, (left, top) = layer
        canvas.paste(colours, (left + move[0], top + move[1]), mask)


def _light(take: Take) -> npt.NDArray[np.float32]:
    """Returns the brightness of every pixel ``[64, 64, 1]``."""
    along = np.linspace(-0.5, 0.5, SIZE)
    field = take.gain * (1 + take.gradient[0] * along[None, :] + take.gradient[1] * along[:, None])
    return field[..., None].astype(np.float32)
