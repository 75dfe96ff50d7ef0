"""Downloads against a real HTTP server on this machine that can misbehave."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from vdsm_bench.contracts import DatasetCard, RemoteFile, VideoDataset
from vdsm_bench.data.download import MISSING, cache_folder, fetch
from vdsm_bench.data.locate import DataRoot, open_dataset, prepare_dataset
from vdsm_bench.errors import DataError
from vdsm_bench.registry import Registry

CONTENT = np.random.default_rng(0).bytes(300_000)


class Handler(BaseHTTPRequestHandler):
    """/good/*, /norange/*, /wrong/*, ...; half-way, /cut/* closes and /hang/* sends no more."""

    def log_message(self, *arguments):
        """Keeps quiet."""

    def do_GET(self):  # noqa: N802
        kind = self.path.split("/")[1]
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and kind != "norange" else 0
        self.server.asked.append((kind, start))
        body = {"wrong": CONTENT[::-1], "short": CONTENT[:1000]}.get(kind, CONTENT)
        if kind == "absent":
            self.send_error(404)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        self.wfile.write(rest[: len(rest) // 2] if kind in ("cut", "hang") else rest)
        if kind == "hang":  # the rest is never sent: the client is killed meanwhile
            self.server.released.wait()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.asked = []
    server.released = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def remote(*urls, name="clips.bin", content=CONTENT, algorithm="sha256"):
    digest = hashlib.new(algorithm, content).hexdigest()
    return RemoteFile(name, urls, f"{algorithm}:{digest}", len(content))


def entries(folder):
    return {path.name for path in folder.iterdir()} - {".lock"}


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_good_file_is_fetched_once_and_kept_under_its_name(server, tmp_path, algorithm):
    file = remote(f"{server.url}/good/x", name="deep/down/clips.bin", algorithm=algorithm)
    seen = []
    for _ in range(2):
        folder = fetch("toy", [file], tmp_path / "cache", progress=lambda *n: seen.append(n))
    assert (folder / "deep" / "down" / "clips.bin").read_bytes() == CONTENT
    assert server.asked == [("good", 0)]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert entries(folder) == {"deep"}
    assert entries(folder / "deep" / "down") == {"clips.bin"}


def test_the_cache_is_where_the_platform_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "vdsm-bench" in cache_folder("toy").parts
    if sys.platform == "linux":
        assert cache_folder("toy").is_relative_to(tmp_path)


def test_a_damaged_file_in_the_cache_is_fetched_anew(server, tmp_path):
    (tmp_path / "clips.bin").write_bytes(CONTENT[:-1] + b"x")
    fetch("toy", [remote(f"{server.url}/good/x")], tmp_path)
    assert (tmp_path / "clips.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("wrong", "another checksum"),
        ("short", "1000 bytes instead of 300000"),
        ("absent", "404 Not Found"),
    ],
)
def test_a_bad_file_is_never_kept_and_the_message_says_what_to_fetch(server, tmp_path, path, says):
    bad, good = remote(f"{server.url}/{path}/x"), remote(f"{server.url}/good/y", name="y.bin")
    with pytest.raises(DataError) as caught:
        fetch("toy", [bad, good], tmp_path)
    error = caught.value
    assert error.exit_code == 3
    assert "1 of 2 files could not be downloaded" in error.message
    for wanted in ("clips.bin", "300000 bytes", bad.checksum, bad.urls[0], says):
        assert wanted in error.message
    for wanted in ("vdsm-bench data prepare toy", str(tmp_path), "--from FOLDER"):
        assert wanted in error.hint
    assert entries(tmp_path) == {"y.bin", MISSING}
    assert (tmp_path / MISSING).read_text().split("\t")[0] == "clips.bin"


def test_mirrors_are_tried_in_order(server, closed_port, tmp_path):
    urls = [f"http://127.0.0.1:{closed_port}/x"]
    urls += [f"{server.url}/{kind}/x" for kind in ("absent", "wrong", "short", "good")]
    fetch("toy", [remote(*urls)], tmp_path)
    assert (tmp_path / "clips.bin").read_bytes() == CONTENT
    assert [kind for kind, _ in server.asked] == ["absent", "wrong", "short", "good"]


def test_a_cut_connection_is_gone_on_with(server, tmp_path):
    """One server gives half of what is asked for, every time; the other one only the end."""
    file = remote(f"{server.url}/cut/x", f"{server.url}/good/x")
    fetch("toy", [file], tmp_path)
    assert (tmp_path / "clips.bin").read_bytes() == CONTENT
    starts = [start for _, start in server.asked]
    assert starts == sorted(starts)
    assert starts[1] > 100_000
    assert server.asked[-1][0] == "good"
    assert server.asked[-1][1] > 150_000


def test_a_piece_that_another_server_spoilt_is_thrown_away(server, tmp_path):
    (tmp_path / ".clips.bin.part").write_bytes(b"junk" * 1000)
    fetch("toy", [remote(f"{server.url}/good/x")], tmp_path)
    assert (tmp_path / "clips.bin").read_bytes() == CONTENT
    assert server.asked == [("good", 4000), ("good", 0)]


def test_a_server_that_cannot_go_on_starts_again(server, tmp_path):
    (tmp_path / ".clips.bin.part").write_bytes(CONTENT[:5000])
    fetch("toy", [remote(f"{server.url}/norange/x")], tmp_path)
    assert (tmp_path / "clips.bin").read_bytes() == CONTENT
    assert entries(tmp_path) == {"clips.bin"}


def test_kill_9_during_a_download_then_the_same_again_goes_on(server, tmp_path):
    code = (
        "import sys; from pathlib import Path; from vdsm_bench.contracts import RemoteFile\n"
        "from vdsm_bench.data.download import fetch\n"
        "url, checksum, size, folder = sys.argv[1:]\n"
        "fetch('toy', [RemoteFile('clips.bin', (url,), checksum, int(size))], Path(folder),\n"
        "      progress=lambda done, total: print(done, flush=True))\n"
    )
    whole = remote(f"{server.url}/hang/x", content=CONTENT + b"never sent")
    process = subprocess.Popen(
        [sys.executable, "-c", code, whole.urls[0], whole.checksum, str(whole.size), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while int(process.stdout.readline()) < 120_000:
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    (piece,) = tmp_path.glob(".*.part")
    got = piece.stat().st_size
    assert got > 100_000
    assert not (tmp_path / "clips.bin").exists()
    fetch("toy", [remote(f"{server.url}/good/x")], tmp_path)
    assert (tmp_path / "clips.bin").read_bytes() == CONTENT
    assert server.asked[-1] == ("good", got)


def test_without_a_network_every_missing_file_is_named_and_one_is_tried(closed_port, tmp_path):
    there = remote("http://127.0.0.1:1/there", name="there.bin")
    (tmp_path / "there.bin").write_bytes(CONTENT)
    files = [
        remote(f"http://127.0.0.1:{closed_port}/{i}", name=f"clip-{i:02d}.bin") for i in range(25)
    ]
    with pytest.raises(DataError) as caught:
        fetch("toy", [*files, there], tmp_path)
    message = caught.value.message
    assert "25 of 26 files" in message
    assert message.count("no connection") == 1
    for file in files[:20]:
        assert file.name in message
    assert "and 5 more" in message
    assert "there.bin" not in message
    listed = (tmp_path / MISSING).read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == [file.name for file in files]


def test_a_folder_that_cannot_be_made_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be downloaded to") as caught:
        fetch("toy", [remote("http://127.0.0.1:1/x")], tmp_path / "file" / "cache")
    assert "XDG_CACHE_HOME" in caught.value.hint


class Fetched(VideoDataset):
    """Writes down what it was given."""

    card = DatasetCard(
        name="fetched", summary="", licence="", access="download", source="", split="clips"
    )
    given = None

    def prepare(self, destination, *, source=None, progress=None):
        from vdsm_bench.contracts import Factor
        from vdsm_bench.data.store_writer import StoreWriter

        type(self).given = source
        with StoreWriter(destination, card=self.card, factors=[Factor("a", "static", ("x",))],
                         image_shape=(2, 2, 1), total_frames=1) as writer:  # fmt: skip
            value = (source / "clips.bin").read_bytes()[0]
            writer.add(np.full((1, 2, 2, 1), value, np.uint8), {"a": 0})


@pytest.fixture
def table(server, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Fetched, "downloads", [remote(f"{server.url}/good/x")])
    table = Registry()
    table.register("datasets", "fetched")(Fetched)
    return table


def test_preparing_fetches_unless_the_user_has_the_files(table, server, tmp_path):
    root, said = DataRoot(tmp_path / "data", named=True), []
    with pytest.raises(DataError, match="fetched is not in") as caught:
        open_dataset(table, "fetched", root)
    assert "vdsm-bench data prepare fetched   (downloads 0.3 MB" in caught.value.hint
    assert server.asked == []  # nothing is downloaded unasked
    store = prepare_dataset(table, "fetched", root, log=said.append)
    assert Fetched.given == cache_folder("fetched")
    assert store.frames(0)[0, 0, 0, 0] == CONTENT[0]
    assert "fetched to" in said[0]
    prepare_dataset(table, "fetched", root, replace=True)
    own = tmp_path / "own"
    own.mkdir()
    (own / "clips.bin").write_bytes(b"\x07")
    store = prepare_dataset(table, "fetched", root, source=own, replace=True)
    assert store.frames(0)[0, 0, 0, 0] == 7
    assert len(server.asked) == 1
