"""Which slices an epoch sees: how many, how often, and in which batches."""

from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from tiny_runs import synthetic, tiny

from ichfast import models
from ichfast.data import SliceSet
from ichfast.errors import RecipeError
from ichfast.training.seeding import make_generator
from ichfast.training.steps.batches import (
    count_beside,
    draw_beside,
    draw_labelled,
    draw_labelled_batches,
    measure_passes,
    split_evenly,
)
from ichfast.training.steps.supervised import SupervisedAdam
from ichfast.training.steps.together import TogetherStep
from ichfast.training.steps.turns import TurnsStep
from ichfast.training.steps.unsupervised import UnsupervisedStep
from ichfast.training.strategy import make_strategy

ADAM = "supervised.optimizer=adam"
POSITIVE = [1, 4, 5]


def mixed(count: int = 11) -> SliceSet:
    """The slices of POSITIVE have haemorrhage, the others none."""
    slices = synthetic("train", count)
    assert slices.masks is not None
    masks = torch.zeros_like(slices.masks)
    masks[POSITIVE] = slices.masks[POSITIVE]
    return replace(slices, masks=masks)


def drawn(slices: SliceSet, *settings: str, epochs: int) -> list[list[int]]:
    recipe = tiny(ADAM, *settings)
    return [draw_labelled(slices, recipe, epoch).tolist() for epoch in range(epochs)]


def test_by_default_an_epoch_is_a_permutation() -> None:
    recipe = tiny(ADAM, "training.seed=5", "supervised.batch_size=4")
    for epoch in (0, 3):
        batches = draw_labelled_batches(mixed(), recipe, epoch)
        places = np.concatenate([batch for batch, _ in batches])
        assert places.tolist() == make_generator(5, "shuffle", epoch).permutation(11).tolist()
        assert [len(batch) for batch, _ in batches] == [4, 4, 3]


