"""Where training stands, in one file of tensors: written whole, read without unpickling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vdsm_bench.errors import DataError
from vdsm_bench.files import write_whole

SCHEMA = 1
#: files in a cell's ``checkpoints/``: where training stands, and what it came to
LAST, WEIGHTS = "last.safetensors", "model.safetensors"
#: what Adam keeps of a weight
_MOMENTS = frozenset({"step", "exp_avg", "exp_avg_sq"})
_FRESH = "type the command again with --fresh to train this cell from the beginning"


@dataclass(frozen=True)
class Position:
    """What has been done: ``stage`` is the one to continue, ``step`` its first step not done yet.

    ``seconds`` is the training time spent so far, ``manners`` how the steps of each stage were
    taken (see ``StageStep.manner``); they never change a number.
    """

    stage: str
    step: int
    seconds: float
    manners: Mapping[str, str] = field(default_factory=dict)


def write_checkpoint(
    path: Path,
    model: nn.Module,
    optimisers: Mapping[str, torch.optim.Optimizer],
    position: Position,
) -> None:
    """Writes model, optimisers and position as one safetensors file."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for player, optimiser in optimisers.items():
        for index, state in optimiser.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimiser/{player}/{index}/{key}"] = torch.as_tensor(value)
    header = {"schema": str(SCHEMA), "position": json.dumps(asdict(position))}
    _write(path, tensors, header)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Position]:
    """Reads a checkpoint's tensors and position.

    Raises:
        DataError: damaged, or written by another version.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"The checkpoint {path} is damaged: {error}.", hint=_FRESH) from error
    if header.get("schema") != str(SCHEMA):
        raise DataError(f"The checkpoint {path} is of another version.", hint=_FRESH)
    try:
        return tensors, Position(**json.loads(header["position"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The checkpoint {path} is damaged: it does not say where training stands.", hint=_FRESH
        ) from error


def check_position(position: Position, n_steps: Mapping[str, int], where: Path) -> None:
    """Checks that training can go on from there.

    Args:
        position: as it was read.
        n_steps: of every stage.
        where: it was read.

    Raises:
        DataError: it cannot.
    """
    stage, step = position.stage, position.step
    sound = isinstance(stage, str) and stage in n_steps and isinstance(step, int)
    sound = sound and isinstance(position.seconds, (int, float))
    if not (sound and isinstance(position.manners, dict) and 0 <= step <= n_steps[stage]):
        raise DataError(
            f"The checkpoint {where} is damaged: training has no step {step} of stage '{stage}'.",
            hint=_FRESH,
        )


def restore_optimisers(
    optimisers: Mapping[str, torch.optim.Optimizer], tensors: Mapping[str, Tensor], where: Path
) -> None:
    """Puts the saved moments of a stage's players back into their optimisers.

    Raises:
        DataError: they are not those of Adam for these weights.
    """
    for name in tensors:
        if name.rsplit("/", 2)[0] not in {f"optimiser/{player}" for player in optimisers}:
            raise _damaged_moments(where, name)
    for player, optimiser in optimisers.items():
        _restore(optimiser, tensors, player, where)


def _damaged_moments(where: Path, name: str) -> DataError:
    return DataError(f"The checkpoint {where} is damaged: no optimiser has '{name}'.", hint=_FRESH)


def _restore(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], player: str, where: Path
) -> None:
    content = optimiser.state_dict()
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    for name, value in tensors.items():
        owner, index, key = ("", "", *name.rsplit("/", 2))[-3:]
        if owner == f"optimiser/{player}":
            if not index.isdecimal() or int(index) >= len(weights) or key not in _MOMENTS:
                raise _damaged_moments(where, name)
            weight = weights[int(index)]
            if (
                key != "step" and value.shape == weight.shape
            ):  # fused Adam takes both as they lie in memory
                value = torch.empty_like(weight, dtype=value.dtype).copy_(value)
            content["state"].setdefault(int(index), {})[key] = value
    if any(len(state) < len(_MOMENTS) for state in content["state"].values()):
        raise DataError(f"The checkpoint {where} is damaged: it lacks moments.", hint=_FRESH)
    optimiser.load_state_dict(content)


def restore_model(model: nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Puts saved weights back into the model.

    Raises:
        DataError: the weights are those of another model.
    """
    prefix = "model/"
    state = {name[len(prefix) :]: v for name, v in tensors.items() if name.startswith(prefix)}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(
            f"{where} holds the weights of another model: {error}.",
            hint="type the command again with --fresh",
        ) from error


def save_weights(path: Path, model: nn.Module) -> None:
    """Writes a trained model's weights."""
    state = {f"model/{name}": value for name, value in model.state_dict().items()}
    _write(path, state, {"schema": str(SCHEMA)})


def load_weights(path: Path, model: nn.Module) -> None:
    """Reads a trained model's weights.

    Where they are missing or damaged, the last checkpoint beside them, which training wrote at its
    end, has the same; they are written anew from it.

    Raises:
        DataError: missing, damaged, or another model's.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        last = path.with_name(LAST)
        if not last.exists():
            raise DataError(
                f"The weights {path} do not read: {error}.", hint="vdsm-bench run ... --fresh"
            ) from error
        restore_model(model, read_checkpoint(last)[0], last)
        save_weights(path, model)
        return
    restore_model(model, tensors, path)


def _write(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Writes tensors from where they lie: at full width each copy would take gigabytes."""

    def write(temporary: Path) -> None:
        try:
            save_file(_plain(tensors), temporary, metadata=header)
        except SafetensorError as error:
            raise OSError(str(error)) from error

    write_whole(path, write)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached, contiguous, on the CPU and sharing no storage, as safetensors wants them."""
    plain, storages = {}, set[int]()
    for name, value in tensors.items():
        storage = value.untyped_storage().data_ptr()
        if value.is_cpu and value.is_contiguous() and storage not in storages:
            plain[name] = value.detach()
        else:
            plain[name] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        storages.add(storage)
    return plain
