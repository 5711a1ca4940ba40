"""An epoch whose batches are supervised or not, one by one."""

from typing import Any

from ichfast.training.recipe import Recipe
from ichfast.training.steps.base import EpochResult, Step, weigh_cost
from ichfast.training.steps.batches import (
    average_losses,
    count_beside,
    count_draws,
    draw_beside,
    measure_passes,
)
from ichfast.training.steps.supervised import SupervisedAdam
from ichfast.training.steps.unsupervised import UnsupervisedStep
from ichfast.training.strategy import make_strategy


class TurnsStep(Step):
    """As many updates as an epoch's labelled slices make batches; the recipe's strategy chooses
    which of them are supervised. Each kind keeps its optimizer."""

    name = "turns"
    cost = 1.5

    def prepare(self) -> None:
        own = self.model, self.labelled, self.recipe, self.device, self.team
        self.supervised = SupervisedAdam(*own, average=self.average)
        self.unsupervised = UnsupervisedStep(*own, unlabelled=self.unlabelled, average=self.average)
        self.kinds: dict[str, SupervisedAdam | UnsupervisedStep] = {
            "supervised": self.supervised,
            "unsupervised": self.unsupervised,
        }
        self.strategy = make_strategy(self.recipe)

    def run(self, epoch: int, *, moved: bool) -> EpochResult:
        self.model.train()
        for kind in self.kinds.values():
            kind.set_rate(epoch)
        pairs = draw_beside(self.labelled, self.unlabelled, self.recipe, epoch)
        chosen = self.strategy.choose(epoch, len(pairs))
        turns = []
        for supervised, (own, other) in zip(chosen, pairs, strict=True):
            name, batch = ("supervised", own) if supervised else ("unsupervised", other)
            turns.append((name, self.kinds[name].update(batch), batch))
        self.unsupervised.renew_statistics()
        parts = {}
        for name in self.kinds:
            if losses := [(loss, batch) for kind, loss, batch in turns if kind == name]:
                parts[name] = average_losses(losses)
        passes = measure_passes(count_draws(self.labelled, self.recipe), self.labelled)
        return EpochResult(average_losses([turn[1:] for turn in turns]), passes, parts)

    def list_batch_sizes(self) -> list[int]:
        count, batches = count_beside(self.labelled, self.recipe)
        return [*self.unsupervised.list_batch_sizes(), count // batches]

    @classmethod
    def estimate_cost(cls, recipe: Recipe) -> float:
        return weigh_cost(cls.cost, cls.cost / 3, recipe)

    def state_dict(self) -> dict[str, Any]:
        return {name: step.state_dict() for name, step in self.kinds.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, step in self.kinds.items():
            step.load_state_dict(state[name])
