"""The catalogue of components: registry.yaml, entry points and decorators meet in one table.

Reading the catalogue imports no component: ``list``, ``show`` and a dry run stay
fast. A target is imported when it is built, and its base class is checked then.
"""

from __future__ import annotations

import functools
import importlib
import importlib.resources
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import yaml

from vdsm_bench.declaration import build_own, read_declaration
from vdsm_bench.errors import ContractError, MissingDependencyError, UsageError, suggest
from vdsm_bench.signatures import annotations_in_source, annotations_of, checked_value

#: kind -> the contract its targets implement (None: the kind holds settings only)
KINDS: dict[str, str | None] = {
    "models": "vdsm_bench.contracts:VideoModel",
    "encoders": "vdsm_bench.contracts:FrameEncoder",
    "decoders": "vdsm_bench.contracts:FrameDecoder",
    "datasets": "vdsm_bench.contracts:VideoDataset",
    "evaluators": "vdsm_bench.contracts:Evaluator",
    "baselines": None,
    "ablations": None,
    "presets": None,
    "suites": None,
}
#: constructor arguments that the frame supplies, never the user
CONTEXT_ARGUMENTS: dict[str, frozenset[str]] = {
    "models": frozenset({"clip"}),
    "encoders": frozenset({"clip"}),
    "decoders": frozenset({"clip", "pose_dim", "identity_dim"}),
}
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
#: what to install for a module that the package requires, where it has another name
DISTRIBUTIONS = {"PIL": "pillow", "pyro": "pyro-ppl", "sklearn": "scikit-learn", "yaml": "pyyaml"}


@dataclass(frozen=True)
class Entry:
    """One component of the catalogue.

    Attributes:
        kind: one of :data:`KINDS`.
        name: lower-kebab name, unique in its kind.
        summary: one line.
        target: ``module:Class``, empty for kinds that hold settings only.
        defaults: every constructor argument with its default value.
        parts: constructor arguments that are components themselves, with their kind.
        settings: everything else of the entry (stages, presets' settings, an ablation's change).
        origin: where it is declared, for messages.
        version: 1 or more; raised when the same arguments come to give other numbers. Those of
            models, encoders and decoders are part of a cell's key.
        required: arguments without a default, which have to be given.
    """

    kind: str
    name: str
    summary: str
    target: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "registry.yaml"
    loader: Callable[[], Any] | None = None
    version: int = 1
    required: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if type(self.version) is not int or self.version < 1:
            raise ContractError(
                f"{self.kind}/{self.name} ({self.origin}): its version is {self.version!r}; it has "
                "to be a whole number, 1 or more."
            )

    def load(self) -> Any:
        """Imports the target and checks its base class.

        Raises:
            MissingDependencyError: the target's module does not import.
            ContractError: the target is not what its kind asks for.
        """
        where = f"{self.kind}/{self.name} ({self.origin})"
        if self.loader is not None:
            target = self.loader()
        elif self.target:
            target = import_target(self.target, where)
        else:
            raise ContractError(f"{where} holds settings only; there is nothing to build.")
        base_target = KINDS[self.kind]
        if base_target is not None:
            base = import_target(base_target, where)
            if not (inspect.isclass(target) and issubclass(target, base)):
                raise ContractError(
                    f"{where}: {target!r} is not a {base.__name__}.",
                    hint=f"derive it from vdsm_bench.contracts.{base.__name__}",
                )
        return target

    def annotations(self) -> Mapping[str, Any]:
        """Returns the annotations of the constructor's arguments, as far as they can be had.

        Raises:
            ContractError: those of another package's component do not evaluate.
        """
        if self.loader is not None:
            return annotations_of(self.load(), f"{self.kind}/{self.name}")
        return annotations_in_source(self.target)


def import_target(target: str, where: str) -> Any:
    """Imports ``module:attribute``; what is missing becomes an error that names the pip line."""
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
        return getattr(module, attribute)
    except ModuleNotFoundError as error:
        missing = (error.name or module_name).partition(".")[0]
        raise MissingDependencyError(
            f"{where} needs the module '{error.name}', which is not installed.",
            hint=f"pip install {DISTRIBUTIONS.get(missing, missing)}",
        ) from error
    except AttributeError as error:
        raise ContractError(f"{where}: {target} does not exist ({error}).") from error


