"""Training: one loop for every strategy."""

import copy
import math
import sys
import time
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from ichfast.errors import DataError, DivergedError, TeamError
from ichfast.evaluation import evaluate
from ichfast.interrupts import Halted, catch_interrupts
from ichfast.models import ReducedUNet, to_bytes
from ichfast.models.synced import synchronise
from ichfast.team import ALONE, Team
from ichfast.training import checkpoint
from ichfast.training.about import describe_weights
from ichfast.training.checkpoint import Progress
from ichfast.training.folder import WEIGHTS, RunFolder
from ichfast.training.parts import Parts
from ichfast.training.recipe import Recipe
from ichfast.training.steps import (
    EpochResult,
    MovingAverage,
    Step,
    bound_blank_loss,
    build_steps,
    make_supervised_loss,
)
from ichfast.training.strategy import Draw, make_strategy
from ichfast.training.watch import Watch, check_alive


def train(
    model: ReducedUNet,
    progress: Progress,
    parts: Parts,
    recipe: Recipe,
    folder: RunFolder,
    device: torch.device,
    team: Team = ALONE,
) -> int:
    """Train ``model`` as the recipe says, going on from the folder's checkpoint if it has one.

    ``progress`` follows the run, with the weights to end with. Returns the signal that has ended it
    early, on whichever process; 0 where it went to its end. Raises DivergedError; the last good
    checkpoint is then still the folder's.
    """
    with catch_interrupts() as stop:
        try:
            _train(model, progress, parts, recipe, folder, device, replace(team, stop=stop))
        except Halted as halted:
            return halted.number
    return 0


def _train(
    model: ReducedUNet,
    progress: Progress,
    parts: Parts,
    recipe: Recipe,
    folder: RunFolder,
    device: torch.device,
    team: Team,
) -> None:
    """The same, ended by Halted."""
    settings = recipe.training
    strategy = make_strategy(recipe)
    synchronise(model, team)
    average = make_average(model, recipe)
    steps = build_steps(
        strategy.steps, model, parts.train, parts.unlabelled, recipe, device, team, average
    )
    watch = Watch(steps.values(), device, team)
    fingerprints, about = parts.fingerprints, describe_weights(recipe, parts)
    if not team.agree(fingerprints):
        raise DataError(
            "the processes do not read the same slices; give every machine the same folders."
        )
    torch.manual_seed(settings.seed)
    progress.start_norm = compute_weight_norm(model)
    if content := team.lead(lambda: checkpoint.read(folder)):
        checkpoint.restore(folder, content, progress, model, steps, average)
    if average is not None:
        progress.kept = average.average.state_dict()  # no copy: it follows the average
    chosen = model if average is None else average.average
    folder.cut_log(progress.epochs)

    # The last epoch's checkpoint, where it is not on the disk.
    unsaved: dict[str, Any] | None = None

    def save(content: dict[str, Any]) -> None:
        checkpoint.save(folder, content)
        if settings.select != "best":
            folder.write(WEIGHTS, to_bytes(chosen, about))

    try:
        with make_progress_bar(progress.epochs, settings.epochs) as bar:
            for epoch in bar:
                start = time.perf_counter()
                draw = strategy.draw(epoch)
                moved = epoch > 0 and strategy.draw(epoch - 1).step != draw.step
                outcome = steps[draw.step].run(epoch, moved=moved)
                check_divergence(model, progress, recipe, strategy.steps[draw.step], outcome.loss)
                check_alive(progress, recipe, watch.is_blank(), outcome)
                check_together(model, team)
                validation = None
                if len(parts.validation) and (epoch + 1) % settings.validate_every == 0:
                    validation = validate(chosen, parts, recipe, device, team)
                    if settings.select == "best" and progress.keep_best(model, validation["dice"]):
                        folder.write(WEIGHTS, to_bytes(model, about))
                seconds = time.perf_counter() - start

                progress.advance(draw.step, outcome.loss, seconds)
                folder.log(make_record(epoch, draw, outcome, seconds, validation))
                last = progress.epochs == settings.epochs
                if team.leads:
                    content = checkpoint.pack(
                        recipe, fingerprints, progress, model, steps, average, team
                    )
                    if last or progress.epochs % settings.checkpoint_every == 0:
                        save(content)
                        unsaved = None
                    else:
                        unsaved = checkpoint.copy(content)
                bar.set_postfix_str(describe(draw, outcome, progress, validation), refresh=False)
                if not last:
                    team.check_stop()
    except Halted:
        if unsaved is not None:
            weights = unsaved["model"] if average is None else unsaved["progress"]["kept"]
            chosen.load_state_dict(weights)
            save(unsaved)
        raise


