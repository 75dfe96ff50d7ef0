import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import history, machine, step, worker
from benchmarks.all import QUICK
from benchmarks.costs import least_bytes, operations, watching
from benchmarks.forms import FORMS, Task, naive_step
from benchmarks.naive import NaiveVDSM, stock_adam
from benchmarks.worker import WARM_UP, Taken, timed
from vdsm_bench.errors import UsageError

ROOT = Path(__file__).parents[2]
TINY = {
    "model": {
        "encoder": {"name": "blurpool", "channels": [4, 8, 8]},
        "decoder": {"name": "mixture-of-experts", "widths": [64, 32]},
        "rnn_width": 64,
    },
    "data": {"image_size": 16, "frames": 4},
    "training": {"*": {"batch_size": 3}},
}


def _task(stage):
    return Task("mug", stage, changes=(TINY,))


def test_the_settings_are_the_papers():
    sprites, mug = Task("sprites", "pretrain"), Task("mug", "sequence")
    assert sprites.clip == (20, 16, 3, 64, 64)
    assert Task("sprites", "sequence").clip == (20, 8, 3, 64, 64)
    assert mug.clip == (20, 20, 3, 64, 64)
    assert sprites.config.model.arguments["identity_dim"] == 40
    assert mug.config.model.arguments["identity_dim"] == 15


@pytest.mark.parametrize("stage", ["pretrain", "sequence"])
def test_the_plain_form_trains_what_the_program_trains(stage):
    vdsm = _task(stage).model()
    naive = NaiveVDSM(vdsm)
    counterparts = naive.counterparts(vdsm)
    assert set(counterparts.values()) == set(vdsm.parameters())
    (adam,) = stock_adam(naive, vdsm, stage, 1e-3).param_groups
    (player,) = next(s for s in vdsm.stages() if s.name == stage).players
    assert {counterparts[p] for p in adam["params"]} == set(player.parameters)


def test_the_plain_form_also_forms_gradients_of_what_is_not_trained_as_the_release_does():
    task = _task("sequence")
    naive = NaiveVDSM(task.model())
    before = naive.weights[0].detach().clone()
    naive_step(task, naive)()
    assert naive.weights[0].grad.norm() > 0
    assert torch.equal(naive.weights[0], before)


def test_the_plain_form_refuses_a_second_encoder():
    with pytest.raises(UsageError, match="one encoder"):
        NaiveVDSM(
            Task("mug", "pretrain", changes=(TINY, {"model": {"pose_encoder": "own"}})).model()
        )


def test_a_task_has_the_channels_of_its_clips():
    assert Task("mmnist", "pretrain", "smoke").clip[2] == 1
    assert Task("sprites", "pretrain", "smoke").clip[2] == 3


@pytest.mark.parametrize("encoder", ["shared", "own"])
@pytest.mark.parametrize("stage", ["pretrain", "sequence"])
def test_the_formula_counts_what_a_step_issues_but_for_blur_and_heads(stage, encoder):
    task = Task("mug", stage, changes=(TINY, {"model": {"pose_encoder": encoder}}))
    take = FORMS["32"](task)
    with watching() as watched:
        take()
    parts = operations(task.model(), task.clip, stage)
    assert parts["rnn"] > 0 if stage == "sequence" else parts["rnn"] == 0
    assert sum(parts.values()) == pytest.approx(watched.operations, rel=0.12)
    assert sum(parts.values()) < watched.operations
    assert watched.bytes > 0


def test_paper_counts_are_those_worked_out_by_hand():
    task = Task("sprites", "pretrain", changes=({"model": {"rnn_width": 8}},))
    parts = operations(task.model(), task.clip, "pretrain")
    per_frame = 30 * 16 * 512 + 3 * 16 * 512 * 16 * 256 + 32 * 32 * 64 * 16 * 3
    per_clip = 40 * 16 * 512
    assert parts["decoder"] == 3 * 2 * 20 * (16 * per_frame + per_clip)
    weights = 16 * (70 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 3)
    assert parts["blend"] == 3 * 2 * 20 * 40 * weights
    # the first convolution owes the clip no gradient; blurred pictures have sides 63, 30, 14, 6, 2
    seen = 2 * 63**2 * 3 * 32
    seen += 3 * (30**2 * 32 * 32 + 14**2 * 32 * 32 + 6**2 * 32 * 64 + 2**2 * 64 * 64)
    assert parts["encoder"] == 2 * 20 * 16 * 16 * seen


