"""Recipes: how a model is trained, under what the user gives and over every preset."""

import pytest
import torch
from torch import nn

from vdsm_bench.config import resolve
from vdsm_bench.contracts import ClipShape
from vdsm_bench.errors import UsageError
from vdsm_bench.registry import load_registry
from vdsm_bench.runs.cell import cell_key, changes, comparable

TABLE = load_registry()
PRESETS = TABLE.names("presets")
DATASETS = ("mug-synthetic", "sprites", "sprites-1296", "mmnist-synthetic", "pendula")
#: what a recipe leaves to the preset
SIZES = {
    "pose_dim", "identity_dim", "motion_dim", "rnn_width", "rnn_layers", "rnn_dropout",
    "transition_width", "encoder", "decoder", "pixel_scale",
}  # fmt: skip
#: the paper's text, tables and figures
PAPER = {
    "start": "torch", "likelihood": "bernoulli", "temperature": [1.0, 10.0],
    "pose_kl": [30.0, 0.2, 0.4, 1.0], "pose_kl_shape": "spline", "pose_shut": 0.0,
    "pose_scale": None, "identity_kl": [0.1, 1.0], "identity_from": "clip",
    "identity_slope": 0.01, "identity_frozen": False, "sequence_pose_kl": [0.1, 0.4, 0.4, 1.0],
    "pose_match": [0.0, 0.0],
    "pose_encoder": "shared",
    "pose_likeness": 0.0, "identity_reward": 0.0,
}  # fmt: skip


def resolved(model, dataset="sprites", preset="small", *layers):
    return resolve(TABLE, model=model, dataset=dataset, preset=preset, layers=layers)


@pytest.mark.parametrize(
    ("preset", "size", "judges"),
    [("smoke", 32, 1), ("small", 32, 1), ("medium", 64, 6), ("paper", 64, 6)],
)
@pytest.mark.parametrize("dataset", DATASETS)
def test_presets_are_what_the_readme_says(preset, size, judges, dataset):
    config = resolved("vdsm", dataset, preset)
    assert (config.data.image_size, len(config.judge.choices)) == (size, judges)
    pairs = preset != "paper" or dataset.startswith("sprites")
    assert config.training["pretrain"].pairs == pairs


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_as_published_nothing_leaves_the_paper_under_any_preset(preset, dataset):
    config = resolved("vdsm[recipe=published]", dataset, preset)
    arguments = {**TABLE.get("models", "vdsm").defaults, **config.model.arguments}
    assert {key: value for key, value in arguments.items() if key not in SIZES} == PAPER
    assert (arguments["encoder"]["start"], arguments["decoder"]["start"]) == ("torch", "torch")
    assert arguments["decoder"]["first_picture"] == "grey"
    assert arguments["encoder"]["first_colours"] == "rgb"
    first, second = config.training["pretrain"], config.training["sequence"]
    for stage in (first, second):
        assert (stage.gradient_clip, stage.warm_up, stage.cool_down) == (None, 0, 0.0)
        assert stage.warm_up_again is False
    assert second.learning_rate == 1e-3
    sprites = dataset.startswith("sprites")
    rate = 8e-3 if sprites else 5e-4 if dataset == "pendula" else 1e-3
    assert first.learning_rate == rate
    assert (first.pairs, first.frames) == ((True, 16) if sprites else (False, None))


@pytest.mark.parametrize("preset", PRESETS)
def test_sizes_and_steps_stay_the_presets(preset):
    ours, published = (resolved(m, "sprites", preset) for m in ("vdsm", "vdsm[recipe=published]"))
    for stage in ("pretrain", "sequence"):
        for key in ("epochs", "batches_per_epoch", "batch_size"):
            assert getattr(ours.training[stage], key) == getattr(published.training[stage], key)
    for key in SIZES - {"encoder", "decoder"}:
        assert ours.model.arguments.get(key) == published.model.arguments.get(key)
    assert ours.data == published.data


def test_the_recipe_is_in_the_name_and_what_it_says_is_not():
    config = resolved("vdsm[recipe=published]")
    assert config.instance(TABLE) == "vdsm[recipe=published]"
    assert changes(TABLE, config) == {}
    other = resolved("vdsm", "sprites", "small", {"model": {"recipe": "published"}})
    assert other == config
    assert resolved(config.instance(TABLE)) == config
    default = resolved("vdsm[recipe=tuned]")
    assert (default, default.instance(TABLE)) == (resolved("vdsm"), "vdsm")


