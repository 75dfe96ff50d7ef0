"""Reading one clip from whatever its owner keeps it in: video, GIF, strip, frame folder or array.

Videos are read by PyAV, which is optional; everything else by Pillow and NumPy. Nothing is
unpickled. A file that does not read as a whole is odd: the reason is a sentence about the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from vdsm_bench.data.safe_arrays import AnyArray, read_npz
from vdsm_bench.data.store import ByteArray
from vdsm_bench.errors import DataError
from vdsm_bench.optional import import_optional

Direction = Literal["auto", "horizontal", "vertical"]
VIDEOS = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".flv", ".wmv", ".ogv"}
)
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
ARRAYS = frozenset({".npz", ".npy"})
CLIPS = VIDEOS | IMAGES | ARRAYS | {".gif"}
_CLUTTER = {"thumbs.db", "desktop.ini"}
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_NOT_READ = (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError)
_POINTER = b"version https://git-lfs.github.com/spec/"
#: degrees to the left, as a video's file has them
_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}
#: frames that may lack at the end of a video whose header counts them: players drop as many
_MAY_LACK = 2


class OddFileError(Exception):
    """A file that is no clip; the text says why, as a sentence about the file."""


@dataclass(frozen=True)
class Frame:
    """One picture of a clip.

    Attributes:
        picture: RGB.
        time: seconds since the beginning of the file, where the file says so.
    """

    picture: Image.Image
    time: float | None = None


@dataclass(frozen=True)
class Strip:
    """How frames lie side by side in one image.

    Attributes:
        direction: along which side; ``auto`` is the longer one.
        frames: how many; None: as many as squares fit.
    """

    direction: Direction = "auto"
    frames: int | None = None


def frames_of(path: Path, strip: Strip) -> Iterator[Frame]:
    """Yields the frames of a clip in order, one at a time.

    Raises:
        OddFileError: it is missing, no clip, damaged, or ends before its time.
        MissingDependencyError: a video, and PyAV is not installed.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise OddFileError("there is no such file")
    if not path.stat().st_size:
        raise OddFileError("is empty")
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise OddFileError("is a Git LFS pointer, not the clip itself (git lfs pull gets it)")
    kind = path.suffix.lower()
    if kind in VIDEOS:
        return _of_video(path)
    if kind == ".gif":
        return _of_gif(path)
    if kind in IMAGES:
        return _of_strip(path, strip)
    if kind in ARRAYS:
        return _of_array(path)
    raise OddFileError(f"is of no known kind ({', '.join(sorted(CLIPS))}, or a folder of images)")


def entries(folder: Path) -> list[Path]:
    """Returns what lies in a folder in natural order, without hidden files and clutter."""
    return sorted(
        (
            entry
            for entry in folder.iterdir()
            if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER
        ),
        key=lambda entry: natural(entry.name),
    )


