"""What one cell is: typed settings with one order of precedence and no unknown keys.

Order: registry defaults < preset < recipe < file < ``--set`` < options. No torch here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vdsm_bench.errors import UsageError, VdsmBenchError, suggest
from vdsm_bench.layers import base_layers, for_every_stage, in_place, shared_arguments, take_recipe
from vdsm_bench.notation import merge, parse_instance
from vdsm_bench.registry import Registry, split_part

#: what training computes in; weights, moments and losses are float32 in both
Precision = Literal["32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


#: where the settings are explained
_SHOWN = "vdsm-bench show settings"


class Settings(BaseModel):
    """Base of all settings: frozen; unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=Settings)


class ModelSettings(Settings):
    """Which model, its arguments, and the recipe that they come from (None: the default)."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    recipe: str | None = None


class DataSettings(Settings):
    """Which clips, and how they are cut.

    Attributes:
        dataset: registry name.
        split: what the test set holds out; the dataset's own default if None.
        image_size: height and width in pixels; the stored frames are area-averaged down to it.
        frames: frames per clip (T).
        stride: every stride-th stored frame is used.
    """

    dataset: str
    split: Literal["clips", "identities", "cells", "given"] | None = None
    image_size: int = Field(64, ge=8)
    frames: int = Field(8, ge=1)
    stride: int = Field(1, ge=1)


class StageSettings(Settings):
    """How one stage is trained.

    Attributes:
        epochs: number of epochs; schedules are functions of the epoch.
        batches_per_epoch: optimisation steps per epoch.
        batch_size: clips per step.
        learning_rate: Adam's.
        frames: frames per clip in this stage (the data's T if None). With ``pairs`` half of
            them come from each of two clips.
        pairs: join two random clips of the same identity (weak supervision, declared in the row).
        gradient_clip: largest gradient norm per player, or None.
        warm_up: steps, at the beginning, over which the learning rate rises linearly from zero.
        warm_up_again: whether it rises anew, over as many steps, where the stage's schedule
            switches something on, as VDSM's does the pose: what starts to learn there starts at
            the full rate otherwise.
        cool_down: share of the steps, at the end, over which the learning rate falls linearly
            to a twentieth.

    Deviation:
        VDSM's paper has a constant learning rate and clips no gradient, as the defaults are. The
        presets ``small`` and ``medium`` clip, warm up and cool down; ``warm_up_again`` keeps a
        pose alive that is shut at first (docs/recipe.md).
    """

    epochs: int = Field(ge=1)
    batches_per_epoch: int = Field(50, ge=1)
    batch_size: int = Field(20, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    frames: int | None = Field(None, ge=1)
    pairs: bool = False
    gradient_clip: float | None = Field(None, gt=0)
    warm_up: int = Field(0, ge=0)
    warm_up_again: bool = False
    cool_down: float = Field(0.0, ge=0, le=1)


@dataclass(frozen=True)
class JudgeChoice:
    """One judge of several: its architecture and its seed."""

    architecture: str
    seed: int

    @property
    def label(self) -> str:
        """``cnn-gru seed 0``: how it is called in messages."""
        return f"{self.architecture} seed {self.seed}"


class JudgeSettings(Settings):
    """How the judges are trained and when they may speak.

    There is one judge per architecture and seed; each has to pass every gate, and scores are
    means over them.

    Attributes:
        architectures: ``cnn-gru`` (frame CNN and recurrent net) and ``cnn-3d``.
        seeds: the judges' own seeds, the same for every model they judge.
        epochs: passes over the training clips; the best epoch on validation clips is kept.
        batch_size: clips per step.
        learning_rate: Adam's.
        width: channels of the first convolution.
        floor: least accuracy per factor on held-out real clips, over clips and as a mean over
            classes; below it the protocol refuses.
        cells_floor: the same on clips of identity x action cells it never saw.
        corruptions_floor: least accuracy per factor on held-out real clips that were blurred,
            made coarse or shifted a little.
    """

    architectures: list[Literal["cnn-gru", "cnn-3d"]] = Field(["cnn-gru"], min_length=1)
    seeds: list[int] = Field([0], min_length=1)
    epochs: int = Field(12, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    width: int = Field(32, ge=1)
    floor: float = Field(0.9, ge=0, le=1)
    cells_floor: float = Field(0.8, ge=0, le=1)
    corruptions_floor: float = Field(0.8, ge=0, le=1)

    @field_validator("architectures", "seeds")
    @classmethod
    def _none_twice(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) != len(values):
            raise ValueError("none may be named twice")
        return values

    @property
    def choices(self) -> list[JudgeChoice]:
        """Every judge there is to be: the architectures in turn, each with every seed."""
        return [JudgeChoice(name, seed) for name in self.architectures for seed in self.seeds]

    def training(self, choice: JudgeChoice) -> dict[str, Any]:
        """Returns what one judge is trained by; the floors and its fellows are no part of it."""
        shared = self.model_dump(include={"epochs", "batch_size", "learning_rate", "width"})
        return {**shared, "architecture": choice.architecture, "seed": choice.seed}


class EvaluationSettings(Settings):
    """What is scored.

    Attributes:
        clips: largest number of test clips (all if fewer).
        pairs: length of the fixed pair list.
        bootstrap: resamples behind every interval.
        batch_size: clips per forward pass; changes nothing but rounding (1e-7 of a pixel).
        part: whose clips are scored. ``validation`` is for choosing between settings, so that
            the choice sees no test clip; such rows stand apart.
        scores: dear evaluators to compute beside the usual ones, each a name or a mapping with
            ``name`` and its arguments; does not change any other number.
    """

    clips: int = Field(1000, ge=1)
    pairs: int = Field(1000, ge=1)
    bootstrap: int = Field(1000, ge=10)
    batch_size: int = Field(64, ge=1)
    part: Literal["test", "validation"] = "test"
    scores: list[str | dict[str, Any]] = Field(default_factory=list)


class CellConfig(Settings):
    """One model x dataset x preset x seed under one protocol.

    Attributes:
        precision: ``32``; or ``bf16``, the loss runs under torch's autocast.
    """

    model: ModelSettings
    data: DataSettings
    training: dict[str, StageSettings]
    judge: JudgeSettings = JudgeSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    preset: str = "small"
    seed: int = Field(0, ge=0)
    precision: Precision = "32"

    def instance(self, table: Registry) -> str:
        """Returns the canonical ``name[key=value,...]``: departures from the preset, sorted.

        The recipe is among them, unless it is the default; what it says is not.
        """
        usual = preset_arguments(
            table, self.preset, self.model.name, self.data.dataset, self.model.recipe
        )
        parts = table.get("models", self.model.name).parts
        changed = {}
        for key, value in self.model.arguments.items():
            if key in parts:  # what a part shares with the preset's is no departure
                name, given = split_part(value)
                kept = shared_arguments(table, parts[key], usual[key], name)
                own = {k: v for k, v in given.items() if k not in kept or v != kept[k]}
                value = {"name": name, **own}
            if _canonical_part(value) != _canonical_part(usual.get(key)):
                changed[key] = value
        if self.model.recipe is not None:
            changed["recipe"] = self.model.recipe
        if not changed:
            return self.model.name
        inside = ",".join(f"{key}={_render(changed[key])}" for key in sorted(changed))
        return f"{self.model.name}[{inside}]"


def preset_arguments(
    table: Registry, preset: str, model: str, dataset: str, recipe: str | None = None
) -> dict[str, Any]:
    """Returns a model's arguments: registry defaults, then the preset's and the recipe's layers."""
    entry = table.get("models", model)
    arguments = dict(entry.defaults)
    below = base_layers(table, preset=preset, model=model, dataset=dataset, recipe=recipe)
    for layer in below:
        arguments = merge(arguments, in_place(table, entry, arguments, layer).get("model", {}))
    return arguments


def canonical_json(value: Any) -> str:
    """Returns JSON that is equal for equal content: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def content_key(value: Any, length: int = 8) -> str:
    """Returns the first hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def resolve(
    table: Registry,
    *,
    model: str,
    dataset: str,
    preset: str = "small",
    seed: int = 0,
    layers: Sequence[Mapping[str, Any]] = (),
) -> CellConfig:
    """Resolves one cell's configuration.

    Args:
        table: the catalogue.
        model: ``name`` or ``name[key=value,...]``.
        dataset: registry name.
        preset: registry name.
        seed: the seed.
        layers: what the user gave, lowest first (file, ``--set``, options), each a mapping with
            the sections ``model``, ``data``, ``training``, ``judge``, ``evaluation``.

    Raises:
        UsageError: an unknown name, key or value anywhere.
    """
    name, arguments = parse_instance(model)
    entry = table.get("models", name)
    data_entry = table.get("datasets", dataset)
    stages = entry.settings.get("stages", {})
    parts = {key: entry.defaults[key] for key in entry.parts}
    tree: dict[str, Any] = {
        "model": parts,  # by name, so that another one is known for another
        "data": {"dataset": dataset},
        "training": stages,
        "preset": preset,
        "seed": seed,
    }
    for layer in layers:
        _check_sections(layer)
    recipe, given = take_recipe(entry, [{"model": arguments}, *layers])
    below = base_layers(table, preset=preset, model=name, dataset=dataset, recipe=recipe)
    spoken_of = {key for layer in [*below, *given] for key in layer.get("model", {})}
    for layer in [*below, *given]:
        placed = in_place(table, entry, tree["model"], layer)
        tree = merge(tree, for_every_stage(placed, stages))
    merged = tree.pop("model")
    model_arguments = {key: merged[key] for key in merged if key not in parts or key in spoken_of}
    for key in tree["training"]:
        if key not in stages:
            raise UsageError(
                f"models/{name} has no stage '{key}'{suggest(key, stages)}; "
                f"its stages: {', '.join(stages) or 'none'}.",
                hint=f"vdsm-bench show models/{name}",
            )
    table.check_arguments("models", name, model_arguments)
    if data_entry.settings.get("split") and tree["data"].get("split") is None:
        tree["data"]["split"] = data_entry.settings["split"]
    tree["model"] = {"name": name, "arguments": model_arguments, "recipe": recipe}
    config = validate(CellConfig, tree, "the configuration")
    _check_pairs(config)
    _check_scores(table, config)
    return config


def validate(kind: type[S], tree: Mapping[str, Any], where: str, *, hint: str = _SHOWN) -> S:
    """Builds settings; a wrong key or value becomes a usage error that suggests the right key."""
    try:
        return kind.model_validate(dict(tree))
    except ValidationError as error:
        problem = error.errors()[0]
        path = [str(part) for part in problem["loc"]]
        place = ".".join(path)
        if problem["type"] == "extra_forbidden":
            known = _known_keys(kind, path[:-1])
            raise UsageError(
                f"Unknown key '{place}' in {where}{suggest(path[-1], known)}; "
                f"known there: {', '.join(known)}.",
                hint=hint,
            ) from error
        raise UsageError(f"'{place}' in {where}: {problem['msg']}.", hint=hint) from error


def _known_keys(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    for part in path:
        if part not in kind.model_fields:
            continue  # a free key (a stage's name) inside a mapping
        annotation = kind.model_fields[part].annotation
        inner = [annotation, *getattr(annotation, "__args__", ())]
        for candidate in inner:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                kind = candidate
    return list(kind.model_fields)


def _check_sections(layer: Mapping[str, Any]) -> None:
    sections = ("model", "data", "training", "judge", "evaluation")
    for key, value in layer.items():
        if key not in sections:
            raise UsageError(
                f"Unknown key '{key}'{suggest(key, sections)}; known: {', '.join(sections)}."
            )
        if not isinstance(value, Mapping):
            raise UsageError(f"'{key}' is a section; write {key}.KEY=VALUE.")
    if "dataset" in layer.get("data", {}):
        raise UsageError(
            "'data.dataset' cannot be set: presets and splits follow the dataset.",
            hint="--dataset NAME",
        )


def _check_pairs(config: CellConfig) -> None:
    for key, stage in config.training.items():
        frames = stage.frames or config.data.frames
        if stage.pairs and frames % 2:
            raise UsageError(
                f"Stage '{key}' joins pairs of clips, so its frames must be even, not {frames}.",
                hint=f"--set training.{key}.frames={frames + 1}",
            )


def _check_scores(table: Registry, config: CellConfig) -> None:
    parts = [split_part(score) for score in config.evaluation.scores]
    if len({name for name, _ in parts}) < len(parts):
        raise UsageError("'evaluation.scores' names one evaluator twice: leave one of them out.")
    for name, given in parts:
        table.check_arguments("evaluators", name, given)
        if not _asked(table, name):
            asked = [n for n in table.names("evaluators") if _asked(table, n)]
            raise UsageError(
                f"'evaluation.scores' names dear evaluators, and '{name}' is none; "
                f"known: {', '.join(asked)}."
            )


def _asked(table: Registry, name: str) -> bool:
    try:
        return bool(table.get("evaluators", name).settings.get("asked"))
    except VdsmBenchError:  # one of another package that does not load
        return False


def _canonical_part(value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"name"}:
        return value["name"]
    return value


def _render(value: Any) -> str:
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        name, arguments = split_part(value)
        inside = ",".join(f"{key}={_render(arguments[key])}" for key in sorted(arguments))
        return f"{name}[{inside}]" if inside else name
    return value if isinstance(value, str) else json.dumps(value)
