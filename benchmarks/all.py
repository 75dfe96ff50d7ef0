"""Every benchmark in one go, on a GPU after the tests that need one.

``python -m benchmarks.all --device cuda`` needs a checkout, its environment and nothing else: data
is drawn. It runs the tests marked ``gpu`` and then each benchmark in a process of its own; what
they say goes to the screen, results go to the history, and what the tests said to
``OUT/gpu-tests.txt``. ``--only`` names benchmarks, and ``tests``. With ``--quick`` the numbers mean
nothing: without ``--out`` they go to a temporary folder. The exit code is 0 if all went well, 1 if
something failed (the rest is run all the same) and 2 where there is no such device or no such
benchmark.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.machine import known
from vdsm_bench.devices import choose_device
from vdsm_bench.files import write_text

#: the one that all others serve comes first: whoever breaks off has it
BENCHMARKS = (
    ("step", "--precision", "32,bf16"),
    ("start",),
    ("generation",),
    ("loading",),
    ("growth",),
    ("pull",),
    ("judge",),
    ("evaluation",),
)
#: those that need a GPU
_TESTS = "tests"
#: options that shorten every benchmark to seconds, to see that all of them run
QUICK = {
    "start": "--repeats 1",
    "generation": "--preset smoke --repeats 1",
    "loading": "--clips 20 --rounds 1 --seconds 0.1",
    "growth": "--sizes clips --stages pretrain --repeats 1",
    "pull": "--variants base --clips 4",
    "judge": "--preset smoke",
    "evaluation": "--pairs 20",
    "step": "--precision 32 --preset smoke --settings mug --stages sequence --no-naive",
}


def run_tests(out: Path) -> bool:
    """Runs the tests that need a GPU; keeps what they said; returns whether they passed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"],
        cwd=machine.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    print(done.stdout, flush=True)
    write_text(out / "gpu-tests.txt", f"commit {machine.commit()}\n\n{done.stdout}")
    return done.returncode == 0


def run_benchmark(name: str, options: list[str]) -> bool:
    """Runs one benchmark; returns whether it ended well."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    return subprocess.run(command, cwd=machine.ROOT, check=False).returncode == 0


def _folder(given: Path | None, kept: Path, *, quick: bool) -> Path:
    """Returns where results go; what is quick does not go where results are kept, unless told."""
    if given is None and quick:
        given = Path(tempfile.mkdtemp(prefix="vdsm-bench-quick-"))
        print(f"results: {given}", flush=True)
    return (given or kept).resolve()


def main() -> None:
    """Runs everything and says what became of it."""
    parser = machine.options(__doc__)
    parser.add_argument("--only", default="", help="comma-separated; all if left out")
    parser.add_argument("--quick", action="store_true", help="seconds each, to see that they run")
    kept = parser.get_default("out")
    parser.set_defaults(out=None)
    given = parser.parse_args()
    choose_device(given.device)
    machine.check_threads(given.threads)
    names = [_TESTS] if given.device == "cuda" else []
    names += [name for name, *_ in BENCHMARKS]
    wanted = known("--only", given.only, names) if given.only else names
    out = _folder(given.out, kept, quick=given.quick)
    shared = ["--device", given.device, "--out", str(out)]
    if given.threads is not None:
        shared += ["--threads", str(given.threads)]
    ended: list[tuple[str, bool, float]] = []
    if _TESTS in wanted:
        started = time.monotonic()
        ended.append((_TESTS, run_tests(out), time.monotonic() - started))
    for name, *options in BENCHMARKS:
        if name not in wanted:
            continue
        print(f"-- benchmarks.{name}", flush=True)
        started = time.monotonic()
        quick = QUICK[name].split() if given.quick else []
        went = run_benchmark(name, [*shared, *options, *quick])
        ended.append((name, went, time.monotonic() - started))
    for name, went, seconds in ended:
        print(f"{name}: {'done' if went else 'FAILED'}, {seconds:.0f} s")
    if not all(went for _, went, _ in ended):
        raise SystemExit(1)


if __name__ == "__main__":
    machine.run(main)
