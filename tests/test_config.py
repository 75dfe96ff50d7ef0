"""One order of precedence, no unknown key anywhere."""

import json

import pytest

from tests.runs.cells import small_table
from vdsm_bench.config import (
    CellConfig,
    content_key,
    merge,
    resolve,
)
from vdsm_bench.errors import UsageError
from vdsm_bench.notation import parse_assignments, parse_instance, read_config_file
from vdsm_bench.registry import Entry


def table_with(**preset):
    table = small_table()
    table.add(Entry("presets", "p", "A preset.", settings=preset))
    table.add(Entry("datasets", "real", "Clips.", "m:C", settings={"like": "faces"}))
    return table


def resolved(table, *layers, model="toy", dataset="faces", preset="p", seed=0):
    return resolve(
        table, model=model, dataset=dataset, preset=preset, seed=seed, layers=list(layers)
    )


def test_precedence_registry_preset_file_set():
    table = table_with(
        settings={"data": {"frames": 2}},
        models={
            "toy": {
                "settings": {"data": {"frames": 3}, "training": {"sequence": {"epochs": 7}}},
                "datasets": {"faces": {"data": {"frames": 4}}},
            }
        },
    )
    assert resolved(table, preset="small").data.frames == 8
    assert resolved(table, dataset="sprites").data.frames == 3
    config = resolved(table)
    assert config.data.frames == 4
    assert (config.training["pretrain"].epochs, config.training["sequence"].epochs) == (2, 7)
    file, assignment = {"data": {"frames": 5}}, {"data": {"frames": 6}}
    assert resolved(table, file).data.frames == 5
    assert resolved(table, file, assignment).data.frames == 6


def test_a_dataset_takes_the_settings_of_the_one_it_is_like():
    presets = {"faces": {"data": {"frames": 11}}, "real": {"data": {"stride": 2}}}
    table = table_with(datasets=presets)
    config = resolved(table, dataset="real")
    assert (config.data.frames, config.data.stride) == (11, 2)


def test_the_split_is_the_dataset_s_unless_asked_for():
    assert resolved(small_table(), preset="small").data.split == "clips"
    chosen = resolved(small_table(), {"data": {"split": "cells"}}, preset="small")
    assert chosen.data.split == "cells"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("dta.frames=3", "did you mean 'data'"),
        ("data.frmes=3", "did you mean 'frames'"),
        ("judge.flor=0.5", "did you mean 'floor'"),
        ("judge.seeds=[0,0]", "none may be named twice"),
        ("judge.seeds=[]", "judge.seeds"),
        ("judge.architectures=[cnn-4d]", "'cnn-gru' or 'cnn-3d'"),
        ("training.sequence.epoch=3", "did you mean 'epochs'"),
        ("training.sequnce.epochs=3", "did you mean 'sequence'"),
        ("model.pose_dmi=3", "did you mean 'pose_dim'"),
        ("model.encoder.widht=3", "did you mean 'width'"),
        ("model.encoder=cnov", "did you mean 'conv'"),
        ("data.frames=many", "data.frames"),
        ("data.frames=0", "data.frames"),
        ("evaluation.bootstrap=1", "evaluation.bootstrap"),
        ("data.frames=true", "data.frames"),
        ("data.dataset=sprites", "cannot be set"),
        ("training.sequence.learning_rate=.inf", "finite"),
        ("seed=3", "Unknown key 'seed'"),
        ("data=3", "write data.KEY=VALUE"),
    ],
)
def test_an_unknown_key_or_value_is_refused_with_a_suggestion(assignment, message):
    with pytest.raises(UsageError, match=message):
        resolved(small_table(), parse_assignments([assignment]), preset="small")


@pytest.mark.parametrize("text", ["frames", "=3", ""])
def test_an_assignment_needs_key_and_value(text):
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_assignments([text])


def test_a_part_s_argument_joins_the_part_that_is_there():
    config = resolved(small_table(), parse_assignments(["model.encoder.width=9"]), preset="small")
    assert config.model.arguments == {"encoder": {"name": "conv", "width": 9}}
    assert config.instance(small_table()) == "toy[encoder=conv[width=9]]"


