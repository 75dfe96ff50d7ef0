import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.runs.cells import PROTOCOL, make_cell
from vdsm_bench.boards.leaderboard import COLUMNS, leaderboard, reported_row, to_csv
from vdsm_bench.boards.table import render
from vdsm_bench.files import read_json, write_json

GOLDEN = Path(__file__).with_name("leaderboard_header.csv")
CONTROLS = {
    "dataset": "faces",
    "image_size": 64,
    "frames": 8,
    "split": "clips",
    "judge": {"lowest_accuracy": 0.97},
    "protocol": PROTOCOL,
    "key": "0",
    "chance": {"identity_accuracy": {"majority": 0.25}},
}
COPY = {
    "name": "copy-identity-clip",
    "expected": "identity 1",
    "scores": {"identity_accuracy": {"value": 1.0, "low": 1.0, "high": 1.0, "n": 9}},
}


def test_csv_header_is_the_golden_one():
    assert to_csv([]) == GOLDEN.read_text()


def test_seeds_become_mean_and_spread(tmp_path):
    for seed in (0, 1, 2):
        make_cell(tmp_path, seed=seed)
    (row,) = leaderboard(tmp_path)
    assert (row["seeds"], row["n_seeds"]) == ("0 1 2", 3)
    assert row["dynamic_accuracy"] == pytest.approx(0.92)
    assert row["dynamic_accuracy_spread"] == pytest.approx(0.02)
    assert row["consistent_accuracy_low"] == pytest.approx(0.7)
    assert row["training_minutes"] == 1.5
    assert row["identity_by_factor"] == "hair 0.600"


def test_an_absent_score_is_empty_with_its_reason(tmp_path):
    make_cell(tmp_path)
    (row,) = leaderboard(tmp_path)
    assert row["transfer_accuracy"] is None
    assert "transfer_accuracy: the model cannot generate" in row["note"]
    assert row["dynamic_accuracy_spread"] is None
    fields = to_csv([row]).splitlines()[1].split(",")
    assert fields[COLUMNS.index("transfer_accuracy")] == ""


def test_a_score_that_only_some_seeds_have_says_of_which(tmp_path):
    cells = [make_cell(tmp_path, seed=seed) for seed in (0, 1, 2)]
    content = read_json(cells[1].metrics_file)
    content["scores"]["fvd_judge_regenerated"] = {"value": 5.0, "low": 4.0, "high": 6.0}
    write_json(cells[1].metrics_file, content)
    (row,) = leaderboard(tmp_path)
    assert (row["fvd_judge_regenerated"], row["n_seeds"]) == (5.0, 3)
    assert "fvd_judge_regenerated: of seed 1 alone" in row["note"]
    assert "dynamic_accuracy: of seed" not in row["note"]


def test_a_further_score_is_in_every_row_and_view_of_cells_and_controls(tmp_path):
    own = {"own_score": {"value": 0.25, "low": 0.125, "high": 0.375, "n": 9}}
    for seed, scores in enumerate((own, own, {})):
        cell = make_cell(tmp_path, seed=seed)
        content = read_json(cell.metrics_file)
        content["scores"] |= {**scores, "another": {"reason": "no file of weights"}, "model": own}
        write_json(cell.metrics_file, content)
    control = {"name": "copy", "expected": "0.5", "scores": {"own_score": {"value": 0.5, "n": 9}}}
    write_json(controls(tmp_path), {**CONTROLS, "rows": [control]})
    native, copied, chance = rows = leaderboard(tmp_path)
    assert (native["own_score"], native["own_score_low"], native["own_score_high"]) == (
        0.25, 0.125, 0.375,
    )  # fmt: skip
    assert native["model"] == "toy"
    assert "own_score: of seed 0, 1 alone" in native["note"]
    assert "another: no file of weights" in native["note"]
    assert (copied["own_score"], chance["own_score"]) == (0.5, None)
    assert len({frozenset(row) for row in rows}) == 1
    header, *lines = csv.reader(io.StringIO(to_csv([*rows, reported_row({"model": "quoted"})])))
    further = ["own_score", "own_score_low", "own_score_high", "own_score_spread"]
    assert header == [*COLUMNS, *further]
    assert [line[-4:] for line in lines] == [
        ["0.25", "0.125", "0.375", "0.0"], ["0.5", "", "", ""], [""] * 4, [""] * 4,
    ]  # fmt: skip
    console = Console(width=200, file=io.StringIO())
    console.print(render(rows, everything=True))
    text = console.file.getvalue()
    assert "toy small ×3, further scores: own_score 0.250±0.000 [0.125, 0.375]" in text
    assert "copy, further scores: own_score 0.500\n" in text


