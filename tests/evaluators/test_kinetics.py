"""ResNeXt-101 in the layout of the published files, with random weights; no real file is needed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from vdsm_bench.config import EvaluationSettings
from vdsm_bench.errors import DataError
from vdsm_bench.evaluators.controls import CopyIdentityClip
from vdsm_bench.evaluators.kinetics import KineticsDistances
from vdsm_bench.evaluators.resnext import Bottleneck, ResNeXt, load_resnext, prepare
from vdsm_bench.evaluators.suite import evaluate
from vdsm_bench.runs.protocol import ScoringProtocol


def layout():
    """Names and shapes of resnext-101-kinetics, written down from the paper's Table 1."""
    shapes = {"conv1.weight": (64, 3, 7, 7, 7), **batch_norm("bn1", 64)}
    before = 64
    for layer, (blocks, planes) in enumerate([(3, 128), (4, 256), (23, 512), (3, 1024)], start=1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (planes, before, 1, 1, 1)
            shapes[f"{name}.conv2.weight"] = (planes, planes // 32, 3, 3, 3)
            shapes[f"{name}.conv3.weight"] = (2 * planes, planes, 1, 1, 1)
            for number, width in ((1, planes), (2, planes), (3, 2 * planes)):
                shapes.update(batch_norm(f"{name}.bn{number}", width))
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (2 * planes, before, 1, 1, 1)
                shapes.update(batch_norm(f"{name}.downsample.1", 2 * planes))
            before = 2 * planes
    return {**shapes, "fc.weight": (400, 2048), "fc.bias": (400,)}


def batch_norm(name, width):
    return {f"{name}.{key}": (width,) for key in ("weight", "bias", "running_mean", "running_var")}


@pytest.fixture(scope="module")
def weights():
    rng = torch.Generator().manual_seed(0)
    made = {}
    for name, shape in layout().items():
        if len(shape) == 1 and name.endswith(("running_var", ".weight")):
            made[name] = torch.ones(shape)
        else:
            made[name] = torch.empty(shape).normal_(0, 0.02, generator=rng)
    return made


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnext.safetensors"
    save_file(weights, str(path))
    return path


def test_another_file_in_the_same_place_is_another_fact(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"one")
    one = KineticsDistances(weights=str(path)).facts
    assert KineticsDistances(weights=str(path)).facts == one
    asked = SimpleNamespace(
        evaluation=EvaluationSettings(scores=[{"name": "kinetics", "weights": str(path)}]),
        asked={"kinetics": KineticsDistances(weights=str(path))},
    )
    before = ScoringProtocol.asked_facts.fget(asked)
    path.write_bytes(b"two")
    assert KineticsDistances(weights=str(path)).facts != one
    asked.asked = {"kinetics": KineticsDistances(weights=str(path))}
    assert ScoringProtocol.asked_facts.fget(asked) != before  # so a row that has it gets it anew
    assert KineticsDistances().facts == {}


def test_the_layout_of_the_published_file_loads(file, weights):
    network = load_resnext(file)
    state = network.state_dict()
    assert torch.equal(state["layer3.22.conv2.weight"], weights["layer3.22.conv2.weight"])
    assert not network.training
    with torch.inference_mode():
        found = network(prepare(torch.rand(1, 4, 3, 16, 16)))
    assert found.shape == (1, 2048)
    assert found.isfinite().all()


def published(weights, clip):
    """The features that the published network has, in plain convolutions and batch norms."""

    def convolved(x, name, **settings):
        return functional.conv3d(x, weights[f"{name}.weight"], **settings)

    def normed(x, name):
        kept = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(weights[f"{name}.{key}"] for key in kept))

    x = convolved(clip, "conv1", stride=(1, 2, 2), padding=3)
    x = functional.max_pool3d(functional.relu(normed(x, "bn1")), 3, stride=2, padding=1)
    for layer, blocks in enumerate([3, 4, 23, 3], start=1):
        for block in range(blocks):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            found = functional.relu(normed(convolved(x, f"{name}.conv1"), f"{name}.bn1"))
            found = convolved(found, f"{name}.conv2", stride=stride, padding=1, groups=32)
            found = convolved(functional.relu(normed(found, f"{name}.bn2")), f"{name}.conv3")
            if block == 0:
                x = convolved(x, f"{name}.downsample.0", stride=stride)
                x = normed(x, f"{name}.downsample.1")
            x = functional.relu(normed(found, f"{name}.bn3") + x)
    return functional.adaptive_avg_pool3d(x, 1).flatten(1)


def test_features_are_those_of_the_published_network(file, weights):
    clip = torch.randn(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    network = load_resnext(file)
    with torch.inference_mode():
        # else the largest of 27 is hardly ever below 0, and the first ReLU has nothing to do
        network.bn1.bias -= 1
        wanted = published({**weights, "bn1.bias": weights["bn1.bias"] - 1}, clip)
        torch.testing.assert_close(network(clip), wanted, rtol=1e-4, atol=1e-5)


def test_a_torch_file_with_a_state_dict_of_a_parallel_model_loads(weights, tmp_path):
    path = tmp_path / "resnext-101-kinetics.pth"
    wrapped = {f"module.{name}": value for name, value in weights.items()}
    torch.save({"epoch": 3, "arch": "resnext-101", "state_dict": wrapped}, path)
    state = load_resnext(path).state_dict()
    assert torch.equal(state["conv1.weight"], weights["conv1.weight"])


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"conv1.weight": torch.zeros(64, 3, 7, 7, 7)}}, "no ResNeXt-101"),
        ({"state_dict": Evil()}, "does not read"),
        ([1, 2], "no state dict"),
        ({}, "no state dict"),
    ],
)
def test_other_files_are_refused(content, message, tmp_path, capsys):
    path = tmp_path / "x.pth"
    torch.save(content, path)
    with pytest.raises(DataError, match=message) as error:
        load_resnext(path)
    assert "resnext-101-kinetics" in str(error.value)
    assert "run" not in capsys.readouterr().out


