"""The steps: who gets a gradient, who is updated, and what the closure is a function of."""

import numpy as np
import pytest
import torch
from tiny_runs import labelled_by_table, synthetic, tiny

from ichfast import models
from ichfast.losses import AttentionWMSELoss
from ichfast.training.loop import compute_weight_norm
from ichfast.training.steps import make_supervised_loss
from ichfast.training.steps.classification import ClassificationStep
from ichfast.training.steps.supervised import SupervisedAdam, SupervisedLBFGS
from ichfast.training.steps.turns import TurnsStep
from ichfast.training.steps.unsupervised import UnsupervisedStep
from ichfast.training.strategies.joint import JointStep
from ichfast.training.views import draw_labelled_view, render

CPU = torch.device("cpu")


def model_of(kind: str = "multitask"):
    return models.build(kind, (2, 3, 4), 0)


def moved_groups(model, step) -> set[str]:
    """The groups of parameters that an epoch of ``step`` changes."""
    before = {name: [p.clone() for p in group] for name, group in model.groups().items()}
    step.run(0, moved=False)
    return {
        name
        for name, group in model.groups().items()
        if any(not p.equal(q) for p, q in zip(group, before[name], strict=True))
    }


@pytest.mark.parametrize(
    ("mode", "segmentation_gradient", "updated"),
    [
        ("stop", False, {"encoder", "reconstruction"}),
        ("encoder", False, {"encoder", "reconstruction"}),
        ("full", True, {"encoder", "segmentation", "reconstruction"}),
    ],
)
def test_unsupervised_gradients_and_updates(mode, segmentation_gradient, updated) -> None:
    model = model_of()
    slices = synthetic("unlabelled", 5, masks=False)
    recipe = tiny(f"unsupervised.attention_gradient={mode}")
    step = UnsupervisedStep(model, synthetic("train", 5), recipe, CPU, unlabelled=slices)
    assert moved_groups(model, step) == updated
    for name, group in model.groups().items():
        if name == "segmentation" and not segmentation_gradient:
            assert all(p.grad is None for p in group)
        else:
            assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in group), name


def test_the_mask_carries_gradient_into_the_encoder_unless_stopped() -> None:
    gradients = {}
    for mode in ("stop", "encoder"):
        model = model_of()
        recipe = tiny(f"unsupervised.attention_gradient={mode}", "unsupervised.batch_size=9")
        unlabelled, labelled = synthetic("unlabelled", 5, masks=False), synthetic("train", 5)
        UnsupervisedStep(model, labelled, recipe, CPU, unlabelled=unlabelled).run(0, moved=False)
        gradients[mode] = torch.cat([p.grad.flatten() for p in model.groups()["encoder"]])
    assert not torch.allclose(gradients["stop"], gradients["encoder"])


def test_the_balance_of_l_u() -> None:
    """unsupervised.balance changes the loss of the step, and so what it does to the weights; the
    paper's is the default."""
    losses, weights = {}, {}
    for name, override in {"default": (), "paper": ("paper",), "region": ("region",)}.items():
        model, pool = model_of(), synthetic("unlabelled", 5, masks=False)
        recipe = tiny(*(f"unsupervised.balance={value}" for value in override))
        step = UnsupervisedStep(model, synthetic("train", 5), recipe, CPU, unlabelled=pool)
        losses[name] = step.run(0, moved=False).loss
        weights[name] = torch.cat([p.flatten() for p in model.parameters()]).tolist()
    assert losses["default"] == losses["paper"] != losses["region"]
    assert weights["default"] == weights["paper"] != weights["region"]


def test_the_unsupervised_loss_depends_on_the_unlabelled_image() -> None:
    model = model_of().eval()
    image = synthetic("unlabelled", 3, masks=False).batch(torch.arange(3))[0]
    outputs = model(image)
    assert AttentionWMSELoss()(image, *outputs) != AttentionWMSELoss()(1 - image, *outputs)
    labelled = synthetic("train", 5)
    outcomes = [
        UnsupervisedStep(
            model_of(), labelled, tiny(), CPU, unlabelled=synthetic(name, 5, masks=False)
        ).run(0, moved=False)
        for name in ("one", "another")
    ]
    assert outcomes[0].loss != outcomes[1].loss


@pytest.mark.parametrize("step_class", [SupervisedLBFGS, SupervisedAdam])
def test_supervised_updates_leave_the_reconstruction_alone(step_class) -> None:
    model = model_of()
    step = step_class(model, synthetic("train", 5), tiny(), CPU)
    assert moved_groups(model, step) == {"encoder", "segmentation"}


@pytest.mark.parametrize("step_class", [SupervisedLBFGS, SupervisedAdam])
def test_supervised_steps_learn(step_class) -> None:
    model = model_of("unet")
    step = step_class(model, synthetic("train", 7), tiny("adam.learning_rate=0.02"), CPU)
    losses = [step.run(epoch, moved=False).loss for epoch in range(12)]
    assert losses[-1] < losses[0] - 0.1