def test_other_settings_under_the_same_preset_are_another_row(tmp_path):
    make_cell(tmp_path)
    make_cell(tmp_path, layers=[{"training": {"sequence": {"epochs": 1}}}])
    rows = leaderboard(tmp_path)
    assert [row["n_seeds"] for row in rows] == [1, 1]
    assert {row["preset"] for row in rows} == {"small", "small[training.sequence.epochs=1]"}
    console = Console(width=100, file=io.StringIO())
    console.print(render(rows))
    text = console.file.getvalue()
    assert "small ×1" in text
    assert "small (1) ×1" in text
    assert "(1) beside the preset: training.sequence.epochs=1" in text


def test_failed_and_damaged_cells_are_listed_with_their_reason(tmp_path):
    make_cell(tmp_path, seed=0)
    make_cell(tmp_path, seed=1).write_status("failed", note="the loss is nan")
    damaged = make_cell(tmp_path, seed=2)
    damaged.metrics_file.write_text("{")
    rows = {row["seeds"]: row for row in leaderboard(tmp_path)}
    assert rows["0"]["status"] == "done"
    assert (rows["1"]["status"], rows["1"]["note"]) == ("failed", "the loss is nan")
    assert rows["1"]["dynamic_accuracy"] is None
    assert rows["2"]["status"] == "damaged"
    assert "metrics.json" in rows["2"]["note"]


def controls(tmp_path):
    return tmp_path / "judges" / "faces" / "clips-feedbeef" / "controls-0.json"


def test_controls_stand_beside_the_cells_of_their_protocol(tmp_path):
    make_cell(tmp_path)
    write_json(controls(tmp_path), {**CONTROLS, "rows": [COPY]})
    native, control, chance = leaderboard(tmp_path)
    assert (native["slot"], control["slot"]) == ("native", "control")
    assert native["protocol"] == control["protocol"]
    assert control["identity_accuracy"] == 1.0
    assert (chance["model"], chance["identity_accuracy"]) == ("chance-majority", 0.25)
    assert chance["identity_accuracy_low"] is None


@pytest.mark.parametrize(
    ("newer", "told"),
    [
        ({"metrics": {"dynamic_accuracy": 2}}, ("dynamic_accuracy 1", "dynamic_accuracy 2")),
        ({"metrics": {"dynamic_accuracy": 1, "mse": 1}}, ("no mse", "mse 1")),
        ({"pairs": 2}, ("no pair list", "pair list 2")),
        ({"left_out": ["room", "light"]}, ("no left out", "left out room light")),
    ],
    ids=["version", "another score", "pair list", "factors"],
)
def test_rows_of_other_versions_stand_in_a_table_of_their_own(newer, told, tmp_path):
    make_cell(tmp_path)
    make_cell(tmp_path, seed=1, protocol={**PROTOCOL, **newer}, group="newer")
    for key, protocol in (("0", PROTOCOL), ("1", {**PROTOCOL, **newer})):
        path = controls(tmp_path).with_name(f"controls-{key}.json")
        write_json(path, {**CONTROLS, "protocol": protocol, "key": key, "rows": [COPY]})
    rows = leaderboard(tmp_path)
    text = " ".join(shown(rows).split())
    tables = text.partition("consist:")[0].split("faces · held out")[1:]
    assert len(tables) == 2
    for version in told:
        (table,) = [each for each in tables if f"protocol feedbeef, versions: {version}" in each]
        assert table.count("copy-identity-clip") == 1
        assert table.count("small ×1") == 2  # its line, and that of its factors
        note = f"versions: {version}; rows of other versions stand beside it"
        assert len([row for row in rows if row["note"].endswith(note)]) == 3