def test_wrong_shapes_and_missing_files_are_refused(weights, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({**weights, "conv1.weight": torch.zeros(64, 1, 7, 7, 7)}, str(path))
    with pytest.raises(DataError, match=r"conv1.weight.*\[64, 3, 7, 7, 7\]"):
        load_resnext(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="does not read"):
        load_resnext(path)
    with pytest.raises(DataError, match="no file"):
        load_resnext(tmp_path / "none.pth")


def test_a_block_is_what_the_paper_says():
    torch.manual_seed(0)
    block = Bottleneck(64, 128, 2).eval()
    x = torch.randn(1, 64, 4, 8, 8)
    first = functional.relu(functional.conv3d(x, block.conv1.weight))
    parts = first.chunk(32, dim=1)
    kernels = block.conv2.weight.chunk(32)
    second = torch.cat(
        [functional.conv3d(p, k, stride=2, padding=1) for p, k in zip(parts, kernels, strict=True)],
        dim=1,
    )
    third = functional.conv3d(functional.relu(second), block.conv3.weight)
    short = functional.conv3d(x, block.downsample[0].weight, stride=2)
    # fresh batch norms in evaluation mode divide by sqrt(1 + 1e-5) only
    torch.testing.assert_close(block(x), functional.relu(third + short), atol=1e-3, rtol=1e-3)


def test_clips_are_prepared_as_evan_does():
    clip = torch.linspace(0, 1, 20).view(1, 20, 1, 1, 1).expand(1, 20, 3, 112, 112)
    found = prepare(clip)
    assert found.shape == (1, 3, 16, 112, 112)
    values = 255 * torch.linspace(0, 1, 20)[2:18]  # the 16 central frames
    torch.testing.assert_close(found[0, 0, :, 5, 5], values - 114.7748)
    torch.testing.assert_close(found[0, 2, :, 5, 5], values - 99.4750)
    short = prepare(clip[:, :6])
    assert torch.equal(short[0, :, 6], short[0, :, 0])  # repeated from its start


def test_the_short_side_is_scaled_and_the_middle_of_the_long_one_kept():
    ramp = torch.arange(100) / 100
    wide = ramp.expand(2, 16, 1, 56, 100)  # grey
    # scaled by 2, column 44 + j lies at (44 + j + 1/2) / 2 - 1/2 of the clip
    at = (44.5 + torch.arange(112)) / 2 - 0.5
    found = prepare(wide)
    assert found.shape == (2, 3, 16, 112, 112)
    for channel, mean in enumerate((114.7748, 107.7354, 99.4750)):
        kept = (2.55 * at - mean).expand(2, 16, 112, 112)
        torch.testing.assert_close(found[:, channel], kept, atol=1e-3, rtol=0)
    assert torch.allclose(prepare(wide.mT), found.mT, atol=1e-3)


def test_without_a_file_the_columns_are_empty_with_the_way_to_fill_them(request_):
    scores = evaluate(CopyIdentityClip(), None, request_, {"k": KineticsDistances()}).scores
    assert all("weights: FILE" in score.reason for score in scores.values())


def test_distances_are_taken_on_the_network_s_features(request_, monkeypatch, file):
    class Small(torch.nn.Module):
        def forward(self, clip):
            return clip.mean((2, 3, 4))

    monkeypatch.setattr("vdsm_bench.evaluators.kinetics.load_resnext", lambda path: Small())
    monkeypatch.setattr("vdsm_bench.evaluators.resnext.SIZE", 16)
    evaluator = KineticsDistances(weights=str(file), clips=20)
    result = evaluate(CopyIdentityClip(), None, request_, {"kinetics": evaluator})
    assert result.scores["fvd_kinetics_floor"].n == 20
    found = {name: score.value for name, score in result.scores.items()}
    assert found["fvd_kinetics_regenerated"] == found["fvd_kinetics_floor"]
    assert any("SHA-256" in note for note in result.notes)


def test_the_network_has_the_published_number_of_weights():
    with torch.device("meta"):
        count = sum(p.numel() for p in ResNeXt().parameters())
    shapes = layout()
    fixed = ("running_mean", "running_var")
    expected = sum(
        int(np.prod(shape))
        for name, shape in shapes.items()
        if not name.endswith(fixed) and not name.startswith("fc.")
    )
    assert count == expected
