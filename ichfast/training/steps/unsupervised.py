"""The method's step on unlabelled slices."""

import torch
from torch import Tensor

from ichfast.losses import AttentionWMSELoss
from ichfast.models import ReducedUNet
from ichfast.training.recipe import Recipe
from ichfast.training.steps.base import (
    Batch,
    EpochResult,
    UnlabelledStep,
    average_losses,
    draw_unlabelled_batches,
    take_share,
)
from ichfast.training.views import render


class UnsupervisedStep(UnlabelledStep):
    """L_u by Adam over a random sample of the unlabelled slices, as large as the labelled set."""

    name = "unsupervised"
    over = "sample"
    cost = 1.8
    bounded = False  # L_u is a mean square of numbers below 1: that could never tell an explosion

    def prepare(self) -> None:
        super().prepare()
        self.loss = make_attention_loss(self.recipe)
        self.parameters = list_attention_parameters(self.model, self.recipe)
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.recipe.adam.learning_rate)

    def run(self, epoch: int, *, moved: bool) -> EpochResult:
        self.model.train()
        count, size = len(self.labelled), self.recipe.unsupervised.batch_size
        batches = draw_unlabelled_batches(self.unlabelled, count, size, self.recipe, epoch)
        losses = [(self.update(batch), batch) for batch in batches]
        self.renew_statistics()
        return EpochResult(average_losses(losses), 1)

    def update(self, batch: Batch) -> Tensor:
        """One update; the loss before it."""
        image, _ = render(self.unlabelled, *take_share(self.team, batch))
        self.optimizer.zero_grad()
        loss = self.team.mean(self.loss(image, *self.forward(self.model, image)), len(image))
        loss.backward(inputs=self.parameters)
        self.team.sum_gradients(self.optimizer)
        self.optimizer.step()
        return loss.detach()


def make_attention_loss(recipe: Recipe) -> AttentionWMSELoss:
    mode = recipe.unsupervised.attention_gradient
    return AttentionWMSELoss(attention_gradient="stop" if mode == "stop" else "flow")


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
