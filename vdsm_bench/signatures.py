"""What a component's constructor takes: annotations, values checked against them, meanings.

Annotations and meanings of a class that is not imported yet are read from its source, so that a
dry run refuses a wrong value, and ``show`` explains a component, without importing torch.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdsm_bench.errors import ContractError, UsageError

#: modules that annotations of arguments may come from; they are imported when they are read
_LIGHT = frozenset({"typing", "collections.abc", "pydantic"})


def annotations_of(target: type, where: str) -> dict[str, Any]:
    """Returns the annotation of every constructor argument of a class that has one.

    Raises:
        ContractError: an annotation does not evaluate.
    """
    try:
        parameters = inspect.signature(target, eval_str=True).parameters
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise ContractError(
            f"{where}: the annotations of {target.__qualname__}.__init__ do not evaluate: {error}.",
            hint="import what they name outside of 'if TYPE_CHECKING'",
        ) from error
    return {
        key: parameter.annotation
        for key, parameter in parameters.items()
        if parameter.annotation is not inspect.Parameter.empty
    }


@functools.cache
def annotations_in_source(target: str) -> Mapping[str, Any]:
    """Reads the annotations of ``module:Class`` from its source, without importing the module.

    Annotations of what the frame supplies and of parts name classes that are not imported; they
    are left out. So is everything where there is no source. A source is read once.
    """
    source = _class_in_source(target)
    if source is None:
        return {}
    tree, node = source
    known = _light_names(tree)
    found = {}
    for argument in _constructor_arguments(node):
        if argument.annotation is not None:
            annotation = _evaluate(argument.annotation, known)
            if annotation is not None:
                found[argument.arg] = annotation
    return found


def meanings_in_source(target: str) -> dict[str, str]:
    """Reads what the docstring of ``module:Class`` says of each argument, without importing it.

    That is its section ``Args:`` (of settings ``Attributes:``), a line ``name: meaning`` each,
    which may go on further indented.
    """
    source = _class_in_source(target)
    text = ast.get_docstring(source[1]) if source is not None else None
    section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?)+)", text or "", re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", section[1], re.MULTILINE)
    return {name: _plain_text(meaning) for name, meaning in entries}


def checked_value(annotation: Any, key: str, value: Any, where: str) -> Any:
    """Checks a value, as JSON has it, against an annotation.

    Nothing is converted, so text is no number and true is no 1; but a list may stand for a tuple
    and 1 for the float 1.0. JSON has no infinity, and no number that is none.

    Returns:
        The value as JSON has it in the one way in which its annotation writes it.

    Raises:
        UsageError: a value of the wrong type or out of range; names ``where`` and the argument.
    """
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

    try:
        config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=config)
    except PydanticUserError:  # BaseModel or dataclass: brings its own configuration
        adapter = TypeAdapter(annotation)
    try:
        checked = adapter.validate_json(json.dumps(value), strict=True)
        return adapter.dump_python(checked, mode="json")
    except ValidationError as error:
        problem = error.errors()[0]
        place = "".join(f"item {part + 1}: " for part in problem["loc"] if isinstance(part, int))
        raise UsageError(
            f"{where}: argument '{key}' is {value!r}: {place}{problem['msg']}.",
            hint=f"vdsm-bench show {where}",
        ) from error


def _class_in_source(target: str) -> tuple[ast.Module, ast.ClassDef] | None:
    """Returns the parsed module of ``module:Class`` and the class, None without a source."""
    module, _, name = target.partition(":")
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of its package; whoever builds it says so
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return tree, node
    return None


def _plain_text(markup: str) -> str:
    """Returns a docstring's words on one line, names in backticks without what Sphinx adds."""
    return re.sub(r"(?::\w+:)?`+~?([^`]+)`+", r"`\1`", " ".join(markup.split()))


def _light_names(tree: ast.Module) -> dict[str, Any]:
    """Returns what a module's annotations can name: light imports, and aliases made of them."""
    known: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module in _LIGHT:
            module = importlib.import_module(node.module)
            for alias in node.names:
                known[alias.asname or alias.name] = getattr(module, alias.name)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _evaluate(node.value, known)
            if value is not None:
                known[node.targets[0].id] = value
    return known


def _constructor_arguments(node: ast.ClassDef) -> list[ast.arg]:
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return [*part.args.args[1:], *part.args.kwonlyargs]
    return []


def _evaluate(node: ast.expr, known: Mapping[str, Any]) -> Any:
    """Returns the value of an expression of the package's own source, or None.

    Where it needs more than light names it cannot be had, whatever it raises.
    """
    try:
        return eval(compile(ast.Expression(node), "<annotation>", "eval"), dict(known))
    except Exception:
        return None
