from dataclasses import replace

import pytest

from tests.runs.cells import TABLE, make_cell
from vdsm_bench.config import PRECISIONS, resolve
from vdsm_bench.errors import UsageError
from vdsm_bench.notation import parse_assignments
from vdsm_bench.registry import Registry, load_registry
from vdsm_bench.runs.cell import (
    Cell,
    KnownCells,
    cell_key,
    changes,
    comparable,
    folder_name,
    plan_cells,
)

DATA, PROTOCOL = {"content": "c", "splits": "s"}, {"judge": "j"}


def key_of(*assignments, model="toy", seed=0, data=DATA, protocol=PROTOCOL):
    config = resolve(
        TABLE,
        model=model,
        dataset="faces",
        seed=seed,
        layers=[parse_assignments(assignments)],
    )
    return cell_key(TABLE, config, data=data, protocol=protocol)


def test_the_order_of_flags_and_the_spelling_of_defaults_change_nothing():
    one = key_of("model.pose_dim=8", "model.motion_dim=9")
    assert one == key_of("model.motion_dim=9", "model.pose_dim=8")
    assert one.key == key_of(model="toy[motion_dim=9,pose_dim=8]").key
    assert key_of().key == key_of("model.pose_dim=30").key
    assert key_of().key == key_of("evaluation.batch_size=1").key


@pytest.mark.parametrize("model", ["vdsm[pixel_scale=1]", "vdsm[temperature=[10,10]]"])
def test_a_whole_number_is_the_same_as_one_with_a_point(model):
    table = load_registry()
    written = [model, model.replace("1]", "1.0]").replace("10", "10.0")]
    cells = [
        plan_cells(table, models=[one], datasets=["mug-synthetic"], seeds=[0], preset="small")[0]
        for one in written
    ]
    keys = {cell_key(table, cell.config, data={}, protocol={}).key for cell in cells}
    assert len(keys) == 1


@pytest.mark.parametrize(
    "changed",
    [
        key_of(seed=1),
        key_of("model.pose_dim=31"),
        key_of("data.frames=5"),
        key_of("judge.epochs=1"),
        key_of("model.decoder=single"),
        key_of("model.encoder.width=9"),
        key_of("evaluation.pairs=5"),
        key_of("training.sequence.epochs=1"),
        key_of(data={**DATA, "content": "d"}),
        key_of(protocol={"judge": "k"}),
    ],
)
def test_whatever_changes_a_number_changes_the_key(changed):
    assert changed.key != key_of().key


def test_float32_is_no_part_of_the_key_and_bf16_is():
    """Cells from before there was a choice keep their keys."""
    cell = Cell(resolve(TABLE, model="toy", dataset="faces"), "toy")
    keys = {precision: cell_key(TABLE, cell.at(precision).config, data=DATA, protocol=PROTOCOL)
            for precision in PRECISIONS}  # fmt: skip
    assert "precision" not in keys["32"].inputs["config"]
    assert keys["32"].key == key_of().key
    assert keys["bf16"].inputs["config"] == {**keys["32"].inputs["config"], "precision": "bf16"}
    assert keys["bf16"].key != keys["32"].key
    assert keys["bf16"].group != keys["32"].group
    assert changes(TABLE, cell.at("bf16").config) == {"precision": "bf16"}


def _at_version(version, kind, name):
    table = Registry()
    for each in ("models", "encoders", "decoders", "datasets", "presets"):
        for entry in (TABLE.get(each, known) for known in TABLE.names(each)):
            changed = (each, entry.name) == (kind, name)
            table.add(replace(entry, version=version) if changed else entry)
    return table


def test_cells_of_another_version_are_not_found(tmp_path):
    made = make_cell(tmp_path, seed=3)
    config = resolve(TABLE, model="toy", dataset="faces", seed=3)
    assert KnownCells(TABLE, tmp_path).seeds(config)[3].path == made.path
    for kind, name in (("models", "toy"), ("encoders", "conv")):
        assert not KnownCells(_at_version(2, kind, name), tmp_path).seeds(config)
    assert KnownCells(_at_version(2, "decoders", "single"), tmp_path).seeds(config)  # not its part


@pytest.mark.parametrize(("kind", "name"), [("models", "toy"), ("decoders", "single")])
def test_code_that_gives_other_numbers_is_another_cell(kind, name):
    def key(version):
        table = _at_version(version, kind, name)
        config = resolve(TABLE, model="toy[decoder=single]", dataset="faces")
        return cell_key(table, config, data=DATA, protocol=PROTOCOL).key

    assert key(1) != key(2) != key(3)


def test_only_seeds_share_a_group():
    assert key_of(seed=1).group == key_of(seed=2).group
    assert key_of("data.frames=5").group != key_of().group


def test_what_leaves_the_preset_is_named_and_nothing_else():
    given = ["training.sequence.epochs=1", "data.frames=8", "model.pose_dim=9"]
    given += ["judge.floor=0.5", "evaluation.batch_size=1"]
    config = resolve(TABLE, model="toy", dataset="faces", seed=3, layers=[parse_assignments(given)])
    assert changes(TABLE, config) == {"training.sequence.epochs": 1, "judge.floor": 0.5}


def test_folder_names_are_safe_and_distinct():
    assert folder_name("vdsm[decoder=single]") == "vdsm[decoder=single]"
    assert "/" not in folder_name("m[path=../../etc]")
    assert len(folder_name("m[" + "x" * 500 + "]")) < 130
    assert folder_name("m[a=1/2]") != folder_name("m[a=1_2]")


def test_plan_is_the_product_without_repetitions():
    cells = plan_cells(
        TABLE,
        models=["toy", "toy[decoder=single]", "toy"],
        datasets=["faces", "sprites"],
        seeds=[0, 1, 0],
        preset="small",
    )
    assert len(cells) == len({cell.label for cell in cells}) == 8
    assert cells[0].label == "faces/toy/small-seed0"
    assert "batch_size" not in comparable(cells[0].config)["evaluation"]


def test_a_wrong_name_stops_the_plan():
    with pytest.raises(UsageError, match="did you mean 'toy'"):
        plan_cells(TABLE, models=["tyo"], datasets=["faces"], seeds=[0], preset="small")