@pytest.mark.parametrize("draws", [1, 4, 11, 25])
def test_draws_come_from_whole_permutations_in_turn(draws: int) -> None:
    epochs = drawn(mixed(), f"supervised.draws={draws}", epochs=22)
    assert {len(epoch) for epoch in epochs} == {draws}
    stream = list(chain.from_iterable(epochs))
    for first in range(0, len(stream) - 10, 11):
        assert sorted(stream[first : first + 11]) == list(range(11))
    assert len({tuple(stream[i : i + 11]) for i in (0, 11)}) == min(2, len(stream) // 11)


def test_the_share_of_positive_slices() -> None:
    epochs = drawn(mixed(), "supervised.draws=8", "supervised.positive=0.6", epochs=24)
    for epoch in epochs:
        assert sum(place in POSITIVE for place in epoch) == 5  # 0.6 · 8, rounded
        assert len(epoch) == 8
    seen = Counter(chain.from_iterable(epochs))
    assert {seen[place] for place in POSITIVE} == {24 * 5 // 3}
    assert {seen[place] for place in range(11) if place not in POSITIVE} == {24 * 3 // 8}


def test_a_share_alone_leaves_the_number() -> None:
    for epoch in drawn(mixed(), "supervised.positive=1", epochs=3):
        assert len(epoch) == 11
        assert set(epoch) == set(POSITIVE)


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    setting = ("supervised.draws=8", "supervised.positive=0.5")
    assert drawn(mixed(), *setting, epochs=6)[3:] == [
        draw_labelled(mixed(), tiny(ADAM, *setting), epoch).tolist() for epoch in (3, 4, 5)
    ]
    other = drawn(mixed(), *setting, "training.seed=1", epochs=6)
    assert other != drawn(mixed(), *setting, epochs=6)


@pytest.mark.parametrize(
    ("positive", "kind", "fix"),
    [(True, "without", "set data.slices = all"), (False, "with", "train on more patients")],
)
def test_a_share_of_what_is_not_there(positive: bool, kind: str, fix: str) -> None:
    alike = mixed().select([i for i in range(11) if (i in POSITIVE) is positive])
    with pytest.raises(RecipeError, match=rf"0\.5 draws slices {kind} haemorrhage.*{fix}"):
        drawn(alike, "supervised.positive=0.5", epochs=1)
    if positive:
        assert len(drawn(alike, "supervised.positive=1", epochs=1)[0]) == 3


def test_unlabelled_batches_are_as_the_batch_sizes_are_to_each_other() -> None:
    pool = synthetic("unlabelled", 90, masks=False)
    recipe = tiny(ADAM, "supervised.batch_size=4", "unsupervised.batch_size=28")
    assert count_beside(mixed(), recipe) == (77, 3)
    pairs = draw_beside(mixed(), pool, recipe, 2)
    assert [(len(own), len(other)) for (own, _), (other, _) in pairs] == [(4, 26), (4, 26), (3, 25)]
    chosen = np.concatenate([other for _, (other, _) in pairs])
    assert len(set(chosen.tolist())) == 77
    smaller = tiny(ADAM, "supervised.batch_size=4", "unsupervised.batch_size=1")
    assert count_beside(mixed(), smaller) == (3, 3)
    more = tiny(ADAM, "supervised.batch_size=4", "unsupervised.batch_size=8", "supervised.draws=20")
    assert count_beside(mixed(), more) == (40, 5)


def test_batches_are_even() -> None:
    assert [len(batch) for batch in split_evenly(np.arange(17), 16)] == [9, 8]
    assert [len(batch) for batch in split_evenly(np.arange(3), 16)] == [3]


def test_passes_are_whole_where_they_can_be() -> None:
    for slices, passes in ((11, 1), (22, 2)):
        found = measure_passes(slices, mixed())
        assert found == passes
        assert isinstance(found, int)
    assert measure_passes(4, mixed()) == pytest.approx(4 / 11)


def made(strategy: str, *settings: str):
    recipe = tiny(f"training.strategy={strategy}", ADAM, *settings)
    steps = make_strategy(recipe).steps
    return recipe, steps


def counted(step, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Labelled and unlabelled slices that each batch of an epoch asks for."""
    asked: list[tuple[int, int]] = []
    real = SliceSet.batch

    def batch(self, indices, warp=None):
        if torch.is_grad_enabled():  # not for the statistics
            count = len(indices)
            asked.append((count, 0) if self.masks is not None else (0, count))
        return real(self, indices, warp)

    with monkeypatch.context() as patch:
        patch.setattr(SliceSet, "batch", batch)
        step.run(0, moved=False)
    return asked


SIZES = ("supervised.batch_size=4", "unsupervised.batch_size=6", "supervised.draws=8")


@pytest.mark.parametrize("strategy", ["joint", "mean_teacher", "cps", "pseudo_label"])
def test_steps_of_both_kinds_take_both_batch_sizes(strategy: str, monkeypatch) -> None:
    recipe, steps = made(strategy, *SIZES)
    (kind,) = steps.values()
    pool = synthetic("unlabelled", 20, masks=False)
    model = models.build(make_strategy(recipe).model, (2, 3, 4), 0)
    step = kind(model, mixed(), recipe, torch.device("cpu"), unlabelled=pool)
    assert isinstance(step, TogetherStep)
    asked = counted(step, monkeypatch)
    assert [sum(column) for column in zip(*asked, strict=True)] == [8, 12]
    assert step.run(1, moved=False).evaluations == pytest.approx(8 / 11)
    assert min(step.list_batch_sizes()) == 3  # of the statistics: 11 slices in batches of up to 4
    twice = tiny("supervised.batch_size=4", "unsupervised.batch_size=8")
    cost = 2 * kind.cost - kind.labelled_cost
    assert kind.estimate_cost(twice) == pytest.approx(cost)


def test_turns_take_both_batch_sizes(monkeypatch) -> None:
    recipe, steps = made("alternating", "training.turn=step", *SIZES)
    step = steps["turns"](
        models.build("multitask", (2, 3, 4), 0),
        mixed(),
        recipe,
        torch.device("cpu"),
        unlabelled=synthetic("unlabelled", 20, masks=False),
    )
    assert isinstance(step, TurnsStep)
    assert counted(step, monkeypatch) == [(4, 0), (0, 6)]


def test_the_ratio_of_an_unsupervised_epoch(monkeypatch) -> None:
    recipe = tiny(ADAM, "unsupervised.ratio=1.5", "unsupervised.batch_size=6")
    step = UnsupervisedStep(
        models.build("multitask", (2, 3, 4), 0),
        mixed(),
        recipe,
        torch.device("cpu"),
        unlabelled=synthetic("unlabelled", 20, masks=False),
    )
    assert [size for _, size in counted(step, monkeypatch)] == [6, 5, 5]  # 1.5 · 11 in all
    assert step.run(1, moved=False).evaluations == pytest.approx(16 / 11)
    assert step.estimate_cost(recipe) == pytest.approx(1.5 * step.cost)


def test_an_epoch_of_adam_takes_its_draws(monkeypatch) -> None:
    recipe = tiny(ADAM, "supervised.draws=20", "supervised.batch_size=5")
    model = models.build("unet", (2, 3, 4), 0)
    step = SupervisedAdam(model, mixed(), recipe, torch.device("cpu"))
    assert counted(step, monkeypatch) == [(5, 0)] * 4
    assert step.run(1, moved=False).evaluations == pytest.approx(20 / 11)
