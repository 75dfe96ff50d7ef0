"""Exit codes, quick answers, and refusals that name the next command."""

import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys

import click
import pytest

from tests.runs.cells import make_cell
from vdsm_bench import errors
from vdsm_bench.cli import main as entrance
from vdsm_bench.cli.main import COMMANDS, run_cli
from vdsm_bench.cli.progress import PlainReporter

NO_TORCH = (
    "import sys; from vdsm_bench.cli.main import run_cli; code = run_cli(sys.argv[1:]);"
    "loaded = sorted({'torch', 'numpy', 'pyro', 'PIL'} & set(sys.modules));"
    "print('loaded', loaded, file=sys.stderr); sys.exit(99 if loaded else code)"
)


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    monkeypatch.setenv("VDSM_BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("VDSM_BENCH_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["list"],
        ["list", "encoders", "--json"],
        ["show", "presets/small"],
        ["status"],
        ["leaderboard"],
        ["leaderboard", "--csv"],
        ["completion", "zsh"],
        ["run", "--model", "vdsm", "--dataset", "mug", "--dry-run"],
        ["run", "--model", "vdsm", "--dataset", "mug", "--dry-run", "--json"],
    ],
)
def test_quick_answers_import_nothing_heavy(run_python, arguments):
    assert run_python(NO_TORCH, *arguments).returncode == 0


@pytest.mark.parametrize(
    "setting",
    [
        "model.pose_dim=abc",
        "model.rnn_layers=0",
        "model.likelihood=poisson",
        "model.encoder.channels=wide",
        "model.decoder.start=anyhow",
        "training.pretrain.epochs=-1",
    ],
)
def test_a_dry_run_refuses_wrong_values_without_importing_anything_heavy(run_python, setting):
    run = ["run", "--model", "vdsm", "--dataset", "mug", "--dry-run", "--set", setting]
    refused = run_python(NO_TORCH, *run, expect=2)
    assert setting.partition("=")[0].rpartition(".")[2] in refused.stderr
    assert "next: vdsm-bench" in refused.stderr


@pytest.mark.parametrize("fresh", [True, False])
def test_what_goes_on_after_an_interruption_is_the_command_without_fresh(
    monkeypatch, capsys, tmp_path, fresh
):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("vdsm_bench.runs.execute.run_cells", stopped)
    run = ["run", "--model", "vdsm", "--dataset", "mug", "--runs-dir", str(tmp_path)]
    assert run_cli([*run, *(["--fresh"] if fresh else [])]) == 130
    told = capsys.readouterr().err
    assert ("the same command without --fresh continues" in told) == fresh
    assert "continues where it stopped" in told
    assert ("cells that it had not begun keep their old rows" in told) == fresh
    monkeypatch.setattr("vdsm_bench.runs.datasets.dataset_states", stopped)
    assert run_cli(["data", "list"]) == 130
    assert "interrupted; the same command begins anew" in capsys.readouterr().err
    monkeypatch.setattr("vdsm_bench.runs.judging.open_protocol", stopped)
    assert run_cli(["judge", "train", "mug", "--runs-dir", str(tmp_path)]) == 130
    assert "keeps the judges that are finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["leaderboard"],
        ["leaderboard", "--model", "vdsm", "--dataset", "mug", "--curves", "curves.png"],
    ],
)
def test_what_is_to_be_typed_next_is_in_the_same_folders(capsys, tmp_path, words):
    runs, data = str(tmp_path / "my runs"), str(tmp_path / "data")
    run_cli(["--runs-dir", runs, *words, "--data-dir", data])
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "next: " in line]
    typed = shlex.split(told.partition("next: ")[2])
    assert typed[:2] == ["vdsm-bench", "run"]
    assert typed[-4:] == ["--runs-dir", runs, "--data-dir", data]


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (["judge", "show", "sprites"], "vdsm-bench judge train sprites --data-dir {}"),
        (
            ["score", "--dataset", "sprites"],
            "score --template request --dataset sprites --data-dir {}",
        ),
        (
            ["run", "--model", "vdsm", "--dataset", "sprites", "--dry-run"],
            "vdsm-bench data prepare sprites --from FOLDER --data-dir {}   (https",
        ),
        (["transfer"], "vdsm-bench status --data-dir {}   (lists the cells"),
    ],
)
def test_what_an_error_advises_is_in_the_same_folders(capsys, tmp_path, words, step):
    assert run_cli([*words, "--data-dir", str(tmp_path)]) in (2, 3)
    assert step.format(tmp_path) in capsys.readouterr().err


