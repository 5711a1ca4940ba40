"""Runs small enough to be repeated often: 16×16 slices with a bright blob, three levels."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from slice_sets import WINDOW, slice_set

from ichfast.data import SliceSet
from ichfast.training import Recipe, RunFolder, recipe, run
from ichfast.training.parts import Parts
from ichfast.training.presets import SMALL

TINY = (
    "training.epochs=6",
    "training.divergence=1e6",
    "model.channels=[2, 3, 4]",
    "supervised.batch_size=3",
    "unsupervised.batch_size=3",
    "lbfgs.max_iter=3",
    "curriculum.k=1",
    "data.size=16",
    f"data.window=[{WINDOW[0]}, {WINDOW[1]}]",
)


def synthetic(prefix: str, count: int, *, masks: bool = True, size: int = 16) -> SliceSet:
    random = np.random.default_rng(len(prefix) * 1000 + count)
    rows, columns = np.mgrid[:size, :size]
    centre = random.uniform(4, size - 4, (2, count, 1, 1))
    blob = np.hypot(rows - centre[0], columns - centre[1]) < random.uniform(2, 4, (count, 1, 1))
    images = 0.5 * blob + random.uniform(0, 0.5, (count, size, size))
    patients = tuple(f"{prefix}{i // 2}" for i in range(count))
    return slice_set(
        torch.from_numpy(images)[:, None],
        torch.from_numpy(blob.astype(np.uint8))[:, None] if masks else None,
        patients,
    )


def labelled_by_table(slices: SliceSet) -> SliceSet:
    """With a kind of haemorrhage in every other slice, and one whose label is not known."""
    kinds = [("subdural",) if i % 2 else () for i in range(len(slices) - 1)]
    return replace(slices, subtypes=(*kinds, None))


def tiny(*settings: str) -> Recipe:
    return recipe.apply_settings(recipe.merge(Recipe(), SMALL), [*TINY, *settings])


@cache
def parts() -> Parts:
    return Parts(
        train=synthetic("train", 7),
        validation=synthetic("validation", 4),
        test=synthetic("test", 6),
        unlabelled=labelled_by_table(synthetic("unlabelled", 20, masks=False)),
    )


def start(folder: Path, *settings: str) -> dict[str, Any]:
    """A run of the tiny recipe, resumed if it is there."""
    torch.set_num_threads(1)  # as the tests' own process has, where this is one of its own
    with RunFolder(folder, resume=folder.exists()) as held:
        return run(tiny(*settings), held, torch.device("cpu"), parts())


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(one: Any, other: Any) -> bool:
    """Equality bit for bit through nested containers of tensors."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def state_of(folder: Path) -> dict[str, Any]:
    """The checkpoint, less its clock and who started the run."""
    content: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    del content["progress"]["seconds"], content["launch"]
    return content
