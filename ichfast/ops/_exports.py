"""Packages that export whatever their modules do, so that no list of modules is kept."""

import pkgutil
from importlib import import_module
from typing import Any


def export_modules(package: dict[str, Any]) -> list[str]:
    """Import the public modules of a package and add the names in their ``__all__`` to it.

    Where a function is named like its module, the package's attribute is the function.

    Args:
        package: its ``globals()``.

    Returns:
        the names, sorted, for the package's own ``__all__``.
    """
    names: list[str] = []
    for found in pkgutil.iter_modules(package["__path__"]):
        if found.ispkg or found.name.startswith("_"):
            continue
        try:
            module = import_module(f"{package['__name__']}.{found.name}")
        except RuntimeError as error:  # as torch says that it has no operator of that name
            error.add_note("if ichfast's native library is older than its Python code, rebuild it")
            raise
        package.update({name: getattr(module, name) for name in module.__all__})
        names += module.__all__
    return sorted(names)
