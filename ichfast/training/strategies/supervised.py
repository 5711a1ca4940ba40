"""The labelled slices alone."""

from collections.abc import Sequence

from ichfast.training.steps import Step
from ichfast.training.steps.supervised import choose_supervised
from ichfast.training.strategy import EveryEpoch


class Supervised(EveryEpoch, name="supervised"):
    label = "Supervised"
    about = "the labelled slices"
    model = "unet"

    def list_steps(self) -> Sequence[type[Step]]:
        return [choose_supervised(self.recipe)]
