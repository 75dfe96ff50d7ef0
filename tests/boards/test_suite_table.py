"""A suite as a table: means over seeds, absent figures, cells that are not done."""

import csv
import io

import pytest

from tests.runs.cells import TABLE, make_cell
from vdsm_bench.boards.leaderboard import leaderboard
from vdsm_bench.boards.suite_table import suite_rows, to_csv, to_markdown
from vdsm_bench.boards.table import _title
from vdsm_bench.files import read_json, write_json
from vdsm_bench.runs.suites import Suite, Variant, plan_suite

LOW = {"training": {"sequence": {"learning_rate": 1e-4}}}
SUITE = Suite(
    models=["toy"],
    datasets=["faces"],
    variants={
        "lr-low": Variant(summary="slow", change=LOW),
        "absent": Variant(change={"data": {"frames": 3}}),
    },
)
CHANCE = {"identity_code_action_probe": {"majority": 0.25}}


def rows_of(tmp_path, any_seed=True, suite=SUITE):
    return suite_rows(TABLE, plan_suite(TABLE, suite), tmp_path, any_seed=any_seed)


def test_a_line_has_means_over_seeds_and_says_what_is_missing(tmp_path):
    for seed in (0, 1, 2):
        make_cell(tmp_path, seed=seed)
    make_cell(tmp_path, layers=[LOW], collapsed=True)
    make_cell(tmp_path, layers=[LOW], seed=1).write_status("failed")
    base, low, absent = rows_of(tmp_path)
    assert (base["variant"], base["seeds"], base["n_seeds"]) == ("base", "0 1 2", 3)
    assert base["dynamic_accuracy"] == pytest.approx(0.92)
    assert base["dynamic_accuracy_spread"] == pytest.approx(0.02)
    assert base["factors"] == {"hair": pytest.approx(0.6)}
    assert (base["collapsed"], base["training_minutes"]) == (0.0, 1.5)
    assert base["identity_accuracy"] is None
    assert (low["n_seeds"], low["collapsed"], low["not_done"]) == (1, 1.0, "seed 1: failed")
    assert low["dynamic_accuracy_spread"] is None
    assert (absent["n_seeds"], absent["collapsed"]) == (0, None)
    text = to_markdown([base, low, absent], {"lr-low": "slow"})
    assert "| base | 3 | 0.800 ± 0.000 | 0.920 ± 0.020 | – | 0.600 | 0.600 |" in text
    assert text.rstrip().endswith("Not measured: lr-low (seed 1: failed), absent.")
    (_, second, _) = csv.DictReader(io.StringIO(to_csv([base, low, absent])))
    assert second["identity_accuracy_hair"] == "0.5"
    assert second["identity_accuracy"] == ""


def test_scores_that_the_printed_table_lacks_are_in_the_row_and_its_csv(tmp_path):
    for seed in (0, 1):
        cell = make_cell(tmp_path, seed=seed)
        content = read_json(cell.metrics_file)
        content["scores"]["own_score"] = {"value": 0.25 + 0.5 * seed, "n": 9}
        write_json(cell.metrics_file, content)
    base, low, absent = rows_of(tmp_path)
    assert (base["own_score"], base["own_score_spread"]) == (0.5, pytest.approx(0.125**0.5))
    first, second, _ = csv.DictReader(io.StringIO(to_csv([base, low, absent])))
    assert (first["own_score"], second["own_score"]) == ("0.5", "")
    assert "own_score" not in to_markdown([base, low, absent], {})


def test_a_line_says_what_its_variant_was_told_beside_pixels(tmp_path):
    for seed in (0, 1):
        make_cell(tmp_path, seed=seed, supervision="identity-pairs")
    make_cell(tmp_path, layers=[LOW])
    base, low, absent = rows_of(tmp_path)
    told = [row["supervision"] for row in (base, low, absent)]
    assert told == ["identity-pairs", "none", ""]
    first, second = to_markdown([base, low], {"lr-low": "slow"}).splitlines()[-2:]
    assert first.endswith("| identity-pairs |  |")
    assert second.endswith("| none | slow |")
    make_cell(tmp_path, seed=2)
    assert rows_of(tmp_path)[0]["supervision"] == "identity-pairs, none"


def test_a_factor_is_averaged_over_the_seeds_that_have_it(tmp_path):
    make_cell(tmp_path)
    long = [{"metric": "identity_accuracy", "factor": "hair", "value": None}]
    make_cell(tmp_path, seed=1, long=long)
    base = rows_of(tmp_path)[0]
    assert (base["n_seeds"], base["factors"]) == (2, {"hair": 0.5})


