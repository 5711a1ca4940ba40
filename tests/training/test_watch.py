"""A run that has stopped learning is found out within a few epochs, and a sound one never is."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tiny_runs import log_of, parts, tiny
from torch import nn

from ichfast import models
from ichfast.errors import DivergedError
from ichfast.team import ALONE
from ichfast.training import pipeline
from ichfast.training.checkpoint import Progress
from ichfast.training.steps import EpochResult, Step, SupervisedLoss, build_steps
from ichfast.training.strategy import make_strategy
from ichfast.training.watch import Watch, check_alive, find_losses

ADAM = "supervised.optimizer=adam"
OVERLAP = ("training.strategy=supervised", ADAM)
BOTH = (*OVERLAP, "supervised.cross_entropy=1")


def live_through(
    losses: Sequence[float], *settings: str, blank: Sequence[bool | None] | bool = True
) -> int | None:
    """Epochs until it was found out; None: never."""
    progress, recipe = Progress(), tiny(*settings)
    states = [blank] * len(losses) if isinstance(blank, bool) else blank
    for epoch, (loss, state) in enumerate(zip(losses, states, strict=True), start=1):
        try:
            check_alive(progress, recipe, state, EpochResult(loss, 1))
        except DivergedError:
            return epoch
    return None


def test_an_overlap_loss_at_its_ceiling() -> None:
    # As seen on real slices: soft Jaccard by Adam at 2e-3, in batches of 4.
    losses = [0.9711, 0.9187, 0.9814, 0.99997, 0.99986, 0.99769, 0.9356, 0.9825, *[0.999998] * 10]
    blank = [*[False] * 3, *[True] * 3, *[False] * 2, *[True] * 10]
    assert live_through(losses, *OVERLAP, blank=blank) == 13
    assert live_through(losses, *OVERLAP, "training.grace=3", blank=blank) == 11


def test_a_ceiling_alone_is_no_end() -> None:
    assert live_through([0.99999] * 40, *OVERLAP, blank=False) is None
    assert live_through([0.9998] * 19, *OVERLAP) is None  # not quite at it
    interrupted = [True] * 4 + [False] + [True] * 4
    assert live_through([0.99999] * 9, *OVERLAP, blank=interrupted) is None


def test_epochs_without_a_supervised_loss_change_nothing() -> None:
    mixed = [True, None] * 5
    assert live_through([1.0, 0.2] * 5, *OVERLAP, blank=mixed) == 9


def test_cross_entropy_is_given_time_as_long_as_the_loss_falls() -> None:
    falling = [1.06 * 0.99**epoch for epoch in range(100)]
    assert live_through(falling, *BOTH) is None
    assert live_through([1.0] * 30, *BOTH) == 20
    assert live_through([*falling[:30], *[falling[30]] * 30], *BOTH) == 50
    assert live_through([1.0] * 30, *BOTH, "training.grace=7") == 28


def test_it_says_what_helps() -> None:
    outcome = EpochResult(2.0, 1, {"supervised": 0.99999, "unsupervised": 1.0})
    with pytest.raises(DivergedError, match=r"last 1 epochs.*set supervised\.cross_entropy = 1"):
        check_alive(Progress(), tiny(*OVERLAP, "training.grace=1"), True, outcome)
    progress = Progress(blank=[0.9] * 3)
    with pytest.raises(DivergedError, match=r"last 4 epochs.*raise training\.grace"):
        check_alive(progress, tiny(*BOTH, "training.grace=1"), True, EpochResult(0.9, 1))


@pytest.fixture
def loss() -> SupervisedLoss:
    return SupervisedLoss(1.0, 1.0)


def make_watch(loss: SupervisedLoss) -> Watch:
    class Holder(Step):
        def __init__(self) -> None:
            self.loss = loss

        def prepare(self) -> None: ...
        def run(self, epoch: int, *, moved: bool) -> EpochResult: ...
        def state_dict(self): ...
        def load_state_dict(self, state) -> None: ...

    return Watch([Holder()], torch.device("cpu"), ALONE)


@pytest.mark.parametrize(
    ("called", "blank"),
    [(0, True), (1, True), (2, False), (1000, False), (3996, False), (3997, True), (4000, True)],
)
def test_nothing_or_everything_is_blank(loss, called, blank) -> None:
    # 4,000 pixels, 1,000 with blood: one of those is nothing, three of the others are not called.
    watch = make_watch(loss)
    target = torch.zeros(2, 1, 40, 50, dtype=torch.uint8)
    target.view(-1)[:1000] = 1
    logits = torch.full((2, 1, 40, 50), -1.0)
    logits.view(-1)[:called] = 1.0
    for half in (slice(0, 1), slice(1, 2)):
        loss(logits[half], target[half])
    assert watch.is_blank() == blank
    assert watch.is_blank() is None  # asked, it starts anew


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (OVERLAP, 1),
        (("training.strategy=supervised",), 1),
        (("training.strategy=curriculum", ADAM), 1),
        (("training.strategy=curriculum", "training.turn=step", ADAM), 1),
        (("training.strategy=joint", ADAM), 1),
        (("training.strategy=mean_teacher", ADAM), 1),
        (("training.strategy=cps", ADAM), 1),
        (("training.strategy=pretrained", ADAM), 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_every_strategy_s_supervised_loss_is_found(settings, count) -> None:
    recipe = tiny(*settings)
    strategy = make_strategy(recipe)
    model = models.build(strategy.model, recipe.model.channels, 0)
    own = parts()
    device = torch.device("cpu")
    steps = build_steps(strategy.steps, model, own.train, own.unlabelled, recipe, device)
    assert sum(len(list(find_losses(step))) for step in steps.values()) == count


def sink(monkeypatch, bias: float) -> None:
    """Every model starts where its sigmoids have saturated."""
    real = pipeline.make_model

    def make(*arguments) -> nn.Module:
        model = real(*arguments)
        with torch.no_grad():
            model.segmentation.out.bias.fill_(bias)
        return model

    monkeypatch.setattr(pipeline, "make_model", make)


def test_a_dead_run_ends_as_diverged_resumed_or_not(start, tmp_path: Path, monkeypatch) -> None:
    sink(monkeypatch, -60.0)
    for name, first in (("whole", ()), ("halves", ("training.epochs=3",))):
        if first:
            start(tmp_path / name, *OVERLAP, *first)
        metrics = start(tmp_path / name, *OVERLAP, "training.epochs=12")
        assert (metrics["status"], metrics["epochs"]) == ("diverged", 4)
        assert "at an overlap loss of 1.00000" in metrics["reason"]
        assert len(log_of(tmp_path / name)) == 4
    monkeypatch.undo()
    assert start(tmp_path / "sound", *OVERLAP, "training.epochs=12")["status"] == "finished"


def test_a_network_that_calls_everything_blood(start, tmp_path: Path, monkeypatch) -> None:
    sink(monkeypatch, 60.0)
    metrics = start(tmp_path / "run", *OVERLAP, "training.epochs=30")
    assert (metrics["status"], metrics["epochs"]) == ("diverged", 19)
    assert "did not fall" in metrics["reason"]
