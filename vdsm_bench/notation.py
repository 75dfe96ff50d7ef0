"""How settings are written: ``name[key=value,...]``, ``a.b=value``, YAML files. No torch here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vdsm_bench.errors import UsageError


def parse_instance(text: str) -> tuple[str, dict[str, Any]]:
    """Parses ``name`` or ``name[key=value,...]`` into the name and its arguments."""
    match = re.fullmatch(r"([^\[\]]+)(?:\[(.*)\])?", text.strip())
    if match is None:
        raise UsageError(
            f"'{text}' is no model; write name or name[key=value,...].",
            hint="vdsm-bench list models",
        )
    arguments: dict[str, Any] = {}
    for item in _split_outside_brackets(match.group(2) or ""):
        key, separator, value = item.partition("=")
        if not separator:
            raise UsageError(f"'{item}' in '{text}' is no key=value.")
        if key.strip() in arguments:
            raise UsageError(f"'{key.strip()}' stands twice in '{text}'.")
        arguments[key.strip()] = _part_or_value(value.strip(), "a model's argument")
    return match.group(1), arguments


def parse_assignments(items: Iterable[str]) -> dict[str, Any]:
    """Turns ``a.b=value`` items into a nested mapping; values are YAML or ``name[key=value]``."""
    tree: dict[str, Any] = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise UsageError(f"--set wants KEY=VALUE, got '{item}'.")
        tree = merge(tree, _nest(key.strip().split("."), _part_or_value(value, f"--set {key}")))
    return tree


def read_config_file(path: Path) -> dict[str, Any]:
    """Reads a YAML or JSON file with the same keys as ``--set``."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The configuration {path} does not read: {error}.") from error
    content = _read_value(text, f"the configuration {path}")
    if not isinstance(content, Mapping):
        raise UsageError(f"The configuration {path} is no mapping.")
    return dict(content)


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Merges two nested mappings; the second wins, mappings are merged key by key.

    A component of another name replaces the one below it: arguments belong to a component.
    """
    result = dict(low)
    for key, value in high.items():
        mine = result.get(key)
        if isinstance(value, Mapping) and isinstance(mine, Mapping):
            other = "name" in mine and value.get("name", mine["name"]) != mine["name"]
            result[key] = dict(value) if other else merge(mine, value)
        elif isinstance(value, Mapping) and isinstance(mine, str) and "name" not in value:
            # arguments for a component that was given by its name alone
            result[key] = {"name": mine, **value}
        else:
            result[key] = dict(value) if isinstance(value, Mapping) else value
    return result


def _read_value(text: str, where: str) -> Any:
    """Reads YAML of JSON's kinds: text keys, no dates, and 1e-3 is a number."""
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506
        json.dumps(value)
        return value
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"{where}: '{text.strip()[:60]}' does not read: {first}.") from error


class _Loader(yaml.SafeLoader):
    """YAML as JSON has it; PyYAML takes 1e-3, which lacks a dot, for text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a mapping; a key that is no text is an error, and so is one that stands twice."""
        written = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        mapping = super().construct_mapping(node, deep=deep)
        if twice := _twice(written):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice!r} stands there twice", node.start_mark
            )
        for key in mapping:
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is no text", node.start_mark
                )
        return mapping


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+([.][0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _twice(words: Sequence[Any]) -> Any:
    return next((word for n, word in enumerate(words) if word in words[:n]), None)


def _nest(path: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return dict(value)


def _split_outside_brackets(text: str) -> list[str]:
    items, depth, current = [], 0, ""
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if depth < 0:
            break
        if character == "," and depth == 0:
            items.append(current)
            current = ""
        else:
            current += character
    if depth:
        raise UsageError(f"The brackets in '[{text}]' do not match.")
    return [item for item in [*items, current] if item.strip()]


def _part_or_value(text: str, where: str) -> Any:
    if re.fullmatch(r"[a-z0-9-]+\[.*\]", text):
        name, arguments = parse_instance(text)
        return {"name": name, **arguments}
    return _read_value(text, where)
