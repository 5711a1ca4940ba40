"""Which slices an epoch sees, in which batches, each in its view: functions of the epoch's number
and the recipe alone."""

from collections.abc import Sequence, Sized

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ichfast.data import SliceSet
from ichfast.errors import RecipeError
from ichfast.team import Team
from ichfast.training.recipe import Recipe
from ichfast.training.seeding import make_generator
from ichfast.training.views import View, draw_labelled_view, draw_view

Batch = tuple[NDArray[np.int64], View | None]
"""which slices of a set, and how :func:`ichfast.training.views.render` shows them"""


def split_evenly(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """``order`` in as few batches as ``batch_size`` allows, as even as they can be: a last batch of
    one slice would have poor batch statistics."""
    return np.array_split(order, count_batches(len(order), batch_size))


def count_batches(count: int, batch_size: int) -> int:
    return -(-count // batch_size)


def make_micro_batches(labelled: SliceSet, recipe: Recipe) -> list[NDArray[np.int64]]:
    """The labelled set in batches that never change."""
    order = make_generator(recipe.training.seed, "micro-batches").permutation(len(labelled))
    return split_evenly(order, recipe.supervised.batch_size)


def draw_labelled_batches(labelled: SliceSet, recipe: Recipe, epoch: int) -> list[Batch]:
    """The labelled slices of an epoch, shuffled and augmented anew."""
    rows = draw_labelled(labelled, recipe, epoch)
    order = make_generator(recipe.training.seed, "shuffle", epoch).permutation(len(rows))
    chosen = rows[order]
    view = draw_labelled_view(labelled, chosen, recipe, epoch)
    batches = split_evenly(np.arange(len(chosen)), recipe.supervised.batch_size)
    return [(chosen[batch], view and view.select(batch)) for batch in batches]


def draw_labelled(labelled: SliceSet, recipe: Recipe, epoch: int) -> NDArray[np.int64]:
    """Which labelled slices an epoch of Adam sees, not shuffled yet: each once, or as many as
    ``supervised.draws`` says with the share ``supervised.positive`` of them positive."""
    settings, count = recipe.supervised, count_draws(labelled, recipe)
    every = np.arange(len(labelled))
    if not settings.positive:
        return deal(every, count, "draws", recipe, epoch) if settings.draws else every
    positive = labelled.positive.numpy()
    wanted = round(settings.positive * count)
    parts = []
    for name, chosen, number, fix in (
        ("with", positive, wanted, "train on more patients"),
        ("without", ~positive, count - wanted, "set data.slices = all"),
    ):
        if number and not chosen.any():
            raise RecipeError(
                f"supervised.positive = {settings.positive:g} draws slices {name} haemorrhage, and "
                f"no labelled training slice is such; {fix}, or set supervised.positive = 0."
            )
        if number:
            parts.append(deal(every[chosen], number, f"draws {name} blood", recipe, epoch))
    return np.concatenate(parts)


def deal(
    rows: NDArray[np.int64], count: int, purpose: str, recipe: Recipe, epoch: int
) -> NDArray[np.int64]:
    """The epoch's ``count`` of ``rows``, from permutations of them all, one after the other: over
    the epochs each comes up equally often, within one again only where a permutation ends."""
    first, size = epoch * count, len(rows)
    rounds = range(first // size, count_batches(first + count, size))
    seed = recipe.training.seed
    order = np.concatenate([make_generator(seed, purpose, i).permutation(size) for i in rounds])
    dealt: NDArray[np.int64] = rows[order[first % size :][:count]]
    return dealt


def count_draws(labelled: SliceSet, recipe: Recipe) -> int:
    """Labelled slices of an epoch."""
    return recipe.supervised.draws or len(labelled)


def measure_passes(slices: int, labelled: SliceSet) -> float:
    """So many slices in passes over the labelled set."""
    whole, rest = divmod(slices, len(labelled))
    return slices / len(labelled) if rest else whole


def count_beside(labelled: SliceSet, recipe: Recipe) -> tuple[int, int]:
    """Of an epoch whose updates see labelled and unlabelled slices: how many unlabelled ones, and
    in how many batches. To each other they are as the two batch sizes."""
    ours, theirs = recipe.supervised.batch_size, recipe.unsupervised.batch_size
    count = count_draws(labelled, recipe)
    batches = count_batches(count, ours)
    return max(round(count * theirs / ours), batches), batches


def draw_beside(
    labelled: SliceSet, unlabelled: Sized, recipe: Recipe, epoch: int
) -> list[tuple[Batch, Batch]]:
    """Labelled and unlabelled batches of an epoch, a pair for each update."""
    ours = draw_labelled_batches(labelled, recipe, epoch)
    theirs = draw_unlabelled_batches(unlabelled, *count_beside(labelled, recipe), recipe, epoch)
    return list(zip(ours, theirs, strict=True))


def draw_unlabelled_batches(
    unlabelled: Sized, count: int, number: int, recipe: Recipe, epoch: int
) -> list[Batch]:
    """A random sample of ``count`` slices, with repetition only where there are fewer, in
    ``number`` even batches."""
    chosen = make_generator(recipe.training.seed, "unlabelled", epoch).choice(
        len(unlabelled), count, replace=count > len(unlabelled)
    )
    view = draw_view(recipe, "unsupervised", epoch, count)
    batches = np.array_split(np.arange(count), number)
    return [(chosen[batch], view and view.select(batch)) for batch in batches]


def take_share(team: Team, batch: Batch) -> Batch:
    """This process's part of a batch."""
    if team.size == 1:
        return batch
    places, view = batch
    own = team.share(len(places))
    return places[own], view and view.select(np.arange(len(places))[own])


def average_losses(losses: Sequence[tuple[Tensor, Batch]]) -> float:
    """Of the batches' losses, by their slices. Read back here for the first time, so the host need
    not wait for the device between two updates."""
    sizes = torch.tensor([len(places) for _, (places, _) in losses], dtype=torch.float64)
    values = torch.stack([loss for loss, _ in losses]).double().cpu()
    return ((values * sizes).sum() / sizes.sum()).item()
