"""Moving MNIST: one or two digits that glide over a black square and bounce off its sides.

Who: the very picture of a digit (``glyph``) and which digit it is; two digits are two different
ones, named by the smaller and the larger, because nothing else in a picture could tell a first
from a second. What they do: the heading in the first frame, the speed, and whether they bounce.
Every picture belongs to one identity, so a split by identities holds out digits as images.
Positions are whole pixels, as in the original set.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from vdsm_bench.contracts import DatasetCard, Factor
from vdsm_bench.data.digits import MNIST_FILES, SIDE, Digits, read_mnist, small_digits
from vdsm_bench.data.drawn import DrawnDataset
from vdsm_bench.data.shading import SIZE, FloatArray
from vdsm_bench.data.store import ByteArray, IntArray
from vdsm_bench.errors import DataError
from vdsm_bench.seeding import generator

Count = Literal[1, 2]
#: frames of a stored clip
FRAMES = 16
#: how far a picture can move along x or y, pixels
ROOM = SIZE - SIDE
#: unit vectors, x to the right and y downwards
HEADINGS: dict[str, tuple[float, float]] = {
    name: (float(np.cos(angle)), float(np.sin(angle)))
    for name, angle in zip(
        ("east", "south-east", "south", "south-west", "west", "north-west", "north", "north-east"),
        np.arange(8) * np.pi / 4,
        strict=True,
    )
}
#: pixels per frame
SPEEDS = {"slow": (0.75, 1.05), "fast": (1.7, 2.2)}
BOUNCES = ("free", "bounce")
#: headings of one digit, and of two (whichever of them has which)
DIRECTIONS: dict[int, tuple[tuple[str, ...], ...]] = {
    1: tuple((name,) for name in HEADINGS),
    2: tuple(itertools.combinations_with_replacement(("east", "south", "west", "north"), 2)),
}
#: the digits of an identity
WHO: dict[int, tuple[tuple[int, ...], ...]] = {
    1: tuple((digit,) for digit in range(10)),
    2: tuple(itertools.combinations(range(10), 2)),
}
#: a bounce happens between these frames
_BOUNCE_AT = (5.0, 10.0)
#: pixels along x or y from which on two digits hardly overlap
_APART = 18
_SCHEMA = {1: "one digit, held out as images", 2: "two digits, held out as images"}


@dataclass(frozen=True)
class Path2D:
    """The way of one digit.

    Attributes:
        start: in the first frame, pixels ``(x, y)`` of the picture's corner, in 0..:data:`ROOM`.
        velocity: in the first frame, pixels per frame.
    """

    start: tuple[float, float]
    velocity: tuple[float, float]

    def places(self, frames: IntArray) -> IntArray:
        """Returns the picture's corner in these frames ``[T, 2]``, whole pixels; any frame."""
        way: FloatArray = np.array(self.start) + frames[:, None] * np.array(self.velocity)
        inside = ROOM - np.abs(way % (2 * ROOM) - ROOM)  # unfolded: both walls are mirrors
        return np.floor(inside + 0.5).astype(np.int64)


def draw_path(heading: str, speed: str, bounce: bool, draw: np.random.Generator) -> Path2D:
    """Draws a way that bounces off one side in the middle of a clip, or off none in its course."""
    pace = float(draw.uniform(*SPEEDS[speed]))
    velocity = np.round(np.array(HEADINGS[heading]) * pace, 9)
    travel = velocity * (FRAMES - 1)
    low, high = np.maximum(0.0, -travel), ROOM - np.maximum(0.0, travel)
    start = draw.uniform(low, high)
    if bounce:
        axis = int(draw.choice(np.flatnonzero(velocity)))
        wall = ROOM if velocity[axis] > 0 else 0
        start[axis] = wall - velocity[axis] * draw.uniform(*_BOUNCE_AT)
    return Path2D((float(start[0]), float(start[1])), (float(velocity[0]), float(velocity[1])))


def _apart(ways: Sequence[Path2D]) -> bool:
    """Tells whether two digits are beside each other in most frames: both can be read."""
    places = np.stack([way.places(np.arange(FRAMES)) for way in ways])
    apart = np.abs(places[0] - places[-1]).max(axis=1) >= _APART
    return len(ways) == 1 or bool(apart.mean() >= 0.6)


