"""The recipes to start from, and every key with their values in words."""

import textwrap

from pydantic.fields import FieldInfo

from ichfast.training.recipe import Recipe, join_choices, keys, merge, to_literal
from ichfast.training.settings import choices

PRESETS = {
    "demo": merge(
        Recipe(),
        {
            "training.epochs": 20,
            "model.channels": [8, 16, 32, 64],
            "supervised.batch_size": 8,
            "unsupervised.batch_size": 8,
            "curriculum.k": 10.0,
            "lbfgs.max_iter": 10,
            "adam.learning_rate": 1e-3,
            "data.size": 128,
            "data.train": 0.25,
            "data.validation": 0.15,
            "data.test": 0.6,
            "phantom.patients": 100,
            "phantom.unlabelled": 40,
            "phantom.slices": 6,
            "phantom.size": 256,
        },
    ),
    "paper": merge(Recipe(), {"training.checkpoint_every": 10}),
}


def format_table() -> str:
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
    listed = choices(field)
    return (field.description or "") + (f" ({join_choices(listed)})" if listed else "")
