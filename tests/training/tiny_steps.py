"""Steps of labelled and unlabelled slices, on tiny ones, and single updates of them."""

from typing import Any

import numpy as np
import torch
from tiny_runs import labelled_by_table, synthetic, tiny

from ichfast import models
from ichfast.training.registry import STRATEGIES
from ichfast.training.steps.together import Pair
from ichfast.training.strategy import make_strategy

CPU = torch.device("cpu")


def make_step(strategy: str, *settings: str, labelled: int = 5, seed: int = 0) -> Any:
    chosen = tiny(
        f"training.strategy={strategy}",
        "supervised.optimizer=adam",
        "adam.learning_rate=0.01",
        "together.ramp=0",
        "together.confidence=0.5",
        *settings,
    )
    model = models.build(STRATEGIES[strategy].model, (2, 3, 4), seed)
    unlabelled = labelled_by_table(synthetic("unlabelled", 9, masks=False))
    (step_class,) = make_strategy(chosen).steps.values()
    return step_class(model, synthetic("train", labelled), chosen, CPU, unlabelled=unlabelled)


def make_pair(step: Any, count: int = 5, epoch: int = 0, update: int = 0) -> Pair:
    """Of the first slices of both sets, as they are."""
    image, mask = step.labelled.batch(torch.arange(count))
    batch = (np.arange(count), None)
    return Pair(image, mask, *step.show(batch), batch, step.ramp_weight(epoch), epoch, update)


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])
