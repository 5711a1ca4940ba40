"""A run from recipe to report. The command and every study over many runs go through here."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic
from safetensors.torch import save as to_safetensors

from ichfast import models
from ichfast.data.residence import measure_free_memory
from ichfast.errors import CheckpointError, DivergedError, RecipeError
from ichfast.evaluation import evaluate, find_intervals, pick_examples, tabulate
from ichfast.interrupts import Stopped
from ichfast.models import ReducedUNet
from ichfast.team import ALONE, Team
from ichfast.training import checkpoint
from ichfast.training.about import calibrate_run, describe_weights
from ichfast.training.checkpoint import Progress
from ichfast.training.folder import EXAMPLES, METRICS, RECIPE, SLICES, WEIGHTS, RunFolder
from ichfast.training.forward import choose_precision
from ichfast.training.host import avoid_denormals, keep_heap
from ichfast.training.loop import train
from ichfast.training.parts import Parts, load_parts
from ichfast.training.recipe import Recipe, to_literal, to_toml
from ichfast.training.settings import ModelSettings
from ichfast.training.strategy import make_strategy
from ichfast.versions import list_versions


def run(
    recipe: Recipe,
    folder: RunFolder,
    device: torch.device,
    parts: Parts | None = None,
    team: Team = ALONE,
    *,
    deterministic: bool = True,
) -> dict[str, Any]:
    """Train and evaluate ``recipe`` in ``folder``, resuming what is there; the content of
    metrics.json. ``parts`` saves reading the same slices again; ``deterministic`` as in
    :func:`compute_exactly`."""
    content = team.lead(lambda: checkpoint.read(folder))
    if team.restarts:
        print(describe_restart(team, content), file=sys.stderr)
    if content:
        checkpoint.check_processes(folder, content, team)
        checkpoint.check_recipe(folder, content, recipe)
    else:
        folder.write(RECIPE, to_toml(recipe).encode())

    start = time.perf_counter()
    parts = (parts or load_parts(recipe, folder.path.parent, team=team)).to(device)
    if content:  # a refused resume leaves the stored recipe as it was
        checkpoint.check_data(folder, content, parts.fingerprints)
        folder.write(RECIPE, to_toml(recipe).encode())
    seconds = time.perf_counter() - start
    print(describe_run(recipe, folder, parts), file=sys.stderr)

    model, progress = make_model(recipe, device), Progress()
    status, reason = "finished", None
    with keep_heap(), compute_exactly(device, deterministic=deterministic):
        try:
            if train(model, progress, parts, recipe, folder, device, team):
                if not progress.epochs:
                    raise Stopped  # and the folder is as it was before the first
                status = "interrupted"
        except DivergedError as error:
            status, reason = "diverged", str(error)
        metrics = describe_end(status, reason, progress, parts, recipe, device, seconds, team)
        if status == "finished" or (status == "diverged" and progress.best_epoch is not None):
            assess(metrics, model, progress, parts, recipe, folder, device, team)
    write_metrics(folder, metrics)
    return metrics


def finish(
    recipe: Recipe,
    folder: RunFolder,
    device: torch.device,
    parts: Parts | None = None,
    team: Team = ALONE,
) -> dict[str, Any]:
    """Evaluate a run that was stopped, by its last checkpoint, as if it had ended there; the
    content of metrics.json, whose status is "unfinished", or "diverged" where that is why. It can
    be resumed all the same. Any number of processes may do it. Raises CheckpointError where there
    is nothing to evaluate, or the run has ended and was evaluated."""
    content = team.lead(lambda: checkpoint.read(folder))
    if content is None:
        raise CheckpointError(
            f"{folder.path} has no checkpoint yet, so there is nothing to evaluate; go on with "
            f"--resume {folder.path}."
        )
    checkpoint.check_recipe(folder, content, recipe)
    ended = team.lead(lambda: find_end(folder, content["progress"]["epochs"]))
    start = time.perf_counter()
    parts = (parts or load_parts(recipe, folder.path.parent, team=team)).to(device)
    checkpoint.check_data(folder, content, parts.fingerprints)
    seconds = time.perf_counter() - start
    print(describe_run(recipe, folder, parts), file=sys.stderr)

    model, progress = make_model(recipe, device), Progress()
    planned = recipe.training.epochs
    with keep_heap(), compute_exactly(device):
        checkpoint.restore(folder, content, progress, model, steps={})
        folder.cut_log(progress.epochs)
        status, reason = ended or ("finished", None)
        if not ended and progress.epochs < planned:
            status = "unfinished"
            reason = f"finished early after {progress.epochs} of {planned} epochs"
        metrics = describe_end(status, reason, progress, parts, recipe, device, seconds, team)
        assess(metrics, model, progress, parts, recipe, folder, device, team)
    write_metrics(folder, metrics)
    return metrics


def find_end(folder: RunFolder, epochs: int) -> tuple[str, str | None] | None:
    """How the folder's run has ended by itself after so many epochs, without being evaluated; None
    where it has not. Raise where there is nothing left to do."""
    path = folder / METRICS
    if not path.exists():
        return None
    metrics = json.loads(path.read_bytes())
    if metrics["epochs"] != epochs or metrics["status"] not in ("finished", "diverged"):
        return None
    if metrics["status"] == "finished" or metrics["test"] is not None:
        raise CheckpointError(
            f"{folder.path} has ended by itself ({metrics['status']}), and {METRICS} says how; "
            f"python -m ichfast.report {folder.path} writes its page again."
        )
    return metrics["status"], metrics["reason"]


def make_model(recipe: Recipe, device: torch.device) -> ReducedUNet:
    """The recipe's model as its seed makes it."""
    kind, settings = make_strategy(recipe).model, recipe.model
    check_memory(kind, settings)
    model = models.build(kind, settings.channels, recipe.training.seed, settings.convolutions)
    return model.to(device)


