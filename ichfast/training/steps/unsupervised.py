"""The method's step on unlabelled slices."""

import torch
from torch import Tensor

from ichfast.data import SliceSet
from ichfast.losses import AttentionWMSELoss
from ichfast.models import ReducedUNet
from ichfast.team import ALONE, Team
from ichfast.training.recipe import Recipe
from ichfast.training.steps.base import (
    Batch,
    Outcome,
    SeeingUnlabelled,
    share_of,
    unlabelled_batches,
    weighted_mean,
)


class Unsupervised(SeeingUnlabelled):
    """L_u by Adam over a random sample of the unlabelled slices, as large as the labelled set."""

    def __init__(
        self,
        model: ReducedUNet,
        unlabelled: SliceSet,
        labelled: SliceSet,
        recipe: Recipe,
        device: torch.device,
        team: Team = ALONE,
    ) -> None:
        super().__init__(model, unlabelled, labelled, recipe, device, team)
        self.loss = attention_loss(recipe)
        self.parameters = attention_parameters(model, recipe)
        self.optimizer = torch.optim.Adam(self.parameters, lr=recipe.adam.learning_rate)

    def run(self, epoch: int, *, moved: bool) -> Outcome:
        self.model.train()
        count, size = len(self.labelled), self.recipe.unsupervised.batch_size
        batches = unlabelled_batches(self.unlabelled, count, size, self.recipe, epoch)
        losses = [(self.update(batch), batch) for batch in batches]
        self.renew_statistics()
        return Outcome(weighted_mean(losses), 1)

    def update(self, batch: Batch) -> Tensor:
        """One update; the loss before it."""
        image, _ = self.unlabelled.batch(*share_of(self.team, batch))
        self.optimizer.zero_grad()
        loss = self.team.mean(self.loss(image, *self.forward(self.model, image)), len(image))
        loss.backward(inputs=self.parameters)
        self.team.sum_gradients(self.optimizer)
        self.optimizer.step()
        return loss.detach()


def attention_loss(recipe: Recipe) -> AttentionWMSELoss:
    mode = recipe.unsupervised.attention_gradient
    return AttentionWMSELoss(attention_gradient="stop" if mode == "stop" else "flow")


def attention_parameters(model: ReducedUNet, recipe: Recipe) -> list[torch.nn.Parameter]:
    """Those that L_u moves. "encoder": its gradient passes through the segmentation decoder into
    the encoder, but the decoder's own parameters are nobody's to update."""
    groups = model.groups()
    full = recipe.unsupervised.attention_gradient == "full"
    return [
        *groups["encoder"],
        *groups["reconstruction"],
        *(groups["segmentation"] if full else []),
    ]
