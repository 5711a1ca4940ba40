"""Keys and strategies in words, for --help and docs/training.md, from where each is described."""

import textwrap

from pydantic.fields import FieldInfo

from ichfast.training.presets import PRESETS
from ichfast.training.recipe import join, keys, to_literal
from ichfast.training.registry import STRATEGIES
from ichfast.training.settings import list_choices

MODELS = {"unet": "one decoder", "multitask": "two decoders"}
OTHERS = {
    preset: {name: value for name, _, value in keys(PRESETS[preset])} for preset in ("own", "demo")
}
"""values of the presets beside paper, by preset and key"""
NEEDS = {"": "–", "images": "slices", "labels": "its table, and all its slices"}


def format_keys() -> str:
    """Every key in a Markdown table: the one in docs/training.md."""
    rows = [
        f"| key | paper | {' | '.join(OTHERS)} | meaning |",
        f"|---|{'---|' * len(OTHERS)}---|---|",
    ]
    for name, field, value in keys(PRESETS["paper"]):
        own = [
            f"`{to_literal(other[name])}`" if other[name] != value else ""
            for other in OTHERS.values()
        ]
        rows.append(f"| `{name}` | `{to_literal(value)}` | {' | '.join(own)} | {describe(field)} |")
    return "\n".join(rows) + "\n"


def format_help() -> str:
    """The same for --help."""
    lines: list[str] = []
    for name, field, value in keys(PRESETS["paper"]):
        own = [
            f"; {preset}: {to_literal(other[name])}"
            for preset, other in OTHERS.items()
            if other[name] != value
        ]
        text = f"{describe(field)} [{to_literal(value)}{''.join(own)}]"
        lines += textwrap.wrap(text, 98, initial_indent=f"  {name:34}", subsequent_indent=" " * 36)
    return "\n".join(lines)


def describe(field: FieldInfo) -> str:
    """A key's meaning and choices in words."""
    listed = list_choices(field)
    return (field.description or "") + (f" ({join(listed)})" if listed else "")


def format_strategies() -> str:
    """Every strategy in a Markdown table."""
    rows = [
        "| `training.strategy` | each epoch | model | unlabelled set | optimizer |",
        "|---|---|---|---|---|",
    ]
    for name, strategy in STRATEGIES.items():
        optimizer = "Adam" if strategy.batchwise else "L-BFGS or Adam"
        facts = (strategy.about, MODELS[strategy.model], NEEDS[strategy.unlabelled], optimizer)
        rows.append(f"| `{name}` | {' | '.join(facts)} |")
    return "\n".join(rows) + "\n"