def check_memory(kind: str, settings: ModelSettings) -> None:
    """Raise where the weights alone, with gradients and Adam's two moments, are more than the
    memory that is free: a process that takes more ends without a word."""
    with torch.device("meta"):
        model = models.weights.MODELS[kind](settings.channels, settings.convolutions)
    needed, free = 4 * sum(p.nbytes for p in model.parameters()), measure_free_memory()
    if needed > free > 0:
        raise RecipeError(
            f"model.channels = {to_literal(settings.channels)}: weights, gradients and moments "
            f"need {needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB of memory are free; "
            "lower model.channels or model.convolutions."
        )


def describe_end(
    status: str,
    reason: str | None,
    progress: Progress,
    parts: Parts,
    recipe: Recipe,
    device: torch.device,
    data_seconds: float,
    team: Team,
) -> dict[str, Any]:
    """What metrics.json says of a run that was not evaluated."""
    return {
        "status": status,
        "reason": reason,
        "strategy": recipe.training.strategy,
        "seed": recipe.training.seed,
        "epochs": progress.epochs,
        "best_epoch": progress.best_epoch,
        "steps": progress.steps,
        "validation": None,
        "test": None,
        "calibration": None,
        "data": parts.count(),
        "versions": list_versions(),
        "precision": str(choose_precision(recipe, device)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "processes": team.size,
        "seconds": {"data": data_seconds, "training": progress.seconds, "evaluation": None},
    }


def write_metrics(folder: RunFolder, metrics: dict[str, Any]) -> None:
    folder.write(METRICS, json.dumps(metrics, indent=1).encode())


def assess(
    metrics: dict[str, Any],
    model: ReducedUNet,
    progress: Progress,
    parts: Parts,
    recipe: Recipe,
    folder: RunFolder,
    device: torch.device,
    team: Team = ALONE,
) -> None:
    """Validation and test, where there are any, of the weights that ``progress`` has kept, or else
    the last, into ``metrics``, with the scores' intervals; the weights, the test's slices in
    numbers and some in pictures go into the folder."""
    start = time.perf_counter()
    if progress.kept:
        model.load_state_dict(progress.kept)
    calibration = calibrate_run(model, parts, recipe, device, team)
    about = describe_weights(recipe, parts, calibration)
    folder.write(WEIGHTS, models.to_bytes(model, about))
    metrics["calibration"] = about["calibration"]
    validation, test = (
        evaluate(
            model,
            part,
            batch_size=recipe.evaluation.batch_size,
            threshold=recipe.evaluation.threshold,
            device=device,
            surfaces=True,
            team=team,
        )
        if len(part)
        else None
        for part in (parts.validation, parts.test)
    )
    if test is not None:
        columns = tabulate(parts.test, test, parts.whole)
        folder.write(SLICES, json.dumps(columns, allow_nan=False).encode())
        examples = pick_examples(model, parts.test, test, device=device)
        folder.write(EXAMPLES, to_safetensors(examples))
    found = (("validation", validation, parts.validation), ("test", test, parts.test))
    for name, part, slices in found:
        if part is not None:
            metrics[name] = part.metrics | {"intervals": find_intervals(part, slices)}
    metrics["seconds"]["evaluation"] = time.perf_counter() - start


@contextmanager
def compute_exactly(device: torch.device, *, deterministic: bool = True) -> Iterator[None]:
    """Same input, same bits; torch's global settings and generator are put back at the end.

    Not ``deterministic``: on a GPU, whatever algorithms are fastest. A CPU is always exact.
    """
    deterministic |= device.type == "cpu"
    settings: Any = torch.utils.deterministic  # its stub lacks the property
    former = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    former_benchmark = torch.backends.cudnn.benchmark
    if deterministic and device.type == "cuda":  # cuBLAS reads it at its first use
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    # Its trials may choose another algorithm in each run. Shapes are few, so trying pays otherwise.
    torch.backends.cudnn.benchmark = not deterministic
    # The fill only unmasks code that reads memory it never wrote. Every layer and op here writes
    # its whole output, and the fill would cost a fifth of the time of training.
    settings.fill_uninitialized_memory = False
    try:
        with torch.random.fork_rng(devices=[]), avoid_denormals():
            yield
    finally:
        algorithms, settings.fill_uninitialized_memory = former
        torch.backends.cudnn.benchmark = former_benchmark
        torch.use_deterministic_algorithms(algorithms)


def describe_restart(team: Team, content: dict[str, Any] | None) -> str:
    done = content["progress"]["epochs"] if content else 0
    where = f"going on after epoch {done}" if done else "nothing was saved yet, starting again"
    return f"restart {team.restarts} after a lost process: {where}"


def describe_run(recipe: Recipe, folder: RunFolder, parts: Parts) -> str:
    lines = [f"{folder.path}: {recipe.training.strategy}"]
    for name, slices in parts.sets.items():
        where = slices.store.describe() if slices.store else ""
        lines.append(
            f"{name}: {len(slices)} slices of {len(set(slices.patients))} patients, {where}"
        )
    if parts.split_by == "slice":
        lines.append(
            "warning: slice-wise folds: slices of one patient are on both sides, so the result is "
            "flattered; data.split_by = patient is honest"
        )
    return "\n".join(lines)
