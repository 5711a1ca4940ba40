"""The method's step on unlabelled slices."""

import torch
from torch import Tensor

from ichfast.data import SliceSet
from ichfast.losses import AttentionWMSELoss
from ichfast.models import ReducedUNet
from ichfast.team import ALONE, Team
from ichfast.training.forward import Forward
from ichfast.training.recipe import Recipe
from ichfast.training.steps.base import (
    Batch,
    Outcome,
    Step,
    micro_batches,
    share_of,
    unlabelled_batches,
    weighted_mean,
)
from ichfast.training.steps.statistics import renewed_statistics


class Unsupervised(Step):
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
        team: Team = ALONE,
    ) -> None:
        self.model, self.recipe, self.team = model, recipe, team
        self.forward = Forward(recipe, device)
        self.unlabelled, self.labelled = unlabelled.to(device), labelled.to(device)
        self.batches = micro_batches(labelled, recipe)
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

    def renew_statistics(self) -> None:
        with torch.no_grad(), renewed_statistics(self.model):
            for batch in self.batches:
                image, _ = self.labelled.batch(*share_of(self.team, (batch, None)))
                self.forward(self.model.segment, image)


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
