"""Everything a run is made of between two epochs, in one file."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from ichfast.errors import CheckpointError, IchfastError, RecipeError
from ichfast.models import ReducedUNet
from ichfast.models.weights import check_tensors
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


def pack(
    recipe: Recipe,
    fingerprints: dict[str, str],
    progress: Progress,
    model: ReducedUNet,
    steps: dict[str, Step],
    average: MovingAverage | None = None,
    team: Team = ALONE,
) -> dict[str, Any]:
    """The content, whose tensors are those that the next epoch changes."""
    return {
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
    }


def copy(content: Any) -> Any:
    """The same in the host's memory, which nothing changes."""
    if isinstance(content, Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        return {key: copy(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(map(copy, content))
    return content


def save(folder: RunFolder, content: dict[str, Any]) -> None:
    buffer = io.BytesIO()  # torch.save to a path hides a full disk behind a RuntimeError
    torch.save(content, buffer)
    folder.write(CHECKPOINT, buffer.getvalue())


def read(folder: RunFolder) -> dict[str, Any] | None:
    """The checkpoint's content; None where the run was stopped before its first."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    with refuse_damage(path, "cannot be read"):
        content = torch.load(path, map_location="cpu", weights_only=True)
    with refuse_damage(path):
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a checkpoint of this version of ichfast.")
        check_types(content, CONTENT, f"{path} is damaged")
        check_types(content["progress"], PROGRESS, f"{path} is damaged: progress")
    return content


@contextmanager
def refuse_damage(path: Path, what: str = "is damaged") -> Iterator[None]:
    """CheckpointError for wherever a file that no run has written leads."""
    try:
        yield
    except IchfastError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} {what}: {reason}.") from error


CONTENT: dict[str, Any] = {
    "processes": int,
    "launch": str,
    "recipe": str,
    "fingerprints": dict,
    "progress": dict,
    "model": dict,
    "steps": dict,
    "updates": int,
    "rng": Tensor,
}
PROGRESS: dict[str, Any] = {
    "epochs": int,
    "steps": dict,
    "lowest": dict,
    "start_norm": float,
    "best_score": float,
    "best_epoch": (int, NoneType),
    "kept": (dict, NoneType),
    "blank": list,
    "seconds": float,
}


def check_types(content: dict[str, Any], kinds: dict[str, Any], what: str) -> None:
    """CheckpointError unless every key is there with a value of its type; no count is negative."""
    for key, kind in kinds.items():
        value: Any = content.get(key)
        good = key in content and isinstance(value, kind)
        if good and kind is int:
            good = 0 <= value < 2**63
        elif good and kind is float:
            good = not math.isnan(value)
        if not good:
            raise CheckpointError(f"{what}: it has no valid {key!r}.")
    for name in ("steps", "lowest", "blank"):
        values = content.get(name, ())
        numbers = values.values() if isinstance(values, dict) else values
        if kinds is PROGRESS and not all(isinstance(one, int | float) for one in numbers):
            raise CheckpointError(f"{what}: it has no valid {name!r}.")


def check_recipe(folder: RunFolder, content: dict[str, Any], recipe: Recipe) -> None:
    """Raise unless ``recipe`` continues the checkpoint's: the same, but for more epochs."""
    try:
        with refuse_damage(folder / CHECKPOINT):
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
    changed = sorted(str(part) for part in former if fingerprints.get(part) != former[part])
    if changed:
        raise CheckpointError(
            f"the {' and '.join(changed)} slices are not those that {folder.path} was trained on; "
            "give it the same data, or start a new run."
        )


def check_processes(folder: RunFolder, content: dict[str, Any], team: Team) -> None:
    """Raise unless as many processes go on as have trained: sums over others round otherwise."""
    former = content["processes"]
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
    path = folder / CHECKPOINT
    with refuse_damage(path):
        for weights in (content["model"], content["progress"]["kept"]):
            if weights is not None:
                check_tensors(model, weights, path)
        model.load_state_dict(content["model"])
        for name, step in steps.items():
            step.load_state_dict(content["steps"][name])
            for optimizer in find_optimizers(step):
                check_optimizer(optimizer)
        torch.set_rng_state(content["rng"])
        vars(progress).update({key: content["progress"][key] for key in PROGRESS})
        if average is not None:
            average.average.load_state_dict(progress.kept or {})
            average.updates = content["updates"]


def find_optimizers(step: Step) -> Iterator[torch.optim.Optimizer]:
    """The step's own, and those of the steps that it is made of."""
    for value in vars(step).values():
        if isinstance(value, torch.optim.Optimizer):
            yield value
        elif isinstance(value, Step):
            yield from find_optimizers(value)


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """ValueError unless what it remembers fits its parameters: of each, as Adam does, or of all in
    a row, as L-BFGS."""
    total = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    for parameter, state in optimizer.state.items():
        if not isinstance(state, dict):
            raise ValueError("the optimizer's state is none")
        for name, value in state.items():
            if isinstance(value, list) != (name in LISTS) or value is None:
                raise ValueError(f"the optimizer's {name} is {type(value).__name__}")
            for one in value if isinstance(value, list) else [value]:
                vectors = {parameter.shape, (total,)} if name in VECTORS else {()}
                _check_memory(name, one, vectors)
        if isinstance(optimizer, torch.optim.Adam) and not state.keys() >= ADAM:
            raise ValueError("the optimizer lacks its moments")


ADAM = {"step", "exp_avg", "exp_avg_sq"}
LISTS = {"old_dirs", "old_stps", "ro", "al"}
VECTORS = {"exp_avg", "exp_avg_sq", "d", "prev_flat_grad", "old_dirs", "old_stps"}


def _check_memory(name: str, value: Any, shapes: set[Any]) -> None:
    if isinstance(value, Tensor):
        if tuple(value.shape) not in shapes or not value.isfinite().all():
            raise ValueError(f"the optimizer's {name} is {tuple(value.shape)}, or not finite")
    elif value is None:  # in L-BFGS's room for products of its history
        return
    elif () not in shapes or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"the optimizer's {name} is no number")
