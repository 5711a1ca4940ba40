"""Command lines with recipes: a refused option comes with what was probably meant."""

import argparse
import difflib
import re
from collections.abc import Sequence

from ichfast.training.recipe import find_nearest_key


def parse_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """As ``parser.parse_args``, whose parser has an option ``--set KEY=VALUE``."""
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = re.findall(r"--[a-z-]+", parser.format_usage())
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{suggest(unknown, known)}")
    return options


def suggest(unknown: Sequence[str], known: Sequence[str]) -> str:
    """What the first of the arguments that no option takes may have meant; empty where nothing is
    near."""
    option, equals, value = unknown[0].partition("=")
    if not option.startswith("--"):
        return ""
    if near := difflib.get_close_matches(option, known, 1, cutoff=0.8):
        return f"; did you mean {near[0]}?"
    if key := find_nearest_key(option.removeprefix("--").replace("-", "_")):
        if not equals:
            value = next((word for word in unknown[1:2] if not word.startswith("--")), "VALUE")
        return f"; did you mean --set {key}={value}?"
    return ""
