"""Joint training and the peers: what each update learns from, and who is the run's model."""

import pytest
import torch
from tiny_runs import labelled_by_table, synthetic, tiny
from tiny_steps import CPU, flat, make_pair, make_step

from ichfast import models
from ichfast.errors import DataError
from ichfast.training.registry import STRATEGIES
from ichfast.training.steps.classification import ClassificationStep, read_labels
from ichfast.training.steps.together import TogetherStep

TOGETHER = [name for name, strategy in STRATEGIES.items() if strategy.batchwise]


@pytest.mark.parametrize("strategy", TOGETHER)
def test_it_learns_and_tells_both_losses(strategy) -> None:
    step = make_step(strategy, "together.confidence=0.95", labelled=9)
    outcomes = [step.run(epoch, moved=False) for epoch in range(20)]
    assert outcomes[-1].parts["supervised"] < outcomes[0].parts["supervised"] - 0.05
    for outcome in outcomes:
        assert outcome.loss == pytest.approx(sum(outcome.parts.values()))


@pytest.mark.parametrize("strategy", TOGETHER)
def test_the_unlabelled_slices_matter_through_their_weight_alone(strategy) -> None:
    weights = {}
    for name, setting in (("none", 0.0), ("some", 1.0)):
        step = make_step(strategy, f"together.weight={setting}")
        step.run(0, moved=False)
        weights[name] = flat(step.model)
    twin = make_step(strategy, "together.weight=0")
    twin.unlabelled = labelled_by_table(synthetic("other", 9, masks=False))
    twin.run(0, moved=False)
    assert not weights["none"].equal(weights["some"])
    # Not to the bit: adding zero times a gradient rounds nothing, but a NaN there would spread.
    torch.testing.assert_close(weights["none"], flat(twin.model))


@pytest.mark.parametrize("strategy", TOGETHER)
def test_statistics_are_those_of_the_labelled_slices(strategy) -> None:
    step = make_step(strategy, labelled=3)
    step.run(0, moved=False)
    norm = step.model.encoder.levels[0][1]
    features = step.model.encoder.levels[0][0](step.labelled.batch(torch.arange(3))[0])
    torch.testing.assert_close(norm.running_mean, features.mean((0, 2, 3)))


@pytest.mark.parametrize(("mode", "taught"), [("stop", False), ("encoder", False), ("full", True)])
def test_joint_training_s_attention_gradient(mode, taught) -> None:
    step = make_step("joint", f"unsupervised.attention_gradient={mode}")
    ours = [p.grad for p in gradients(step)["segmentation"]]
    alone = make_step("joint", f"unsupervised.attention_gradient={mode}", "together.weight=0")
    theirs = [p.grad for p in gradients(alone)["segmentation"]]
    same = all(a.equal(b) for a, b in zip(ours, theirs, strict=True))
    assert same is not taught
    assert any(p.grad.abs().sum() > 0 for p in step.model.groups()["reconstruction"])


def gradients(step: TogetherStep) -> dict[str, list[torch.nn.Parameter]]:
    step.trained.train()
    step.backward(make_pair(step))
    return step.model.groups()


def test_the_weight_rises() -> None:
    step = make_step("cps", "together.ramp=0.1", "training.epochs=100", "together.weight=2")
    assert step.ramp_weight(0) == pytest.approx(2 * 0.006737947)
    assert step.ramp_weight(5) == pytest.approx(2 * 0.2865048)
    assert step.ramp_weight(10) == step.ramp_weight(99) == 2


def classification(*settings: str) -> ClassificationStep:
    model = models.build("unet", (2, 3, 4), 0)
    slices = labelled_by_table(synthetic("unlabelled", 20, masks=False))
    recipe = tiny("adam.learning_rate=0.05", *settings)
    return ClassificationStep(model, synthetic("train", 5), recipe, CPU, unlabelled=slices)


def test_classification_teaches_the_encoder_alone() -> None:
    step = classification()
    before = {name: [p.clone() for p in group] for name, group in step.model.groups().items()}
    losses = [step.run(epoch, moved=False).loss for epoch in range(30)]
    assert losses[-1] < losses[0] - 0.1
    moved = {
        name
        for name, group in step.model.groups().items()
        if any(not p.equal(q) for p, q in zip(group, before[name], strict=True))
    }
    assert moved == {"encoder"}


def test_labels_by_slice() -> None:
    rows, labels = read_labels(labelled_by_table(synthetic("unlabelled", 6, masks=False)))
    assert rows.tolist() == [0, 1, 2, 3, 4]  # the sixth is not known
    assert labels[1].tolist() == [1, 0, 0, 0, 0, 1]
    assert labels[0].sum() == 0


def test_labels_that_teach_nothing() -> None:
    slices = synthetic("unlabelled", 6, masks=False)
    with pytest.raises(DataError, match="none says which slices have haemorrhage"):
        read_labels(slices)
    slices = labelled_by_table(slices).select([1, 3])
    with pytest.raises(DataError, match="all slices are alike"):
        read_labels(slices)
