"""From the steps' names to the steps."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ichfast.data import SliceSet
from ichfast.models import ReducedUNet
from ichfast.models.synced import synchronise
from ichfast.team import ALONE, Team
from ichfast.training.recipe import Recipe
from ichfast.training.steps.base import Step, batches_of
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
    team: Team = ALONE,
) -> dict[str, Step]:
    """The named steps; ``choose`` is for "turns"."""
    synchronise(model, team)
    if team.size > 1:
        sizes = [recipe.supervised.batch_size]
        sizes += [] if unlabelled is None else [recipe.unsupervised.batch_size]
        for size in sizes:  # now, and not in an hour
            team.share(min(map(len, batches_of(np.arange(len(labelled)), size))))

    def build(name: str) -> Step:
        if name == "supervised":
            if recipe.supervised.optimizer == "lbfgs":
                return SupervisedLBFGS(model, labelled, recipe, device, team)
            return SupervisedAdam(model, labelled, recipe, device, team)
        assert unlabelled is not None
        if name == "classification":
            return Classification(model, unlabelled, recipe, device, team)
        if name in TOGETHER:
            return TOGETHER[name](model, unlabelled, labelled, recipe, device, team)
        unsupervised = Unsupervised(model, unlabelled, labelled, recipe, device, team)
        if name == "turns":
            supervised = SupervisedAdam(model, labelled, recipe, device, team)
            return Turns(supervised, unsupervised, choose)
        return unsupervised

    return {name: build(name) for name in names}
