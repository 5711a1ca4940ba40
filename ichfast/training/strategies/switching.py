"""What strategies share that choose between the supervised step and the unsupervised one."""

from abc import abstractmethod
from collections.abc import Sequence

from ichfast.training.steps import Step
from ichfast.training.steps.supervised import choose_supervised
from ichfast.training.steps.turns import TurnsStep
from ichfast.training.steps.unsupervised import UnsupervisedStep
from ichfast.training.strategy import Draw, Strategy


class Switching(Strategy):
    """Supervised or unsupervised, for a whole epoch or for each of its turns."""

    model = "multitask"
    unlabelled = "images"
    switches = True

    def list_steps(self) -> Sequence[type[Step]]:
        if self.recipe.training.turn == "step":
            return [TurnsStep]
        return [choose_supervised(self.recipe), UnsupervisedStep]

    @abstractmethod
    def probability(self, epoch: int) -> float:
        """That the epoch, or each of its turns, is supervised."""

    def draw(self, epoch: int) -> Draw:
        if "turns" in self.steps:
            return Draw("turns", self.probability(epoch))
        step = "supervised" if self.choose(epoch, 1)[0] else "unsupervised"
        return Draw(step, self.probability(epoch))
