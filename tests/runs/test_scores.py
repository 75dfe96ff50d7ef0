"""Dear scores: computed where they are asked for, also of cells that are done."""

import shutil
from functools import partial
from types import SimpleNamespace

import pytest

from tests.plugin.toy_zoo.brightness import Brightness
from tests.runs.test_execute import forbid, numbers
from vdsm_bench.config import resolve
from vdsm_bench.errors import UsageError
from vdsm_bench.files import read_json, write_json
from vdsm_bench.notation import parse_assignments
from vdsm_bench.registry import Entry, _load_entry_point
from vdsm_bench.runs.cell import plan_cells
from vdsm_bench.runs.scores import merged

LEAKAGE = {"evaluation": {"scores": [{"name": "leakage", "folds": 3}]}}


@pytest.fixture(scope="module")
def plain_runs(tmp_path_factory):
    """A runs folder of a cell that nobody asks for more scores."""
    return tmp_path_factory.mktemp("plain")


@pytest.fixture
def own(bench, plain_runs, tmp_path):
    """Runs that cell in a copy of the folder that is the test's own: it is done, without them."""
    bench(runs_dir=plain_runs)
    folder = shutil.copytree(plain_runs, tmp_path / "runs")

    def call(layer=None):
        return bench(layer=layer, runs_dir=folder)

    return call


def test_asked_scores_are_added_to_a_cell_that_is_done_without_training(own, monkeypatch):
    (plain,), _ = own()
    assert "identity_information_gap" not in plain.metrics["scores"]
    forbid(monkeypatch, "Trainer", "write_media")
    (asked,), listener = own(LEAKAGE)
    assert asked.folder == plain.folder
    assert asked.reused
    assert any("adding leakage" in line for line in listener.lines)
    row = read_json(asked.folder / "metrics.json")
    assert row == asked.metrics
    assert -1 <= row["scores"]["identity_information_gap"]["value"] <= 1
    for name, score in plain.metrics["scores"].items():
        assert row["scores"][name] == score  # what was there is untouched
    assert {line["metric"] for line in plain.metrics["long"]} < {r["metric"] for r in row["long"]}

    forbid(monkeypatch, "build_model", "add_scores")
    (again,), _ = own(LEAKAGE)  # now it is there
    (less,), _ = own()  # and stays
    assert again.metrics == less.metrics == row


def test_other_arguments_are_computed_anew_and_leave_no_second_line(own):
    (three,), _ = own(LEAKAGE)
    (two,), _ = own({"evaluation": {"scores": [{"name": "leakage", "folds": 2}]}})
    assert two.folder == three.folder
    assert two.metrics["asked"]["leakage"]["arguments"] == {"folds": 2}
    keys = [(line["metric"], line["factor"]) for line in two.metrics["long"]]
    assert len(keys) == len(set(keys))


def test_a_row_that_is_scored_again_says_which_dear_scores_it_loses(own):
    asked = {"evaluation": {"scores": [{"name": "leakage", "folds": 2}]}}
    (first,), _ = own(asked)
    judge = {**first.metrics["judge"], "weights": "of another machine"}
    write_json(first.folder / "metrics.json", {**first.metrics, "judge": judge})
    (again,), listener = own()
    assert again.metrics["asked"] == {}
    (said,) = [line for line in listener.lines if "scored again" in line]
    assert "without leakage" in said
    command = said[said.index("--set '") + len("--set '") : said.rindex("'")]
    assert parse_assignments([command]) == asked


