"""Dear scores: computed where they are asked for, also of cells that are done."""

import shutil
from abc import abstractmethod
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.plugin.toy_zoo.brightness import Brightness
from tests.runs.test_execute import forbid, numbers
from vdsm_bench.config import resolve
from vdsm_bench.contracts import Findings, MetricInfo, Score
from vdsm_bench.errors import UsageError
from vdsm_bench.files import read_json, write_json
from vdsm_bench.notation import parse_assignments
from vdsm_bench.registry import Entry, _entry_from_class, _load_entry_point
from vdsm_bench.runs.cell import plan_cells
from vdsm_bench.runs.pairs_table import read_pairs
from vdsm_bench.runs.protocol import ScoringProtocol
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
        ([{"name": "leakage", "folds": 3}, "leakage"], "names one evaluator twice"),
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


def filled(scores, long, histogram=(), notes=()):
    return {"scores": scores, "long": long, "histogram": list(histogram), "notes": list(notes)}


#: a row that evaluator A filled in an older version, and B beside it
ROW = {
    "scores": {"a": {"value": 1}, "a_old": {"value": 3}, "b": {"value": 2}},
    "long": [
        {"metric": "a by f", "factor": "f", "value": 1},
        {"metric": "a by g", "factor": "g", "value": 1},
        {"metric": "b by f", "factor": "f"},
    ],
    "chance": {"a": {"labels": 0.4}, "b": {"labels": 0.3}},
    "histogram": {"a": {"f": [1]}, "b": {"f": [2]}},
    "versions": {"a": 1, "a_old": 1, "b": 1},
    "notes": ["of b", "of both", "nothing serves 'f'", "a: 3 clips"],
}
FILLED = {
    "A": filled(
        ["a", "a_old"], ["a by f", "a by g"], ["a"], ["of both", "nothing serves 'f'", "a: 3 clips"]
    ),
    "B": filled(["b"], ["b by f"], ["b"], ["of b", "of both"]),
}
FOUND = {
    "scores": {"a": {"value": 9}},
    "long": [{"metric": "a by f", "factor": "g", "value": 9}],
    "chance": {}, "histogram": {}, "versions": {"a": 2},
    "notes": ["of both", "a: 4 clips"],
    "filled": {"A": filled(["a"], ["a by f"], [], ["of both", "a: 4 clips"])},
}  # fmt: skip


def test_what_an_evaluator_filled_goes_when_it_is_scored_again_and_all_else_stays():
    assert merged({**ROW, "filled": FILLED}, FOUND) == {
        "scores": {"a": {"value": 9}, "b": {"value": 2}},
        "long": [ROW["long"][2], FOUND["long"][0]],
        "chance": {"b": {"labels": 0.3}},
        "histogram": {"b": {"f": [2]}},
        "versions": {"a": 2, "b": 1},
        "notes": ["of b", "of both", "a: 4 clips"],
        "filled": {"A": FOUND["filled"]["A"], "B": FILLED["B"]},
    }


def test_of_a_row_that_does_not_say_who_filled_what_the_names_of_now_go():
    whole = merged(ROW, FOUND)
    assert [line["metric"] for line in whole["long"]] == ["a by g", "b by f", "a by f"]
    assert whole["scores"]["a"] == {"value": 9}
    assert whole["notes"] == ["of b", "nothing serves 'f'", "of both", "a: 4 clips"]
    assert whole["chance"] == {"b": {"labels": 0.3}}


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


class Measured(Brightness):
    """What a file says, as an own score; a file of another content is another fact."""

    metrics = (MetricInfo("measured", "none", 0.0, 1.0, "share", 1, "As the file says."),)
    file = 0.25

    def __init__(self, *, offset: float = 0.0, names: tuple[str, ...] = ("a",)) -> None:
        self.offset = offset

    @property
    def facts(self):
        return {"file": str(self.file)}

    def evaluate(self, outputs, request, judge):
        value = self.file + self.offset
        pairs = {"measured": np.full(len(request.pairs), value)}
        note = f"the file says {self.file}"
        return Findings({"measured": Score(value)}, notes=[note], per_pair=pairs)


class Shifted(Measured):
    """The same with another default."""

    def __init__(self, *, offset: float = 0.125, names: tuple[str, ...] = ("a",)) -> None:
        super().__init__(offset=offset, names=names)


def add_entry(monkeypatch, table, cls, name="mine"):
    entry = _entry_from_class("evaluators", name, cls, "a test")
    monkeypatch.setitem(table._entries, ("evaluators", name), entry)


def measured_everywhere(outcome, runs_dir):
    """Returns the score in the row, in the row of every control, and of every pair."""
    (controls,) = runs_dir.glob("judges/*/*/controls-*.json")
    pairs = read_pairs(outcome.folder).columns
    assert "transfer_accuracy" in pairs
    rows = [row["scores"] for row in read_json(controls)["rows"][1:]]  # the ceiling has judged ones
    found = {row["measured"]["value"] for row in [outcome.metrics["scores"], *rows]}
    return found | set(pairs["measured"])