def make_average(model: ReducedUNet, recipe: Recipe) -> MovingAverage | None:
    """Of the weights, where the run ends with that."""
    if recipe.training.select != "ema":
        return None
    average = copy.deepcopy(model).requires_grad_(False).train()
    return MovingAverage(average, model, recipe.training.ema)


def describe(
    draw: Draw, outcome: EpochResult, progress: Progress, validation: dict[str, Any] | None
) -> str:
    """An epoch beside the progress bar."""
    words = f"{draw.step} loss {outcome.loss:.4f}"
    if progress.best_epoch is not None:
        return f"{words}, best Dice {progress.best_score:.3f}"
    dice = None if validation is None else validation["dice"]
    return words if dice is None else f"{words}, Dice {dice:.3f}"


def make_record(
    epoch: int, draw: Draw, outcome: EpochResult, seconds: float, validation: dict[str, Any] | None
) -> dict[str, Any]:
    """An epoch's line in the log."""
    line = {
        "epoch": epoch,
        "step": draw.step,
        "probability": draw.probability,
        "loss": outcome.loss,
        "evaluations": outcome.evaluations,
        "seconds": round(seconds, 4),
        "validation": validation,
    }
    return line | ({"parts": outcome.parts} if outcome.parts else {})


def validate(
    model: ReducedUNet, parts: Parts, recipe: Recipe, device: torch.device, team: Team = ALONE
) -> dict[str, Any]:
    evaluation = evaluate(
        model,
        parts.validation,
        batch_size=recipe.evaluation.batch_size,
        threshold=recipe.evaluation.threshold,
        device=device,
        loss=make_supervised_loss(recipe),
        team=team,
    )
    return {
        "loss": evaluation.loss,
        "dice": evaluation.metrics["dice"]["pooled"],
        "jaccard": evaluation.metrics["jaccard"]["pooled"],
    }


def check_divergence(
    model: ReducedUNet, progress: Progress, recipe: Recipe, step: type[Step], loss: float
) -> None:
    """Raise where this epoch has ruined the run. Soft Jaccard never exceeds 1, whatever becomes of
    the weights, so the weights are looked at too."""
    limit = recipe.training.divergence
    if not math.isfinite(loss):
        raise DivergedError(f"the {step.name} loss is {loss}")
    lowest = progress.lowest.get(step.name, math.inf)
    bounded = step.bounded and loss <= bound_blank_loss(recipe)
    beyond_grace = progress.steps.get(step.name, 0) >= recipe.training.grace
    if beyond_grace and not bounded and loss > limit * lowest:
        raise DivergedError(
            f"the {step.name} loss {loss:.3g} is over {limit:g} × its best {lowest:.3g}"
        )
    norm = compute_weight_norm(model)
    start = progress.start_norm
    if not math.isfinite(norm):
        raise DivergedError("weights are no longer finite")
    if norm > limit * start:
        raise DivergedError(f"the weights' norm {norm:.3g} is over {limit:g} × {start:.3g}")


def check_together(model: ReducedUNet, team: Team) -> None:
    """Raise where the processes, which share only sums, no longer have the same weights."""
    if team.size > 1 and not team.agree(compute_weight_norm(model)):
        raise TeamError(
            "the processes' weights have drifted apart; run them on the same kind of processor or "
            "GPU, with the same versions and the same --threads."
        )


def compute_weight_norm(model: ReducedUNet) -> float:
    parameters = [parameter.detach().double() for parameter in model.parameters()]
    return torch.nn.utils.get_total_norm(parameters).item()


def make_progress_bar(done: int, epochs: int) -> tqdm:
    return tqdm(
        range(done, epochs),
        initial=done,
        total=epochs,
        unit="epoch",
        mininterval=0.2 if sys.stderr.isatty() else 20,
    )