def test_asked_at_once_or_later_the_numbers_are_the_same(bench, own, tmp_path):
    (later,), _ = own(LEAKAGE)
    (at_once,), _ = bench(layer=LEAKAGE, runs_dir=tmp_path / "at-once")
    assert (later.reused, at_once.reused) == (True, False)
    assert numbers(at_once.metrics)["scores"] == numbers(later.metrics)["scores"]
    assert at_once.folder.name == later.folder.name


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (["leekage"], "did you mean 'leakage'"),
        (["pixels"], "'pixels' is none"),
        (["protocol"], "'protocol' is none"),
        ([{"name": "leakage", "fold": 2}], "did you mean 'folds'"),
        ([{"name": "leakage", "folds": 1}], "folds"),
        ([{"name": "long-generation", "pairs": 0}], "pairs"),
        ([3], "evaluation.scores"),
        ("leakage", "evaluation.scores"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_runs(table, scores, message):
    with pytest.raises(UsageError, match=message):
        resolve(
            table,
            model="toy",
            dataset="toy-squares",
            preset="smoke",
            layers=[{"evaluation": {"scores": scores}}],
        )


def test_a_weight_file_that_is_not_there_is_refused_before_training(bench, tmp_path, monkeypatch):
    forbid(monkeypatch, "Trainer")
    asked = {"evaluation": {"scores": [{"name": "kinetics", "weights": "typo.pth"}]}}
    (outcome,), _ = bench(seeds=(6,), layer=asked, runs_dir=tmp_path)
    assert (outcome.state, outcome.exit_code, outcome.folder) == ("failed", 3, None)
    assert "there is no weight file typo.pth" in outcome.error


def test_a_row_is_moved_aside_only_once_nothing_of_the_new_one_was_refused(bench, tmp_path):
    (first,), _ = bench(runs_dir=tmp_path)
    asked = {"evaluation": {"scores": [{"name": "kinetics", "weights": "typo.pth"}]}}
    (refused,), _ = bench(layer=asked, runs_dir=tmp_path, fresh=True)
    assert (refused.state, refused.exit_code) == ("failed", 3)
    assert read_json(first.folder / "metrics.json") == first.metrics
    assert list(first.folder.parent.glob(".*.old-*")) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["vdsm-notebook"]),
        (["leakage"], ["leakage", "vdsm-notebook"]),
        ([{"name": "vdsm-notebook", "epochs": 1}], [{"name": "vdsm-notebook", "epochs": 1}]),
    ],
    ids=["none", "another", "with its arguments"],
)
def test_a_protocol_joins_the_scores_that_were_asked_for(table, before, after):
    layers = [{"evaluation": {"scores": before}}]
    (cell,) = plan_cells(
        table, models=["toy"], datasets=["toy-squares"], seeds=[0], preset="smoke", layers=layers
    )
    assert cell.asking("vdsm-notebook").config.evaluation.scores == after


def test_merging_replaces_and_keeps():
    row = {
        "scores": {"a": {"value": 1}, "b": {"value": 2}},
        "long": [{"metric": "a", "factor": "f", "value": 1}, {"metric": "b", "factor": "f"}],
        "chance": {}, "histogram": {}, "versions": {"a": 1, "b": 1},
        "notes": ["old", "both", "a: 3 clips"],
    }  # fmt: skip
    found = {
        "scores": {"a": {"value": 9}},
        "long": [{"metric": "a", "factor": "f", "value": 9}],
        "chance": {"a": {"labels": 0.5}}, "histogram": {}, "versions": {"a": 2},
        "notes": ["both", "a: 4 clips"],
    }  # fmt: skip
    whole = merged(row, found)
    assert whole["scores"] == {"a": {"value": 9}, "b": {"value": 2}}
    assert whole["long"] == [row["long"][1], found["long"][0]]
    assert (whole["versions"], whole["notes"]) == (
        {"a": 2, "b": 1}, ["old", "both", "a: 4 clips"],
    )  # fmt: skip


def test_a_class_of_another_package_says_itself_that_it_is_dear(table, monkeypatch):
    class Dear(Brightness):
        """A dear score of another package."""

        asked = True

        def __init__(self, *, offset: float = 0.0) -> None:
            self.offset = offset

    point = SimpleNamespace(name="dear", group="g", value="v", load=lambda: Dear)
    entry = Entry("evaluators", "dear", "", loader=partial(_load_entry_point, point))
    monkeypatch.setitem(table._entries, ("evaluators", "dear"), entry)
    asked = [{"name": "dear", "offset": 0.5}]
    layer = {"evaluation": {"scores": asked}}
    config = resolve(table, model="toy", dataset="toy-squares", preset="smoke", layers=[layer])
    assert config.evaluation.scores == asked
    with pytest.raises(UsageError, match="known: dear, factors"):
        resolve(
            table,
            model="toy",
            dataset="toy-squares",
            preset="smoke",
            layers=[{"evaluation": {"scores": ["pixels"]}}],
        )
