"""How the numbers of the table are written."""

from collections.abc import Mapping
from typing import Any

from ichfast.report.page_template import NO_NUMBER
from ichfast.report.run import to_float


def format_interval(value: Mapping[str, Any]) -> str:
    """Low and high; nothing where there is no interval."""
    if value["low"] is None:
        return ""
    return f"{_format_number(value['low'], value)} to {_format_number(value['high'], value)}"


def _format_number(number: float, value: Mapping[str, Any]) -> str:
    return f"{number:.1f}" if value.get("unit") == "mm" else f"{number:.3f}"


def format_difference(value: Any, unit: str = "") -> str:
    """A number with its sign."""
    if value is None:
        return NO_NUMBER
    text = f"{to_float(value):+.1f}" if unit == "mm" else f"{to_float(value):+.3f}"
    return text.replace("-", "−")


def format_probability(value: Any) -> str:
    """A p-value."""
    if value is None:
        return NO_NUMBER
    return "< 0.001" if value < 0.001 else f"{to_float(value):.3f}"
