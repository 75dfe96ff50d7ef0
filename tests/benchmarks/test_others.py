import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import all as everything
from benchmarks import generation, growth, history, loading, machine, pull, start, step
from benchmarks.all import BENCHMARKS, QUICK
from benchmarks.forms import Task
from tests.models.tiny import build
from vdsm_bench.errors import DataError, UsageError

ROOT = Path(__file__).parents[2]


def _run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_every_benchmark_is_run_with_the_others():
    helpers = {
        "__init__", "all", "costs", "forms", "history", "machine", "moving_digits", "naive",
        "worker",
    }  # fmt: skip
    there = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - helpers
    assert {name for name, *_ in BENCHMARKS} == there
    assert set(QUICK) == there


@pytest.mark.parametrize(("power", "factor"), [(1.0, 3.0), (2.0, 0.01), (0.0, 5.0)])
def test_the_exponent_of_a_power_law_is_its_power(power, factor):
    sizes = [4, 8, 16, 32]
    seconds = [factor * size**power for size in sizes]
    assert growth.exponent(sizes, seconds) == pytest.approx(power, abs=1e-9)


def test_growth_changes_one_size_and_nothing_else():
    small = growth.task_of(growth.BASE, "sequence", "cpu")
    assert small.clip == (8, 8, 3, 32, 32)
    for size, place in (("clips", 0), ("frames", 1), ("side", 3)):
        grown = growth.task_of({**growth.BASE, size: 64}, "sequence", "cpu").clip
        assert grown[place] == 64
        others = set(range(5)) - {place} - ({4} if size == "side" else set())
        assert all(grown[i] == small.clip[i] for i in others)
    more = growth.task_of({**growth.BASE, "experts": 64}, "sequence", "cpu")
    assert more.config.model.arguments["identity_dim"] == 64
    growth.task_of({**growth.BASE, "side": 16, "experts": 2}, "pretrain", "cpu").model()