class MovingDigits(DrawnDataset):
    """What Moving MNIST and its stand-in have in common.

    Args:
        card: what it is.
        digits: 1 or 2.
        identities: how many; the digits they show follow each other in turn.
        takes: clips per identity, each with another motion.
        seed: of pictures and motions.
    """

    image_shape = (SIZE, SIZE, 1)
    endless = True
    parallel = False

    def __init__(
        self, card: DatasetCard, *, digits: Count, identities: int, takes: int, seed: int
    ) -> None:
        if identities < 1 or takes < 1:
            raise DataError(f"{card.name}: identities and takes must be at least 1.")
        self.card = card
        self._count, self._identities, self._takes, self._seed = digits, identities, takes, seed
        glyphs = Factor("glyph", "static", tuple(f"glyph-{i:04d}" for i in range(identities)))
        if digits == 1:
            shown: tuple[Factor, ...] = (Factor("digit", "static", tuple("0123456789")),)
        else:
            shown = (
                Factor("smaller-digit", "static", tuple("012345678")),
                Factor("larger-digit", "static", tuple("123456789")),
            )
        directions = tuple("+".join(names) for names in DIRECTIONS[digits])
        self.factors = (
            glyphs,
            *shown,
            Factor("direction", "dynamic", directions),
            Factor("speed", "dynamic", tuple(SPEEDS)),
            Factor("bounce", "dynamic", BOUNCES),
        )
        self._motions = self._deal_motions()

    def source_digits(self) -> Digits:
        """Returns the pictures to choose from."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Returns the number of clips."""
        return self._identities * self._takes

    def length(self, index: int) -> int:
        """Returns the stored frames of one clip."""
        return FRAMES

    def digits_of(self, identity: int) -> tuple[int, ...]:
        """Returns the digits of an identity, in ascending order."""
        return WHO[self._count][identity % len(WHO[self._count])]

    def labels(self, index: int) -> dict[str, int]:
        """Returns the class of every factor of one clip."""
        identity = int(index) // self._takes
        shown = self.digits_of(identity)
        digits = (
            {"digit": shown[0]}
            if self._count == 1
            else {"smaller-digit": shown[0], "larger-digit": shown[1] - 1}
        )
        direction, speed, bounce = np.unravel_index(self._motions[index], self._motion_shape)
        moves = {"direction": int(direction), "speed": int(speed), "bounce": int(bounce)}
        return {"glyph": identity, **digits, **moves}

    def paths(self, index: int) -> list[Path2D]:
        """Returns the ways of the digits of one clip."""
        labels = self.labels(index)
        draw = generator(self._seed, self.card.name, "path", index)
        names = DIRECTIONS[self._count][labels["direction"]]
        speed = list(SPEEDS)[labels["speed"]]
        while True:
            ways = [
                draw_path(names[place], speed, labels["bounce"] == 1, draw)
                for place in draw.permutation(len(names))
            ]
            if _apart(ways):
                return ways

    def draw(self, who: int, what: int, frames: IntArray) -> ByteArray:
        """Draws the digits of one clip on the ways of another, any frames."""
        clip = np.zeros((len(frames), *self.image_shape), dtype=np.uint8)
        for glyph, path in zip(self._glyphs[who // self._takes], self.paths(what), strict=True):
            for picture, (left, top) in zip(clip, path.places(frames), strict=True):
                under = picture[top : top + SIDE, left : left + SIDE, 0]
                np.maximum(under, glyph, out=under)
        return clip

    @property
    def _motion_shape(self) -> tuple[int, int, int]:
        return len(DIRECTIONS[self._count]), len(SPEEDS), len(BOUNCES)

    def _deal_motions(self) -> IntArray:
        """Deals the motions out: all equally often, also to every digit."""
        motions = np.empty((self._identities, self._takes), dtype=np.int64)
        groups, total = len(WHO[self._count]), int(np.prod(self._motion_shape))
        for group in range(groups):
            draw = generator(self._seed, self.card.name, "motions", group)
            places = motions[group::groups]
            rounds = [draw.permutation(total) for _ in range(places.size // total + 1)]
            motions[group::groups] = np.concatenate(rounds)[: places.size].reshape(places.shape)
        return motions.reshape(-1)

    @cached_property
    def _glyphs(self) -> ByteArray:
        """The pictures of every identity, uint8 ``[identities, digits, 28, 28]``; none twice."""
        source = self.source_digits()
        left = []
        for digit in range(10):
            draw = generator(self._seed, self.card.name, "pictures", digit)
            left.append(draw.permutation(np.flatnonzero(source.classes == digit)).tolist())
        chosen = []
        for identity in range(self._identities):
            shown = self.digits_of(identity)
            short = [digit for digit in shown if not left[digit]]
            if short:
                raise DataError(
                    f"{self.card.name}: there are too few pictures of the digit {short[0]} for "
                    f"{self._identities} identities."
                )
            chosen.append([left[digit].pop() for digit in shown])
        return source.images[np.array(chosen)]


def _name(digits: Count, ending: str = "") -> str:
    return f"mmnist{'' if digits == 1 else f'-{digits}'}{ending}"


class Mmnist(MovingDigits):
    """Moving MNIST, from the four original files.

    Args:
        digits: 1 (``mmnist``) or 2 (``mmnist-2``).
        identities: pictures, or pairs of pictures.
        takes: clips per identity.
        seed: of pictures and motions.
    """

    downloads = MNIST_FILES
    downloads_of = "mmnist"

    def __init__(
        self, *, digits: Count = 1, identities: int = 2000, takes: int = 2, seed: int = 0
    ) -> None:
        card = DatasetCard(
            name=_name(digits),
            summary=f"Moving MNIST, {_SCHEMA[digits]}.",
            licence="Y. LeCun and C. Cortes; no licence text, commonly given as CC BY-SA 3.0",
            access="download",
            source="MNIST's four files, http://yann.lecun.com/exdb/mnist (LeCun, Cortes, Burges)",
            split="identities",
            frame_rate=8.0,
            megabytes=round(identities * takes * FRAMES * SIZE**2 / 1e6),
        )
        super().__init__(card, digits=digits, identities=identities, takes=takes, seed=seed)
        self._source: Path | None = None

    def source_digits(self) -> Digits:
        """Reads all of MNIST's digits from the files that :meth:`prepare` was given."""
        if self._source is None:
            raise DataError(
                f"{self.card.name} is made from the four MNIST files; say where they are.",
                hint=f"vdsm-bench data prepare {self.card.name} --from FOLDER",
            )
        parts = [read_mnist(self._source, part) for part in ("train", "t10k")]
        return Digits(
            np.concatenate([part.images for part in parts]),
            np.concatenate([part.classes for part in parts]),
        )

    def prepare(
        self,
        destination: Path,
        *,
        source: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Makes all clips from the MNIST files in ``source``.

        Raises:
            DataError: a file is missing, or is not the published one.
        """
        self._source = source
        self.write(destination, progress)

    def render_transfer(
        self,
        identity_of: npt.ArrayLike,
        motion_of: npt.ArrayLike,
        *,
        frames: int,
        stride: int,
        image_size: int,
    ) -> ByteArray | None:
        """Draws true transfers after :meth:`prepare`; None before: there are no pictures."""
        if self._source is None:
            return None
        return super().render_transfer(
            identity_of, motion_of, frames=frames, stride=stride, image_size=image_size
        )


class MmnistSynthetic(MovingDigits):
    """Moving MNIST's stand-in: scikit-learn's real 8 x 8 digits, enlarged.

    Args:
        digits: 1 (``mmnist-synthetic``) or 2 (``mmnist-2-synthetic``).
        identities: pictures, or pairs of pictures; there are 174 pictures of the rarest digit.
        takes: clips per identity.
        seed: of pictures and motions.
    """

    def __init__(
        self, *, digits: Count = 1, identities: int = 1740, takes: int = 2, seed: int = 0
    ) -> None:
        card = DatasetCard(
            name=_name(digits, "-synthetic"),
            summary=f"scikit-learn's 8x8 digits as Moving MNIST's stand-in, {_SCHEMA[digits]}.",
            licence="CC BY 4.0 (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository)",
            access="embedded",
            source="scikit-learn's load_digits, https://doi.org/10.24432/C50P49",
            split="identities",
            frame_rate=8.0,
            megabytes=round(identities * takes * FRAMES * SIZE**2 / 1e6),
        )
        super().__init__(card, digits=digits, identities=identities, takes=takes, seed=seed)

    def source_digits(self) -> Digits:
        """Returns scikit-learn's digits."""
        return small_digits()
