"""Pseudo labels."""

from torch import Tensor

from ichfast.training.steps.taught import TaughtStep
from ichfast.training.steps.together import Pair
from ichfast.training.strategy import EveryEpoch


class PseudoLabelStep(TaughtStep):
    """D.-H. Lee, ICML 2013 workshop, as FixMatch has it (Sohn et al., NeurIPS 2020): L is the
    supervised loss of a strong view against the network's own hard mask of the slice as it is, over
    the pixels where that is at least ``together.confidence`` sure."""

    name = "pseudo_label"
    cost = 2.4

    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        image, guess = self.perturb(pair, self.guess(self.model, pair))
        supervised = self.loss(self.forward(self.model.segment, pair.image), pair.mask)
        further = self.compare(self.learn(self.model, image), guess)
        (supervised + pair.weight * further).backward()
        return supervised, further


class PseudoLabel(EveryEpoch, name="pseudo_label"):
    label = "Pseudo labels"
    about = (
        "supervised loss, and in a strong view the network's own sure pixels (Lee 2013, FixMatch)"
    )
    model = "unet"
    unlabelled = "images"
    batchwise = True
    step = PseudoLabelStep
