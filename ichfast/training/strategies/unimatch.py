"""UniMatch with a mean teacher."""

import numpy as np
import torch
from torch import Tensor

from ichfast.training.seeding import make_generator
from ichfast.training.steps.statistics import freeze_statistics
from ichfast.training.steps.taught import AveragedTeacherStep
from ichfast.training.steps.together import Pair
from ichfast.training.strategy import EveryEpoch


class UniMatchStep(AveragedTeacherStep):
    """Yang et al., CVPR 2023, where the teacher is an average, as in their second version (2024):
    three views of each unlabelled slice learn from the teacher's hard mask of the slice as it is,
    over the pixels where that is at least ``together.confidence`` sure. Two are strong views; the
    third is the slice as it is, of whose features the encoder's, at every level, are dropped map by
    map. L is half the mean loss of the strong views and half that of the third."""

    name = "unimatch"
    cost = 4.4

    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        guess = self.guess(self.model, pair)
        images, guesses = zip(*(self.perturb(pair, guess, i) for i in range(2)), strict=True)
        supervised = self.loss(self.forward(self.student.segment, pair.image), pair.mask)
        logits = self.learn_dropped(torch.cat([pair.unlabelled, *images]), pair)
        third, *strong = (
            self.compare(*view) for view in zip(logits.chunk(3), (guess, *guesses), strict=True)
        )
        further = (sum(strong) / 2 + third) / 2
        (supervised + pair.weight * further).backward()
        return supervised, further

    def learn_dropped(self, images: Tensor, pair: Pair) -> Tensor:
        """The student's logits of the slices as they are, with dropped features, and of the strong
        views, with all of theirs; they share one pass and so one batch's statistics."""
        factors = torch.cat(
            [
                self.draw_factors(pair),
                torch.ones(len(images) - len(pair.unlabelled), sum(self.model.channels)),
            ]
        )
        with freeze_statistics(self.student):
            return self.forward(self.segment, images, factors.to(self.device, non_blocking=True))

    def draw_factors(self, pair: Pair) -> Tensor:
        """(U, C) by which the maps of all levels, one after the other, are multiplied: 0, or what
        keeps their mean."""
        whole, dropout = len(pair.batch[0]), self.recipe.together.dropout
        purpose = f"dropout, update {pair.update}"
        random = make_generator(self.recipe.training.seed, purpose, pair.epoch)
        kept = random.random((whole, sum(self.model.channels)), np.float32) >= dropout
        return torch.from_numpy(kept[self.team.share(whole)]) / (1 - dropout)

    def segment(self, image: Tensor, factors: Tensor) -> Tensor:
        """Logits (B, 1, S, S) from features multiplied by ``factors`` (B, C)."""
        features = self.student.encoder(image)
        parts = factors[:, :, None, None].split(self.model.channels, 1)
        logits: Tensor = self.student.segmentation(
            [x * part.to(x) for x, part in zip(features, parts, strict=True)]
        )
        return logits


class UniMatch(EveryEpoch, name="unimatch"):
    label = "UniMatch"
    about = (
        "supervised loss, and an averaged teacher's sure pixels for two strong views and one with "
        "dropped features (Yang et al. 2023)"
    )
    model = "unet"
    unlabelled = "images"
    batchwise = True
    step = UniMatchStep
