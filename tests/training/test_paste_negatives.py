"""Negative slices as labels and as backgrounds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import synthetic, tiny
from tiny_steps import CPU, make_step

from ichfast.errors import DataError
from ichfast.training.strategies.paste_negatives import PasteNegativesStep


def draw(*settings: str, epoch: int = 0) -> tuple[PasteNegativesStep, list]:
    step = make_step("paste_negatives", *settings, labelled=12)
    return step, step.draw_batches(epoch)


def test_only_negative_slices_come() -> None:
    _, pairs = draw("unsupervised.batch_size=6")
    places = np.concatenate([places for _, (places, _) in pairs])
    assert len(places) == 24  # twice the labelled ones, as the batch sizes are
    assert set(places.tolist()) == {0, 2, 4, 6}  # of nine; the last one's label is unknown


def test_half_are_empty_and_half_have_lesions_of_labelled_slices() -> None:
    step, pairs = draw()
    images, masks, plain = [], [], []
    for _, batch in pairs:
        image, mask = step.show(batch)
        images.append(image)
        masks.append(mask)
        plain.append(step.unlabelled.batch(batch[0])[0])
    image, mask, before = map(torch.cat, (images, masks, plain))
    assert mask.dtype == torch.uint8
    assert not mask[1::2].any()
    assert image[1::2].equal(before[1::2])
    assert (mask[::2].flatten(1).sum(1) > 0).double().mean() > 0.8
    assert not image[::2].equal(before[::2])
    donors = step.labelled.batch(torch.arange(12))[1]
    lesions = donors.flatten(1).bool()
    inside = [
        bool((own & ~lesions).any(1).logical_not().any()) for own in mask[::2].flatten(1).bool()
    ]
    assert all(inside)


def test_they_are_augmented_as_labelled_slices_are() -> None:
    _, pairs = draw("augmentation.gamma=2", "augmentation.flip=0.5", "augmentation.paste_shift=0.2")
    views = [view for _, (_, view) in pairs]
    assert all(view.greys is not None for view in views)
    assert any(bool(view.donors.theta[:, :, 2].any()) for view in views)
    flips = torch.cat([view.warp.theta[:, 0, 0] for view in views])
    assert set(flips.tolist()) == {-1, 1}


def test_each_epoch_has_its_own_whatever_the_batches() -> None:
    def donors(*settings: str, epoch: int = 0) -> list[int]:
        _, pairs = draw(*settings, epoch=epoch)
        return [place for _, (_, view) in pairs for place in view.donors.places]

    assert donors() == donors("supervised.batch_size=6", "unsupervised.batch_size=6")
    assert donors() != donors(epoch=1)


def test_the_loss_is_the_supervised_one_of_both_halves() -> None:
    step, pairs = draw("supervised.cross_entropy=0.5")
    own, other = pairs[0]
    image, mask = step.show(other)
    before = [p.clone() for p in step.model.parameters()]
    step.model.train()
    expected = step.loss(step.model.segment(image), mask)
    supervised = step.loss(
        step.model.segment(step.labelled.batch(own[0])[0]), step.labelled.batch(own[0])[1]
    )
    pairs_drawn = [(own, other)]
    step.draw_batches = lambda epoch: pairs_drawn
    outcome = step.run(0, moved=False)
    assert outcome.parts["unsupervised"] == pytest.approx(expected.item(), rel=1e-5)
    assert outcome.parts["supervised"] == pytest.approx(supervised.item(), rel=1e-5)
    assert any(not p.equal(q) for p, q in zip(step.model.parameters(), before, strict=True))


def test_it_needs_negative_slices() -> None:
    slices = replace(synthetic("unlabelled", 9, masks=False), subtypes=(("subdural",),) * 9)
    recipe = tiny("training.strategy=paste_negatives", "supervised.optimizer=adam")
    with pytest.raises(DataError, match="strategy paste_negatives needs unlabelled slices"):
        PasteNegativesStep(
            make_step("paste_negatives").model,
            synthetic("train", 5),
            recipe,
            CPU,
            unlabelled=slices,
        )
