"""Sprites: characters composed from the sheets of the Liberated Pixel Cup.

Two sets: the 840 characters VDSM used and the 1296 of Li and Mandt (2018), nine actions each
(walk, spellcast, slash x three directions), eight frames, 64 x 64. The facts stand in
``sprites.yaml``; the composed pixels must have the SHA-256 given there.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from PIL import Image

from vdsm_bench.contracts import DatasetCard, Factor, VideoDataset
from vdsm_bench.data.store import ByteArray, sha256_of
from vdsm_bench.data.store_writer import StoreWriter
from vdsm_bench.errors import DataError

Variant = Literal["vdsm-840", "li-mandt-1296"]
TILE, FRAMES = 64, 8
_LICENCE = (
    "Art of the Liberated Pixel Cup: GNU GPL 3.0 or CC BY-SA 3.0, at your choice; keep the "
    "credits (AUTHORS.txt of the sheets) and the licence with every copy, also of pictures of it."
)
_SOURCE = (
    "https://github.com/jrconway3/Universal-LPC-spritesheet, "
    "commit 2668274d5a96c91584172f2d299b90f0a8c0caac"
)


@dataclass(frozen=True)
class Facts:
    """One variant as ``sprites.yaml`` states it.

    Attributes:
        store: registry name of the dataset.
        sha256: digest of the whole composed array.
        first_identity_sha256: digest of its first identity.
        layers: parts from bottom to top.
        factors: class name -> sheets (bottom to top), per static factor, in index order.
        fixed: parts that every character wears.
        actions: row and columns of the tiles, per action.
        sheets: SHA-256 of every sheet that is used.
    """

    store: str
    sha256: str
    first_identity_sha256: str
    layers: tuple[str, ...]
    factors: Mapping[str, Mapping[str, tuple[str, ...]]]
    fixed: Mapping[str, tuple[str, ...]]
    actions: Mapping[str, Mapping[str, Any]]
    sheets: Mapping[str, str]


def read_facts(variant: Variant) -> Facts:
    """Reads one variant's facts."""
    text = files("vdsm_bench.data").joinpath("sprites.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    body = content["variants"][variant]
    parts = [*body["factors"].values(), body["fixed"]]
    used = {path for part in parts for paths in part.values() for path in paths}
    return Facts(
        **{**body, "layers": tuple(body["layers"])},
        sheets={path: content["sheets"][path] for path in sorted(used)},
    )


class Sprites(VideoDataset):
    """LPC Sprites, composed from the user's copy of the sheets.

    Args:
        variant: ``vdsm-840`` or ``li-mandt-1296``.
    """

    def __init__(self, *, variant: Variant = "vdsm-840") -> None:
        self.facts = read_facts(variant)
        characters = int(np.prod([len(classes) for classes in self.facts.factors.values()]))
        self.card = DatasetCard(
            name=self.facts.store,
            summary=f"LPC Sprites, {characters} characters x 9 actions ({variant}).",
            licence=_LICENCE,
            access="import",
            source=_SOURCE,
            split="identities",
            frame_rate=8.0,
            megabytes=round(characters * len(self.facts.actions) * FRAMES * TILE * TILE * 3 / 1e6),
        )
        self.factors = (
            *(Factor(name, "static", tuple(kinds)) for name, kinds in self.facts.factors.items()),
            Factor("action", "dynamic", tuple(self.facts.actions)),
        )

    def prepare(
        self,
        destination: Path,
        *,
        source: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Composes all characters from the sheets in ``source`` (the folder, or its ``sheets/``).

        Raises:
            DataError: a sheet is missing or damaged, or the composed pixels are not those of
                the published set.
        """
        if source is None:
            raise DataError(
                f"{self.card.name} is composed from the LPC sheets; say where they are.",
                hint=f"vdsm-bench data prepare {self.card.name} --from FOLDER   ({_SOURCE})",
            )
        sheets = read_sheets(self.facts, source)
        sizes = [len(classes) for classes in self.facts.factors.values()]
        clips = int(np.prod(sizes)) * len(self.facts.actions)
        with StoreWriter(
            destination,
            card=self.card,
            factors=self.factors,
            image_shape=(TILE, TILE, 3),
            total_frames=clips * FRAMES,
        ) as writer:
            done = 0
            for labels, character in compose(self.facts, sheets):
                for action, frames in enumerate(character):
                    writer.add(frames, {**labels, "action": action})
                done += len(character)
                if progress is not None:
                    progress(done, clips)
            if writer.frames_sha256 != self.facts.sha256:
                raise DataError(
                    f"{self.card.name}: the composed pixels have SHA-256 "
                    f"{writer.frames_sha256[:16]}..., the published set has "
                    f"{self.facts.sha256[:16]}..., although all sheets are right: this Pillow "
                    f"composes differently.",
                    hint="pip install 'pillow>=10.3' and prepare again",
                )


def read_sheets(facts: Facts, source: Path) -> dict[str, Image.Image]:
    """Reads and checks all sheets of a variant.

    Returns:
        RGBA sheets by path.

    Raises:
        DataError: names the sheet that is missing or not the published file.
    """
    root = source / "sheets" if (source / "sheets").is_dir() else source
    sheets = {}
    for path, digest in facts.sheets.items():
        file = root / path
        hint = f"get the sheets of {_SOURCE}"
        if not file.is_file():
            raise DataError(f"The sheet {file} is missing.", hint=hint)
        if sha256_of(file) != digest:
            raise DataError(f"The sheet {file} is damaged or of another version.", hint=hint)
        with Image.open(file) as image:
            sheets[path] = image.convert("RGBA")
    return sheets


def compose(
    facts: Facts, sheets: Mapping[str, Image.Image]
) -> Iterator[tuple[dict[str, int], ByteArray]]:
    """Yields characters in the order of their identity index.

    Layers are laid over opaque black from bottom to top with Pillow's 8-bit ``alpha_composite``;
    what the lower layers of several characters share is composed once.

    Yields:
        Static labels and uint8 ``[actions, frames, 64, 64, 3]``.
    """
    strips = {
        (layer, name): [_strip(facts, sheets[path]) for path in paths]
        for layer, classes in [*facts.factors.items(), *_fixed_layers(facts)]
        for name, paths in classes.items()
    }
    height = TILE * FRAMES * len(facts.actions)
    shared: dict[tuple[str, ...], Image.Image] = {
        (): Image.new("RGBA", (TILE, height), (0, 0, 0, 255))
    }
    top = max(index for index, layer in enumerate(facts.layers) if layer in facts.factors)

    def composed(names: tuple[str, ...]) -> Image.Image:
        if names not in shared:
            canvas = composed(names[:-1])
            for strip in strips[facts.layers[len(names) - 1], names[-1]]:
                canvas = Image.alpha_composite(canvas, strip)
            if len(names) > top:  # the last choice: no other character shares it
                return canvas
            shared[names] = canvas
        return shared[names]

    for choice in itertools.product(*facts.factors.values()):
        chosen = {**dict(zip(facts.factors, choice, strict=True)), **{k: k for k in facts.fixed}}
        canvas = composed(tuple(chosen[layer] for layer in facts.layers))
        pixels = np.asarray(canvas.convert("RGB"))
        labels = {
            factor: list(facts.factors[factor]).index(chosen[factor]) for factor in facts.factors
        }
        yield labels, pixels.reshape(len(facts.actions), FRAMES, TILE, TILE, 3)


def first_identity_sha256(character: ByteArray) -> str:
    """Returns the digest of one composed character, to compare with the published one."""
    return hashlib.sha256(character.tobytes()).hexdigest()


def _fixed_layers(facts: Facts) -> list[tuple[str, dict[str, tuple[str, ...]]]]:
    return [(layer, {layer: paths}) for layer, paths in facts.fixed.items()]


def _strip(facts: Facts, sheet: Image.Image) -> Image.Image:
    """Cuts the tiles of all actions and frames out of a sheet and stacks them in one column."""
    tiles = [
        (action["row"], column) for action in facts.actions.values() for column in action["columns"]
    ]
    strip = Image.new("RGBA", (TILE, TILE * len(tiles)))
    for place, (row, column) in enumerate(tiles):
        box = (column * TILE, row * TILE, (column + 1) * TILE, (row + 1) * TILE)
        strip.paste(sheet.crop(box), (0, place * TILE))
    return strip
