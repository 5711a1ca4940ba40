"""Keys and strategies in words, for --help and docs/training.md, from where each is described."""

import textwrap

from pydantic.fields import FieldInfo

from ichfast.training.presets import PRESETS
from ichfast.training.recipe import join, keys, to_literal
from ichfast.training.registry import STRATEGIES
from ichfast.training.settings import list_choices

MODELS = {"unet": "one decoder", "multitask": "two decoders"}
NEEDS = {"": "–", "images": "slices", "labels": "its table, and all its slices"}


def format_keys() -> str:
    """Every key in a Markdown table: the one in docs/training.md."""
    demo = {name: value for name, _, value in keys(PRESETS["demo"])}
    rows = ["| key | paper | demo | meaning |", "|---|---|---|---|"]
    for name, field, value in keys(PRESETS["paper"]):
        other = "" if demo[name] == value else f"`{to_literal(demo[name])}`"
        rows.append(f"| `{name}` | `{to_literal(value)}` | {other} | {describe(field)} |")
    return "\n".join(rows) + "\n"


def format_help() -> str:
    """The same for --help."""
    demo = {name: value for name, _, value in keys(PRESETS["demo"])}
    lines: list[str] = []
    for name, field, value in keys(PRESETS["paper"]):
        values = dict.fromkeys((to_literal(value), to_literal(demo[name])))
        text = f"{describe(field)} [{'; '.join(values)}]"
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