def test_an_own_score_is_computed_anew_where_its_facts_or_its_arguments_are_others(
    bench, table, tmp_path, monkeypatch
):
    add_entry(monkeypatch, table, Measured)
    (first,), _ = bench(runs_dir=tmp_path)
    assert measured_everywhere(first, tmp_path) == {0.25}
    forbid(monkeypatch, "Trainer", "write_media")
    with monkeypatch.context() as same:
        forbid(same, "build_model")
        assert bench(runs_dir=tmp_path)[0][0].metrics == first.metrics

    monkeypatch.setattr(Measured, "file", 0.5)
    (other_fact,), listener = bench(runs_dir=tmp_path)
    assert measured_everywhere(other_fact, tmp_path) == {0.5}
    assert other_fact.folder == first.folder
    said = [note for note in other_fact.metrics["notes"] if "file" in note]
    assert said == ["the file says 0.5"]
    assert any("adding mine" in line for line in listener.lines)

    add_entry(monkeypatch, table, Shifted)
    (other_default,), _ = bench(runs_dir=tmp_path)
    assert measured_everywhere(other_default, tmp_path) == {0.625}
    with monkeypatch.context() as same:
        forbid(same, "build_model")
        assert bench(runs_dir=tmp_path)[0][0].metrics == other_default.metrics


def test_a_dear_score_of_another_package_runs_where_it_is_asked_for_with_its_arguments(
    own, table, monkeypatch
):
    add_entry(monkeypatch, table, type("Dear", (Measured,), {"asked": True, "__doc__": "Dear."}))
    (plain,), _ = own()
    assert "measured" not in plain.metrics["scores"]
    (asked,), _ = own({"evaluation": {"scores": [{"name": "mine", "offset": 0.0625}]}})
    assert asked.metrics["scores"]["measured"]["value"] == 0.3125
    monkeypatch.setattr(Measured, "file", 0.5)
    (again,), _ = own({"evaluation": {"scores": [{"name": "mine", "offset": 0.0625}]}})
    assert again.metrics["scores"]["measured"]["value"] == 0.5625
    assert again.folder == plain.folder
    assert "measured" in read_pairs(again.folder).columns
    empty = Findings({"measured": Score(None, reason="the file is empty")})
    monkeypatch.setattr(Measured, "file", 0.0)
    monkeypatch.setattr(Measured, "evaluate", lambda *_: empty)
    (nothing,), _ = own({"evaluation": {"scores": [{"name": "mine", "offset": 0.0625}]}})
    assert nothing.metrics["scores"]["measured"]["reason"] == "the file is empty"
    left = read_pairs(nothing.folder).columns  # without those of the file that was
    assert "measured" not in left
    assert "transfer_accuracy" in left


TAKEN = {
    "metrics": (MetricInfo("mse", "none", 0.0, 1.0, "share", 1, "Taken."),),
    "evaluate": lambda *_: Findings({"mse": Score(0.0)}),
    "__doc__": "T.",
}


def refuse(self):
    raise OSError("its file is gone")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"metrics": Brightness.metrics[0]}, "have to be a tuple of MetricInfo"),
        ({"metrics": None}, "have to be a tuple of MetricInfo"),
        ({"evaluate": abstractmethod(lambda *_: None)}, "abstract"),
        ({"__init__": refuse}, "its file is gone"),
        ({"facts": property(refuse)}, "its file is gone"),
        ({"facts": {"file": Path("x")}}, "not JSON serializable"),
    ],
)
def test_an_evaluator_of_another_package_that_cannot_be_built_is_left_out(
    own, table, monkeypatch, members, said
):
    add_entry(monkeypatch, table, type("Bad", (Brightness,), {**members, "__doc__": "B."}), "bad")
    monkeypatch.setattr(ScoringProtocol, "judge_weights", lambda *_: "others")  # scored again
    (outcome,), listener = own()
    assert outcome.state == "done"
    (line,) = {line for line in listener.lines if "evaluators/bad is left out" in line}
    assert said in line


@pytest.mark.parametrize("name", ["a-first", "z-last"])
def test_a_column_of_another_evaluator_is_left_alone_also_in_a_row_that_is_done(
    own, table, monkeypatch, name
):
    (plain,), _ = own()
    add_entry(monkeypatch, table, type("Taken", (Measured,), TAKEN), name)
    (outcome,), _ = own()
    assert outcome.metrics == plain.metrics
    monkeypatch.setattr(ScoringProtocol, "judge_weights", lambda *_: "others")  # scored again
    (again,), listener = own()
    assert again.metrics["scores"]["mse"] == plain.metrics["scores"]["mse"]
    (line,) = {line for line in listener.lines if f"evaluators/{name} is left out" in line}
    assert "the column 'mse' is that of evaluators/" in line

    add_entry(monkeypatch, table, type("Taken", (Measured,), {**TAKEN, "asked": True}), name)
    (asked,), _ = own({"evaluation": {"scores": [name]}})
    assert (asked.state, asked.exit_code) == ("failed", 5)
    assert "the column 'mse' is that of" in asked.error


def test_one_that_is_asked_for_and_cannot_be_built_ends_its_cell_by_its_name(
    own, table, monkeypatch
):
    members = {"asked": True, "__init__": refuse, "__doc__": "B."}
    add_entry(monkeypatch, table, type("Bad", (Brightness,), members), "bad")
    (outcome,), _ = own({"evaluation": {"scores": ["bad"]}})
    assert (outcome.state, outcome.exit_code) == ("failed", 5)
    assert "evaluators/bad" in outcome.error
    assert "next:" in outcome.error


def test_an_evaluator_of_another_package_that_fails_ends_its_cell_with_5(
    bench, table, tmp_path, monkeypatch
):
    add_entry(monkeypatch, table, type("Bad", (Brightness,), {"evaluate": refuse_all}), "bad")
    (outcome,), _ = bench(runs_dir=tmp_path)
    assert (outcome.state, outcome.exit_code) == ("failed", 5)
    assert "evaluators/bad fails: OSError: no file" in outcome.error


def refuse_all(self, outputs, request, judge):
    raise OSError("no file")