def test_of_many_other_versions_the_first_are_named_and_the_rest_counted(tmp_path):
    for seed, version in enumerate((1, 2)):
        protocol = {**PROTOCOL, "metrics": dict.fromkeys("edcba", version)}
        make_cell(tmp_path, seed=seed, protocol=protocol, group=str(version))
    assert "versions: a 2, b 2, c 2 and 2 more; rows" in leaderboard(tmp_path)[0]["note"]


def test_rows_of_the_same_versions_say_nothing_of_them(tmp_path):
    make_cell(tmp_path)
    write_json(controls(tmp_path), {**CONTROLS, "rows": [COPY]})
    rows = leaderboard(tmp_path)
    assert not any("versions" in (row["note"] or "") for row in rows)
    assert "versions" not in shown(rows)


def test_controls_of_versions_that_no_row_has_any_more_are_left_out(tmp_path):
    older = {**PROTOCOL, "metrics": {"dynamic_accuracy": 0}}
    for key, protocol in (("0", PROTOCOL), ("1", older)):
        path = controls(tmp_path).with_name(f"controls-{key}.json")
        write_json(path, {**CONTROLS, "protocol": protocol, "key": key, "rows": [COPY]})
    both = [row["model"] for row in leaderboard(tmp_path)]
    assert both.count("copy-identity-clip") == 2  # no row yet says which are the older ones
    make_cell(tmp_path)
    rows = leaderboard(tmp_path)
    assert [row["model"] for row in rows].count("copy-identity-clip") == 1
    assert "versions" not in shown(rows)


def test_damaged_controls_do_not_hide_the_cells(tmp_path):
    make_cell(tmp_path)
    whole = {**CONTROLS, "rows": [COPY]}
    wrong = (
        {"dataset": []},
        {"protocol": {**PROTOCOL, "judge": []}},
        {"judge": {"lowest_accuracy": "x"}},
        {"chance": {"identity_accuracy": {"majority": "x"}}},
    )
    for content in ({}, {"rows": 3}, {"rows": [], "chance": {}}, *({**whole, **w} for w in wrong)):
        write_json(controls(tmp_path), content)
        rows = leaderboard(tmp_path)
        assert [row["status"] for row in rows] == ["done", "damaged"]


def shown(rows, *, width=80, terminal=True, everything=False):
    """What the rows look like, on a terminal or in a pipe."""
    stream = io.StringIO()
    console = Console(width=width, file=stream, force_terminal=terminal, color_system=None)
    console.print(render(rows, everything=everything), crop=False)
    return stream.getvalue()


def test_table_shows_what_matters(tmp_path):
    make_cell(tmp_path, collapsed=True, note="the identity code has collapsed")
    make_cell(tmp_path, seed=1).write_status("diverged", note="loss is nan")
    text = shown(leaderboard(tmp_path), width=100)
    assert max(map(len, text.splitlines())) <= 100
    for wanted in ("0.900", "collapsed", "diverged", "loss is nan", "64 px", "–"):
        assert wanted in text


LABELS = ("consist", "dynamic", "ident.", "both", "leak.a", "leak.i")
SHOWN = ("consistent_accuracy", "dynamic_accuracy", "identity_accuracy", "transfer_accuracy",
         "action_leak", "identity_leak", "mse", "psnr", "ssim")  # fmt: skip


def full_board(runs, models):
    """Rows with all that a table shows: a rank, three seeds, nine scores with intervals."""
    for model in models:
        for seed in (0, 1, 2):
            scores = {
                name: {
                    "value": 0.1 * n + 0.01 * seed,
                    "low": 0.1 * n - 0.05,
                    "high": 0.1 * n + 0.05,
                }
                for n, name in enumerate(SHOWN, start=1)
            }
            make_cell(runs, model=model, seed=seed, scores=scores)
    return [{**row, "rank": "1=", "contest": 1} for row in leaderboard(runs)]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_wide_table_has_every_name_and_every_interval_whole(terminal, tmp_path):
    rows = full_board(tmp_path, ["toy", "toy[decoder=single,pose_dim=9]"])
    lines = shown(rows, terminal=terminal, everything=True).splitlines()
    for row in rows:
        (line,) = [line for line in lines if line.split()[:2] == ["1=", row["model"]]]
        for name in SHOWN:
            digits = 2 if name == "psnr" else 3
            value, spread, low, high = (
                f"{row[name + end]:.{digits}f}" for end in ("", "_spread", "_low", "_high")
            )
            assert f" {value}±{spread} [{low}, {high}] " in line
        assert "small ×3" in line
        assert line.split()[-3:] == ["native", "none", "1.5"]


