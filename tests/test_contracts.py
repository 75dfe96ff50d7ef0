"""Every built-in component keeps its contract; the registry is enumerated, nothing listed here."""

import json

import pytest
import torch

from vdsm_bench.config import preset_arguments, resolve
from vdsm_bench.contracts import Batch, ClipShape, Progress, check_clip
from vdsm_bench.errors import UsageError
from vdsm_bench.registry import load_registry

TABLE = load_registry()
CLIP = ClipShape(frames=4, channels=3, height=64, width=64)
#: arguments that make a component small, or fit 64 x 64; a component not listed is built as it is
SMALL = {"decoders": {"widths": [8, 6, 5, 4]}, "timm": {"backbone": "resnet10t"}}


def _own(kind):
    """Names of the kind that this package declares; other packages check their own."""
    return [n for n in TABLE.names(kind) if TABLE.peek(kind, n).origin == "registry.yaml"]


def _build(kind, name, **context):
    arguments = {**SMALL.get(kind, {}), **SMALL.get(name, {})}
    return TABLE.factory(kind, name, arguments)(**context)


def _gradients(module, output):
    module.zero_grad(set_to_none=True)
    output.square().sum().backward()
    return {name: p.grad for name, p in module.named_parameters()}


@pytest.mark.parametrize("name", _own("encoders"))
def test_encoder(name):
    torch.manual_seed(0)
    encoder = _build("encoders", name, clip=CLIP)
    frames = torch.rand(3, 3, 64, 64)
    features = encoder(frames)
    assert features.shape == (3, encoder.feature_dim)
    assert features.dtype == torch.float32
    for key, gradient in _gradients(encoder, features).items():
        assert gradient is not None, key
        assert torch.isfinite(gradient).all(), key
    encoder.eval()
    again = _build("encoders", name, clip=CLIP).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(frames), encoder(frames), rtol=0, atol=0)
    torch.testing.assert_close(encoder(frames[:1])[0], encoder(frames)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", _own("decoders"))
@pytest.mark.parametrize(("n", "t"), [(1, 1), (3, 4)])
def test_decoder(name, n, t):
    torch.manual_seed(0)
    decoder = _build("decoders", name, clip=CLIP, pose_dim=5, identity_dim=4)
    pose, weights = torch.randn(n, t, 5), torch.softmax(torch.randn(n, 4), -1)
    clip = decoder(pose, weights)
    assert check_clip(clip, name, frames=t).shape == (n, t, 3, 64, 64)
    torch.testing.assert_close(clip, torch.sigmoid(decoder.logits(pose, weights)))
    for key, gradient in _gradients(decoder, clip).items():
        assert gradient is not None, key
        assert gradient.abs().sum() > 0, key


def _model(name, preset="smoke", seed=0):
    config = resolve(TABLE, model=name, dataset="mug-synthetic", preset=preset)
    clip = ClipShape(config.data.frames, 3, config.data.image_size, config.data.image_size)
    torch.manual_seed(seed)
    return TABLE.factory("models", name, config.model.arguments)(clip=clip), clip, config


@pytest.mark.parametrize("name", _own("models"))
def test_model(name):
    model, shape, config = _model(name)
    size = (shape.frames, shape.channels, shape.height, shape.width)
    clip = torch.rand(3, *size)
    assert {stage.name for stage in model.stages()} == set(config.training)
    trained = set()
    for stage in model.stages():
        for player in stage.players:
            model.zero_grad(set_to_none=True)
            losses = player.loss(Batch(clip, pairs=False), Progress(0, 2, 0, 4))
            assert losses.total.ndim == 0
            losses.total.backward()
            for parameter in player.parameters:
                assert parameter.grad is not None
            trained |= {id(parameter) for parameter in player.parameters}
    assert trained == {id(parameter) for parameter in model.parameters()}
    model.eval()
    if {"encode", "generate"} <= model.capabilities:
        for made in (model.reconstruct(clip), model.transfer(clip, clip.flip(0))):
            assert check_clip(made, name, frames=shape.frames).shape == (3, *size)
        longer = model.generate(model.encode(clip), 2 * shape.frames)
        assert check_clip(longer, name, frames=2 * shape.frames).shape[0] == 3
    if "sample" in model.capabilities:
        assert check_clip(model.sample(2, 3), name, frames=3).shape[0] == 2
    again, _, _ = _model(name, seed=1)
    again.load_state_dict(model.state_dict())
    again.eval()
    torch.testing.assert_close(again.encode(clip).identity, model.encode(clip).identity)


@pytest.mark.parametrize("name", _own("models"))
@pytest.mark.parametrize("preset", _own("presets"))
def test_every_preset_builds_every_model_and_survives_json(name, preset):
    model, _, config = _model(name, preset=preset)
    assert sum(p.numel() for p in model.parameters()) > 0
    rebuilt = type(config).model_validate(json.loads(config.model_dump_json()))
    assert rebuilt == config
    assert config.instance(TABLE) == name


def test_the_paper_preset_is_tables_1_and_2():
    """Learning rates, epochs, batches, frames and code sizes of the four datasets."""
    rows = {
        "mug": ((1e-3, 1e-3), (250, 200), (20, 20), 20, 15),
        "sprites": ((8e-3, 1e-3), (300, 200), (20, 20), 8, 40),
        "mmnist": ((1e-3, 1e-3), (300, 200), (20, 30), 16, 12),
        "pendula": ((5e-4, 1e-3), (200, 100), (50, 20), 16, 8),
    }
    paper = TABLE.peek("presets", "paper").settings
    stages = TABLE.peek("models", "vdsm").settings["stages"]
    for name, (rates, epochs, batches, frames, experts) in rows.items():
        own = paper["models"]["vdsm"]["datasets"][name]
        first, second = (
            {**stages[stage], **own["training"][stage]} for stage in ("pretrain", "sequence")
        )
        assert (first["learning_rate"], second["learning_rate"]) == rates
        assert (first["epochs"], second["epochs"]) == epochs
        assert (first["batch_size"], second["batch_size"]) == batches
        assert first["batches_per_epoch"] == second["batches_per_epoch"] == 50
        assert paper["datasets"][name]["data"]["frames"] == frames
        assert own["model"]["identity_dim"] == experts
    sizes = preset_arguments(TABLE, "paper", "vdsm", "mug")
    assert (sizes["pose_dim"], sizes["motion_dim"]) == (30, 50)
    assert (sizes["rnn_layers"], sizes["rnn_width"], sizes["rnn_dropout"]) == (3, 512, 0.2)
    assert sizes["pose_kl_shape"] == "spline"
    assert sizes["identity_from"] == "clip"
    assert (sizes["pose_shut"], sizes["temperature"]) == (0.0, [1.0, 10.0])


def test_the_paper_sizes_have_the_papers_number_of_weights():
    """46.9 M expert weights with 15 experts and 133 M with 40, as counted from the tables."""
    for name, millions in (("mug", 46.9), ("sprites", 133.0)):
        experts = preset_arguments(TABLE, "paper", "vdsm", name)["identity_dim"]
        with torch.device("meta"):
            decoder = TABLE.factory("decoders", "mixture-of-experts")(
                clip=CLIP, pose_dim=30, identity_dim=experts
            )
        count = sum(p.numel() for p in decoder.parameters())
        assert count / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("kind", ["encoders", "decoders"])
def test_default_sizes_fit_smaller_frames_too(kind, size):
    """So that ``vdsm[decoder=single]`` or another encoder runs under every preset."""
    shape = ClipShape(frames=2, channels=3, height=size, width=size)
    for name in set(_own(kind)) - {"timm"}:
        factory = TABLE.factory(kind, name)
        if kind == "encoders":
            encoder = factory(clip=shape)
            assert encoder(torch.rand(2, 3, size, size)).shape == (2, encoder.feature_dim), name
        else:
            decoder = factory(clip=shape, pose_dim=3, identity_dim=2)
            clip = decoder(torch.randn(1, 2, 3), torch.full((1, 2), 0.5))
            assert clip.shape == (1, 2, 3, size, size), name


@pytest.mark.parametrize(
    "arguments",
    [{"pose_dim": 0}, {"rnn_layers": -1}, {"pose_shut": 1.0}, {"pose_kl": [1, 1, 0, 1]}],
)
def test_values_that_cannot_be_right_are_refused(arguments):
    with pytest.raises(UsageError, match=f"'{next(iter(arguments))}'"):
        TABLE.factory("models", "vdsm", arguments)
