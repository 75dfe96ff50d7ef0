"""Reading npz files that hold object arrays without running what a pickle could run.

NumPy stores arrays of unequal shapes as a pickle, and a pickle can call anything. Here it may
name six things, for each of which a function of this module stands in; everything else is refused
before it is called. NumPy's own would let a file name the addresses that its objects lie at.
"""

from __future__ import annotations

import lzma
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt

from vdsm_bench.errors import DataError

_CONVERT = (
    "save the clips as plain arrays: numpy.savez(file, **{f'{i:05d}': clip for i, clip in "
    "enumerate(clips)}) with numeric clips, or as a folder IDENTITY/ACTION/TAKE/*.png"
)
#: what damaged files make NumPy and zipfile raise: a changed byte of a header, of a compression
#: method, of a pickle, of the flag of an encrypted member
DAMAGE = (
    OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError,
    OverflowError, RuntimeError, SyntaxError, struct.error, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
#: kinds of dtypes inside a pickle: numbers, text and objects, nothing with fields of its own
_KINDS = "biufcSUO"
AnyArray = npt.NDArray[Any]


def read_npz(path: Path, *, objects: bool = True) -> dict[str, AnyArray]:
    """Reads every array of an npz file.

    Args:
        path: the file.
        objects: whether object arrays are read, too.

    Returns:
        Arrays by name; object arrays hold arrays, numbers or text.

    Raises:
        DataError: no npz file, damaged, an object array where none is read, or one that names
            anything but arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for member in archive.namelist():
                if not member.endswith(".npy"):
                    raise DataError(f"{path}: '{member}' inside is no array.")
                with archive.open(member) as file:
                    name = member[: -len(".npy")]
                    array = _read_array(cast(BinaryIO, file), objects)
                    if array is None:
                        raise DataError(
                            f"{path}: '{name}' is an object array.",
                            hint=f"numpy.asarray({name}, dtype=...) with a plain type before "
                            "numpy.savez",
                        )
                    arrays[name] = array
            return arrays
    except pickle.UnpicklingError as error:
        raise DataError(f"{path} holds more than arrays: {error}.", hint=_CONVERT) from error
    except DAMAGE as error:
        raise DataError(f"{path} does not read: {type(error).__name__}: {error}.") from error


def _read_array(file: BinaryIO, objects: bool) -> AnyArray | None:
    """Reads one array; None for an object array where none is read."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"array format {version} is unknown")
    if dtype.hasobject and not objects:
        return None
    if dtype.hasobject:
        loaded = _settled(_ArrayUnpickler(file, encoding="latin1").load())
        if not isinstance(loaded, np.ndarray) or loaded.shape != shape:
            raise ValueError("the object array is not what its header says")
        return loaded
    count = int(np.prod(shape, dtype=np.int64))
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise ValueError("the array is cut short")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")


def _latin1(text: str, codec: str = "latin1") -> bytes:
    """Stands in for ``_codecs.encode``, by which old pickles write bytes."""
    if codec not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes with '{codec}'")
    return text.encode("latin1")


class _Dtype:
    """Stands in for ``numpy.dtype``: NumPy's own would take flags that lie about objects."""

    def __init__(self, name: str, align: Any = False, copy: Any = True) -> None:
        self._name = name
        self._order: Any = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = state[1]

    def made(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self._name)
        if dtype.kind not in _KINDS:
            raise pickle.UnpicklingError(f"it holds arrays of {self._name}")
        turned: np.dtype[Any] = dtype.newbyteorder(self._order)
        return turned


class _Array:
    """Stands in for ``numpy.ndarray``: NumPy's own would take bytes for addresses of objects."""

    array: AnyArray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        order: Literal["C", "F"] = "F" if fortran else "C"
        if dtype.made().hasobject:
            items = [_settled(item) for item in content]
            array = np.empty(len(items), dtype=object)
            for place, item in enumerate(items):
                array[place] = item
            self.array = array.reshape(shape, order=order)
        else:
            self.array = _from_buffer(content, dtype, shape, order)


def _settled(item: Any) -> Any:
    """Returns an item of an object array, in place of a stand-in the array it stands for.

    Raises:
        ValueError: an array that is not read yet, because it holds itself.
    """
    if not isinstance(item, _Array):
        return item
    if item.array is None:
        raise ValueError("an array holds itself")
    return item.array


def _from_buffer(data: Any, dtype: _Dtype, shape: Any, order: Any) -> AnyArray:
    """Stands in for NumPy's private function of the same purpose (pickle protocol 5)."""
    content = data.encode("latin1") if isinstance(data, str) else data  # of Python 2
    array: AnyArray = np.frombuffer(content, dtype=dtype.made()).reshape(shape, order=order)
    return array


def _reconstruct(*arguments: Any) -> _Array:
    """Stands in for the function that makes the array whose content follows."""
    return _Array()


def _scalar(dtype: _Dtype, data: Any) -> Any:
    """Stands in for the function that makes one number."""
    return _from_buffer(data, dtype, (), "C")[()]


def _admitted() -> dict[tuple[str, str], Callable[..., Any]]:
    table: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _latin1,
    }
    for core in ("numpy.core", "numpy._core"):  # NumPy 1 and NumPy 2 write different names
        table[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        table[f"{core}.multiarray", "scalar"] = _scalar
        table[f"{core}.numeric", "_frombuffer"] = _from_buffer
    return table


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and refuses every other name."""

    _table = _admitted()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._table:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return self._table[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside of the file")