def test_in_a_pipe_the_table_is_as_wide_as_its_names(tmp_path):
    name = "toy[decoder=single,motion_dim=9,pose_dim=9]"
    text = shown(full_board(tmp_path, [name]), terminal=False)
    assert f" {name} " in text
    assert all(label in text for label in LABELS)


@pytest.mark.parametrize(
    ("width", "missing"), [(100, []), (80, ["leak.i"]), (60, ["consist", "dynamic", "leak.a"])]
)
def test_a_narrow_terminal_has_names_and_ranks_and_says_which_scores_it_has_no_room_for(
    width, missing, tmp_path
):
    text = shown(full_board(tmp_path, ["toy", "toy[pose_dim=9]"]), width=width)
    assert max(map(len, text.splitlines())) <= width
    head = next(line for line in text.splitlines() if line.split()[:3] == ["rank", "model", "run"])
    assert not set(missing) & set(head.split())
    assert ("--all" in text) == bool(missing)
    assert ("no room for" in text) == bool(missing)
    for name in ("toy", "toy[pose_dim=9]"):
        (line,) = [line for line in text.splitlines() if line.split()[:2] == ["1=", name]]
        assert line.split()[2:4] == ["small", "×3"]
        assert len(line.split()) == len(head.split()) + 1


def test_a_spread_has_the_digits_of_its_mean_and_a_small_error_three_that_say_something(tmp_path):
    for seed, (right, error) in enumerate([(0.9293, 0.00117), (0.9253, 0.00097)]):
        scores = {
            "transfer_accuracy": {"value": right, "low": 0.911, "high": 0.942},
            "mse": {"value": error, "low": 0.00105, "high": 0.00109},
        }
        make_cell(tmp_path, seed=seed, scores=scores)
    text = shown(leaderboard(tmp_path), everything=True)
    assert "0.927±0.003 [0.911, 0.942]" in text
    assert "0.00107±0.00014 [0.00105, 0.00109]" in text


def test_an_instance_keeps_its_brackets_in_the_table(tmp_path):
    make_cell(tmp_path, model="toy[decoder=single]")
    console = Console(width=100, file=io.StringIO())
    console.print(render(leaderboard(tmp_path)))
    assert "[decoder=single]" in console.file.getvalue()


def test_seeds_that_judges_trained_apart_have_scored_are_no_one_row(tmp_path):
    for seed, weights in enumerate(("first", "second", "first")):
        make_cell(tmp_path, seed=seed, judge={"lowest_accuracy": 0.97, "weights": weights})
    one, other = sorted(leaderboard(tmp_path), key=lambda row: row["n_seeds"])
    assert (one["seeds"], other["seeds"]) == ("1", "0 2")
    assert one["note"].endswith("judges second; rows of other judges stand beside it")
    assert other["note"].endswith("judges first; rows of other judges stand beside it")


def test_models_that_judges_trained_apart_have_scored_are_told_apart_and_stay_in_blocks(tmp_path):
    lowest = {"a": 0.95, "b": 0.97, None: 0.95}
    for n, (model, weights) in enumerate(
        [("toy", "a"), ("toy[pose_dim=9]", "b"), ("toy[pose_dim=8]", None)]
    ):
        judge = {"lowest_accuracy": lowest[weights], "weights": weights}
        score = {"value": 0.5 + 0.1 * n, "low": 0.0, "high": 1.0, "n": 9}
        make_cell(tmp_path, model=model, judge=judge, scores={"transfer_accuracy": score})
    rows = leaderboard(tmp_path)
    assert [row["judge_accuracy"] for row in rows] == [0.95, 0.95, 0.97]
    assert "which judges scored it is not recorded" in rows[0]["note"]
    assert all("rows of other judges" in row["note"] for row in rows)