def test_what_is_given_wins_over_the_recipe_and_is_named():
    layer = {"training": {"pretrain": {"learning_rate": 2e-3}}}
    config = resolved(
        "vdsm[recipe=published,pose_shut=0.2,decoder=single]", "sprites", "small", layer
    )
    assert config.instance(TABLE) == "vdsm[decoder=single,pose_shut=0.2,recipe=published]"
    assert config.model.arguments["decoder"] == {
        "name": "single",
        "widths": [64, 64, 32],
        "start": "torch",
        "first_picture": "grey",
    }
    assert config.model.arguments["pose_shut"] == 0.2
    assert changes(TABLE, config) == {"training.pretrain.learning_rate": 2e-3}


@pytest.mark.parametrize(
    ("model", "preset", "part", "expected"),
    [
        ("vdsm[decoder=single]", "small", "decoder", {"name": "single", "widths": [64, 64, 32]}),
        ("vdsm[decoder=single]", "paper", "decoder", "single"),
        ("vdsm[decoder=single[widths=[8,8,8]]]", "small", "decoder", {"widths": [8, 8, 8]}),
        ("vdsm[decoder=single[widths=null]]", "small", "decoder", {"widths": None}),
        ("vdsm[encoder=blurpool-released]", "small", "encoder", "blurpool-released"),
        ("vdsm[encoder=timm]", "small", "encoder", "timm"),
        ("vdsm[decoder=single,recipe=published]", "small", "decoder",
         {"widths": [64, 64, 32], "start": "torch", "first_picture": "grey"}),
        ("vdsm[encoder=blurpool-released,recipe=published]", "small", "encoder",
         {"start": "torch"}),
        ("vdsm[encoder=timm[backbone=resnet10t],recipe=published]", "paper", "encoder",
         {"backbone": "resnet10t"}),
        ("vdsm[encoder=timm[backbone=resnet10t],recipe=published]", "small", "encoder",
         {"backbone": "resnet10t"}),
    ],
)  # fmt: skip
def test_a_part_in_anothers_place_keeps_what_both_take(model, preset, part, expected):
    """The kind of a part is one lever; how wide it is, or how it starts, is another."""
    config = resolved(model, "sprites", preset)
    found = config.model.arguments[part]
    if isinstance(expected, dict):
        expected = {"name": found["name"], **expected}
    assert found == expected
    assert config.instance(TABLE) == model.replace("8,8,8", "8, 8, 8")  # and no more is said
    assert resolved(config.instance(TABLE), "sprites", preset) == config


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("recipe", ["tuned", "published"])
@pytest.mark.parametrize(
    "part", ["encoder=blurpool", "encoder=blurpool-released", "encoder=timm[backbone=resnet10t]",
             "decoder=mixture-of-experts", "decoder=single"],
)  # fmt: skip
def test_every_part_can_be_built_under_every_preset(preset, recipe, part):
    config = resolved(f"vdsm[{part},recipe={recipe},identity_dim=2]", "sprites", preset)
    size = config.data.image_size
    vdsm = TABLE.factory("models", "vdsm", config.model.arguments)(clip=ClipShape(8, 3, size, size))
    assert vdsm.encoder(torch.rand(2, 3, size, size)).shape == (2, vdsm.encoder.feature_dim)


def test_the_key_is_of_the_numbers_not_of_the_recipes_name():
    config = resolved("vdsm[recipe=published]", "mug-synthetic", "paper")
    spelt = resolve(
        TABLE,
        model="vdsm",
        dataset="mug-synthetic",
        preset="paper",
        layers=[{"model": config.model.arguments}],
    )
    keys = [cell_key(TABLE, each, data={}, protocol={}) for each in (config, spelt)]
    assert keys[0] == keys[1]
    assert comparable(config) != comparable(spelt)


def test_a_recipe_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="no recipe 'publish' .did you mean 'published'"):
        resolved("vdsm[recipe=publish]")


def test_as_published_every_weight_starts_where_torch_starts_it():
    """Linear and convolution weights: U(-b, b), b = 1 / sqrt(fan-in); nothing scaled, no zeros."""
    config = resolved("vdsm[recipe=published]", "sprites", "small")
    torch.manual_seed(0)
    vdsm = TABLE.factory("models", "vdsm", config.model.arguments)(clip=ClipShape(8, 3, 32, 32))
    layers = [m for m in vdsm.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        if layer is vdsm.transition.linear:
            continue  # starts as the identity, in the paper too
        bound = layer.weight[0].numel() ** -0.5
        assert bound > layer.weight.abs().max() > 0.9 * bound
        assert 0 < layer.bias.abs().max() < bound
