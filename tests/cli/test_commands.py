"""What the commands print, and where: answers on stdout, progress on stderr."""

import json
import runpy

import pytest
import torch
from PIL import Image

from tests.data.home_videos import write_folder
from vdsm_bench.cli.main import run_cli
from vdsm_bench.errors import CellError, DataError
from vdsm_bench.files import hold, move_aside, read_json
from vdsm_bench.runs import judging

RUN = ["run", "--dataset", "toy-squares", "--preset", "smoke", "--device", "cpu"]


@pytest.fixture(scope="module")
def runs_dir(table, data_dir, tmp_path_factory):
    """A runs folder with cells that ended well, two seeds of them, and cells that did not."""
    folder = tmp_path_factory.mktemp("cli-runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vdsm_bench.registry.registry", lambda: table)
        patch.setenv("VDSM_BENCH_DATA", str(data_dir))
        patch.setenv("VDSM_BENCH_RUNS", str(folder))
        for words, code in ((["toy", "--seeds", "0,1"], 0), (["diverging"], 1), (["broken"], 70)):
            assert run_cli([*RUN, "--model", *words]) == code
    return folder


@pytest.fixture(autouse=True)
def _toys(monkeypatch, table, data_dir, runs_dir):
    monkeypatch.setattr("vdsm_bench.registry.registry", lambda: table)
    monkeypatch.setenv("VDSM_BENCH_DATA", str(data_dir))
    monkeypatch.setenv("VDSM_BENCH_RUNS", str(runs_dir))


def call(capsys, *arguments, expect=0):
    code = run_cli(list(arguments))
    answer = capsys.readouterr()
    assert code == expect, answer.err
    return answer


