"""What lies under the settings that a user gives: the preset, and the model's recipe.

A recipe is a named set of settings of one model (``name[recipe=...]``), over every preset: how
it is trained, not how large it is. A model's first recipe is the default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vdsm_bench.errors import UsageError, suggest
from vdsm_bench.notation import merge
from vdsm_bench.registry import Entry, Registry


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


def for_every_stage(layer: Mapping[str, Any], stages: Iterable[str]) -> Mapping[str, Any]:
    """Writes ``training.*`` out for each of the model's stages; what names a stage wins over it."""
    training = layer.get("training", {})
    if "*" not in training:
        return layer
    named = {key: value for key, value in training.items() if key != "*"}
    return {**layer, "training": merge({stage: training["*"] for stage in stages}, named)}
