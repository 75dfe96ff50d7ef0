"""A component of another package: what its class says of itself, checked, and how it is built.

Built-in components state the same in registry.yaml, and tests hold it against their classes.
"""

from __future__ import annotations

import inspect
import math
import numbers
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vdsm_bench.errors import ContractError, suggest

_PAGE = "docs/extending.md"


@dataclass(frozen=True)
class Declaration:
    """What the class says.

    Attributes:
        summary: the first line of its docstring.
        defaults: every constructor argument with its default value, None where it has none.
        required: the arguments without a default.
        parts: constructor arguments that are components themselves, with their kind.
        settings: ``stages`` of a model, ``asked`` of an evaluator.
        version: its own, or 1.
    """

    summary: str
    defaults: Mapping[str, Any]
    required: frozenset[str]
    parts: Mapping[str, str]
    settings: Mapping[str, Any]
    version: int


def read_declaration(
    cls: type, *, supplied: Collection[str], kinds: Collection[str], where: str
) -> Declaration:
    """Reads and checks what a class declares.

    Args:
        cls: the component.
        supplied: constructor arguments that the frame gives.
        kinds: what a part can be.
        where: the component, named in errors.

    Raises:
        ContractError: a default that is not JSON-able; ``parts`` that are no arguments, of no
            such kind, or whose default names no component; ``default_stages`` that is no mapping
            of mappings.
    """
    defaults, required = _arguments(cls, supplied, where)
    settings: dict[str, Any] = {}
    stages = getattr(cls, "default_stages", None)
    if stages:
        settings["stages"] = _checked_stages(stages, where)
    if getattr(cls, "asked", False):
        settings["asked"] = True
    return Declaration(
        summary=(inspect.getdoc(cls) or cls.__name__).splitlines()[0],
        defaults=defaults,
        required=required,
        parts=_checked_parts(getattr(cls, "parts", {}), kinds, defaults, required, where),
        settings=settings,
        version=getattr(cls, "version", 1),
    )


def build_own(
    target: Callable[..., Any],
    kind: str,
    context: Collection[str] | None,
    where: str,
    /,
    **arguments: Any,
) -> Any:
    """Builds a component; where its constructor fails, it is named.

    Args:
        target: the component's class.
        kind: in the catalogue.
        context: arguments that the frame gives; None where it gives none, to what is no module.
        where: the component, named in errors.
        arguments: all that it is built with.

    Raises:
        ContractError: it cannot be built so, or is an encoder without ``feature_dim``.
    """
    try:
        component = target(**arguments)
        if context is not None:
            next(component.parameters(), None)  # fails where nn.Module.__init__ was not called
    except (TypeError, AttributeError) as error:
        source = getattr(sys.modules.get(target.__module__), "__file__", None)
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == source]
        place = f" (line {frames[-1].lineno} of {source})" if frames else ""
        raise ContractError(
            f"{where} cannot be built: {type(error).__name__}: {error}{place}.",
            hint=f"its constructor is given {', '.join(sorted(context or ())) or 'nothing'} beside "
            f"its own arguments, all by name; a module calls super().__init__() first; {_PAGE}",
        ) from error
    width = getattr(component, "feature_dim", None)
    if kind == "encoders" and not (isinstance(width, numbers.Integral) and int(width) > 0):
        raise ContractError(
            f"{where}: its feature_dim is {width!r}.",
            hint="self.feature_dim = ... in its constructor: how many features a frame has",
        )
    return component


def _arguments(
    target: Callable[..., Any], supplied: Collection[str], where: str
) -> tuple[dict[str, Any], frozenset[str]]:
    parameters = {
        key: parameter.default
        for key, parameter in inspect.signature(target).parameters.items()
        if key not in supplied
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    required = {key for key, value in parameters.items() if value is inspect.Parameter.empty}
    for key in parameters.keys() - required:
        if not _is_json(parameters[key]):
            raise ContractError(
                f"{where}: the default of argument '{key}' is {parameters[key]!r}, which JSON "
                "cannot say.",
                hint="take a text, a number, true or false, None, or lists and mappings of them, "
                "and make of it what is needed inside the constructor",
            )
    return {
        key: None if key in required else value for key, value in parameters.items()
    }, frozenset(required)


def _is_json(value: Any) -> bool:
    """Says whether JSON and YAML write it; exact types, as YAML writes no others."""
    if type(value) in (list, tuple):
        return all(_is_json(item) for item in value)
    if type(value) is dict:
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str)


def _checked_parts(
    parts: Any,
    kinds: Collection[str],
    defaults: Mapping[str, Any],
    required: Collection[str],
    where: str,
) -> Mapping[str, str]:
    hint = f"parts = {{'encoder': 'encoders'}}, an argument and its kind; {_PAGE}"
    if not isinstance(parts, Mapping):
        raise ContractError(f"{where}: its 'parts' is no mapping.", hint=hint)
    for key, kind in parts.items():
        if key not in defaults:
            raise ContractError(
                f"{where}: 'parts' names '{key}', which its constructor does not take"
                f"{suggest(str(key), defaults)}.",
                hint=hint,
            )
        if kind not in kinds:
            raise ContractError(
                f"{where}: the part '{key}' is of the kind {kind!r}{suggest(str(kind), kinds)}; "
                f"kinds: {', '.join(kinds)}.",
                hint=hint,
            )
        default = defaults[key]
        name = default.get("name") if isinstance(default, Mapping) else default
        if key not in required and not isinstance(name, str):
            raise ContractError(
                f"{where}: the default of the part '{key}' is {default!r}; it has to be a "
                f"registry name among the {kind}.",
                hint="give it no default where it always has to be said",
            )
    return parts


def _checked_stages(stages: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(stages, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Mapping) for key, value in stages.items()
    ):
        raise ContractError(
            f"{where}: its 'default_stages' is no mapping of stages to their settings.",
            hint="default_stages = {'fit': {'epochs': 10}}; vdsm-bench show settings",
        )
    return stages
