"""Joint training."""

from torch import Tensor, nn

from ichfast.training.steps.together import Pair, TogetherStep
from ichfast.training.steps.unsupervised import list_attention_parameters, make_attention_loss
from ichfast.training.strategy import EveryEpoch


class JointStep(TogetherStep):
    """Both losses of the method at once (Chen et al. 2019 call it joint training): L is L_u."""

    name = "joint"
    cost = 2.4

    def make_networks(self) -> nn.Module:
        self.attention = make_attention_loss(self.recipe)
        self.parameters = list_attention_parameters(self.model, self.recipe)
        return self.model

    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        supervised = self.loss(self.forward(self.model.segment, pair.image), pair.mask)
        supervised.backward()
        further = self.attention(pair.unlabelled, *self.forward(self.model, pair.unlabelled))
        further = self.mean(further, pair)
        (pair.weight * further).backward(inputs=self.parameters)
        return supervised, further


class Joint(EveryEpoch, name="joint"):
    label = "Chen et al., joint"
    about = "both losses in every update (Chen et al. 2019)"
    model = "multitask"
    unlabelled = "images"
    batchwise = True
    step = JointStep
