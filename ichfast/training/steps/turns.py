"""An epoch whose batches are supervised or not, one by one."""

from typing import Any

from ichfast.training.steps.base import (
    EpochResult,
    Step,
    average_losses,
    draw_labelled_batches,
    draw_unlabelled_batches,
)
from ichfast.training.steps.supervised import SupervisedAdam
from ichfast.training.steps.unsupervised import UnsupervisedStep
from ichfast.training.strategy import make_strategy


class TurnsStep(Step):
    """As many updates as the labelled set has batches; the recipe's strategy chooses which of them
    are supervised. Each kind keeps its optimizer."""

    name = "turns"
    cost = 1.5

    def prepare(self) -> None:
        own = self.model, self.labelled, self.recipe, self.device, self.team
        self.supervised = SupervisedAdam(*own)
        self.unsupervised = UnsupervisedStep(*own, unlabelled=self.unlabelled)
        self.kinds: dict[str, SupervisedAdam | UnsupervisedStep] = {
            "supervised": self.supervised,
            "unsupervised": self.unsupervised,
        }
        self.strategy = make_strategy(self.recipe)

    def run(self, epoch: int, *, moved: bool) -> EpochResult:
        self.model.train()
        recipe, labelled = self.recipe, self.labelled
        size = recipe.supervised.batch_size
        batches = {
            "supervised": draw_labelled_batches(labelled, recipe, epoch),
            "unsupervised": draw_unlabelled_batches(
                self.unlabelled, len(labelled), size, recipe, epoch
            ),
        }
        turns = []
        for i, supervised in enumerate(self.strategy.choose(epoch, len(batches["supervised"]))):
            name = "supervised" if supervised else "unsupervised"
            batch = batches[name][i]
            turns.append((name, self.kinds[name].update(batch), batch))
        self.unsupervised.renew_statistics()
        parts = {}
        for kind in self.kinds:
            if own := [(loss, batch) for name, loss, batch in turns if name == kind]:
                parts[kind] = average_losses(own)
        return EpochResult(average_losses([turn[1:] for turn in turns]), 1, parts)

    def state_dict(self) -> dict[str, Any]:
        return {name: step.state_dict() for name, step in self.kinds.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, step in self.kinds.items():
            step.load_state_dict(state[name])
