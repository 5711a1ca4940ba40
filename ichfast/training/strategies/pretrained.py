"""The encoder on the unlabelled set's labels first, then everything on the labelled slices."""

from collections.abc import Sequence

from ichfast.training.recipe import Recipe
from ichfast.training.steps import Step
from ichfast.training.steps.classification import ClassificationStep
from ichfast.training.steps.supervised import choose_supervised
from ichfast.training.strategy import Draw, Strategy


class Pretrained(Strategy, name="pretrained"):
    label = "Pretrained"
    about = (
        "`pretraining.epochs` times the encoder on the unlabelled set's labels (any haemorrhage, "
        "five subtypes), then as `supervised`"
    )
    model = "unet"
    unlabelled = "labels"

    def list_steps(self) -> Sequence[type[Step]]:
        return [ClassificationStep, choose_supervised(self.recipe)]

    def draw(self, epoch: int) -> Draw:
        pretraining = epoch < self.count_extra_epochs(self.recipe)
        return Draw("classification" if pretraining else "supervised", float(not pretraining))

    @classmethod
    def count_extra_epochs(cls, recipe: Recipe) -> int:
        return recipe.pretraining.epochs
