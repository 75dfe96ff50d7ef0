"""What lies under the settings that a user gives: the preset, and the model's recipe.

A recipe is a named set of settings of one model (``name[recipe=...]``), over every preset: how
it is trained, not how large it is. A model's first recipe is the default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vdsm_bench.errors import UsageError, suggest
from vdsm_bench.notation import merge
from vdsm_bench.registry import Entry, Registry, split_part
from vdsm_bench.signatures import checked_value


def base_layers(
    table: Registry, *, preset: str, model: str, dataset: str, recipe: str | None
) -> list[Mapping[str, Any]]:
    """Returns the layers under what a user gives, lowest first: the preset's, the recipe's.

    Args:
        table: the catalogue.
        preset: registry name.
        model: registry name.
        dataset: registry name; layers of the one it is ``like`` come before its own.
        recipe: one of the model's recipes, or None for the default.
    """
    like = table.get("datasets", dataset).settings.get("like")
    names = [name for name in (like, dataset) if name]
    settings = table.get("presets", preset).settings
    own = settings.get("models", {}).get(model, {})
    recipes = table.get("models", model).settings.get("recipes", {})
    return [
        layer
        for part in (settings, own, recipes.get(recipe) or {})
        for layer in (
            part.get("settings", {}),
            *(part.get("datasets", {}).get(name, {}) for name in names),
        )
    ]


def take_recipe(
    entry: Entry, layers: Sequence[Mapping[str, Any]]
) -> tuple[str | None, list[Mapping[str, Any]]]:
    """Takes ``model.recipe`` out of layers; returns it (None for the default) and the layers.

    Raises:
        UsageError: the model has recipes, but not this one.
    """
    recipes = list(entry.settings.get("recipes", {}))
    if not recipes:
        return None, list(layers)
    chosen = recipes[0]
    rest: list[Mapping[str, Any]] = []
    for layer in layers:
        arguments = dict(layer.get("model", {}))
        chosen = arguments.pop("recipe", chosen)
        rest.append({**layer, "model": arguments})
    if chosen not in recipes:
        raise UsageError(
            f"models/{entry.name} has no recipe '{chosen}'{suggest(str(chosen), recipes)}; "
            f"its recipes: {', '.join(recipes)}.",
            hint=f"vdsm-bench show models/{entry.name}",
        )
    return None if chosen == recipes[0] else str(chosen), rest


def shared_arguments(table: Registry, kind: str, below: Any, name: str) -> dict[str, Any]:
    """Returns what a component keeps of the one whose place it takes: arguments that it has too.

    So ``vdsm[decoder=single]`` is as wide as the preset's other decoder, and an ablation of the
    kind of a part is not one of its size as well. A value that it does not take is left behind, as
    is that of an argument without an annotation: it may mean something else there.

    Args:
        table: the catalogue.
        kind: of both components.
        below: the one that was there, a name or a mapping with ``name``; None if there was none.
        name: of the one that takes its place.
    """
    if below is None:
        return {}
    before, arguments = split_part(below)
    if before == name or name not in table.names(kind) or not arguments:
        return {}
    entry = table.get(kind, name)
    return {key: value for key, value in arguments.items() if _takes(entry, key, value)}


def _takes(entry: Entry, key: str, value: Any) -> bool:
    annotations = entry.annotations()
    if key not in annotations or key not in entry.defaults or key in entry.parts:
        return False
    try:
        checked_value(annotations[key], key, value, f"{entry.kind}/{entry.name}")
    except UsageError:
        return False
    return True


def in_place(
    table: Registry, entry: Entry, below: Mapping[str, Any], layer: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Returns a layer whose components keep what they share with those that they take over from.

    Args:
        table: the catalogue.
        entry: of the model.
        below: the model's arguments so far.
        layer: sections, as a user gives them.
    """
    given = dict(layer.get("model", {}))
    usual = merge({key: entry.defaults[key] for key in entry.parts}, below)
    for key, kind in entry.parts.items():
        value = given.get(key)
        if isinstance(value, str) or (isinstance(value, Mapping) and "name" in value):
            name, arguments = split_part(value)
            kept = shared_arguments(table, kind, usual[key], name)
            if kept:
                given[key] = {"name": name, **kept, **arguments}
    return {**layer, "model": given} if given else layer


def for_every_stage(layer: Mapping[str, Any], stages: Iterable[str]) -> Mapping[str, Any]:
    """Writes ``training.*`` out for each of the model's stages; what names a stage wins over it."""
    training = layer.get("training", {})
    if "*" not in training:
        return layer
    named = {key: value for key, value in training.items() if key != "*"}
    return {**layer, "training": merge({stage: training["*"] for stage in stages}, named)}
