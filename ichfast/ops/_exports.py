"""A package exports what its modules export: to add a module is enough."""

import pkgutil
from importlib import import_module
from typing import Any


def export_modules(package: dict[str, Any]) -> list[str]:
    """Import the public modules of a package, and take over the names in their ``__all__``.

    A name may be that of its module, as in ``ichfast.ops.tversky.tversky``; in the package it
    then stands for the function.

    Args:
        package: its ``globals()``.

    Returns:
        the names, sorted: the package's own ``__all__``.
    """
    names: list[str] = []
    for found in pkgutil.iter_modules(package["__path__"]):
        if found.ispkg or found.name.startswith("_"):
            continue
        module = import_module(f"{package['__name__']}.{found.name}")
        package.update({name: getattr(module, name) for name in module.__all__})
        names += module.__all__
    return sorted(names)
