"""``vdsm-bench show KIND/NAME``: one component, with everything that can be set; or settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from vdsm_bench.cli.context import Session, json_option, pass_session, print_json

if TYPE_CHECKING:
    from vdsm_bench.registry import Entry, Registry


@click.command("show")
@click.argument("component", metavar="KIND/NAME|settings")
@json_option
@pass_session
def command(session: Session, component: str, as_json: bool) -> None:
    """Show one component: summary, source file, defaults and their meanings, stages, presets.

    What --set takes beside a model's arguments:  vdsm-bench show settings
    """
    import yaml

    settings = component == "settings"
    content = describe_settings() if settings else describe(session.catalogue(), component)
    if as_json:
        print_json(content)
        return
    click.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100).rstrip())


def describe(table: Registry, component: str) -> dict[str, Any]:
    """Returns what the catalogue says of ``KIND/NAME``, JSON-able.

    Raises:
        UsageError: no such kind or name.
    """
    from vdsm_bench.errors import UsageError, suggest
    from vdsm_bench.registry import KINDS
    from vdsm_bench.signatures import meanings_in_source

    kind, separator, name = component.partition("/")
    if not separator or kind not in KINDS:
        raise UsageError(
            f"'{component}' is no KIND/NAME{suggest(kind, KINDS)}; kinds: {', '.join(KINDS)}.",
            hint="vdsm-bench list   (then for example: vdsm-bench show models/vdsm)",
        )
    entry = table.get(kind, name)
    content: dict[str, Any] = {"name": f"{kind}/{name}", "summary": entry.summary}
    if entry.target:
        content["target"] = entry.target
        content["source"] = source_file(entry.target)
    content["declared in"] = entry.origin
    for key, value in (("defaults", entry.defaults), ("parts", entry.parts)):
        if value:
            content[key] = _plain(value)
    if entry.required:
        content["must be given"] = sorted(entry.required)
    meanings = meanings_in_source(entry.target) if entry.target else {}
    settable = {key: text for key, text in meanings.items() if key in entry.defaults}
    if settable:
        content["meanings"] = settable
    content.update(_plain(entry.settings))
    presets = {
        preset: settings
        for preset in table.names("presets")
        if (settings := _of_component(table.peek("presets", preset).settings, entry))
    }
    if presets:
        content["presets"] = _plain(presets)
    return content


def describe_settings() -> dict[str, Any]:
    """Returns the keys of ``--set`` outside of a model's arguments, by section, JSON-able."""
    from vdsm_bench import config
    from vdsm_bench.signatures import meanings_in_source

    content: dict[str, Any] = {}
    for section, kind in (
        ("data", config.DataSettings),
        ("training.STAGE", config.StageSettings),
        ("judge", config.JudgeSettings),
        ("evaluation", config.EvaluationSettings),
    ):
        meanings = meanings_in_source(f"{kind.__module__}:{kind.__name__}")
        content[section] = {
            name: {
                **(
                    {}
                    if field.is_required()
                    else {"default": field.get_default(call_default_factory=True)}
                ),
                "meaning": meanings[name],
            }
            for name, field in kind.model_fields.items()
            if name != "dataset"  # --dataset says it
        }
    content["model"] = "a model's own arguments: vdsm-bench show models/NAME"
    content["training.*"] = "the same of every stage of the model"
    return content


def source_file(target: str) -> str:
    """Returns the file of ``module:Class`` without running it (its parent packages do run)."""
    import importlib.util

    try:
        spec = importlib.util.find_spec(target.partition(":")[0])
    except ModuleNotFoundError:
        spec = None
    return spec.origin if spec is not None and spec.origin is not None else "not installed"


def _of_component(preset: Mapping[str, Any], entry: Entry) -> dict[str, Any]:
    """Returns what a preset says of a component; of a dataset also what its kind is given."""
    if entry.kind != "datasets":
        return dict(preset.get(entry.kind, {}).get(entry.name, {}))
    names = [name for name in (entry.settings.get("like"), entry.name) if name]
    own = _layered(preset.get("datasets", {}), names)
    per_model = {
        model: found
        for model, settings in preset.get("models", {}).items()
        if (found := _layered(settings.get("datasets", {}), names))
    }
    return {**own, **({"models": per_model} if per_model else {})}


def _layered(by_name: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    from vdsm_bench.notation import merge

    found: dict[str, Any] = {}
    for name in names:
        found = merge(found, by_name.get(name, {}))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
