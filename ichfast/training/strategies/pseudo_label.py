"""Pseudo labels."""

import torch
from torch import Tensor

from ichfast.training.steps.statistics import freeze_statistics
from ichfast.training.steps.together import Pair, TogetherStep, cross_entropy
from ichfast.training.strategy import EveryEpoch


class PseudoLabelStep(TogetherStep):
    """D.-H. Lee, ICML 2013 workshop, with the confidence of FixMatch (Sohn et al., NeurIPS 2020):
    L is the cross-entropy of the noisy image's prediction against the network's own hard mask of
    the image as it is, over the pixels where that is at least ``together.confidence`` sure."""

    name = "pseudo_label"
    cost = 2.5

    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), freeze_statistics(self.model):
            guess = self.forward(self.model.segment, pair.unlabelled)
        sure = guess.abs().sigmoid() >= self.recipe.together.confidence
        supervised = self.loss(self.forward(self.model.segment, pair.image), pair.mask)
        further = cross_entropy(
            self.forward(self.model.segment, self.add_noise(pair)), guess > 0, sure
        )
        further = self.mean(further, pair)
        (supervised + pair.weight * further).backward()
        return supervised, further


class PseudoLabel(EveryEpoch, name="pseudo_label"):
    label = "Pseudo labels"
    about = "supervised loss, and the network's own sure pixels (Lee 2013, FixMatch's confidence)"
    model = "unet"
    unlabelled = "images"
    batchwise = True
    step = PseudoLabelStep
