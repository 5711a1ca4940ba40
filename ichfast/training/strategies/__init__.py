"""The strategies: each is the module of its name, and a word of this list. The order is that of the
choices in --help and of the table in docs/training.md."""

from importlib import import_module

for _name in (
    "supervised",
    "pretrained",
    "curriculum",
    "alternating",
    "joint",
    "mean_teacher",
    "cps",
    "pseudo_label",
    "unimatch",
    "paste_negatives",
):
    import_module(f"{__name__}.{_name}")  # enters ichfast.training.registry.STRATEGIES
