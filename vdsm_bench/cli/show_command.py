"""``vdsm-bench show KIND/NAME``: one component, with everything that can be set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vdsm_bench.cli.context import Session, json_option, pass_session, print_json

if TYPE_CHECKING:
    from vdsm_bench.registry import Registry


@click.command("show")
@click.argument("component", metavar="KIND/NAME")
@json_option
@pass_session
def command(session: Session, component: str, as_json: bool) -> None:
    """Show one component: summary, source file, defaults and their meanings, stages, presets."""
    import yaml

    content = describe(session.catalogue(), component)
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
    meanings = meanings_in_source(entry.target) if entry.target else {}
    settable = {key: text for key, text in meanings.items() if key in entry.defaults}
    if settable:
        content["meanings"] = settable
    content.update(_plain(entry.settings))
    presets = {
        preset: settings
        for preset in table.names("presets")
        if (settings := _of_component(table.peek("presets", preset).settings, kind, name))
    }
    if presets:
        content["presets"] = _plain(presets)
    return content


def source_file(target: str) -> str:
    """Returns the file of ``module:Class`` without running it (its parent packages do run)."""
    import importlib.util

    try:
        spec = importlib.util.find_spec(target.partition(":")[0])
    except ModuleNotFoundError:
        spec = None
    return spec.origin if spec is not None and spec.origin is not None else "not installed"


def _of_component(preset: Any, kind: str, name: str) -> dict[str, Any]:
    own = preset.get(kind, {}).get(name, {})
    if kind != "datasets":
        return dict(own)
    per_model = {
        model: settings["datasets"][name]
        for model, settings in preset.get("models", {}).items()
        if name in settings.get("datasets", {})
    }
    return {**own, **({"models": per_model} if per_model else {})}


def _plain(value: Any) -> Any:
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