def test_an_answer_that_nobody_reads_to_its_end_is_no_failed_cell(tmp_path):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb", 0) as gone:
        code = "from vdsm_bench.cli import main; main.main(['list'])"
        process = subprocess.run(
            [sys.executable, "-c", code], stdout=gone, stderr=subprocess.PIPE, check=False
        )
    assert process.returncode == 128 + signal.SIGPIPE
    assert b"Traceback" not in process.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_what_a_terminal_cannot_encode_is_written_another_way(tmp_path, encoding):
    make_cell(tmp_path, citation="Br\udce9al ≥ 王")
    code = "from vdsm_bench.cli import main; main.main(['leaderboard', '--runs-dir', '.'])"
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    cited = "Br\udce9al ≥ 王".encode(encoding, "backslashreplace")
    assert cited in b" ".join(process.stdout.split())


def test_a_component_that_leaves_keeps_its_code(monkeypatch):
    monkeypatch.setattr(click.Group, "invoke", lambda *_: sys.exit(3))
    with pytest.raises(SystemExit) as left:
        run_cli(["status"])
    assert left.value.code == 3


def test_a_terminal_that_went_away_stops_no_work(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    gone = io.TextIOWrapper(io.FileIO(write, "w"), write_through=True)  # nothing is left to flush
    monkeypatch.setattr("sys.stderr", gone)
    with pytest.raises(BrokenPipeError):
        click.echo("hello", err=True)
    reporter = PlainReporter()
    reporter.say("hello")
    reporter.progress("train", 1, 2)


def test_python_m_is_the_same_program(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "vdsm_bench", "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert "vdsm-bench" in process.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    assert run_cli([name, "--help"]) == 0
    assert "Usage: vdsm-bench" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.CellError("x"), 1),
        (errors.DivergedError("x"), 1),
        (errors.UsageError("x"), 2),
        (errors.DataError("x"), 3),
        (errors.MissingDependencyError("x"), 4),
        (errors.ContractError("x"), 5),
        (errors.ProtocolError("x"), 6),
        (PermissionError(13, "Permission denied", "x"), 3),
        (MemoryError(), 1),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 1),
        (ValueError("x"), 70),
        (KeyboardInterrupt(), 130),
        (entrance.Terminated(), 143),
    ],
)
def test_the_error_tree_decides_the_exit_code(monkeypatch, capsys, error, code):
    def fail(self, context):
        raise error

    monkeypatch.setattr(click.Group, "invoke", fail)
    assert run_cli(["status"]) == code
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err.strip()
    assert "Traceback" not in answer.err


def test_debug_shows_the_traceback(monkeypatch, capsys):
    def fail(self, context):
        context.obj.debug = True
        raise ValueError("x")

    monkeypatch.setattr(click.Group, "invoke", fail)
    assert run_cli(["status"]) == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["rnu"], 2, "did you mean 'run'"),
        (["run", "--model", "vsdm", "--dataset", "mug"], 2, "did you mean 'vdsm'"),
        (["run", "--model", "vdsm", "--dataset", "mgu"], 2, "did you mean 'mug'"),
        (["run", "--model", "vdsm", "--dataset", "mug", "--preset", "smal"], 2, "'small'"),
        (["run", "--model", "vdsm"], 2, "--dataset"),
        (["run", "--model", "vdsm", "--dataset", "mug", "--seeds", "a"], 2, "0,1,2"),
        (["run", "--model", "vdsm", "--dataset", "mug", "--seeds", "-1"], 2, "0,1,2"),
        (["run", "--model", "vdsm", "--dataset", "mug", "--set", "data.frmes=3"], 2, "'frames'"),
        (["run", "--model", "vdsm", "--dataset", "mug", "--set", "x"], 2, "KEY=VALUE"),
        (["run", "--model", "vdsm", "--dataset", "mug", "--config", "no.yaml"], 2, "no.yaml"),
        (["run", "--model", "vdsm[pose_dmi=3]", "--dataset", "mug"], 2, "'pose_dim'"),
        (["run", "--model", "VDSM", "--dataset", "mug"], 2, "did you mean 'vdsm'"),
        (
            ["run", "--model", "vdsm", "--dataset", "mug", "--set", "data.frames=["],
            2,
            "vdsm-bench run --help",
        ),
        (["list", "modles"], 2, "did you mean 'models'"),
        (["show", "vdsm"], 2, "vdsm-bench list"),
        (["show", "models/vsdm"], 2, "did you mean 'vdsm'"),
        (["judge", "show", "sprites"], 3, "vdsm-bench judge train sprites"),
        (["transfer"], 2, "vdsm-bench status"),
        (["transfer", "--cell", "nowhere"], 2, "vdsm-bench status"),
        (["completion", "tcsh"], 2, "bash"),
        (["data", "prepare", "nothing"], 2, "vdsm-bench list datasets"),
        (
            ["run", "--model", "vdsm", "--dataset", "mug,sprites"],
            2,
            "--dataset mug --dataset sprit",
        ),
        (["run", "--suite", "mine"], 2, "a file, --suite ./my.yaml"),
        (["run", "--model", "vdsm", "--dataset", "mine"], 2, "vdsm-bench data prepare mine --from"),
        (["run", "--model", "vdsm", "--dataset", "mug", "--preset", "x"], 2, "list presets\n"),
        (
            ["run", "--model", "vdsm", "--dataset", "mug", "--set", "data.split=none"],
            2,
            "vdsm-bench show settings",
        ),
        (
            ["data", "prepare", "My_Set", "--static", "a", "--dynamic", "b"],
            2,
            "the same command with my-set",
        ),
        (["data", "check", "mug", "--from", "nowhere"], 3, "--from FOLDER"),
    ],
)
def test_refusals_say_what_to_type(capsys, arguments, code, said):
    assert run_cli(arguments) == code
    answer = capsys.readouterr()
    assert answer.out == ""
    assert said in answer.err


