"""The package's pages as templates; of the plots in some of them it knows nothing."""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

NO_NUMBER = "–"


def load_template(name: str, **filters: Callable[..., Any]) -> Template:
    """One of this package's pages, with filters beside `count`."""
    environment = Environment(
        loader=PackageLoader("ichfast.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=format_count, **filters)
    return environment.get_template(name)


def format_count(value: Any) -> str:
    """A whole number with thin spaces between thousands."""
    return NO_NUMBER if value is None else f"{value:,}".replace(",", "\u2009")
