"""Suites: which cells a named list stands for, and what is refused."""

from dataclasses import replace

import pytest

from tests.runs.cells import TABLE, make_cell
from vdsm_bench.errors import UsageError
from vdsm_bench.registry import Entry
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.pairs_table import read_pairs
from vdsm_bench.runs.plan import describe_plan
from vdsm_bench.runs.suites import Suite, load_suite, plan_suite

BODY = """
models: [toy]
datasets: [faces]
seeds: [0, 1]
settings: {data: {frames: 4}}
ablations: [single]
variants:
  lr-low: {change: {training: {sequence: {learning_rate: 1.0e-4}}}}
  pose-8: {change: {model: {pose_dim: 8}}, datasets: {faces: {model: {pose_dim: 9}}}}
"""
ABLATION = Entry(
    "ablations", "single", "One decoder.", settings={"change": {"model": {"decoder": "single"}}}
)
KNOWN = TABLE.extended([ABLATION])


def suite_of(tmp_path, text=BODY):
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    return load_suite(KNOWN, str(path))


def test_a_suite_is_the_base_and_every_change_of_it_seed_by_seed(tmp_path):
    cells = plan_suite(KNOWN, suite_of(tmp_path))
    names = [(cell.config.seed, cell.variant) for cell in cells]
    assert names == [(s, v) for s in (0, 1) for v in (None, "single", "lr-low", "pose-8")]
    base, single, low, pose = cells[:4]
    assert {cell.config.data.frames for cell in cells} == {4}
    assert base.label == "faces/toy/small-seed0"
    assert single.instance == "toy[decoder=single]"
    assert low.config.training["sequence"].learning_rate == 1e-4
    assert low.label == "faces/toy/small-seed0 (lr-low)"
    assert pose.config.model.arguments["pose_dim"] == 9


def test_what_the_user_gives_wins_and_patterns_choose(tmp_path):
    suite = suite_of(tmp_path).model_copy(update={"seeds": [3]})
    layer = {"data": {"frames": 6}}
    cells = plan_suite(KNOWN, suite, only=["lr-*", "base"], layers=[layer])
    assert [cell.variant for cell in cells] == [None, "lr-low"]
    assert {(cell.config.data.frames, cell.config.seed) for cell in cells} == {(6, 3)}


def test_a_change_may_be_for_datasets_like_another(tmp_path):
    table = KNOWN.extended([Entry("datasets", "more-faces", "", "m:C", settings={"like": "faces"})])
    suite = suite_of(tmp_path).model_copy(update={"datasets": ["more-faces", "sprites"]})
    found = plan_suite(table, suite, only=["pose-8"])
    assert [cell.config.model.arguments["pose_dim"] for cell in found[:2]] == [9, 8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [faces]", "'models'"),
        ("models: [toy]\ndatasets: [faces]\nvariant: {}", "did you mean 'variants'"),
        (BODY + "  base: {}", "two variants called 'base'"),
        (BODY + "  lr-x: {change: {training: {sequense: {epochs: 1}}}}", "Variant 'lr-x': .*stage"),
        (BODY + "  odd: {change: {model: {pose: 1}}}", "Variant 'odd'"),
        (BODY.replace("[single]", "[singel]"), "did you mean 'single'"),
        (BODY + "  far: {datasets: {spritez: {}}}", "'far': .*'spritez'.*did you mean 'sprites'"),
        (BODY + "  one: {}\n  one: {}", "'one' stands there twice"),
    ],
)
def test_a_suite_with_a_slip_of_the_pen_is_refused_before_anything_runs(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        plan_suite(KNOWN, suite_of(tmp_path, text))


def test_a_pattern_or_a_name_that_fits_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--only lr-lo fits no variant \(did you mean 'lr-low'"):
        plan_suite(KNOWN, suite_of(tmp_path), only=["lr-lo"])
    with pytest.raises(UsageError, match="no 'recipes' among the suites|There is no 'recipes'"):
        load_suite(KNOWN, "recipes")


def test_the_plan_knows_each_seed_of_each_variant(tmp_path):
    make_cell(tmp_path, seed=1, layers=[{"data": {"frames": 4}}])
    make_cell(tmp_path, seed=0, model="toy[pose_dim=9]", layers=[{"data": {"frames": 4}}])
    cells = plan_suite(KNOWN, suite_of(tmp_path))
    plan = describe_plan(TABLE, cells, tmp_path, precision="auto", fresh=False)
    done = [
        (cell.variant, cell.config.seed)
        for cell, item in zip(cells, plan, strict=True)
        if item["action"] == "reuse"
    ]
    assert done == [("pose-8", 0), (None, 1)]


def test_scored_on_validation_clips_a_row_never_sees_a_test_clip(bench, monkeypatch, tmp_path):
    def refuse(rows):
        raise AssertionError("a test clip was asked for")

    def unread(self):
        return replace(self.clips(self.splits.test), clips=refuse)

    layer = {"evaluation": {"part": "validation"}}
    bench(layer=layer, runs_dir=tmp_path)  # the judge is examined on test clips, once
    monkeypatch.setattr(Bench, "test", property(unread))
    (outcome,), _ = bench(layer=layer, seeds=(1,), runs_dir=tmp_path)
    monkeypatch.undo()
    assert (outcome.state, outcome.metrics["protocol"]["part"]) == ("done", "validation")
    (tested,), _ = bench(runs_dir=tmp_path)
    assert tested.metrics["protocol"]["part"] == "test"
    assert tested.metrics["group"] != outcome.metrics["group"]
    clips = [
        {clip for pair in read_pairs(cell.folder).ids for clip in pair.split("-")}
        for cell in (tested, outcome)
    ]
    assert clips[0]
    assert not clips[0] & clips[1]


def test_a_suite_may_be_made_in_a_program():
    suite = Suite(models=["toy"], datasets=["faces", "sprites"])
    assert [cell.label for cell in plan_suite(KNOWN, suite)] == [
        "faces/toy/small-seed0",
        "sprites/toy/small-seed0",
    ]