def test_global_options_stand_before_or_after_the_command(tmp_path, capsys):
    for arguments in (
        ["--runs-dir", str(tmp_path / "here"), "status"],
        ["status", "--runs-dir", str(tmp_path / "here")],
    ):
        assert run_cli(arguments) == 0
        assert str(tmp_path / "here") in capsys.readouterr().err


def plan(capsys, *arguments, expect=0):
    code = run_cli(["run", "--model", "vdsm", *arguments, "--dry-run", "--json"])
    assert code == expect
    answer = capsys.readouterr()
    return json.loads(answer.out), answer.err


def test_mug_without_data_stands_in_and_says_so(capsys):
    cells, said = plan(capsys, "--dataset", "mug")
    assert [cell["cell"] for cell in cells] == ["mug-synthetic/vdsm/small-seed0"]
    assert "stand-in mug-synthetic" in said
    assert "vdsm-bench data prepare mug --from" in said


def test_a_named_data_folder_has_no_stand_in(capsys, tmp_path):
    cells, said = plan(capsys, "--dataset", "mug", "--data-dir", str(tmp_path), expect=3)
    assert [cell["cell"] for cell in cells] == ["mug/vdsm/small-seed0"]
    assert f"error: mug is not in {tmp_path}" in said
    assert "next: vdsm-bench data prepare mug --from FOLDER" in said


def test_the_plan_follows_file_set_and_seeds(capsys, tmp_path):
    path = tmp_path / "cell.yaml"
    path.write_text("data: {frames: 5, stride: 3}\n")
    cells, _ = plan(
        capsys, "--dataset", "sprites", "--seeds", "0, 2", "--config", str(path),
        "--set", "data.frames=6", expect=3,
    )  # fmt: skip
    assert [cell["cell"][-1] for cell in cells] == ["0", "2"]
    assert {(cell["frames"], cell["stride"], cell["action"]) for cell in cells} == {(6, 3, "new")}


def test_list_and_show_answer_on_stdout(capsys):
    assert run_cli(["list", "--json"]) == 0
    assert "vdsm" in json.loads(capsys.readouterr().out)["models"]
    assert run_cli(["show", "models/vdsm", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["defaults"]["decoder"] == "mixture-of-experts"
    assert content["source"].endswith("model.py")
    assert "small" in content["presets"]


def test_a_datasets_presets_are_those_of_its_kind_too(capsys):
    assert run_cli(["show", "datasets/mug-synthetic", "--json"]) == 0
    small = json.loads(capsys.readouterr().out)["presets"]["small"]
    assert small["data"]["frames"] == plan(capsys, "--dataset", "mug")[0][0]["frames"]
    assert small["models"]["vdsm"]["training"]["pretrain"]["epochs"] == 12
    assert run_cli(["show", "datasets/sprites-1296", "--json"]) == 0
    medium = json.loads(capsys.readouterr().out)["presets"]["medium"]["models"]["vdsm"]
    assert medium["model"]["identity_dim"] == 40  # its own
    assert medium["model"]["pose_kl"] == [0.1, 0.3, 1.0, 1.5]  # that of its kind


def test_every_setting_is_explained(capsys):
    assert run_cli(["show", "settings", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["data"]["image_size"]["default"] == 64
    assert "floor" in shown["judge"]
    assert "Adam's" in shown["training.STAGE"]["learning_rate"]["meaning"]
    assert "default" not in shown["training.STAGE"]["epochs"]  # there is none
    cells, _ = plan(capsys, "--dataset", "mug", "--set", "evaluation.part=validation")
    assert "validation" in cells[0]["scored"]
    assert "validation" in shown["evaluation"]["part"]["meaning"]


def test_brackets_name_a_part_in_set_as_they_do_behind_model(capsys):
    behind, _ = plan(capsys, "--dataset", "mug", "--set", "model.decoder=single[widths=[8,8,8]]")
    assert "decoder=single[widths=[8, 8, 8]]" in behind[0]["cell"]


def test_sigterm_is_143(tmp_path):
    code = (
        "import os, signal, sys; from vdsm_bench.cli import main;"
        "import click; click.Group.invoke = lambda *a: os.kill(os.getpid(), signal.SIGTERM);"
        "main.main(['status'])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ}, check=False
    )
    assert process.returncode == 128 + signal.SIGTERM
    assert b"terminated; the same command begins anew" in process.stderr
