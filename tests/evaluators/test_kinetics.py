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
    wide = torch.rand(2, 16, 1, 56, 100)
    assert prepare(wide).shape == (2, 3, 16, 112, 112)


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
