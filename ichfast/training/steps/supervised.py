"""Steps on the labelled slices alone."""

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from ichfast.models import ReducedUNet
from ichfast.training.forward import Forward
from ichfast.training.recipe import Recipe, merge
from ichfast.training.steps.base import FORWARD, EpochResult, OptimizingStep, make_adam
from ichfast.training.steps.batches import (
    Batch,
    average_losses,
    count_draws,
    draw_labelled_batches,
    make_micro_batches,
    measure_passes,
    take_share,
)
from ichfast.training.steps.loss import make_supervised_loss
from ichfast.training.steps.statistics import freeze_statistics, renew_statistics
from ichfast.training.views import View, draw_labelled_view, render

LINE_SEARCH = 1.2
"""evaluations per iteration of L-BFGS: strong-Wolfe takes a second look now and then"""


class SupervisedStep(OptimizingStep):
    """The supervised loss over the encoder and the segmentation decoder."""

    name = "supervised"

    def prepare(self) -> None:
        super().prepare()
        self.loss = make_supervised_loss(self.recipe, self.team)
        groups = self.model.groups()
        self.optimizer = self.make_optimizer(groups["encoder"] + groups["segmentation"])

    @abstractmethod
    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer: ...


class SupervisedLBFGS(SupervisedStep):
    """The supervised loss by L-BFGS over the whole labelled set.

    The closure is the slice-weighted mean over micro-batches that never change, augmented alike
    throughout an epoch, so it is a deterministic function of the weights, as the line search and
    the curvature pairs require. It is always float32: bfloat16's rounding hides what the line
    search looks for, and training stalls.
    """

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        self.batches = make_micro_batches(self.labelled, self.recipe)
        self.forward = Forward(merge(self.recipe, {"compute.precision": "float32"}), self.device)
        settings = self.recipe.lbfgs
        return torch.optim.LBFGS(
            parameters,
            lr=settings.learning_rate,
            max_iter=settings.max_iter,
            history_size=settings.history,
            line_search_fn=settings.line_search if settings.line_search != "none" else None,
        )

    def run(self, epoch: int, *, moved: bool) -> EpochResult:
        view = draw_labelled_view(self.labelled, np.arange(len(self.labelled)), self.recipe, epoch)
        if moved or view is not None:
            self._drop_pending_pair()
        evaluations = 0

        def closure() -> float:
            nonlocal evaluations
            evaluations += 1
            self.optimizer.zero_grad()
            return self.run_full_pass(gradient=True, view=view)

        self.model.train()
        with freeze_statistics(self.model):
            self.optimizer.step(closure)  # type: ignore[no-untyped-call]
        self.finish_update()
        # The statistics for inference belong to the weights the step ends with, not to the trial
        # points of its line search: one more forward pass sets them, and gives the loss there. Both
        # are of the slices as they are, which inference will see, or as training has seen them.
        shown = view if self.recipe.training.statistics == "running" else None
        losses = []
        for model in self.list_models():
            with torch.no_grad(), renew_statistics(model):
                losses.append(self.run_full_pass(gradient=False, view=shown, model=model))
        return EpochResult(losses[0], evaluations)

    def run_full_pass(
        self, *, gradient: bool, view: View | None = None, model: ReducedUNet | None = None
    ) -> float:
        """The loss over the labelled set of the run's model, or another; with ``gradient``, added
        to the parameters' too."""
        segment = (model or self.model).segment
        losses: list[Tensor] = []
        for batch in self.batches:
            own = take_share(self.team, (batch, view and view.select(batch)))
            image, mask = render(self.labelled, *own)
            loss = self.loss(self.forward(segment, image), mask) * (len(batch) / len(self.labelled))
            if gradient:
                loss.backward()
            losses.append(loss.detach())
            self.team.check_stop()
        if gradient:
            self.team.sum_gradients(self.optimizer)
        return torch.stack(losses).double().sum().item()

    @classmethod
    def count_passes(cls, recipe: Recipe) -> float:
        return recipe.lbfgs.max_iter * LINE_SEARCH

    @classmethod
    def estimate_cost(cls, recipe: Recipe) -> float:
        return super().estimate_cost(recipe) + FORWARD

    def _drop_pending_pair(self) -> None:
        """torch's LBFGS forms its next curvature pair from the last step d·t and the gradients at
        its ends. Where another optimizer has moved the weights in between, or the slices have been
        augmented anew, the gradient difference belongs to a different step or function; t = 0 makes
        yᵀs = 0, for which LBFGS skips the pair."""
        state = self.optimizer.state[self.optimizer.param_groups[0]["params"][0]]
        if "t" in state:
            state["t"] = 0.0


class SupervisedAdam(SupervisedStep):
    """The supervised loss by Adam over shuffled batches of the epoch's labelled slices."""

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return make_adam(parameters, self.choose_rate(0))

    def run(self, epoch: int, *, moved: bool) -> EpochResult:
        self.model.train()
        self.set_rate(epoch)
        batches = draw_labelled_batches(self.labelled, self.recipe, epoch)
        passes = measure_passes(count_draws(self.labelled, self.recipe), self.labelled)
        losses = [(self.update(batch), batch) for batch in batches]
        return EpochResult(average_losses(losses), passes)

    def update(self, batch: Batch) -> Tensor:
        """One update; the loss before it."""
        image, mask = render(self.labelled, *take_share(self.team, batch))
        self.optimizer.zero_grad()
        loss: Tensor = self.loss(self.forward(self.model.segment, image), mask)
        loss.backward()
        self.move_weights()
        return loss.detach()


def choose_supervised(recipe: Recipe) -> type[SupervisedStep]:
    """By the recipe's optimizer."""
    return SupervisedLBFGS if recipe.supervised.optimizer == "lbfgs" else SupervisedAdam
