"""The steps an epoch can take. A step knows its loss, its slices and its optimizer; running it for
one epoch changes the weights and the optimizer and nothing else, and depends on the epoch's number
and the recipe's seed alone, so that a resumed run repeats it exactly."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from ichfast.data import SliceSet, Warp
from ichfast.losses import AttentionWMSELoss, JaccardLoss
from ichfast.models import ReducedUNet
from ichfast.training import augmentation
from ichfast.training.recipe import Recipe
from ichfast.training.streams import stream


class Outcome(NamedTuple):
    loss: float
    evaluations: int
    """forward and backward passes over the set"""


class Step(Protocol):
    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    def run(self, epoch: int, *, moved: bool) -> Outcome:
        """One epoch. ``moved``: another step has moved the weights since this one last ran."""
        ...


def supervised_loss() -> JaccardLoss:
    """Soft Jaccard of the whole batch at once: sums are pooled before the ratio, as in the pooled
    score that the best epoch is chosen by, so a slice weighs as much as its blood."""
    return JaccardLoss(sigmoid=True, batch=True)


class SupervisedLBFGS:
    """Soft Jaccard by L-BFGS over the whole labelled set.

    The closure is the slice-weighted mean over micro-batches that never change, augmented alike
    throughout an epoch, so it is a deterministic function of the weights, as the line search and
    the curvature pairs require.
    """

    def __init__(
        self, model: ReducedUNet, labelled: SliceSet, recipe: Recipe, device: torch.device
    ) -> None:
        self.model, self.labelled, self.recipe = model, labelled.to(device), recipe
        self.batches = micro_batches(labelled, recipe)
        self.loss = supervised_loss()
        settings = recipe.lbfgs
        groups = model.groups()
        self.optimizer = torch.optim.LBFGS(
            groups["encoder"] + groups["segmentation"],
            lr=settings.learning_rate,
            max_iter=settings.max_iter,
            history_size=settings.history,
            line_search_fn=settings.line_search if settings.line_search != "none" else None,
        )

    def run(self, epoch: int, *, moved: bool) -> Outcome:
        warp = augmentation.draw(self.recipe, "supervised", epoch, len(self.labelled))
        if moved or warp is not None:
            self._drop_pending_pair()
        evaluations = 0

        def closure() -> float:
            nonlocal evaluations
            evaluations += 1
            self.optimizer.zero_grad()
            return self.full_pass(gradient=True, warp=warp)

        self.model.train()
        with untracked_statistics(self.model):
            self.optimizer.step(closure)  # type: ignore[no-untyped-call]
        # The statistics for inference belong to the weights the step ends with, not to the trial
        # points of its line search: one more forward pass sets them, and gives the loss there. Both
        # are of the slices as they are, which inference will see.
        with torch.no_grad(), renewed_statistics(self.model):
            loss = self.full_pass(gradient=False)
        return Outcome(loss, evaluations)

    def full_pass(self, *, gradient: bool, warp: Warp | None = None) -> float:
        """The loss over the labelled set; with ``gradient``, added to the parameters' too."""
        total = 0.0
        for batch in self.batches:
            image, mask = self.labelled.batch(batch, warp and warp.of(batch))
            loss = self.loss(self.model.segment(image), mask) * (len(batch) / len(self.labelled))
            if gradient:
                loss.backward()
            total += loss.item()
        return total

    def _drop_pending_pair(self) -> None:
        """torch's LBFGS forms its next curvature pair from the last step d·t and the gradients at
        its ends. Where another optimizer has moved the weights in between, or the slices have been
        augmented anew, the gradient difference belongs to a different step or function; t = 0 makes
        yᵀs = 0, for which LBFGS skips the pair."""
        state = self.optimizer.state[self.optimizer.param_groups[0]["params"][0]]
        if "t" in state:
            state["t"] = 0.0


class SupervisedAdam:
    """Soft Jaccard by Adam over shuffled batches: one pass over the labelled set."""

    def __init__(
        self, model: ReducedUNet, labelled: SliceSet, recipe: Recipe, device: torch.device
    ) -> None:
        self.model, self.labelled, self.recipe = model, labelled.to(device), recipe
        self.loss = supervised_loss()
        groups = model.groups()
        self.optimizer = torch.optim.Adam(
            groups["encoder"] + groups["segmentation"], lr=recipe.adam.learning_rate
        )

    def run(self, epoch: int, *, moved: bool) -> Outcome:
        self.model.train()
        order = stream(self.recipe.training.seed, "shuffle", epoch).permutation(len(self.labelled))
        warp = augmentation.draw(self.recipe, "supervised", epoch, len(order))
        total = 0.0
        for batch in batches_of(order, self.recipe.supervised.batch_size):
            image, mask = self.labelled.batch(batch, warp and warp.of(batch))
            self.optimizer.zero_grad()
            loss = self.loss(self.model.segment(image), mask)
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(batch)
        return Outcome(total / len(self.labelled), 1)


