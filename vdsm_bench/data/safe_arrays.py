"""Reading npz files that hold object arrays without running what a pickle could run.

NumPy stores arrays of unequal shapes as a pickle, and a pickle can call anything. Here it may
name five things, all of which only make arrays; everything else is refused before it is called.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from vdsm_bench.errors import DataError

_CONVERT = (
    "save the clips as plain arrays: numpy.savez(file, **{f'{i:05d}': clip for i, clip in "
    "enumerate(clips)}) with numeric clips, or as a folder IDENTITY/ACTION/TAKE/*.png"
)
AnyArray = npt.NDArray[Any]


def read_npz(path: Path) -> dict[str, AnyArray]:
    """Reads every array of an npz file.

    Args:
        path: the file.

    Returns:
        Arrays by name; object arrays hold arrays, numbers or text.

    Raises:
        DataError: no npz file, damaged, or an object array that names anything but arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for member in archive.namelist():
                if not member.endswith(".npy"):
                    raise DataError(f"{path}: '{member}' inside is no array.")
                with archive.open(member) as file:
                    arrays[member[: -len(".npy")]] = _read_array(cast(BinaryIO, file))
            return arrays
    except pickle.UnpicklingError as error:
        raise DataError(f"{path} holds more than arrays: {error}.", hint=_CONVERT) from error
    except (
        OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
        MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        # a damaged pickle can fail in any of these ways, and a member may be encrypted
        raise DataError(f"{path} does not read: {type(error).__name__}: {error}.") from error


def _read_array(file: BinaryIO) -> AnyArray:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"array format {version} is unknown")
    if dtype.hasobject:
        loaded = _ArrayUnpickler(file, encoding="latin1").load()
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


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> AnyArray:
    """Stands in for NumPy's private function of the same purpose (pickle protocol 5)."""
    array: AnyArray = np.frombuffer(data, dtype=dtype).reshape(shape, order=order)
    return array


def _admitted() -> dict[tuple[str, str], Callable[..., Any]]:
    make_array = cast(Callable[..., Any], np.zeros(0).__reduce__()[0])
    make_scalar = cast(Callable[..., Any], np.int64(0).__reduce__()[0])
    table: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    }
    for core in ("numpy.core", "numpy._core"):  # NumPy 1 and NumPy 2 write different names
        table[f"{core}.multiarray", "_reconstruct"] = make_array
        table[f"{core}.multiarray", "scalar"] = make_scalar
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
