"""Ctrl-C, SIGTERM and kill -9: nothing is half there, and the same command goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.plugin.install import install
from vdsm_bench.runs.folder import scan_cells

CALL = "import sys; from vdsm_bench.cli.main import main; main(sys.argv[1:])"
RUN = ("run", "--model", "toy", "--dataset", "toy-squares", "--preset", "smoke", "--json")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(install(folder / "packages")),
        "VDSM_BENCH_DATA": str(folder / "data"),
        "VDSM_BENCH_RUNS": str(folder / "runs"),
    }


def start(environment, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", CALL, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background job hands down an ignored SIGINT, which Python would keep ignoring
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.02)


def cells(environment, name):
    """Returns what stands in one file of every cell."""
    runs = Path(environment["VDSM_BENCH_RUNS"])
    return [json.loads(path.read_text()) for path in runs.glob(f"cells/*/*/*/{name}")]


def reached(environment, state, epoch=0):
    """Whether the cell is in a state, and at least so far in it: epochs pass between two looks."""
    return any(
        status["state"] == state and (status["epoch"] or 0) >= epoch
        for status in cells(environment, "status.json")
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_cell_says_so(places, tmp_path, number, code):
    environment = {**places, "VDSM_BENCH_RUNS": str(tmp_path)}
    process = start(environment, *RUN, "--set", "training.fit.epochs=500")
    wait_for(lambda: reached(environment, state="training", epoch=2), process)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == code, error
    assert "Traceback" not in error
    assert "the same command continues" in error
    (status,) = cells(environment, "status.json")
    assert (status["state"], status["stage"]) == ("interrupted", "fit")


def test_kill_9_in_the_judge_and_in_training_leaves_nothing_half(places, tmp_path):
    environment = {**places, "VDSM_BENCH_RUNS": str(tmp_path)}
    command = (*RUN, "--set", "training.fit.epochs=200", "--set", "judge.epochs=60")
    for wanted in ({"state": "judging"}, {"state": "training", "epoch": 2}):
        process = start(environment, *command)
        wait_for(lambda wanted=wanted: reached(environment, **wanted), process)
        process.kill()
        process.communicate(timeout=60)
        assert [record.state for record in scan_cells(tmp_path)] == ["killed"]
        judged = list(tmp_path.glob("judges/*/[!.]*/card.json"))
        assert len(judged) == (wanted["state"] == "training")
    process = start(environment, *command)
    answer, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    (outcome,) = json.loads(answer)
    assert (outcome["state"], outcome["metrics"]["training_steps"]) == ("done", {"fit": 400})
    assert not list(tmp_path.glob("judges/*/.*-*/card.json"))
