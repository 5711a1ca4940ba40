"""The method's step on unlabelled slices."""

import torch
from torch import Tensor

from ichfast.losses import AttentionWMSELoss
from ichfast.models import ReducedUNet
from ichfast.training.recipe import Recipe
from ichfast.training.steps.base import EpochResult, UnlabelledStep, decay_rate, make_adam
from ichfast.training.steps.batches import (
    Batch,
    average_losses,
    count_batches,
    count_draws,
    draw_unlabelled_batches,
    measure_passes,
    take_share,
)
from ichfast.training.views import render


class UnsupervisedStep(UnlabelledStep):
    """L_u by Adam over a random sample of the unlabelled slices, ``unsupervised.ratio`` times as
    many as an epoch has labelled ones."""

    name = "unsupervised"
    over = "sample"
    cost = 1.8
    bounded = False  # L_u is a mean square of numbers below 1: that could never tell an explosion

    def prepare(self) -> None:
        super().prepare()
        self.loss = make_attention_loss(self.recipe)
        self.parameters = list_attention_parameters(self.model, self.recipe)
        self.optimizer = make_adam(self.parameters, self.choose_rate(0))

    def choose_rate(self, epoch: int) -> float:
        own = self.recipe.unsupervised.learning_rate
        return decay_rate(own or self.recipe.adam.learning_rate, epoch, self.recipe)

    def run(self, epoch: int, *, moved: bool) -> EpochResult:
        self.model.train()
        self.set_rate(epoch)
        count, number = self.count_sample()
        batches = draw_unlabelled_batches(self.unlabelled, count, number, self.recipe, epoch)
        losses = [(self.update(batch), batch) for batch in batches]
        self.renew_statistics()
        return EpochResult(average_losses(losses), measure_passes(count, self.labelled))

    def count_sample(self) -> tuple[int, int]:
        """Slices of an epoch, and their batches."""
        settings = self.recipe.unsupervised
        count = max(round(settings.ratio * count_draws(self.labelled, self.recipe)), 1)
        return count, count_batches(count, settings.batch_size)

    def list_batch_sizes(self) -> list[int]:
        count, batches = self.count_sample()
        return [*super().list_batch_sizes(), count // batches]

    @classmethod
    def count_passes(cls, recipe: Recipe) -> float:
        return recipe.unsupervised.ratio

    def update(self, batch: Batch) -> Tensor:
        """One update; the loss before it."""
        image, _ = render(self.unlabelled, *take_share(self.team, batch))
        self.optimizer.zero_grad()
        loss = self.team.mean(self.loss(image, *self.forward(self.model, image)), len(image))
        loss.backward(inputs=self.parameters)
        self.move_weights()
        return loss.detach()


def make_attention_loss(recipe: Recipe) -> AttentionWMSELoss:
    settings = recipe.unsupervised
    return AttentionWMSELoss(
        attention_gradient="stop" if settings.attention_gradient == "stop" else "flow",
        balance=settings.balance,
    )


def list_attention_parameters(model: ReducedUNet, recipe: Recipe) -> list[torch.nn.Parameter]:
    """Those that L_u moves. "encoder": its gradient passes through the segmentation decoder into
    the encoder, but the decoder's own parameters are nobody's to update."""
    groups = model.groups()
    full = recipe.unsupervised.attention_gradient == "full"
    return [
        *groups["encoder"],
        *groups["reconstruction"],
        *(groups["segmentation"] if full else []),
    ]
