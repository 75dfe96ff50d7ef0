"""Reading one clip from whatever its owner keeps it in: video, GIF, strip, frame folder or array.

Videos are read by PyAV, which is optional; everything else by Pillow and NumPy. Nothing is
unpickled. A file that does not read as a whole is odd: the reason is a sentence about the file.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from vdsm_bench.data.safe_arrays import DAMAGE, AnyArray, read_npz
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
_ANIMATED = ("PNG", "WEBP")
#: what Pillow raises at damaged files
_NOT_READ = (
    OSError, EOFError, ValueError, SyntaxError, IndexError, KeyError, TypeError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_POINTER = b"version https://git-lfs.github.com/spec/"
#: degrees to the left, as a video's file has them
_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}
#: frames that may lack at the end of a video whose header counts them: players drop as many
_MAY_LACK = 2
#: formats whose header counts no frames and says how long the file is; of others PyAV guesses
_SAY_TIMES_ONLY = {"matroska,webm", "flv"}
#: floats of 0 to 1 may lie so far above 1: resizing rounds, a step of float16 at most, and the
#: byte is 255 all the same
_ABOVE_ONE = 1e-3


class OddFileError(Exception):
    """A file that is no clip; the text says why, as a sentence about the file."""


@dataclass(frozen=True)
class Frame:
    """One picture of a clip.

    Attributes:
        picture: RGB.
        time: seconds since the beginning of the file, where the file says so.
        duration: seconds that it is shown, where the file says so.
    """

    picture: Image.Image
    time: float | None = None
    duration: float | None = None


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
    """Returns a sort key by which 2 comes before 10; no two names have the same."""
    parts = re.split(r"(\d+)", name)
    numbered = [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
    return [*numbered, (-2, name)]  # "1" and "01" are one number


def require_video_reader() -> Any:
    """Imports PyAV.

    Raises:
        MissingDependencyError: it is not installed; names the command.
    """
    return import_optional("av", package="'vdsm-bench[video]'")


def _of_video(path: Path) -> Iterator[Frame]:
    av = require_video_reader()
    count, read_to, shown_to = 0, 0.0, 0.0
    try:
        with av.open(str(path), options={"err_detect": "explode"}) as container:
            if not container.streams.video:
                raise OddFileError("has no pictures in it")
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            for packet in container.demux():
                read_to = max(read_to, _end(packet))
                for frame in packet.decode() if packet.stream.index == stream.index else ():
                    if frame.is_corrupt:
                        raise OddFileError(f"is damaged: its frame {count} does not decode")
                    count += 1
                    shown_to = max(shown_to, _end(frame))
                    length = float(frame.duration * frame.time_base) if frame.duration else None
                    yield Frame(_upright(frame.to_image(), frame.rotation), frame.time, length)
            lacks = _lacking(container, stream, count, shown_to, read_to)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        where = f" after frame {count}" if count else ""
        what = getattr(error, "strerror", None) or error
        raise OddFileError(f"does not read as a video{where}: {what}") from error
    if lacks:
        raise OddFileError(f"ends early: {lacks}")


def _end(piece: Any) -> float:
    """Returns when a frame or packet is over, seconds since the beginning of the file."""
    if piece.pts is None:
        return 0.0
    return float((piece.pts + (piece.duration or 0)) * piece.time_base)


def _lacking(container: Any, stream: Any, count: int, shown_to: float, read_to: float) -> str:
    """Says what a video lacks of what its header announces.

    Args:
        container: the file.
        stream: its pictures.
        count: how many were read.
        shown_to: when the last of them is over, seconds.
        read_to: when the last of anything is over; the sound may be longer than the pictures.
    """
    some = (_MAY_LACK + 1) * shown_to / max(count, 1)
    if count + _MAY_LACK < stream.frames:
        # trimmed without coding it anew, an mp4 keeps and counts frames that are not shown
        edited = "mp4" in container.format.name and stream.duration
        if not edited or shown_to + some < float(stream.duration * stream.time_base):
            return f"{count} frames instead of {stream.frames}"
    announced = (container.duration or 0) / 1e6
    timed = container.format.name in _SAY_TIMES_ONLY
    if timed and read_to + some < announced:
        return f"after {read_to:.3g} of {announced:.3g} seconds"
    return ""


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
                duration = (frame.info.get("duration") or 100) / 1000  # no delay: as viewers do
                yield Frame(_rgb(frame), time, duration)
                count += 1
                time += duration
    except _NOT_READ as error:
        raise OddFileError(f"does not read as a GIF after frame {count}: {error}") from error
    if not _has_trailer(path.read_bytes()):
        raise OddFileError(f"ends early: after frame {count}, without the mark that ends a GIF")


def _has_trailer(gif: bytes) -> bool:
    """Says whether a GIF ends as it should; Pillow takes one cut between frames as whole."""

    def table(flags: int) -> int:
        return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0

    try:
        place = 13 + table(gif[10])
        while gif[place] != 0x3B:
            if gif[place] not in (0x21, 0x2C):  # no block; Pillow passes over it too
                place += 1
                continue
            place += 2 if gif[place] == 0x21 else 11 + table(gif[place + 9])
            while gif[place]:
                place += gif[place] + 1
            place += 1
    except IndexError:
        return False
    return True


def _of_folder(folder: Path) -> Iterator[Frame]:
    """Yields the images of a folder in natural order; they are of one size."""
    paths = entries(folder)
    if not paths:
        raise OddFileError("is an empty folder")
    first: tuple[int, int] | None = None
    for path in paths:
        if not path.is_file() or path.suffix.lower() not in IMAGES:
            raise OddFileError(f"holds {path.name}, which is no image")
        try:
            picture = open_image(path)
        except OddFileError as error:
            raise OddFileError(f"holds {path.name}, which {error}") from error
        first = first or picture.size
        if picture.size != first:
            raise OddFileError(
                f"holds {path.name} of {picture.width}x{picture.height} pixels, its first image "
                f"has {first[0]}x{first[1]}"
            )
        yield Frame(picture)


def _of_strip(path: Path, strip: Strip) -> Iterator[Frame]:
    picture = open_image(path)
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


def open_image(path: Path) -> Image.Image:
    """Returns the one picture of an image file, RGB and upright; what is transparent shows black.

    Raises:
        OddFileError: damaged, of more than 8 bits per channel, or of several pictures.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            # phones keep further pictures in their JPEGs, which are no animation
            if image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1:
                raise OddFileError(
                    f"is an animation of {image.n_frames} frames; a GIF, a video or a folder of "
                    "images is read"
                )
            upright = ImageOps.exif_transpose(image)
            return _rgb(upright)
    except _NOT_READ as error:
        raise OddFileError(f"does not read as an image: {error}") from error


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
            with path.open("rb") as file:  # np.load would read an npz of this name, too
                array = np.lib.format.read_array(file, allow_pickle=False)
        except DAMAGE as error:
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
    if array.ndim == 3 and array.shape[-1] in (1, 3, 4):
        raise OddFileError(
            f"holds an array {list(array.shape)}, which is one picture, or frames of a width of "
            f"{array.shape[-1]} pixels"
        )
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
    scale = pixel_scale(array)
    pixels = np.round(array * scale if scale != 1 else array).astype(np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def pixel_scale(array: AnyArray) -> float:
    """Returns what pixels are multiplied by to be 0 to 255: 255 for bools and floats of 0 to 1.

    Raises:
        OddFileError: they lie in neither range, or nobody can tell in which.
    """
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # written so that NaN fails too
        raise OddFileError(f"holds pixels from {low:g} to {high:g}; 0 to 1 or 0 to 255 are read")
    if array.dtype.kind == "b":
        return 255.0
    if array.dtype.kind == "f":
        if 1 + _ABOVE_ONE < high <= 2:
            raise OddFileError(
                f"holds floats from {low:g} to {high:g}, which are neither 0 to 1 nor 0 to 255"
            )
        return 255.0 if high <= 1 + _ABOVE_ONE else 1.0
    if high == 1:
        raise OddFileError(
            "holds whole numbers from 0 to 1, black in the range of 0 to 255; save bools, floats "
            "or 255 times as much"
        )
    return 1.0