class Unsupervised:
    """L_u by Adam over a random sample of the unlabelled slices, as large as the labelled set.

    It moves the encoder, so the segmentation path's statistics, which inference uses, are taken
    anew from the labelled slices at the end.
    """

    def __init__(
        self,
        model: ReducedUNet,
        unlabelled: SliceSet,
        labelled: SliceSet,
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        self.model, self.recipe = model, recipe
        self.unlabelled, self.labelled = unlabelled.to(device), labelled.to(device)
        self.batches = micro_batches(labelled, recipe)
        mode = recipe.unsupervised.attention_gradient
        self.loss = AttentionWMSELoss(attention_gradient="stop" if mode == "stop" else "flow")
        groups = model.groups()
        # "encoder": gradient passes through the segmentation decoder into the encoder, but the
        # decoder's own parameters are nobody's to update.
        self.parameters = [
            *groups["encoder"],
            *groups["reconstruction"],
            *(groups["segmentation"] if mode == "full" else []),
        ]
        self.optimizer = torch.optim.Adam(self.parameters, lr=recipe.adam.learning_rate)

    def run(self, epoch: int, *, moved: bool) -> Outcome:
        self.model.train()
        sample, pool = len(self.labelled), len(self.unlabelled)
        chosen = stream(self.recipe.training.seed, "unlabelled", epoch).choice(
            pool, sample, replace=sample > pool
        )
        warp = augmentation.draw(self.recipe, "unsupervised", epoch, sample)
        total = 0.0
        for batch in batches_of(np.arange(sample), self.recipe.unsupervised.batch_size):
            image, _ = self.unlabelled.batch(chosen[batch], warp and warp.of(batch))
            self.optimizer.zero_grad()
            loss = self.loss(image, *self.model(image))
            loss.backward(inputs=self.parameters)
            self.optimizer.step()
            total += loss.item() * len(batch)
        with torch.no_grad(), renewed_statistics(self.model):
            for batch in self.batches:
                self.model.segment(self.labelled.batch(batch)[0])
        return Outcome(total / sample, 1)


def build_steps(
    names: tuple[str, ...],
    model: ReducedUNet,
    labelled: SliceSet,
    unlabelled: SliceSet | None,
    recipe: Recipe,
    device: torch.device,
) -> dict[str, Step]:
    steps: dict[str, Step] = {}
    for name in names:
        if name == "supervised":
            lbfgs = recipe.supervised.optimizer == "lbfgs"
            supervised = SupervisedLBFGS if lbfgs else SupervisedAdam
            steps[name] = supervised(model, labelled, recipe, device)
        else:
            assert unlabelled is not None
            steps[name] = Unsupervised(model, unlabelled, labelled, recipe, device)
    return steps


def batches_of(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """``order`` in as few batches as ``batch_size`` allows, as even as they can be: a last batch of
    one slice would have poor batch statistics."""
    return np.array_split(order, -(-len(order) // batch_size))


def micro_batches(labelled: SliceSet, recipe: Recipe) -> list[np.ndarray]:
    """The labelled set in batches that never change."""
    order = stream(recipe.training.seed, "micro-batches").permutation(len(labelled))
    return batches_of(order, recipe.supervised.batch_size)


MOMENTUM = 0.1
"""of batch normalisation's running statistics, torch's default"""


def batch_norms(*modules: nn.Module) -> Iterator[nn.BatchNorm2d]:
    for module in modules:
        yield from (m for m in module.modules() if isinstance(m, nn.BatchNorm2d))


@contextmanager
def renewed_statistics(model: ReducedUNet) -> Iterator[None]:
    """The segmentation path's running statistics become the plain mean over the batches that pass
    through it inside."""
    norms = list(batch_norms(model.encoder, model.segmentation))
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    try:
        yield
    finally:
        for norm in norms:
            norm.momentum = MOMENTUM


@contextmanager
def untracked_statistics(model: nn.Module) -> Iterator[None]:
    """Batch normalisation as in training, leaving the running statistics alone."""
    for norm in batch_norms(model):
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in batch_norms(model):
            norm.track_running_stats = True
