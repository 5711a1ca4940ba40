"""The mean teacher."""

from torch import Tensor
from torch.nn import functional as F

from ichfast.training.steps.taught import AveragedTeacherStep
from ichfast.training.steps.together import Pair
from ichfast.training.strategy import EveryEpoch


class MeanTeacherStep(AveragedTeacherStep):
    """Tarvainen and Valpola, NeurIPS 2017: L is the mean squared difference between a student's
    probabilities s, in a strong view, and its teacher's p. It is divided by the mean of s² + p², as
    a constant: a mean over all pixels alone would fall with the share of blood, of which a slice
    has a hundredth, and the supervised loss does not. So L is 0 where both agree and 1 where
    nothing overlaps, as the Dice loss of squares is, and its gradient is that of the mean square.
    """

    name = "mean_teacher"
    cost = 2.4

    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        image, guess = self.perturb(pair, self.guess(self.model, pair))
        supervised = self.loss(self.forward(self.student.segment, pair.image), pair.mask)
        probability = self.learn(self.student, image).sigmoid()
        squares = self.mean((probability.detach() ** 2 + guess**2).mean(), pair)
        further = self.mean(F.mse_loss(probability, guess), pair) / (squares + 1e-8)
        (supervised + pair.weight * further).backward()
        return supervised, further


class MeanTeacher(EveryEpoch, name="mean_teacher"):
    label = "Mean teacher"
    about = (
        "supervised loss, and the difference from an averaged teacher (Tarvainen and Valpola 2017)"
    )
    model = "unet"
    unlabelled = "images"
    batchwise = True
    step = MeanTeacherStep