class Registry:
    """The table of entries; see :func:`registry` for the process's shared instance."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}
        self._refused: dict[tuple[str, str], UsageError] = {}

    def add(self, entry: Entry) -> None:
        """Adds an entry.

        Raises:
            UsageError: unknown kind, a name that is not lower-kebab, or a name already taken.
        """
        if entry.kind not in KINDS:
            raise UsageError(
                f"{entry.origin}: unknown kind '{entry.kind}'{suggest(entry.kind, KINDS)}."
            )
        if not NAME.fullmatch(entry.name):
            raise UsageError(
                f"{entry.origin}: '{entry.name}' is no registry name; names are lower-kebab-case.",
                hint="rename it, for example to 'my-own-2': small letters, digits, single hyphens",
            )
        known = self._entries.get((entry.kind, entry.name))
        if known is not None:
            raise UsageError(
                f"{entry.kind}/{entry.name} is declared twice: in {known.origin} and in "
                f"{entry.origin}.",
                hint="rename or uninstall one of the two",
            )
        self._entries[entry.kind, entry.name] = entry

    def add_installed(self, entry: Entry) -> None:
        """Adds an entry of an installed package; one with a fault is refused when it is asked for.

        So is what has its name already: which of the two was meant cannot be told.
        """
        try:
            self.add(entry)
        except UsageError as error:
            key = entry.kind, entry.name
            shown = self._entries.get(key, entry)
            summary = f"{shown.summary} (cannot be used: {error.message})"
            self._refused[key], self._entries[key] = error, replace(shown, summary=summary)

    def register(self, kind: str, name: str) -> Callable[[type], type]:
        """Decorator that adds a class of the running program, for notebooks and scripts."""

        def decorate(cls: type) -> type:
            self.add(_entry_from_class(kind, name, cls, f"{cls.__module__}.{cls.__qualname__}"))
            return cls

        return decorate

    def extended(self, entries: Iterable[Entry]) -> Registry:
        """Returns a copy with further entries; one of the same kind and name is replaced."""
        table = Registry()
        table._entries, table._refused = dict(self._entries), dict(self._refused)
        for entry in entries:
            table._entries.pop((entry.kind, entry.name), None)
            table._refused.pop((entry.kind, entry.name), None)
            table.add(entry)
        return table

    def names(self, kind: str) -> list[str]:
        """Returns the sorted names of one kind."""
        return sorted(name for known, name in self._entries if known == kind)

    def peek(self, kind: str, name: str) -> Entry:
        """Returns an entry as declared, importing nothing (an entry point may lack defaults)."""
        return self._entries[kind, name]

    def get(self, kind: str, name: str) -> Entry:
        """Returns an entry.

        Raises:
            UsageError: no such name; the message suggests one. Or one that :meth:`add_installed`
                refused.
        """
        if (kind, name) in self._refused:
            raise self._refused[kind, name]
        entry = self._entries.get((kind, name))
        if entry is None:
            raise UsageError(
                f"There is no '{name}' among the {kind}{suggest(name, self.names(kind))}.",
                hint=f"vdsm-bench list {kind}" + _of_ones_own(kind, name),
            )
        return _with_signature(entry)

    def check_arguments(self, kind: str, name: str, arguments: Mapping[str, Any]) -> None:
        """Checks names and values of arguments, also of nested components; builds nothing.

        Nothing built-in is imported: its annotations are read from the source.

        Raises:
            UsageError: an argument that the component does not take, a wrong value of one, or
                one missing that has no default.
            ContractError: annotations of another package's component that do not evaluate.
        """
        entry = self.get(kind, name)
        annotations = entry.annotations() if arguments else {}
        usual = {key: entry.defaults[key] for key in entry.parts if key not in entry.required}
        for key, value in {**usual, **arguments}.items():
            if key not in entry.defaults:
                raise UsageError(
                    f"{kind}/{name} takes no argument '{key}'{suggest(key, entry.defaults)}.",
                    hint=f"vdsm-bench show {kind}/{name}",
                )
            if key in entry.parts:
                where = f"{kind}/{name}: its argument '{key}'"
                part, part_arguments = split_part(value, where)
                self.check_arguments(entry.parts[key], part, part_arguments)
            elif key in annotations:
                checked_value(annotations[key], key, value, f"{kind}/{name}")
        for key in sorted(entry.required - arguments.keys()):
            raise UsageError(
                f"{kind}/{name} has no default for its argument '{key}', so it must be given.",
                hint=f"{name}[{key}=...]",
            )

    def factory(
        self, kind: str, name: str, arguments: Mapping[str, Any] | None = None
    ) -> Callable[..., Any]:
        """Returns a callable that builds the component from the context arguments alone.

        Args:
            kind: one of :data:`KINDS`.
            name: registry name.
            arguments: what departs from the entry's defaults.

        Raises:
            UsageError: unknown name, unknown argument, or a wrong value of one.
        """
        self.check_arguments(kind, name, arguments or {})
        entry = self.get(kind, name)
        target = entry.load()
        merged = {**entry.defaults, **(arguments or {})}
        plain = {key: value for key, value in merged.items() if key not in entry.parts}
        for key, part_kind in entry.parts.items():
            part, part_arguments = split_part(merged[key])
            plain[key] = self.factory(part_kind, part, part_arguments)
        if entry.loader is not None:
            where, context = f"{kind}/{name} ({entry.origin})", CONTEXT_ARGUMENTS.get(kind)
            target = functools.partial(build_own, target, kind, context, where)
        return functools.partial(target, **plain)


def _of_ones_own(kind: str, name: str) -> str:
    """Returns how a user brings what is not there, for a hint; empty where they cannot."""
    if kind == "suites":
        return "   (your own: a file, --suite ./my.yaml)"
    if kind == "datasets":
        return f"   (your own clips: vdsm-bench data prepare {name} --from FOLDER --static ...)"
    if KINDS.get(kind) is None:
        return ""
    return f"   (your own: an entry point in the group 'vdsm_bench.{kind}')"


def split_part(value: Any, where: str = "A component") -> tuple[str, dict[str, Any]]:
    """Splits a nested component, ``"name"`` or ``{"name": ..., argument: ...}``, into both.

    Raises:
        UsageError: it is neither; names ``where``.
    """
    if isinstance(value, str):
        return value, {}
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return value["name"], {key: item for key, item in value.items() if key != "name"}
    raise UsageError(f"{where} is a name or a mapping with 'name', got {value!r}.")


def _entry_from_class(kind: str, name: str, cls: type, origin: str) -> Entry:
    declared = read_declaration(
        cls,
        supplied=CONTEXT_ARGUMENTS.get(kind, frozenset()),
        kinds=[each for each, contract in KINDS.items() if contract is not None],
        where=f"{kind}/{name} ({origin})",
    )
    return Entry(
        kind=kind,
        name=name,
        target=f"{cls.__module__}:{cls.__qualname__}",
        origin=origin,
        loader=lambda: cls,
        **vars(declared),
    )


def _with_signature(entry: Entry) -> Entry:
    """Completes an entry-point entry from its class; built-in entries state everything in YAML."""
    if entry.loader is None or entry.defaults or entry.settings:
        return entry
    return _entry_from_class(entry.kind, entry.name, entry.load(), entry.origin)


def _load_entry_point(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # a script may exit when it is imported
        raise MissingDependencyError(
            f"The entry point '{point.name}' ({point.group}, {point.value}) does not load: "
            f"{type(error).__name__}: {error}.",
            hint="reinstall the package that declares it",
        ) from error


def registry_path() -> Path:
    """Returns the path of registry.yaml: inside the wheel, or at the top of a checkout."""
    inside = Path(__file__).with_name("registry.yaml")
    return inside if inside.exists() else Path(__file__).parent.parent / "registry.yaml"


def load_registry(path: Path | None = None) -> Registry:
    """Reads the catalogue: registry.yaml first, then the entry points of installed packages."""
    table = Registry()
    path = path or registry_path()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader) or {}  # noqa: S506
    for kind, entries in content.items():
        for name, body in (entries or {}).items():
            rest = dict(body)
            table.add(
                Entry(
                    kind=kind,
                    name=name,
                    summary=rest.pop("summary"),
                    target=rest.pop("target", ""),
                    defaults=rest.pop("defaults", {}),
                    parts=rest.pop("parts", {}),
                    version=rest.pop("version", 1),
                    settings=rest,
                    origin=path.name,
                )
            )
    for kind in KINDS:
        for point in entry_points(group=f"vdsm_bench.{kind}"):
            owner = point.dist.name if point.dist is not None else "an installed package"
            table.add_installed(
                Entry(
                    kind=kind,
                    name=point.name,
                    summary=f"from {owner}",
                    target=point.value,
                    origin=f"{owner} ({point.value})",
                    loader=functools.partial(_load_entry_point, point),
                )
            )
    return table


@functools.cache
def registry() -> Registry:
    """Returns the process's catalogue."""
    return load_registry()
