"""The steps: who gets a gradient, who is updated, and what the closure is a function of."""

import numpy as np
import pytest
import torch
from tiny_runs import synthetic, tiny

from ichfast import models
from ichfast.losses import AttentionWMSELoss
from ichfast.training.loop import compute_weight_norm
from ichfast.training.steps.batches import split_evenly
from ichfast.training.steps.supervised import SupervisedAdam, SupervisedLBFGS
from ichfast.training.steps.unsupervised import UnsupervisedStep

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


def test_batches_are_even() -> None:
    assert [len(batch) for batch in split_evenly(np.arange(17), 16)] == [9, 8]
    assert [len(batch) for batch in split_evenly(np.arange(3), 16)] == [3]


def test_weight_norm() -> None:
    model = model_of("unet")
    flat = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    assert compute_weight_norm(model) == pytest.approx(flat.norm().item())
