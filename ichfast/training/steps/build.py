"""From the steps' names to the steps."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ichfast.data import SliceSet
from ichfast.models import ReducedUNet
from ichfast.training.recipe import Recipe
from ichfast.training.steps.base import Step
from ichfast.training.steps.classification import Classification
from ichfast.training.steps.supervised import SupervisedAdam, SupervisedLBFGS
from ichfast.training.steps.together import CrossPseudo, Joint, MeanTeacher, PseudoLabel
from ichfast.training.steps.turns import Turns
from ichfast.training.steps.unsupervised import Unsupervised

TOGETHER = {
    "joint": Joint,
    "mean_teacher": MeanTeacher,
    "cps": CrossPseudo,
    "pseudo_label": PseudoLabel,
}


def build_steps(
    names: Sequence[str],
    model: ReducedUNet,
    labelled: SliceSet,
    unlabelled: SliceSet | None,
    recipe: Recipe,
    device: torch.device,
    choose: Callable[[int, int], np.ndarray],
) -> dict[str, Step]:
    """The named steps; ``choose`` is for "turns"."""

    def build(name: str) -> Step:
        if name == "supervised":
            if recipe.supervised.optimizer == "lbfgs":
                return SupervisedLBFGS(model, labelled, recipe, device)
            return SupervisedAdam(model, labelled, recipe, device)
        assert unlabelled is not None
        if name == "classification":
            return Classification(model, unlabelled, recipe, device)
        if name in TOGETHER:
            return TOGETHER[name](model, unlabelled, labelled, recipe, device)
        unsupervised = Unsupervised(model, unlabelled, labelled, recipe, device)
        if name == "turns":
            supervised = SupervisedAdam(model, labelled, recipe, device)
            return Turns(supervised, unsupervised, choose)
        return unsupervised

    return {name: build(name) for name in names}