def natural(name: str) -> list[tuple[int, str]]:
    """Returns a sort key by which 2 comes before 10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def require_video_reader() -> Any:
    """Imports PyAV.

    Raises:
        MissingDependencyError: it is not installed; names the command.
    """
    return import_optional("av", package="'vdsm-bench[video]'")


def _of_video(path: Path) -> Iterator[Frame]:
    av = require_video_reader()
    count = 0
    try:
        with av.open(str(path), options={"err_detect": "explode"}) as container:
            if not container.streams.video:
                raise OddFileError("has no pictures in it")
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise OddFileError(f"is damaged: its frame {count} does not decode")
                count += 1
                yield Frame(_upright(frame.to_image(), frame.rotation), frame.time)
            announced = stream.frames
    except (av.error.FFmpegError, OSError, ValueError) as error:
        where = f" after frame {count}" if count else ""
        what = getattr(error, "strerror", None) or error
        raise OddFileError(f"does not read as a video{where}: {what}") from error
    if count + _MAY_LACK < announced:
        raise OddFileError(f"ends early: {count} frames instead of {announced}")


def _upright(picture: Image.Image, turned: int) -> Image.Image:
    """Turns a picture as its file says that it is shown, as phones do; degrees to the left."""
    if turned % 360 == 0:
        return picture
    if turned % 90:
        raise OddFileError(f"is shown turned by {turned} degrees, which is no quarter of a turn")
    return picture.transpose(_TURNS[turned % 360])


def _of_gif(path: Path) -> Iterator[Frame]:
    count, time = 0, 0.0
    try:
        with Image.open(path, formats=("GIF",)) as image:
            for frame in ImageSequence.Iterator(image):
                yield Frame(_rgb(frame), time)
                count += 1
                time += (frame.info.get("duration") or 100) / 1000  # no delay: as viewers show it
    except _NOT_READ as error:
        raise OddFileError(f"does not read as a GIF after frame {count}: {error}") from error


def _of_folder(folder: Path) -> Iterator[Frame]:
    """Yields the images of a folder in natural order; they are of one size."""
    paths = entries(folder)
    if not paths:
        raise OddFileError("is an empty folder")
    first: tuple[int, int] | None = None
    for path in paths:
        if not path.is_file() or path.suffix.lower() not in IMAGES:
            raise OddFileError(f"holds {path.name}, which is no image")
        picture = _open_image(path, f"holds {path.name}, which")
        first = first or picture.size
        if picture.size != first:
            raise OddFileError(
                f"holds {path.name} of {picture.width}x{picture.height} pixels, its first image "
                f"has {first[0]}x{first[1]}"
            )
        yield Frame(picture)


def _of_strip(path: Path, strip: Strip) -> Iterator[Frame]:
    picture = _open_image(path, "")
    width, height = picture.size
    across = width >= height if strip.direction == "auto" else strip.direction == "horizontal"
    length, side = (width, height) if across else (height, width)
    count = strip.frames or length // side
    if not count or length % count or (strip.frames is None and length % side):
        frames = f"{strip.frames} frames" if strip.frames else "square frames"
        raise OddFileError(
            f"is no strip of {frames}: {width}x{height} pixels"
            + ("" if strip.frames else " (--strip-frames says how many frames a strip has)")
        )
    step = length // count
    for number in range(count):
        begin, end = number * step, (number + 1) * step
        yield Frame(picture.crop((begin, 0, end, side) if across else (0, begin, side, end)))


def _open_image(path: Path, subject: str) -> Image.Image:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            upright = ImageOps.exif_transpose(image)
            return _rgb(upright)
    except _NOT_READ as error:
        raise OddFileError(f"{subject} does not read as an image: {error}".strip()) from error


def _rgb(image: Image.Image) -> Image.Image:
    """Returns the picture as RGB; what is transparent shows black."""
    if image.mode.startswith(("I", "F")):
        raise OddFileError(f"has pixels of kind {image.mode}; 8 bits per channel are read")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, (0, 0, 0, 255)), above)
    return image.convert("RGB")


def _of_array(path: Path) -> Iterator[Frame]:
    if path.suffix.lower() == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (*_NOT_READ, MemoryError) as error:
            # numpy would advise to trust it and open what it holds of pickles
            raise OddFileError("does not read as an array of numbers") from error
    else:
        try:
            arrays = read_npz(path)
        except DataError as error:
            reason = error.message.removeprefix(str(path)).strip(" .,:")
            raise OddFileError(reason) from error
        if len(arrays) != 1:
            names = ", ".join(sorted(arrays)) or "none"
            raise OddFileError(f"holds {len(arrays)} arrays ({names}); one clip is one array")
        (array,) = arrays.values()
    for frame in as_pixels(array):
        yield Frame(Image.fromarray(frame))


def as_pixels(array: AnyArray) -> ByteArray:
    """Returns a clip as uint8 ``[T, H, W, 3]``.

    Args:
        array: ``[T, H, W]``, ``[T, H, W, C]`` or ``[T, C, H, W]`` with 1 or 3 channels; integers
            of 0 to 255, or floats of 0 to 1 or of 0 to 255.

    Raises:
        OddFileError: another shape, kind or range.
    """
    if array.ndim == 3:
        array = array[..., None]
    channels = (1, 3)
    if array.ndim == 4 and array.shape[-1] not in channels and array.shape[1] in channels:
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[-1] not in channels or not array.size:
        raise OddFileError(
            f"holds an array {list(array.shape)}; a clip is [frames, height, width] or "
            "[frames, height, width, 1 or 3]"
        )
    if array.dtype.kind not in "uifb":
        raise OddFileError(f"holds an array of {array.dtype}, which are no pixels")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # written so that NaN fails too
        raise OddFileError(f"holds pixels from {low:g} to {high:g}; 0 to 1 or 0 to 255 are read")
    if array.dtype.kind == "b" or (array.dtype.kind == "f" and high <= 1):
        array = array * 255.0
    pixels = np.round(array).astype(np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