SINGLE = Variant(change={"model": {"decoder": "single"}})


@pytest.mark.parametrize(
    ("models", "first", "missing"),
    [
        (["toy"], "base", "single"),
        (
            ["toy", "toy[decoder=single]"],
            "toy: base",
            "toy[decoder=single]: base, toy[decoder=single]: single",
        ),
        (
            ["toy", "toy[pose_dim=9]"],
            "toy: base",
            "toy[pose_dim=9]: base, toy[decoder=single]: single, "
            "toy[decoder=single,pose_dim=9]: single",
        ),
    ],
)
def test_instances_of_one_model_have_lines_that_tell_them_apart(models, first, missing, tmp_path):
    make_cell(tmp_path)
    suite = Suite(models=models, datasets=["faces"], variants={"single": SINGLE})
    text = to_markdown(rows_of(tmp_path, suite=suite), {})
    assert f"| {first} | 1 |" in text
    assert text.endswith(f"Not measured: {missing}.")


@pytest.mark.parametrize(
    ("inputs", "row"),
    [
        ({"protocol": {"judge": "another0"}}, {}),
        ({"data": {"x": 2}}, {}),
        ({}, {"judge": {"lowest_accuracy": 0.97, "weights": "trained0apart"}}),
        ({}, {"precision": "bf16"}),
    ],
    ids=["protocol", "data", "judges", "precision"],
)
def test_rows_that_are_not_alike_are_not_averaged_with_the_newest(tmp_path, inputs, row):
    folders = [make_cell(tmp_path, seed=0, **row), make_cell(tmp_path, seed=1)]
    content = read_json(folders[0].config_file)
    write_json(folders[0].config_file, {**content, "inputs": {**content["inputs"], **inputs}})
    for newest in (1, 0):
        for seed, folder in enumerate(folders):
            time = "2026-01-02T00:00:00" if seed == newest else "2026-01-01T00:00:00"
            path = folder.path / "status.json"
            write_json(path, {**read_json(path), "time": time})
        base = rows_of(tmp_path)[0]
        assert (base["seeds"], base["n_seeds"]) == (str(newest), 1)
        assert (
            base["not_done"] == f"seed {1 - newest}: of other data, protocol, judges or precision"
        )


@pytest.mark.parametrize(
    "inputs", [{"protocol": {"judge": "another"}}, {"data": {"x": 2}}, {}], ids=str
)
def test_one_that_was_stopped_counts_if_it_is_like_the_newest(tmp_path, inputs):
    stopped, _ = make_cell(tmp_path, seed=0), make_cell(tmp_path, seed=1)
    stopped.write_status("collapsed", note="the motion code is idle")
    path = stopped.path / "status.json"
    write_json(path, {**read_json(path), "time": "2020-01-01T00:00:00"})
    content = read_json(stopped.config_file)
    write_json(stopped.config_file, {**content, "inputs": {**content["inputs"], **inputs}})
    base = rows_of(tmp_path)[0]
    assert (base["seeds"], base["n_seeds"]) == ("1", 1)
    why = "of other data, protocol, judges or precision" if inputs else "collapsed"
    assert base["not_done"] == f"seed 0: {why}"
    assert base["collapsed"] == (0.0 if inputs else 0.5)


def test_only_the_seeds_that_are_asked_for_count(tmp_path):
    for seed in (0, 1):
        make_cell(tmp_path, seed=seed)
    assert rows_of(tmp_path, any_seed=False)[0]["seeds"] == "0"


def test_leaks_of_codes_are_told_above_chance(tmp_path):
    scores = {"identity_code_action_probe": {"value": 0.4, "low": 0.3, "high": 0.5}}
    make_cell(tmp_path, scores=scores, chance=CHANCE)
    assert rows_of(tmp_path)[0]["identity_code_action_probe_above_chance"] == pytest.approx(0.15)


def test_rows_of_validation_clips_stand_in_a_table_of_their_own(tmp_path):
    make_cell(tmp_path)
    part = {"evaluation": {"part": "validation"}}
    protocol = {"judge": "feedbeef", "part": "validation"}
    make_cell(tmp_path, layers=[part], protocol=protocol)
    rows = leaderboard(tmp_path)
    assert [row["part"] for row in rows] == ["test", "validation"]
    assert "validation clips" not in _title(rows[0], None)
    assert "validation clips" in _title(rows[1], None)
    assert rows_of(tmp_path)[0]["n_seeds"] == 1