def test_the_lbfgs_closure_is_a_function_of_the_weights() -> None:
    model = model_of("unet").train()
    step = SupervisedLBFGS(model, synthetic("train", 7), tiny(), CPU)
    assert step.run_full_pass(gradient=False) == step.run_full_pass(gradient=True)


def test_lbfgs_counts_its_evaluations_and_reports_the_loss_at_its_end() -> None:
    model = model_of("unet")
    step = SupervisedLBFGS(model, synthetic("train", 7), tiny("lbfgs.max_iter=2"), CPU)
    outcome = step.run(0, moved=False)
    assert outcome.evaluations >= 2
    model.train()
    assert outcome.loss == step.run_full_pass(gradient=False)


@pytest.mark.parametrize("step_class", [SupervisedLBFGS, UnsupervisedStep])
def test_statistics_are_those_of_the_labelled_slices_at_the_final_weights(step_class) -> None:
    model = model_of()
    labelled = synthetic("train", 3)
    pool = synthetic("unlabelled", 5, masks=False)
    step_class(model, labelled, tiny(), CPU, unlabelled=pool).run(0, moved=False)
    norm = model.encoder.levels[0][1]
    features = model.encoder.levels[0][0](labelled.batch(torch.arange(3))[0])
    torch.testing.assert_close(norm.running_mean, features.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, features.var((0, 2, 3)))
    assert norm.momentum == 0.1
    assert norm.track_running_stats


def test_a_pair_that_spans_another_s_step_is_dropped() -> None:
    model = model_of("unet")
    step = SupervisedLBFGS(model, synthetic("train", 7), tiny(), CPU)
    step.optimizer.param_groups[0].update(max_iter=1, max_eval=9)  # one pair an epoch
    state = step.optimizer.state[next(model.parameters())]
    step.run(0, moved=False)
    for epoch, moved, pairs in ((1, False, 1), (2, True, 1), (3, False, 2)):
        step.run(epoch, moved=moved)
        assert len(state["old_dirs"]) == pairs


def test_a_sample_may_be_larger_than_the_pool() -> None:
    pool = synthetic("pool", 2, masks=False)
    step = UnsupervisedStep(model_of(), synthetic("train", 7), tiny(), CPU, unlabelled=pool)
    assert step.run(0, moved=False).evaluations == 1


def test_weight_norm() -> None:
    model = model_of("unet")
    flat = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    assert compute_weight_norm(model) == pytest.approx(flat.norm().item())


@pytest.mark.parametrize(("decay", "share"), [("none", 1.0), ("cosine", 0.75)])
def test_the_learning_rate_of_an_epoch(decay: str, share: float) -> None:
    """A third of the way the cosine has fallen to 3/4, whatever came before."""
    settings = (
        "training.strategy=alternating",
        "training.turn=step",
        "supervised.optimizer=adam",
        "unsupervised.learning_rate=0.05",
        "adam.learning_rate=0.02",
        f"adam.decay={decay}",
    )
    pool = synthetic("unlabelled", 20, masks=False)
    train = synthetic("train", 7)
    turns = TurnsStep(model_of(), train, tiny(*settings), CPU, unlabelled=pool)
    joint = tiny("training.strategy=joint", *settings[2:])
    both = JointStep(model_of(), train, joint, CPU, unlabelled=pool)
    learner = ClassificationStep(
        model_of(), train, tiny(*settings[2:]), CPU, unlabelled=labelled_by_table(pool)
    )
    alone = UnsupervisedStep(model_of(), train, tiny(*settings[2:]), CPU, unlabelled=pool)
    for step in (turns, both, learner, alone):
        step.run(2, moved=False)  # of 6
    rates = [
        (one.optimizer.param_groups[0]["lr"], start)
        for one, start in (
            (turns.supervised, 0.02),
            (turns.unsupervised, 0.05),
            (both, 0.02),
            (learner, 0.02),
            (alone, 0.05),
        )
    ]
    assert [rate for rate, _ in rates] == pytest.approx([share * start for _, start in rates])


def test_without_its_own_the_unsupervised_step_has_adam_s_learning_rate() -> None:
    recipe = tiny("adam.learning_rate=0.02")
    pool = synthetic("unlabelled", 5, masks=False)
    step = UnsupervisedStep(model_of(), synthetic("train", 5), recipe, CPU, unlabelled=pool)
    step.run(5, moved=False)
    assert step.optimizer.param_groups[0]["lr"] == 0.02


def test_running_statistics_after_lbfgs_are_of_the_slices_as_they_were_shown() -> None:
    recipe = tiny("training.statistics=running", "augmentation.rotation=90")
    labelled = synthetic("train", 3)
    model = model_of()
    outcome = SupervisedLBFGS(model, labelled, recipe, CPU).run(4, moved=False)
    view = draw_labelled_view(labelled, np.arange(3), recipe, 4)
    image, mask = render(labelled, np.arange(3), view)
    features = model.encoder.levels[0][0](image)
    norm = model.encoder.levels[0][1]
    torch.testing.assert_close(norm.running_mean, features.mean((0, 2, 3)))
    model.train()
    torch.testing.assert_close(
        outcome.loss, make_supervised_loss(recipe)(model.segment(image), mask).item()
    )
