"""Imports that can fail on a sound machine go through here."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

from vdsm_bench.errors import MissingDependencyError

#: operators that torchvision's Python files refer to while they are imported
_TORCHVISION_OPERATORS = ("nms", "qnms")


def import_optional(module: str, *, package: str | None = None) -> ModuleType:
    """Imports a third-party module.

    Args:
        module: dotted module name.
        package: what to install for it, if not named like the module.

    Raises:
        MissingDependencyError: it is not installed, or it is and its import breaks
            (mismatched binaries raise RuntimeError or OSError, not ImportError).
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError, OSError) as error:
        package = package or module.partition(".")[0]
        raise MissingDependencyError(
            f"The module '{module}' does not import: {error}.",
            hint=f"pip install --upgrade {package}",
        ) from error


@functools.cache
def _define_torchvision_operators() -> object:
    """Defines the operators that torchvision misses when its wheel was built for another torch.

    torchvision registers fake kernels for ``torchvision::nms`` while it is imported and
    fails if its compiled library could not be loaded. Neither timm's backbones nor
    BlurPool call these operators, so declaring them is enough to import both.
    """
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in _TORCHVISION_OPERATORS:
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    return library  # kept alive by the cache: the definitions go when the library does


def import_with_torchvision(module: str) -> ModuleType:
    """Imports a module that imports torchvision, also where torch and torchvision disagree.

    Raises:
        MissingDependencyError: the module is missing or does not import even so.
    """
    import importlib.util

    try:
        if importlib.util.find_spec("torchvision") is not None:
            importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError):
        _forget("torchvision")
        _define_torchvision_operators()
    return import_optional(module)


def _forget(package: str) -> None:
    """Drops a half-imported package, so that the next import starts from the beginning."""
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def import_timm() -> ModuleType:
    """Imports timm.

    Raises:
        MissingDependencyError: timm is missing or does not import.
    """
    return import_with_torchvision("timm")
