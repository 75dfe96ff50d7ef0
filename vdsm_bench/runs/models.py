"""Building the model of a cell, and what every model has to say of itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence, Set
from typing import get_args

import torch

from vdsm_bench.contracts import Capability, Player, Stage, VideoModel
from vdsm_bench.errors import ContractError
from vdsm_bench.initialisation import weights_follow
from vdsm_bench.registry import Registry
from vdsm_bench.runs.bench import Bench
from vdsm_bench.runs.cell import Cell
from vdsm_bench.seeding import derive_seed


def build_model(table: Registry, bench: Bench, cell: Cell, *, follow: bool = False) -> VideoModel:
    """Builds the model of a cell with weights that depend on its seed alone.

    Args:
        table: the catalogue.
        bench: whose clips it is for.
        cell: its settings and its seed.
        follow: whether other weights follow, saved ones, or none matter: none are downloaded then.

    Raises:
        ContractError: the model, or a part of it, does not do what its contract says.
    """
    name = cell.config.model.name
    factory = table.factory("models", name, cell.config.model.arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(cell.config.seed, "init"))
        with weights_follow(follow):
            model: VideoModel = factory(clip=bench.shape)
    check_model(model, cell.config.training, f"models/{name}")
    return model


def check_model(model: VideoModel, settings: Collection[str], where: str) -> None:
    """Checks what a model says of itself and of its training, before anything is trained.

    Args:
        model: freshly built.
        settings: the stages that there are training settings for.
        where: the component, named in the error.

    Raises:
        ContractError: capabilities or supervision that are none; stages and settings that are
            not of each other; two stages, or two players of one, of the same name; a player
            without a list of the model's own parameters.
    """
    for fault, hint in _faults(model, settings):
        raise ContractError(f"{where}: {fault}.", hint=hint)


def _faults(model: VideoModel, settings: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yields what is wrong and what to do; each check relies on those before it."""
    known, able, told = get_args(Capability), model.capabilities, model.supervision
    if not isinstance(able, Set) or not able <= set(known):
        yield f"its capabilities are {able!r}", f"a frozenset of some of {', '.join(known)}"
    if not isinstance(told, str) or not told:
        yield f"its supervision is {told!r}", "a text; 'none' where pixels are all that it is told"
    stages = model.stages()
    if not _all_are(Stage, stages):
        yield "stages() gives no list of stages", "return [Stage(name, (Player(...),)), ...]"
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        yield f"two of its stages have one name: {', '.join(names)}", "rename one"
    for name in names:
        if name not in settings:
            yield (
                f"there are no training settings for its stage '{name}'",
                f"default_stages = {{'{name}': {{'epochs': ...}}}}; of a built-in model, 'stages' "
                "in registry.yaml",
            )
    for name in settings:
        if name not in names:
            yield (
                f"there are training settings for a stage '{name}'; its stages: {', '.join(names)}",
                f"take '{name}' out of default_stages; of a built-in model, out of registry.yaml",
            )
    own = {id(parameter) for parameter in model.parameters()}
    for stage in stages:
        yield from _faults_of_players(stage, own)


def _faults_of_players(stage: Stage, own: Collection[int]) -> Iterator[tuple[str, str]]:
    if not _all_are(Player, stage.players):
        yield f"stage '{stage.name}' has no players", "Stage(name, (Player(...),))"
    names = [player.name for player in stage.players]
    if len(set(names)) < len(names):
        yield f"two players of stage '{stage.name}' have one name: {', '.join(names)}", "rename one"
    for player in stage.players:
        whose = f"the parameters of player '{player.name}' of stage '{stage.name}'"
        if not isinstance(player.parameters, Sequence):
            kind = type(player.parameters).__name__
            yield f"{whose} are a {kind}, no list", "list(self.parameters()), or those of a part"
        if not player.parameters:
            yield f"{whose} are none", "a player owns what its loss moves; leave the player out"
        if any(id(parameter) not in own for parameter in player.parameters):
            yield (
                f"{whose} are not all of the model's own, which is what is saved",
                "make their module, or nn.Parameter, an attribute of the model",
            )


def _all_are(kind: type, items: object) -> bool:
    """Says whether they are a sequence of such, and not an empty one."""
    return isinstance(items, Sequence) and bool(items) and all(isinstance(i, kind) for i in items)