@pytest.mark.parametrize("stage", ["pretrain", "sequence"])
def test_pairs_with_weights_of_their_own_and_a_frozen_identity_are_counted(stage):
    sizes = {key: value for key, value in TINY["model"].items() if key != "rnn_width"}
    layers = ({"model": {**sizes, "motion_dim": 4}}, {"data": TINY["data"]})
    task = Task("mug", stage, "small", changes=(*layers, {"training": {"*": {"batch_size": 6}}}))
    take = FORMS["32"](task)
    with watching() as watched:
        take()
    vdsm = task.model()
    parts = operations(vdsm, task.clip, stage, pairs=task.settings.pairs)
    assert sum(parts.values()) == pytest.approx(watched.operations, rel=0.15)
    moved = least_bytes(vdsm, task.clip, stage, pairs=task.settings.pairs)
    b, t, *frame = task.clip
    weighed = (2 * b, t // 2, *frame) if stage == "pretrain" else task.clip
    assert moved == least_bytes(vdsm, weighed, stage)


def test_bytes_are_those_of_what_is_read_and_written():
    a, b, out = (torch.zeros(256) for _ in range(3))
    kilobyte = a.nbytes
    for moved, work in (
        (3, lambda: torch.add(a, b)),
        (3, lambda: torch.add(a, b, out=out)),
        (3, lambda: a.add_(b)),
        (0, lambda: torch.empty(256)),
        (1, lambda: torch.zeros(256)),
        (0, lambda: a.view(16, 16)),
    ):
        with watching() as watched:
            work()
        assert watched.bytes == moved * kilobyte


def test_plain_loops_are_left_as_torch_is_but_for_the_second_arrangement(monkeypatch):
    built = []

    class Told:
        def __init__(self, task, forms, *, as_program, threads):
            built.append((*forms, as_program))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def step(self, form):
            return Taken(1.0, 1.0)

        def facts(self, form):
            return {}

    monkeypatch.setattr(step, "Worker", Told)
    monkeypatch.setattr(step, "_row", lambda task, precision, taken, facts: sorted(taken))
    assert step.measure(_task("sequence"), ["32"], 1, None, naive=True) == [["same", "stock"]]
    assert built == [("naive", False), ("32", True), ("naive", "32", True)]


def test_forms_take_turns_and_the_ratio_is_of_the_medians():
    turns = []

    class Told:
        def __init__(self, times):
            self.times = iter(times)

        def step(self, form):
            turns.append(form)
            return Taken(next(self.times), 1.0)

    told = {"naive": [9.0, 8.0, 70.0], "32": [2.0, 3.0, 1.0], "bf16": [1.0, 1.0, 1.0]}
    taken = step._take_turns({form: Told(times) for form, times in told.items()}, 3)
    assert turns == ["naive", "32", "bf16"] * 3
    found = step.compare(taken, "32")
    assert found["naive"] == {"median": 9.0, "min": 8.0, "max": 70.0, "processor_seconds": 1.0}
    assert (found["ratio"], found["ratio_of_minima"]) == (4.5, 8.0)
    assert step.compare(taken, "bf16")["ratio"] == 9.0
    assert "ratio" not in step.compare({"32": taken["32"]}, "32")


def test_a_run_is_of_the_commit_that_it_began_with_whatever_it_wrote(tmp_path, monkeypatch):
    def git(*words):
        done = subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
            cwd=tmp_path, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert machine.commit() == "unknown"
    git("init", "-q")
    page = tmp_path / "benchmarks" / "results" / "step.md"
    page.parent.mkdir(parents=True)
    page.write_text("1")
    (tmp_path / "code.py").write_text("1")
    git("add", ".")
    git("commit", "-qm", "one")
    short = git("rev-parse", "--short", "HEAD")
    page.write_text("2")
    assert machine.commit() == short
    (tmp_path / "more.py").write_text("1")
    assert machine.commit() == f"{short}+"
    (tmp_path / "more.py").unlink()
    (tmp_path / "code.py").write_text("2")
    assert machine.commit() == f"{short}+"


def test_a_step_by_the_clock_follows_one_that_is_not(monkeypatch):
    taken, orders = [], iter([("step", "32"), ("step", "32")])

    class Connection:
        def recv(self):
            return next(orders)

        def send(self, answer):
            assert answer == "by the clock"

    def by_the_clock(take, device, steps):
        taken.append("timed")
        return "by the clock"

    monkeypatch.setattr(worker, "FORMS", {"32": lambda task: lambda: taken.append("step")})
    monkeypatch.setattr(worker, "timed", by_the_clock)
    with pytest.raises(StopIteration):
        worker._take_orders(Connection(), _task("sequence"), ("32",), False, None)
    assert taken == ["step"] * WARM_UP + ["step", "timed"] * 2


def test_history_keeps_every_run_and_the_page_begins_with_the_newest(tmp_path, monkeypatch):
    about = machine.describe("cpu")
    for date in ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"):
        monkeypatch.setattr(history, "now", lambda date=date: date)
        history.record("step", {"rows": []}, about=about, out=tmp_path, render=step.render)
    assert len(list((tmp_path / "step").glob("*.json"))) == 2
    page = (tmp_path / "step.md").read_text()
    assert "2026-01-02T00:00:00" in page
    assert "2026-01-01T00:00:00" not in page.partition("## Every run")[0]


def test_the_page_has_the_newest_run_of_every_device_in_full_and_what_that_lacks(monkeypatch):
    monkeypatch.setattr(step, "_in_full", lambda run: [run["date"]])
    monkeypatch.setattr(step, "_line", lambda run, row: [])

    def run(date, device, processor, *stages):
        rows = [
            {"setting": "mug", "preset": "paper", "stage": stage, "stock": {"naive": {}}}
            for stage in stages
        ]
        return {
            "date": date,
            "machine": {"device": device, "processor": processor},
            "rows": rows,
        }

    page = step.render(
        [
            run("day 5", "cpu", "old chip", "pretrain", "sequence"),
            run("day 4", "a GPU", "old chip", "pretrain"),
            run("day 3", "cpu", "new chip", "pretrain"),
            run("day 2", "a GPU", "old chip", "pretrain", "sequence"),
            run("day 1", "cpu", "old chip", "pretrain"),
        ]
    )
    assert _days(page) == ["day 5", "day 4", "day 3", "day 2"]
    alone = run("day 6", "cpu", "old chip", "pretrain")
    alone["rows"][0]["stock"] = {}
    beside = [run(f"day {day}", "cpu", "old chip", "pretrain") for day in (5, 4)]
    assert _days(step.render([alone, *beside])) == ["day 6", "day 5"]
    assert _days(step.render([*beside, alone])) == ["day 5"]


def _days(page):
    return [line for line in page.splitlines() if line.startswith("day")]


def test_products_are_held_against_the_peak_of_their_own_precision():
    row = {
        "setting": "mug", "preset": "paper", "stage": "sequence", "precision": "bf16",
        "gflop": {"decoder": 150.0, "encoder": 50.0, "blend": 4.0, "rnn": 16.0},
        "matmul_gflops": {"program": {"float32": 200.0, "bfloat16": 400.0}},
        "gflops": 220.0, "share_of_peak": 0.55, "gbytes_at_least": 1.0,
        "peak_memory_gb": {"program": 2.0},
        "stock": {
            "program": {"median": 1.0, "min": 1.0, "max": 1.0},
            "naive": {"median": 12.0, "min": 12.0, "max": 12.0},
            "ratio": 12.0,
        },
    }  # fmt: skip
    about = machine.describe("cpu")
    run = {"date": "day 1", "commit": "c", "command": "x", "rows": [row], "machine": about}
    # 200 at 400 and 20 at 200 take .5 + .1 of the second
    page = step.render([run])
    assert "| 12.0 | 16 | 20.0 |" in page
    assert "| 55% of 400 (bf16) | 60% |" in page
    row["precision"] = "32"  # 220 at 200
    page = step.render([run])
    assert "| 12.0 | 16 | 10.9 |" in page
    del row["stock"]["naive"]
    page = step.render([run])
    assert "| 16 |  |" in page


def test_one_command_measures_and_records(tmp_path):
    command = f"-m benchmarks.step {QUICK['step']} --threads 1 --out"
    done = subprocess.run(
        [sys.executable, *command.split(), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "step").glob("*.json")
    run = json.loads(written.read_text())
    assert {"date", "commit", "machine"} <= set(run)
    assert run["command"] == f"python -m benchmarks.step {QUICK['step']} --threads 1"
    (row,) = run["rows"]
    times = row["stock"]["program"]
    assert 0 < times["min"] <= times["median"] <= times["max"]
    assert 0 < row["share_of_peak"] < 1
    assert 0.1 < row["peak_memory_gb"]["program"] < 6
    assert "| mug (smoke) | sequence |" in (tmp_path / "step.md").read_text()


@pytest.mark.gpu
def test_both_forms_step_on_a_gpu():
    for form in FORMS:
        take = FORMS[form](Task("mug", "sequence", device="cuda", changes=(TINY,)))
        with watching() as watched:
            take()
        assert watched.operations > 0
        for _ in range(WARM_UP):  # the last of them is recorded, and what is timed is repeated
            take()
        assert timed(take, "cuda", 2).seconds > 0