def test_run_prints_the_row_and_the_pictures(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("VDSM_BENCH_RUNS", str(tmp_path))
    answer = call(capsys, *RUN, "--model", "toy")
    for wanted in ("toy-squares/toy/smoke-seed0: done", "dynamic_accuracy", "32 px, 4 frames",
                   "supervision: none", "transfer.gif", "folder: "):  # fmt: skip
        assert wanted in answer.out
    assert "train fit" in answer.err
    assert "train fit" not in answer.out
    again = call(capsys, *RUN, "--model", "toy")
    assert "toy-squares/toy/smoke-seed0: reused" in again.out
    assert "train fit" not in again.err
    assert "--judge-looks" not in again.err
    looks = call(capsys, *RUN, "--model", "toy", "--judge-looks")
    assert "--judge-looks: 1 of 1 cells had been trained before" in looks.err


def test_some_failed_is_1_and_one_alone_is_its_own_code(capsys):
    answer = call(capsys, *RUN, "--model", "toy", "--model", "diverging", expect=1)
    assert "toy-squares/toy/smoke-seed0: reused" in answer.out
    assert "toy-squares/diverging/smoke-seed0: diverged" in answer.out
    assert "learning_rate" in answer.err
    call(capsys, *RUN, "--model", "broken", expect=70)
    floor = ("--set", "judge.floor=1.0")
    assert "gate" in call(capsys, *RUN, "--model", "toy", *floor, expect=6).err


def test_the_options_of_run_arrive(capsys, monkeypatch):
    seen = []

    def run_cells(cells, context):
        seen.append((cells, context))
        return []

    monkeypatch.setattr("vdsm_bench.runs.execute.run_cells", run_cells)
    flags = ["--fresh", "--no-wait", "--stop-on-collapse", "--profile", "--judge-looks",
             "--precision", "bf16", "--protocol", "vdsm-notebook"]  # fmt: skip
    for given, precision, scores in (([], "auto", []), (flags, "bf16", ["vdsm-notebook"])):
        call(capsys, *RUN, "--model", "toy", *given, expect=1)
        (cell,), context = seen.pop()
        on = bool(given)
        assert (context.fresh, context.wait, context.profile) == (on, not on, on)
        assert (context.stop_on_collapse, context.judge_looks) == (on, on)
        assert (context.precision, cell.config.evaluation.scores) == (precision, scores)


def test_several_seeds_become_one_row(capsys):
    answer = call(capsys, *RUN, "--model", "toy", "--seeds", "0,1", "--json")
    assert [cell["metrics"]["seed"] for cell in json.loads(answer.out)] == [0, 1]
    rows = json.loads(call(capsys, "leaderboard", "--json").out)
    (row,) = [row for row in rows if row["model"] == "toy" and row["status"] == "done"]
    assert (row["seeds"], row["n_seeds"]) == ("0 1", 2)
    assert row["mse_spread"] > 0
    table = call(capsys, "leaderboard").out
    for wanted in ("smoke ×2", "real-test", "copy-motion-clip", "chance-majority", "diverged"):
        assert wanted in table
    quoted = call(capsys, "leaderboard", "--reported").out
    assert "not comparable" in quoted


def test_the_dry_run_knows_what_is_there(capsys):
    answer = call(capsys, *RUN, "--model", "toy", "--seeds", "0,5", "--dry-run", "--json")
    assert [cell["action"] for cell in json.loads(answer.out)] == ["reuse", "new"]
    answer = call(capsys, *RUN, "--model", "diverging", "--dry-run")
    assert "toy-squares/diverging/smoke-seed0: continue" in answer.out


def test_an_unknown_device_is_refused_before_anything_runs(capsys):
    run = [*RUN, "--model", "toy", "--dry-run", "--device", "tpu"]
    assert "'tpu' is not one of 'auto'" in call(capsys, *run, expect=2).err


def test_status_lists_every_cell_with_its_reason(capsys):
    rows = {row["cell"].split("/")[1]: row for row in json.loads(call(
        capsys, "status", "--json").out)}  # fmt: skip
    assert rows["diverged" if "diverged" in rows else "diverging"]["state"] == "diverged"
    assert "ZeroDivisionError" in rows["broken"]["note"]


def test_transfer_writes_a_grid(capsys, tmp_path):
    answer = call(
        capsys, "transfer", "--model", "toy", "--dataset", "toy-squares", "--seed", "1",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    png, gif, _ = answer.out.split()
    with Image.open(gif) as picture:
        assert picture.n_frames > 1
    with Image.open(png) as picture:
        assert min(picture.size) > 4 * 96
    several = call(capsys, "transfer", "--model", "toy", "--out", str(tmp_path), expect=2)
    assert "--cell" in several.err
    unfinished = call(capsys, "transfer", "--model", "diverging", expect=1)
    assert "not finished: diverged" in unfinished.err
    call(capsys, *RUN, "--model", "encode-only")
    cannot = call(capsys, "transfer", "--model", "encode-only", expect=1)
    assert "cannot swap" in cannot.err


def test_transfer_finds_a_cell_by_the_words_that_made_it(capsys, tmp_path):
    words = ("--model", "toy[ code=6 ]")  # the default: the cell is called toy
    assert "toy/smoke-seed1: reused" in call(capsys, *RUN, *words, "--seeds", "1").out
    assert "transfer.gif" in call(
        capsys, "transfer", *words, "--seed", "1", "--out", str(tmp_path)
    ).out  # fmt: skip
    slip = call(capsys, "transfer", "--model", "tyo", expect=2)
    assert "did you mean 'toy'" in slip.err


def test_score_knows_the_users_own_datasets(capsys, tmp_path, monkeypatch, table, data_dir):
    write_folder(tmp_path / "clips", takes=6)
    monkeypatch.setenv("VDSM_BENCH_DATA", str(tmp_path / "data"))
    told = ("--from", str(tmp_path / "clips"), "--static", "person", "--dynamic", "action")
    call(capsys, "data", "prepare", "mine", *told)
    where = ("--dataset", "mine", "--preset", "smoke", "--device", "cpu")
    answer = call(capsys, "score", "--template", str(tmp_path / "asked"), *where)
    assert (tmp_path / "asked" / "request.npz").exists()
    assert "--dataset mine" in answer.err


def test_score_takes_a_file_from_elsewhere_to_a_row(capsys, tmp_path, monkeypatch):
    where = ["--dataset", "toy-squares", "--preset", "smoke", "--model", "toy", "--device", "cpu"]
    answer = call(capsys, "score", "--template", str(tmp_path), *where)
    request, example = answer.out.split()
    wanted = "predictions.npz --dataset toy-squares --model toy --preset smoke\n"
    assert f"vdsm-bench score {wanted}" in answer.err
    monkeypatch.chdir(tmp_path)
    runpy.run_path(example)
    file = str(tmp_path / "predictions.npz")
    told = ("--name", "copier", "--citation", "Nobody, 1999")
    answer = call(capsys, "score", file, *where, *told)
    for wanted in ("toy-squares/copier/smoke-seed0: done", "action_leak", "pairs.png"):
        assert wanted in answer.out
    again = json.loads(call(capsys, "score", file, *where, *told, "--json").out)
    assert again[0]["reused"] is True
    table = call(capsys, "leaderboard").out
    assert "external" in table
    assert "cites Nobody, 1999" in table
    assert "scored from a file" in call(
        capsys, "transfer", "--model", "copier", "--dataset", "toy-squares", expect=2
    ).err  # fmt: skip
    (tmp_path / "predictions.npz").write_bytes((tmp_path / "predictions.npz").read_bytes()[:9999])
    for arguments, code in (
        ((file, *where), 3),
        ((str(tmp_path / "absent.npz"), *where), 3),
        ((*where,), 2),
        ((file, "--template", str(tmp_path), *where), 2),
        ((file, *where, "--set", "model.code=3"), 2),
    ):
        assert "next:" in call(capsys, "score", *arguments, expect=code).err


def test_the_judge_is_trained_shown_and_shared(capsys):
    answer = call(
        capsys, "judge", "train", "toy-squares", "--preset", "smoke", "--model", "toy", "--json"
    )
    card = json.loads(answer.out)
    assert set(card["accuracy"]["test"]) == {"colour", "size", "action"}
    assert "judge toy-squares " not in answer.err  # run made it
    shown = call(capsys, "judge", "show", "toy-squares").out
    assert "accuracy on real clips" in shown
    assert card["key"] in shown


def test_a_judge_is_moved_aside_while_nobody_else_may_touch_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("VDSM_BENCH_RUNS", str(tmp_path))
    train = ("judge", "train", "toy-squares", "--preset", "smoke", "--model", "toy")

    def move_while_held(folder):
        with pytest.raises(CellError, match="is being worked on"), hold(folder, "it", wait=False):
            pass
        return move_aside(folder)

    monkeypatch.setattr(judging, "move_aside", move_while_held)
    assert "the old judge" not in call(capsys, *train).err
    assert "the old judge is now" in call(capsys, *train, "--fresh").err
    assert len(list(tmp_path.glob("judges/toy-squares/.*.old-1/card.json"))) == 1


def test_the_audit_asks_several_judges_and_refuses_floors_that_refuse_nobody(capsys):
    audit = ("judge", "audit", "toy-squares", "--preset", "smoke", "--model", "toy",
             "--set", "judge.seeds=[0]", "--retrain")  # fmt: skip
    answer = call(capsys, *audit, "--json", expect=6)
    found = json.loads(answer.out)
    assert found["trusted"] is False
    assert list(found["judge"]["judges"]) == ["cnn-gru seed 0", "cnn-3d seed 0"]
    checks = {check["name"]: check["passed"] for check in found["checks"]}
    assert checks["a constant judge at gate test"] is False
    assert checks["cnn-3d seed 0, trained anew"] is True
    assert [row["name"] for row in found["controls"]][:2] == ["real-test", "copy-identity-clip"]
    assert "cannot be trusted" in answer.err
    assert "a constant judge" in answer.err
    told = call(capsys, *audit, expect=6)
    assert "can be trusted: no" in told.out
    assert "judge toy-squares" not in told.err  # the judges were there
    shown = json.loads(call(capsys, "judge", "show", "toy-squares", "--json").out)
    assert len(shown) == 3  # two judges, one of them as it was, and how they agree
    shown = call(capsys, "judge", "show", "toy-squares").out
    assert "agreement" in shown
    assert "architecture: cnn-3d" in shown
    rows = json.loads(call(capsys, "leaderboard", "--json").out)
    protocols = {row["protocol"] for row in rows if row["model"] == "real-test"}
    assert found["judge"]["key"] in protocols


def test_data_is_listed_checked_and_previewed(capsys, tmp_path, data_dir):
    states = {state["name"]: state for state in json.loads(
        call(capsys, "data", "list", "--json").out)}  # fmt: skip
    assert states["toy-squares"]["state"].startswith("prepared: 192 clips of 32x32x3, 8 identities")
    assert "vdsm-bench data prepare sprites --from" in states["sprites"]["state"]
    assert "split cells: disjoint" in call(capsys, "data", "check", "toy-squares").out
    assert states["sprites"]["megabytes"] == 743
    assert states["toy-squares"]["bytes"] > 192 * 6 * 32 * 32 * 3
    listed = " ".join(call(capsys, "data", "list").out.split())
    assert "toy-squares embedded 3.5 MB prepared: 192 clips" in listed
    assert "~743 MB not prepared" in listed
    out = tmp_path / "sheet.png"
    answer = call(capsys, "data", "preview", "toy-squares", "--out", str(out), "--actions", "2")
    assert answer.out.split() == [str(out), str(out.with_suffix(".gif"))]
    with Image.open(out) as picture:
        assert 2 * 96 < picture.size[0] < 4 * 96
    again = call(capsys, "data", "prepare", "toy-squares")
    assert "prepared already" in again.err


def test_a_dataset_is_shown_prepared_or_not(capsys):
    shown = json.loads(call(capsys, "data", "show", "toy-squares", "--json").out)
    assert shown["factors"]["action"] == {"kind": "dynamic", "classes": ["right", "down", "still"]}
    assert shown["frames per clip"] == [6, 6]
    assert "classes: '2: small, large'" in call(capsys, "data", "show", "toy-squares").out
    shown = json.loads(call(capsys, "data", "show", "sprites", "--json").out)
    assert (shown["prepared"], shown["arguments"]) == (False, {"variant": "vdsm-840"})
    call(capsys, "data", "show", "spritz", expect=2)


def test_a_check_that_finds_faults_lists_them_all_and_is_3(capsys, monkeypatch):
    def leak(store, splits, digests=None):
        raise DataError("a clip is in two parts.")

    found = json.loads(call(capsys, "data", "check", "toy-squares", "--json").out)
    assert found["counts"]["size"] == {"small": 96, "large": 96}
    assert found["problems"] == []
    cells = call(capsys, "data", "check", "toy-squares", "--cells").out
    assert "red small       8    8     8" in cells
    monkeypatch.setattr("vdsm_bench.data.check.check_disjoint", leak)
    answer = call(capsys, "data", "check", "toy-squares", expect=3)
    assert answer.out.count("fault: split") == 3
    assert "toy-squares has 3 faults" in answer.err
    assert "vdsm-bench data prepare toy-squares --replace" in answer.err


def test_data_that_is_missing_or_damaged_is_3(capsys, tmp_path, monkeypatch):
    for command in (["data", "check", "sprites"], ["run", "--model", "vdsm", "--dataset", "mug"]):
        assert "vdsm-bench data prepare" in call(capsys, *command, expect=3).err
    assert call(capsys, "data", "prepare", "sprites", expect=3).err
    monkeypatch.setenv("VDSM_BENCH_DATA", str(tmp_path))
    call(capsys, "data", "prepare", "toy-squares")
    frames = tmp_path / "toy-squares" / "frames.npy"
    frames.write_bytes(frames.read_bytes()[:-100])
    assert "toy-squares" in call(capsys, "data", "check", "toy-squares", expect=3).err
    assert "frames.npy" in call(capsys, *RUN, "--model", "toy", "--seeds", "9", expect=3).err
    listed = call(capsys, "data", "list").out
    assert "damaged" in listed


def test_doctor_says_what_is_there(capsys):
    found = json.loads(call(capsys, "doctor", "--json").out)
    assert found["timm imports"] == "yes"
    assert found["torch"][0].isdigit()
    assert found["threads"] == str(torch.get_num_threads())
    assert "GFLOP/s in 32" in found["matrix products"]


def test_show_explains_a_toy(capsys):
    shown = call(capsys, "show", "models/toy").out
    assert "batches_per_epoch" in shown
    assert "toy_zoo" in shown
    shown = json.loads(call(capsys, "show", "encoders/blurpool", "--json").out)
    assert shown["meanings"].keys() == shown["defaults"].keys()
    assert "decorrelated" in shown["meanings"]["first_colours"]


def test_env_and_config_stand_in_the_folder(capsys, runs_dir):
    (answer,) = json.loads(call(capsys, *RUN, "--model", "toy", "--json").out)
    content = read_json(runs_dir / answer["folder"].removeprefix(f"{runs_dir}/") / "config.json")
    assert content["config"]["training"]["fit"]["epochs"] == 2
    assert str(runs_dir) not in json.dumps(content)


def test_prepare_makes_the_sets_that_come_from_the_same_files(capsys, tmp_path, monkeypatch):
    def prepare(table, name, data_dir, **settings):
        assert settings["source"] == tmp_path
        return data_dir / name

    monkeypatch.setattr("vdsm_bench.runs.datasets.prepare_store", prepare)
    both = call(capsys, "data", "prepare", "sprites", "--from", str(tmp_path)).out
    assert [line.partition(":")[0] for line in both.splitlines()] == ["sprites", "sprites-1296"]
    one = call(capsys, "data", "prepare", "sprites", "--from", str(tmp_path), "--only").out
    assert [line.partition(":")[0] for line in one.splitlines()] == ["sprites"]


SUITE = """
models: [toy, diverging]
datasets: [toy-squares]
preset: smoke
settings: {evaluation: {part: validation}}
variants:
  wide: {summary: A wider code., change: {model: {code: 9}}}
"""


def has_two_curves(picture):
    with Image.open(picture) as sheet:
        colours = {colour for _, colour in sheet.getcolors(1 << 20)}
    return {(31, 119, 180), (214, 39, 40)} <= colours


def test_a_suite_runs_goes_on_after_a_failure_and_becomes_a_table(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("VDSM_BENCH_RUNS", str(tmp_path / "runs"))
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE)
    suite = ["--suite", str(path)]
    plan = call(capsys, "run", *suite, "--dry-run").out.splitlines()
    assert plan[-1] == "4 cells, 0 of them done"
    wide = ["--only", "wi*", "--judge-looks", "--device", "cpu"]
    answer = call(capsys, "run", *suite, *wide, expect=1)
    assert "dynamic_accuracy" in answer.err
    assert "toy-squares/toy[code=9]/smoke-seed0 (wide): done" in answer.out
    assert "toy-squares/diverging[code=9]/smoke-seed0 (wide): diverged" in answer.out
    assert f"vdsm-bench leaderboard --suite {path}" in answer.err
    call(capsys, "run", *suite, "--model", "toy", "--seeds", "0,1", "--device", "cpu")
    plan = json.loads(call(capsys, "run", *suite, "--dry-run", "--json").out)
    assert [(item["variant"], item["action"]) for item in plan] == [
        (None, "reuse"), (None, "new"), ("wide", "reuse"), ("wide", "continue"),
    ]  # fmt: skip
    rows = json.loads(call(capsys, "leaderboard", *suite, "--json").out)
    assert [(row["variant"], row["seeds"]) for row in rows] == [
        ("base", "0 1"), ("base", ""), ("wide", "0 1"), ("wide", ""),
    ]  # fmt: skip
    picture = tmp_path / "curves.png"
    table = call(capsys, "leaderboard", *suite, "--curves", str(picture)).out
    assert has_two_curves(picture)  # the curves of the cells that there are
    one = ["--model", "toy", "--only", "base"]
    call(capsys, "leaderboard", *suite, *one, "--curves", str(picture))
    assert has_two_curves(picture)  # all the seeds that the table has
    for option in ("--all", "--reported"):
        assert "not about a suite" in call(capsys, "leaderboard", *suite, option, expect=2).err
    two = ["--model", "toy", "--model", "toy[code=9]", "--only", "base"]
    call(capsys, "leaderboard", *suite, *two, "--curves", str(picture))
    assert has_two_curves(picture)  # two instances, two curves
    alone = ["--preset", "smoke", "--set", "evaluation.part=validation"]
    both = ["--model", "toy", "--dataset", "toy-squares", "--seeds", "0,1"]
    call(capsys, "leaderboard", *both, *alone, "--curves", str(picture))
    assert has_two_curves(picture)  # of two seeds, and no suite
    none = [*both, *alone, "--set", "model.code=8"]
    answer = call(capsys, "leaderboard", *none, "--curves", str(tmp_path / "none.png"), expect=3)
    assert "nothing to draw" in answer.err
    assert "vdsm-bench run --model toy" in answer.err
    assert not (tmp_path / "none.png").exists()
    assert "### toy-squares, scored on validation clips" in table
    assert "| toy: wide | 2 |" in table
    assert "Not measured: diverging: base, diverging: wide (seed 0: diverged)." in table


def test_options_that_need_a_suite_say_so(capsys):
    answer = call(capsys, "leaderboard", "--seeds", "0", expect=2)
    assert "--seeds is about the cells of a suite, or of --curves" in answer.err
    assert "--model is missing" in call(capsys, "leaderboard", "--curves", "x.png", expect=2).err
    assert "--suite" in call(capsys, *RUN, "--model", "toy", "--only", "x", expect=2).err
    assert "--model is missing" in call(capsys, *RUN, expect=2).err


def test_a_damaged_card_names_the_folder_to_remove(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("VDSM_BENCH_RUNS", str(tmp_path / "my runs"))
    card = tmp_path / "my runs" / "judges" / "toy-squares" / "clips-16px-4f-deadbeef" / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text("{")
    told = call(capsys, "judge", "show", "toy-squares", expect=3).err
    assert f"next: rm -r '{card.parent}'   (the next run makes it anew)" in told