def _pulls(change=lambda model: None, **arguments):
    model = build(likelihood="gaussian", **arguments)
    with torch.no_grad():
        change(model)
    torch.manual_seed(0)
    return pull.pulls(
        model, torch.rand(6, 3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    )


def test_a_code_that_the_decoder_does_not_read_is_not_pulled_at():
    def deaf(model):
        model.decoder.weights[0].zero_()
        for bias in model.decoder.biases:
            bias.normal_()

    found = _pulls(deaf)
    assert found["z"] == 0.0 < found["s"]
    found = _pulls(temperature=[1e-9, 1e-9])
    assert found["s"] == pytest.approx(0.0, abs=1e-6)
    assert found["z"] > 1e-3


def test_the_pull_grows_with_what_a_pixel_is_worth():
    wide, narrow = _pulls(pixel_scale=0.2), _pulls(pixel_scale=0.1)
    for code in "sz":
        assert narrow[code] == pytest.approx(4 * wide[code], rel=1e-4)


def test_what_a_code_says_is_its_spread_in_units_of_its_noise():
    model = build(likelihood="gaussian")
    clips = torch.rand(6, 3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    before = pull.signals(model, clips)
    loc, scale = (codes.identity.detach().numpy() for codes in model.eval().posteriors(clips))
    spread = loc.std(0, ddof=1) / scale.mean(0)
    assert before["s_signal"] == pytest.approx(spread.mean(), rel=1e-4)
    with torch.no_grad():
        head = model.pose_head.layer
        head.weight[:5] *= 3  # means thrice as far apart
    after = pull.signals(model, clips)
    assert after["z_signal"] == pytest.approx(3 * before["z_signal"], rel=1e-4)
    assert after["s_signal"] == before["s_signal"] > 0
    with torch.no_grad():
        head.weight[:5] = 0
    assert pull.signals(model, clips)["z_signal"] == pytest.approx(0.0, abs=1e-6)


def test_pulls_are_measured_for_the_variants_that_a_pattern_names(monkeypatch, capsys, tmp_path):
    arguments = ["--variants", "heat-2*,base", "--preset", "smoke", "--clips", "2"]
    places = ["--out", str(tmp_path / "out"), "--data-dir", str(tmp_path / "data")]
    monkeypatch.setattr(sys, "argv", ["pull", *arguments, *places])
    pull.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if "mug-synthetic | " in line]
    assert [line.split(" | ")[1] for line in lines] == ["base", "heat-20-20"]
    assert all(float(line.split(" | ")[2]) > 0 for line in lines)


def test_every_command_that_is_timed_answers():
    rows = start.measure(1)
    assert {row["command"] for row in rows} == set(start.COMMANDS)
    assert all(0 < row["least"] <= row["seconds"] for row in rows)


def test_all_go_on_after_one_that_fails_and_say_so(monkeypatch, capsys, tmp_path):
    run = []

    def told(name, options):
        run.append((name, options))
        return name != "growth"

    monkeypatch.setattr(everything, "run_benchmark", told)
    monkeypatch.setattr(sys, "argv", ["all", "--threads", "2", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        everything.main()
    assert stopped.value.code == 1
    assert [name for name, _ in run] == [name for name, *_ in BENCHMARKS]
    shared = ["--device", "cpu", "--out", str(tmp_path), "--threads", "2"]
    assert all(options[:6] == shared for _, options in run)
    assert "growth: FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("main", "typed", "wrong", "hint"),
    [
        (everything.main, "--only stepp", "no 'stepp' (did you mean 'step'?)", "start,generation"),
        (everything.main, "--only step,", "no ''", "start,generation"),
        (step.main, "--stages pretran", "(did you mean 'pretrain'?)", "--stages pretrain,sequence"),
        (step.main, "--precision 16", "no '16'", "--precision 32,bf16"),
        (step.main, "--settings mug,mugs", "no 'mugs'", "vdsm-bench list datasets"),
        (step.main, "--preset papers", "no 'papers'", "vdsm-bench list presets"),
        (step.main, "--repeats 0", "--repeats 0", "--repeats 1"),
        (growth.main, "--sizes clip", "(did you mean 'clips'?)", "--sizes clips,frames,experts"),
        (growth.main, "--stages pretran", "no 'pretran'", "--stages pretrain,sequence"),
        (growth.main, "--repeats 0", "--repeats 0", "--repeats 1"),
        (generation.main, "--repeats -1", "--repeats -1", "--repeats 1"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(monkeypatch, tmp_path, main, typed, wrong, hint):
    monkeypatch.setattr(sys, "argv", ["x", *typed.split(), "--out", str(tmp_path / "out")])
    with pytest.raises(UsageError) as refused:
        main()
    assert wrong in refused.value.message
    assert hint in (refused.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_a_benchmark_that_is_not_there_ends_with_exit_code_2():
    done = _run("benchmarks.all", "--only", "stepp")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --only: there is no 'stepp'")


@pytest.mark.parametrize("typed", [["--quick"], ["--quick", "--out", "there"], []])
def test_quick_numbers_do_not_go_where_results_are_kept(monkeypatch, capsys, tmp_path, typed):
    places = []
    monkeypatch.setattr(
        everything, "run_benchmark", lambda name, options: places.append(options[3]) or True
    )
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["all", "--only", "start", *typed])
    everything.main()
    (place,) = map(Path, places)
    said = f"results: {place}\n" in capsys.readouterr().out
    if typed == ["--quick"]:
        assert place.parent == tmp_path.resolve()
        assert said
    else:
        given = tmp_path / "there" if typed else machine.ROOT / "benchmarks" / "results"
        assert place == given.resolve()
        assert not said


@pytest.mark.parametrize(
    ("only", "run"),
    [
        (["--only", "step"], ["step"]),
        (["--only", "tests,start"], ["tests", "start"]),
        ([], ["tests", *(name for name, *_ in BENCHMARKS)]),
    ],
)
def test_on_a_gpu_its_tests_come_first_unless_others_alone_are_named(
    monkeypatch, tmp_path, only, run
):
    called = []
    monkeypatch.setattr(everything, "choose_device", lambda name: name)
    monkeypatch.setattr(everything, "run_tests", lambda out: called.append("tests") or True)
    monkeypatch.setattr(
        everything, "run_benchmark", lambda name, options: called.append(name) or True
    )
    monkeypatch.setattr(sys, "argv", ["all", "--device", "cuda", "--out", str(tmp_path), *only])
    everything.main()
    assert called == run


def test_as_many_clips_are_saved_as_are_generated_and_they_show_something(monkeypatch):
    task, written = Task("mug", "sequence", "smoke"), []
    monkeypatch.setattr(generation, "write_gif", lambda path, pages: written.append(pages))
    row = generation.measure(task, 1)
    assert row["saved"] == "moving-shapes"
    assert row["with_gifs"]["min"] > row["generating"]["min"] > 0
    count, frames, _, height, width = row["clips"]
    pages = written[-count:]
    assert len(written) == 3 * count
    assert {len(each) for each in pages} == {frames}
    assert {page.size for each in pages for page in each} == {(width, height)}
    generated = task.model().sample(count, frames)
    saved = generation.shapes(frames, width)
    assert saved.shape == generated.shape
    assert np.array_equal(np.asarray(pages[3][1]), (255 * saved[3, 1]).movedim(0, -1).round())
    assert len({each[0].tobytes() for each in pages}) == count
    steps = [clips.diff(dim=-1).abs().mean() for clips in (generated, saved)]
    assert steps[1] < 0.5 * steps[0]


def test_the_page_of_generation_says_what_was_saved():
    about = machine.describe("cpu")
    times = {"median": 1.0, "min": 1.0, "max": 1.0}
    row = {"setting": "mug", "generating": times, "with_gifs": times}
    run = {"date": "2026-01-02T00:00:00", "commit": "x", "command": "y", "machine": about}
    newest = {**run, "rows": [{**row, "saved": "moving-shapes"}]}
    page = generation.render([newest, {**run, "rows": [row]}])
    lines = [line for line in page.splitlines() if " mug " in line]
    assert [line.rsplit(" | ", 1)[1] for line in lines] == [
        "moving-shapes |",
        "what was generated |",
    ]
    assert "noise" in page


def test_without_a_gpu_it_says_so():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = _run("benchmarks.all", "--device", "cuda")
    assert done.returncode == 2
    assert "no 'cuda' device" in done.stderr


def test_a_command_is_kept_without_the_place_of_its_results(monkeypatch):
    typed = ["x", "--device", "cpu", "--out", "/some/where", "--repeats", "3", "--out=there"]
    monkeypatch.setattr(sys, "argv", typed)
    assert history._options() == ["--device", "cpu", "--repeats", "3"]


def _record(tmp_path, render=lambda runs: f"{len(runs)} runs"):
    about = machine.describe("cpu")
    history.record("x", {"rows": [1.5]}, about=about, out=tmp_path, render=render)


def test_what_was_measured_is_printed_also_where_it_cannot_be_written(capsys, tmp_path):
    (tmp_path / "x").write_text("no folder")
    with pytest.raises(DataError, match="x"):
        _record(tmp_path, lambda runs: f"measured {runs[0]['rows'][0]}")
    assert capsys.readouterr().out == "measured 1.5\n"


@pytest.mark.parametrize("text", ["{", '{"of": "another version"}'])
def test_a_run_that_does_not_read_is_left_out_of_the_page_and_named(capsys, tmp_path, text):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "2020.json").write_text(text)
    _record(tmp_path, lambda runs: f"{len(runs)} runs, {[run['rows'] for run in runs]}")
    assert (tmp_path / "x.md").read_text() == "1 runs, [[1.5]]\n"
    assert "2020.json is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "typed"),
    [
        (loading.main, "--clips 19"),
        (loading.main, "--rounds 0"),
        (loading.main, "--seconds 0"),
        (loading.main, "--seconds nan"),
        (pull.main, "--clips 1"),
        (everything.main, "--threads 0"),
        (start.main, "--repeats 0"),
        (start.main, "--threads 0"),
        (step.main, "--threads 0"),
        (step.main, "--settings mug --preset small"),
    ],
)
def test_numbers_that_measure_nothing_are_refused_before_anything_is_timed(
    monkeypatch, tmp_path, main, typed
):
    monkeypatch.setattr(sys, "argv", ["x", *typed.split(), "--out", str(tmp_path)])
    with pytest.raises(UsageError):
        main()
    assert not list(tmp_path.iterdir())