def test_instance_names_are_canonical_and_read_back():
    table = small_table()
    config = resolved(table, model="toy[pose_dim=3, decoder=single]", preset="small")
    assert config.instance(table) == "toy[decoder=single,pose_dim=3]"
    assert parse_instance(config.instance(table)) == (
        "toy",
        {"decoder": "single", "pose_dim": 3},
    )
    assert resolved(table, model="toy[pose_dim=30]", preset="small").instance(table) == "toy"
    assert parse_instance("toy[encoder=conv[width=9,b=2],pose_dim=1]")[1] == {
        "encoder": {"name": "conv", "width": 9, "b": 2},
        "pose_dim": 1,
    }


@pytest.mark.parametrize("text", ["toy[", "toy]", "toy[pose_dim]", "", "[a=1]"])
def test_a_broken_instance_name_is_refused(text):
    with pytest.raises(UsageError):
        parse_instance(text)


def test_a_configuration_survives_json():
    config = resolved(small_table(), preset="small")
    assert CellConfig.model_validate(json.loads(config.model_dump_json())) == config


def test_merge_leaves_its_arguments_alone():
    low, high = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(low, high) == {"a": {"b": 1, "c": 2}}
    assert (low, high) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_content_key_ignores_the_order_of_keys():
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 2})


@pytest.mark.parametrize("content", ["a: [", "- 1", "3", "\x00"])
def test_a_broken_file_is_a_usage_error_that_names_it(tmp_path, content):
    path = tmp_path / "cell.yaml"
    path.write_text(content)
    with pytest.raises(UsageError, match="cell.yaml"):
        read_config_file(path)


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="nowhere.yaml"):
        read_config_file(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "text", ["data.frames=[", "data.frames=!!python/name:os.system", "data.frames=2020-01-01"]
)
def test_a_value_that_does_not_read_is_refused(text):
    with pytest.raises(UsageError, match="does not read"):
        parse_assignments([text])


@pytest.mark.parametrize("text", ["toy[a=[]", "toy[a=3][b=1]", "toy[a=b: c: d]"])
def test_brackets_that_do_not_match_are_refused(text):
    with pytest.raises(UsageError, match="do not match|does not read"):
        parse_instance(text)


@pytest.mark.parametrize("text", ["3: {a: 1}", "training: {3: {epochs: 1}}", "model: {3: 1}"])
def test_a_key_that_is_no_text_is_refused(tmp_path, text):
    path = tmp_path / "cell.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="is no text"):
        read_config_file(path)


@pytest.mark.parametrize("text", ["data: {frames: 6}\ndata: {stride: 3}", "a: {b: 1, b: 1}"])
def test_a_key_that_stands_twice_is_refused(tmp_path, text):
    path = tmp_path / "cell.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="stands there twice"):
        read_config_file(path)
    with pytest.raises(UsageError, match="'pose_dim' stands twice"):
        parse_instance("toy[pose_dim=3,encoder=conv,pose_dim=4]")


def test_what_a_merge_key_brings_may_be_changed(tmp_path):
    path = tmp_path / "cell.yaml"
    path.write_text("data: &usual {frames: 6, stride: 1}\nmodel: {<<: *usual, stride: 3}")
    assert read_config_file(path)["model"] == {"frames": 6, "stride": 3}


def test_a_number_without_a_dot_is_a_number():
    assert parse_assignments(["a.b=1e-3", "a.c=[-2E4, 3, 1e3x]"]) == {
        "a": {"b": 1e-3, "c": [-2e4, 3, "1e3x"]}
    }


def test_another_part_takes_none_of_the_arguments_of_the_one_before():
    table = small_table()
    table.add(Entry("encoders", "deep", "An encoder.", "m:Deep", {"depth": 3}))
    low = {"model": {"encoder": {"name": "conv", "width": 9}}}
    high = {"model": {"encoder": {"name": "deep", "depth": 2}}}
    config = resolved(table, low, high, preset="small")
    assert config.model.arguments == {"encoder": {"name": "deep", "depth": 2}}


def test_pairs_of_an_odd_number_of_frames_are_refused():
    layer = {"training": {"sequence": {"pairs": True, "frames": 5}}}
    with pytest.raises(UsageError, match="even, not 5"):
        resolved(small_table(), layer, preset="small")
