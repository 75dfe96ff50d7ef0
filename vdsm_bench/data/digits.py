"""Pictures of single digits: the original MNIST files, and scikit-learn's small ones."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vdsm_bench.contracts import RemoteFile
from vdsm_bench.data.store import ByteArray, IntArray
from vdsm_bench.errors import DataError
from vdsm_bench.optional import import_optional

#: height and width of every picture, and how large scikit-learn's 8 x 8 digits are drawn in it
SIDE, _INK = 28, 24
#: SHA-256 of the content of the four original files; packed again they are still the same digits
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)
#: the four files as they were published: bytes and SHA-256
MNIST_FILES = tuple(
    RemoteFile(name, tuple(mirror + name for mirror in _MIRRORS), f"sha256:{digest}", size)
    for name, size, digest in (
        ("train-images-idx3-ubyte.gz", 9912422,
         "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ("train-labels-idx1-ubyte.gz", 28881,
         "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ("t10k-images-idx3-ubyte.gz", 1648877,
         "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1-ubyte.gz", 4542,
         "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    )
)  # fmt: skip
#: bytes before the pictures and before the labels of an IDX file, and of the largest file
_IMAGES_START, _LABELS_START, _LARGEST = 16, 8, 16 + 60000 * SIDE * SIDE


@dataclass(frozen=True)
class Digits:
    """Pictures of single digits, no two alike.

    Attributes:
        images: uint8 ``[n, 28, 28]``, 0 background, 255 ink.
        classes: which digit, int64 ``[n]``.
    """

    images: ByteArray
    classes: IntArray


def read_mnist(source: Path, part: str) -> Digits:
    """Reads one part of MNIST from the original files, packed (``.gz``) or not.

    Args:
        source: folder of the files.
        part: ``train`` (60,000 digits) or ``t10k`` (10,000, by other writers).

    Raises:
        DataError: names the file that is missing, or is not the published one.
    """
    images = _content(source, f"{part}-images-idx3-ubyte")[_IMAGES_START:]
    labels = _content(source, f"{part}-labels-idx1-ubyte")[_LABELS_START:]
    return Digits(
        np.frombuffer(images, np.uint8).reshape(-1, SIDE, SIDE),
        np.frombuffer(labels, np.uint8).astype(np.int64),
    )


def _content(source: Path, name: str) -> bytes:
    packed, plain = source / f"{name}.gz", source / name
    path = packed if packed.is_file() or not plain.is_file() else plain
    if not path.is_file():
        raise DataError(
            f"The MNIST file {path} is missing; the four original files are needed: "
            f"{', '.join(file.name for file in MNIST_FILES)}."
        )
    try:
        with gzip.open(path) if path == packed else path.open("rb") as file:
            content: bytes = file.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"The MNIST file {path} does not read: {error}.") from error
    if hashlib.sha256(content).hexdigest() != MNIST_SHA256[name]:
        raise DataError(f"The MNIST file {path} is damaged or of another version.")
    return content


def small_digits() -> Digits:
    """Returns scikit-learn's 1797 real 8 x 8 digits, enlarged to MNIST's size.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    bunch = import_optional("sklearn.datasets", package="scikit-learn").load_digits()
    border = (SIDE - _INK) // 2
    images = np.zeros((len(bunch.images), SIDE, SIDE), dtype=np.uint8)
    for picture, image in zip(images, bunch.images, strict=True):
        small = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))
        picture[border:-border, border:-border] = np.asarray(
            small.resize((_INK, _INK), Image.Resampling.BICUBIC)
        )
    return Digits(images, bunch.target.astype(np.int64))
