"""``vdsm-bench data`` in processes of its own: killed, out of disk, and without torch."""

import contextlib
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

CALL = "from vdsm_bench.cli.main import main; main()"


def command(folder, *arguments):
    return [sys.executable, "-c", CALL, "--data-dir", str(folder), "data", *arguments]


def left_behind(folder):
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


def processes():
    """Parent and state of every process by its number; slim images of Linux have no ``ps``."""
    if not Path("/proc/self/stat").exists():
        words = ["ps", "-eo", "pid=,ppid=,stat="]
        listed = subprocess.run(words, capture_output=True, text=True, check=True)
        rows = [line.split() for line in listed.stdout.splitlines()]
        return {int(pid): (int(parent), state) for pid, parent, state in rows}
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # a name in brackets, which can hold anything, comes before the state and the parent
            _, _, after = file.read_bytes().rpartition(b")")
            state, parent = after.decode().split()[:2]
            found[int(file.parent.name)] = (int(parent), state)
    return found


def children(parent):
    return [pid for pid, (owner, _) in processes().items() if owner == parent]


def alive(pid):
    _, state = processes().get(pid, (0, "Z"))
    return not state.startswith("Z")


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.05)


def test_kill_9_while_preparing_then_the_same_command_again(tmp_path):
    prepare = command(tmp_path, "prepare", "mug-synthetic", "--processes", "2")
    process = subprocess.Popen(prepare, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    frames = tmp_path / ".mug-synthetic.partial" / "frames.npy"
    wait_for(lambda: frames.exists() and frames.stat().st_size > 1_000_000)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "mug-synthetic").exists()
    wait_for(lambda: not any(map(alive, workers)))
    left = frames.with_name("left")
    left.touch()
    # the same command waits for no lock and begins anew; a test need not see all 1248 clips
    process = subprocess.Popen(prepare, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: not left.exists() and frames.exists() and frames.stat().st_size > 0)
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert left_behind(tmp_path) == []


def test_a_disk_that_fills_up_while_preparing(tmp_path):
    def limit_file_size():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))

    prepare = command(tmp_path, "prepare", "mug-synthetic", "--processes", "1")
    done = subprocess.run(
        prepare, capture_output=True, text=True, preexec_fn=limit_file_size, check=False
    )
    assert done.returncode == 3, done.stderr
    assert f"No space for {tmp_path / 'mug-synthetic'}: it needs" in done.stderr
    assert "--data-dir" in done.stderr
    assert left_behind(tmp_path) == []


def test_listing_imports_no_torch(tmp_path):
    code = CALL.replace("main()", "import sys; run_cli(['data', 'list']); ")
    code = code.replace("import main", "import run_cli") + "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mug-synthetic" in done.stdout
