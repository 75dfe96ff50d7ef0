import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vdsm_bench.contracts import DatasetCard, Factor
from vdsm_bench.data.mug_synthetic import MugSynthetic
from vdsm_bench.data.store import ClipStore
from vdsm_bench.data.store_writer import StoreWriter

#: names the folder that holds the real files: ``lpc``, the sheets, and ``mnist``
VARIABLE = "VDSM_BENCH_SHARED"


def real_files(name):
    """Finds a folder of real files; skips where it is not beside the checkout.

    Fails where the variable names a place that lacks it: who sets it wants nothing skipped.
    """
    named = os.environ.get(VARIABLE)
    folder = Path(named or Path(__file__).parents[3] / "shared" / "data") / name
    if not folder.is_dir():
        missing = pytest.fail if named else pytest.skip
        missing(f"there are no real files in {folder} ({VARIABLE})")
    return folder


def card(name="toy"):
    return DatasetCard(
        name=name, summary="toy", licence="MIT", access="embedded", source="drawn", split="clips"
    )


FACTORS = (
    Factor("colour", "static", ("red", "green", "blue")),
    Factor("shape", "static", ("round", "square")),
    Factor("action", "dynamic", ("walk", "run", "jump", "sit")),
)


def write_toy(folder, *, takes=3, size=8, lengths=(5, 9), name="toy", seed=0, split="clips"):
    """Six identities x four actions x takes, random pixels, lengths by turns."""
    draw = np.random.default_rng(seed)
    clips = [
        (colour, shape, action)
        for colour in range(3)
        for shape in range(2)
        for action in range(4)
        for _ in range(takes)
    ]
    span = [lengths[i % len(lengths)] for i in range(len(clips))]
    with StoreWriter(
        folder,
        card=replace(card(name), split=split),
        factors=FACTORS,
        image_shape=(size, size, 3),
        total_frames=sum(span),
    ) as writer:
        for length, (colour, shape, action) in zip(span, clips, strict=True):
            frames = draw.integers(0, 256, (length, size, size, 3), dtype=np.uint8)
            writer.add(frames, {"colour": colour, "shape": shape, "action": action})
    return ClipStore.open(folder)


@pytest.fixture
def toy(tmp_path):
    return write_toy(tmp_path / "toy")


@pytest.fixture(scope="session")
def lpc():
    """Folder of the LPC sheets."""
    return real_files("lpc")


@pytest.fixture(scope="session")
def faces_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "mug-synthetic"
    MugSynthetic(takes=1).prepare(folder)
    return ClipStore.open(folder)
