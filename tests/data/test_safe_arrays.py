import io
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest

from vdsm_bench.data.safe_arrays import read_npz
from vdsm_bench.errors import DataError


def ragged():
    clips = np.empty(3, dtype=object)
    for index in range(3):
        clips[index] = np.arange((index + 1) * 4, dtype=np.uint8).reshape(index + 1, 2, 2)
    return clips


def write_pickled(path, data, shape=(1,)):
    """An npz whose only member claims to be an object array and holds this pickle."""
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        member, {"descr": "|O", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", member.getvalue() + data)


def test_plain_arrays_are_read(tmp_path):
    x = np.arange(6.0).reshape(2, 3)
    np.savez(tmp_path / "x.npz", x, other=np.asfortranarray(x))
    arrays = read_npz(tmp_path / "x.npz")
    assert (arrays["arr_0"] == x).all()
    assert (arrays["other"] == x).all()


def test_ragged_arrays_are_read(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", ragged())
    (read,) = read_npz(tmp_path / "x.npz").values()
    assert all((a == b).all() for a, b in zip(read, ragged(), strict=True))


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol_is_read(tmp_path, protocol):
    write_pickled(tmp_path / "x.npz", pickle.dumps(ragged(), protocol=protocol), (3,))
    (read,) = read_npz(tmp_path / "x.npz").values()
    assert all((a == b).all() for a, b in zip(read, ragged(), strict=True))


def test_numpy_1_files_are_read(tmp_path):
    data = pickle.dumps(ragged(), protocol=0).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core.multiarray" in data
    write_pickled(tmp_path / "x.npz", data, (3,))
    assert len(read_npz(tmp_path / "x.npz")["arr_0"]) == 3


def test_lists_of_numbers_and_scalars_are_read(tmp_path):
    labels = np.array([[np.int64(3), 1], [2, np.uint8(4)]], dtype=object)
    np.savez(tmp_path / "x.npz", labels)
    assert read_npz(tmp_path / "x.npz")["arr_0"].tolist() == [[3, 1], [2, 4]]


class Hostile:
    """Unpickling this calls a function with an argument."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(os.system, ("touch '{}'",)), (open, ("{}", "w")), (eval, ("open('{}', 'w')",)),
     (np.memmap, ("{}", "uint8", "w+", 0, (1,))), (np.load, ("{}",)), (getattr, ("a", "b"))],
)  # fmt: skip
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_does_nothing(tmp_path, function, arguments, protocol):
    target = tmp_path / "owned"
    filled = [one.format(target) if isinstance(one, str) else one for one in arguments]
    array = np.empty(1, dtype=object)
    array[0] = Hostile(function, *filled)
    write_pickled(tmp_path / "x.npz", pickle.dumps(array, protocol=protocol))
    with pytest.raises(DataError, match="holds more than arrays: it names") as caught:
        read_npz(tmp_path / "x.npz")
    assert not target.exists()
    assert "numpy.savez" in caught.value.hint


def test_the_hostile_pickle_of_the_test_does_work_elsewhere(tmp_path):
    """Guards the test above: the same bytes do create the file when really unpickled."""
    target = tmp_path / "owned"
    pickle.loads(pickle.dumps(Hostile(os.system, f"{sys.executable} -c \"open('{target}', 'w')\"")))
    assert target.exists()


class Stated:
    """Pickles as a call with a state set afterwards."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


READER = """
import sys
from pathlib import Path
from vdsm_bench.data.safe_arrays import read_npz
from vdsm_bench.errors import DataError

for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        raise AssertionError(f"{path} is read: {read_npz(path)}")
    except DataError as error:
        print(error.message, flush=True)
"""
ADDRESSES = b"A" * 8  # of objects that are nowhere
make_array, make_nothing, _ = np.zeros(0).__reduce__()
pointers = Stated(np.ndarray, ((1,), np.dtype(object), ADDRESSES))
# an object dtype whose flags say that it holds no objects
lying = Stated(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
fields = Stated(
    np.dtype, ("V8", False, True),
    (3, "|", None, ("a",), {"a": (np.dtype(object), 0)}, 8, 1, 0),
)  # fmt: skip


def test_a_file_cannot_say_where_objects_lie(run_python, tmp_path):
    """In another process: NumPy would read these, and end in a segmentation fault."""
    hostile = {"ndarray": pointers, "shape": Stated(np.ndarray, (pointers,))}
    for name, dtype in (("object", np.dtype(object)), ("lying", lying), ("fields", fields)):
        state = (1, (1,), dtype, False, ADDRESSES)
        hostile[name] = Stated(make_array, make_nothing, state)
    for name, content in hostile.items():
        for protocol in (0, 2, 4):
            path = tmp_path / f"{name}{protocol}.npz"
            write_pickled(path, pickle.dumps(content, protocol=protocol))
    done = run_python(READER, str(tmp_path))
    assert len(done.stdout.splitlines()) == 3 * len(hostile)


def test_an_array_that_holds_itself_is_refused(tmp_path):
    array = np.empty(1, dtype=object)
    array[0] = array
    write_pickled(tmp_path / "x.npz", pickle.dumps(array, protocol=4))
    with pytest.raises(DataError, match="holds itself"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "bool", "<U5", "S3"])
def test_arrays_of_every_kind_come_back_as_they_were(tmp_path, dtype):
    array = np.empty(2, dtype=object)
    array[0] = np.asfortranarray(np.array([[0, 1, 2], [3, 4, 5]], dtype=dtype))
    array[1] = np.zeros((0, 2), dtype=dtype)
    np.savez(tmp_path / "x.npz", array)
    for read, one in zip(read_npz(tmp_path / "x.npz")["arr_0"], array, strict=True):
        assert read.dtype == one.dtype
        assert read.shape == one.shape
        assert (read == one).all()


def test_object_arrays_can_be_refused_before_they_are_read(tmp_path):
    np.savez(tmp_path / "x.npz", clips=ragged())
    with pytest.raises(DataError, match="'clips' is an object array"):
        read_npz(tmp_path / "x.npz", objects=False)


def test_nested_names_and_other_codecs_are_refused(tmp_path):
    write_pickled(tmp_path / "x.npz", b"\x80\x04\x8c\x05numpy\x8c\nmemmap.foo\x93.")
    with pytest.raises(DataError, match="more than arrays"):
        read_npz(tmp_path / "x.npz")
    write_pickled(tmp_path / "x.npz", b"c_codecs\nencode\n(Vx\nVidna\ntR.")
    with pytest.raises(DataError, match="encodes with 'idna'"):
        read_npz(tmp_path / "x.npz")
    write_pickled(tmp_path / "x.npz", b"Pelsewhere\n.")
    with pytest.raises(DataError, match="outside of the file"):
        read_npz(tmp_path / "x.npz")


def damaged_files():
    np.savez(buffer := io.BytesIO(), np.arange(1000))
    good = buffer.getvalue()
    yield "empty", b""
    yield "text", b"hello"
    yield "cut", good[: len(good) // 2]
    yield "flipped", good[:300] + bytes([good[300] ^ 255]) + good[301:]
    locked = bytearray(good)  # the flags of a member that needs a password
    locked[6] |= 1
    locked[good.index(b"PK\x01\x02") + 8] |= 1
    yield "locked", bytes(locked)
    np.save(buffer := io.BytesIO(), np.arange(1000))
    header = bytearray(buffer.getvalue())
    header[header.index(b"}")] = ord("(")  # which no tokeniser finds the end of
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr("x.npy", bytes(header))
    yield "header", buffer.getvalue()


@pytest.mark.parametrize(("name", "content"), list(damaged_files()))
def test_damaged_files_are_named(tmp_path, name, content):
    path = tmp_path / f"{name}.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.npz does not read"):
        read_npz(path)


@pytest.mark.parametrize("data", [b"", b"\x80\x04", b"N.", b"(lp0\n.", b"garbage",
                                  pickle.dumps(np.zeros(2))])  # fmt: skip
def test_damaged_pickles_are_refused(tmp_path, data):
    write_pickled(tmp_path / "x.npz", data)
    with pytest.raises(DataError):
        read_npz(tmp_path / "x.npz")


def test_members_that_are_no_arrays_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("run.py", "print()")
    with pytest.raises(DataError, match="'run.py' inside is no array"):
        read_npz(tmp_path / "x.npz")
