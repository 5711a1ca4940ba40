"""Training: recipe, strategies, steps, the loop, and the run around it."""

from ichfast.training.folder import RunFolder
from ichfast.training.pipeline import finish, run
from ichfast.training.presets import PRESETS
from ichfast.training.recipe import Recipe

__all__ = ["PRESETS", "Recipe", "RunFolder", "finish", "run"]
