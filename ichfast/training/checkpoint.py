"""Everything a run is made of between two epochs, in one file."""

import io
import pickle
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ichfast.errors import CheckpointError, RecipeError
from ichfast.models import ReducedUNet
from ichfast.team import ALONE, Team
from ichfast.training.folder import CHECKPOINT, RunFolder
from ichfast.training.recipe import Recipe, compare, parse, to_toml
from ichfast.training.registry import STRATEGIES
from ichfast.training.steps import MovingAverage, Step

FORMAT = 3

MAY_CHANGE = ("data.labelled", "data.unlabelled")
"""keys that a resume may give anew: where the data lie, but not what they are (fingerprints)"""


@dataclass
class Progress:
    """How far a run has come, beside its weights and optimizers."""

    epochs: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    lowest: dict[str, float] = field(default_factory=dict)
    start_norm: float = 0.0
    best_score: float = float("-inf")
    best_epoch: int | None = None
    kept: dict[str, Tensor] | None = None
    """the weights to end with, where they are not the last: the best epoch's, or their average"""
    blank: list[float] = field(default_factory=list)
    """losses of the epochs in a row in which a network called nothing, or everything, blood"""
    seconds: float = 0.0

    def keep_best(self, model: ReducedUNet, score: float | None) -> bool:
        """Keep the weights if ``score`` is the best so far; None is a score that is undefined.
        Whether they are."""
        if score is None or score <= self.best_score:
            return False
        self.best_score, self.best_epoch = score, self.epochs
        self.kept = {name: value.clone() for name, value in model.state_dict().items()}
        return True

    def advance(self, step: str, loss: float, seconds: float) -> None:
        self.epochs += 1
        self.steps[step] = self.steps.get(step, 0) + 1
        self.lowest[step] = min(loss, self.lowest.get(step, loss))
        self.seconds += seconds


def save(
    folder: RunFolder,
    recipe: Recipe,
    fingerprints: dict[str, str],
    progress: Progress,
    model: ReducedUNet,
    steps: dict[str, Step],
    average: MovingAverage | None = None,
    team: Team = ALONE,
) -> None:
    if not team.leads:
        return
    buffer = io.BytesIO()  # torch.save to a path hides a full disk behind a RuntimeError
    torch.save(
        {
            "format": FORMAT,
            "processes": team.size,
            "launch": team.launch,
            "recipe": to_toml(recipe),
            "fingerprints": fingerprints,
            "progress": vars(progress),
            "model": model.state_dict(),
            "steps": {name: step.state_dict() for name, step in steps.items()},
            "updates": 0 if average is None else average.updates,
            "rng": torch.get_rng_state(),
        },
        buffer,
    )
    folder.write(CHECKPOINT, buffer.getvalue())


def read(folder: RunFolder) -> dict[str, Any] | None:
    """The checkpoint's content; None where the run was stopped before its first."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} cannot be read: {reason}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this version of ichfast.")
    kinds = {"recipe": str, "fingerprints": dict, "progress": dict, "steps": dict}
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise CheckpointError(f"{path} is damaged: it has no valid {key!r}.")
    return content


def check_recipe(folder: RunFolder, content: dict[str, Any], recipe: Recipe) -> None:
    """Raise unless ``recipe`` continues the checkpoint's: the same, but for more epochs."""
    try:
        former = parse(content["recipe"], Recipe())
    except RecipeError as error:
        raise CheckpointError(f"{folder / CHECKPOINT}: {error}") from error
    allowed: tuple[str, ...] = MAY_CHANGE
    if recipe.training.epochs >= former.training.epochs:
        allowed += ("training.epochs",)
    spanned = find_spanned(former)
    if spanned and recipe.training.epochs > former.training.epochs:
        raise CheckpointError(
            f"{folder.path} cannot go on to {recipe.training.epochs} epochs: {spanned} follows a "
            f"course over the {former.training.epochs} it was given, which more would have changed "
            "from the start; start a new run."
        )
    changed = [str(one) for one in compare(former, recipe) if one.key not in allowed]
    if changed:
        raise CheckpointError(
            f"{folder.path} was run with another recipe: {', '.join(changed)}. Only "
            "training.epochs may change, and only grow; start a new run for anything else."
        )


def find_spanned(recipe: Recipe) -> str | None:
    """The key, if any, by which the number of epochs is felt from the first one on."""
    if recipe.adam.decay != "none":
        return f"adam.decay = {recipe.adam.decay}"
    if STRATEGIES[recipe.training.strategy].batchwise and recipe.together.ramp:
        return f"together.ramp = {recipe.together.ramp:g}"
    return None


def check_data(folder: RunFolder, content: dict[str, Any], fingerprints: dict[str, str]) -> None:
    """Raise unless the slices are those that the checkpoint was trained on."""
    former = content["fingerprints"]
    changed = sorted(part for part in former if fingerprints.get(part) != former[part])
    if changed:
        raise CheckpointError(
            f"the {' and '.join(changed)} slices are not those that {folder.path} was trained on; "
            "give it the same data, or start a new run."
        )


def check_processes(folder: RunFolder, content: dict[str, Any], team: Team) -> None:
    """Raise unless as many processes go on as have trained: sums over others round otherwise."""
    former = content.get("processes", 1)
    if former != team.size:
        start = "without torchrun" if former == 1 else f"with {former} processes of torchrun"
        raise CheckpointError(
            f"{folder.path} was trained by {former} process{'es' * (former > 1)} and this is "
            f"{team.size}; continue it {start}, or start a new run."
        )


def restore(
    folder: RunFolder,
    content: dict[str, Any],
    progress: Progress,
    model: ReducedUNet,
    steps: dict[str, Step],
    average: MovingAverage | None = None,
) -> None:
    """Put everything where the checkpoint left it, torch's generator included."""
    try:
        model.load_state_dict(content["model"])
        for name, step in steps.items():
            step.load_state_dict(content["steps"][name])
        torch.set_rng_state(content["rng"])
        vars(progress).update(content["progress"])
        if average is not None:
            average.average.load_state_dict(progress.kept or {})
            average.updates = content["updates"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder / CHECKPOINT} is damaged: {error}.") from error
