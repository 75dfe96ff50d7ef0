"""Checkpoints of large models: from where the tensors lie, whole or not at all."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from vdsm_bench.errors import DataError
from vdsm_bench.training.checkpoint import (
    Position,
    load_weights,
    read_checkpoint,
    restore_optimisers,
    save_weights,
    write_checkpoint,
)

WRITER = """
import resource, sys
from pathlib import Path
import torch
from vdsm_bench.training.checkpoint import Position, write_checkpoint

model = torch.nn.Linear(4000, int(sys.argv[2]), bias=False)
optimiser = torch.optim.Adam(model.parameters())
model(torch.ones(1, 4000)).sum().backward()
optimiser.step()
optimiser.zero_grad()
if len(sys.argv) > 3:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)


def kilobytes(of):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(of))


Path("/proc/self/clear_refs").write_text("5")  # forgets the peak, which had gradients too
before = kilobytes("VmHWM")
write_checkpoint(Path(sys.argv[1]), model, {"all": optimiser}, Position("fit", 1, 0.0))
print(kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="Linux alone tells a peak of memory anew"
)
def test_a_checkpoint_is_written_without_a_copy_of_what_is_in_it(run_python, tmp_path):
    path = tmp_path / "last.safetensors"
    kilobytes = int(run_python(WRITER, str(path), "8000").stdout)
    assert path.stat().st_size > 3 * 4 * 8000 * 4000  # weights and two moments, 384 MB
    assert kilobytes < 60_000


def test_a_full_disk_leaves_the_last_checkpoint_and_no_litter(run_python, tmp_path):
    path = tmp_path / "last.safetensors"
    run_python(WRITER, str(path), "10")
    before = path.read_bytes()
    done = run_python(WRITER, str(path), "1000", "1000000", expect=1)
    assert "DataError" in done.stderr
    assert "File too large" in done.stderr
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_weights_that_share_memory_or_lie_crosswise_come_back(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            whole = torch.arange(24.0).view(4, 6)
            self.one = nn.Parameter(whole)
            self.same = self.one
            self.rows = nn.Parameter(whole[:2].clone())
            self.register_buffer("part", whole[2:])
            self.register_buffer("turned", torch.arange(6.0).view(2, 3).t())
            self.register_buffer("nothing", torch.empty(0))

    model, other = Tied(), Tied()
    save_weights(tmp_path / "model.safetensors", model)
    with torch.no_grad():
        for value in (other.one, other.rows, other.turned):
            value.zero_()
    load_weights(tmp_path / "model.safetensors", other)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert other.part.tolist() == [[12, 13, 14, 15, 16, 17], [18, 19, 20, 21, 22, 23]]


def test_where_training_stands_is_in_the_file(tmp_path):
    from safetensors import safe_open

    model = nn.Linear(2, 2)
    position = Position("fit", 7, 1.5, {"fit": "eager"})
    write_checkpoint(tmp_path / "last.safetensors", model, {}, position)
    with safe_open(str(tmp_path / "last.safetensors"), framework="pt") as file:
        found = json.loads(file.metadata()["position"])
    assert found == {"stage": "fit", "step": 7, "seconds": 1.5, "manners": {"fit": "eager"}}


@pytest.mark.parametrize(
    ("said", "damage"), [(b"stage", b"stale"), (b'"position', b'"positron'), (b"7,", b"7;")]
)
def test_a_damaged_position_names_the_file_and_the_way_out(tmp_path, said, damage):
    path = tmp_path / "last.safetensors"
    write_checkpoint(path, nn.Linear(2, 2), {}, Position("fit", 7, 1.5))
    path.write_bytes(path.read_bytes().replace(said, damage, 1))
    with pytest.raises(DataError, match=r"last\.safetensors is damaged") as caught:
        read_checkpoint(path)
    assert "--fresh" in caught.value.hint


@pytest.mark.parametrize(
    ("said", "damage", "why"),
    [
        (b"all/0/step", b"all/x/step", "no optimiser has 'optimiser/all/x/step'"),
        (b"all/0/step", b"all/7/step", "no optimiser has 'optimiser/all/7/step'"),
        (b"all/1/exp_avg_sq", b"all/1/exp_avg_sw", "no optimiser has 'optimiser/all/1/exp_avg_sw'"),
        (b"all/1/exp_avg_sq", b"all/1:exp_avg_sq", "no optimiser has 'optimiser/all/1:exp_avg_sq'"),
        (b"optimiser/all/1/exp_avg_sq", b"model/" + 20 * b"z", "it lacks moments"),
        (b"all/1/exp_avg_sq", b"alm/1/exp_avg_sq", "no optimiser has 'optimiser/alm/1/exp_avg_sq'"),
    ],
)
def test_damaged_names_of_moments_name_the_file_and_the_way_out(tmp_path, said, damage, why):
    path, model = tmp_path / "last.safetensors", nn.Linear(2, 2)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    write_checkpoint(path, model, {"all": optimiser}, Position("fit", 7, 1.5))
    assert said in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(said, damage, 1))
    tensors, _ = read_checkpoint(path)
    moments = {name: value for name, value in tensors.items() if not name.startswith("model/")}
    with pytest.raises(DataError, match=rf"last\.safetensors is damaged: {why}") as caught:
        restore_optimisers({"all": torch.optim.Adam(model.parameters())}, moments, path)
    assert "--fresh" in caught.value.hint


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("x")])
def test_weights_that_are_lost_are_those_of_the_last_checkpoint(tmp_path, damage):
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    weights = tmp_path / "model.safetensors"
    save_weights(weights, model)
    damage(weights)
    with pytest.raises(DataError, match="do not read"):
        load_weights(weights, other)
    write_checkpoint(tmp_path / "last.safetensors", model, {}, Position("fit", 7, 1.5))
    load_weights(weights, other)
    assert torch.equal(other.weight, model.weight)
    (tmp_path / "last.safetensors").unlink()
    with torch.no_grad():
        other.weight.zero_()
    load_weights(weights, other)  # they were written anew
    assert torch.equal(other.weight, model.weight)
