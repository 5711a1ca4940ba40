"""Teachers and students: who sees what, which pixels teach, and what the losses are."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import synthetic, tiny
from tiny_steps import CPU, flat, make_pair, make_step
from torch.nn import functional as F

from ichfast import models
from ichfast.errors import DataError
from ichfast.losses import TverskyBCELoss
from ichfast.training.steps.loss import make_pseudo_loss
from ichfast.training.steps.statistics import freeze_statistics

TAUGHT = ["mean_teacher", "cps", "pseudo_label", "unimatch"]
STRONG = ("strong.noise=100", "strong.gamma=2")


def capture(step) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What the step's students get: strong views with their guesses, as they come."""
    shown: list[tuple[torch.Tensor, torch.Tensor]] = []
    perturb = step.perturb

    def watched(*arguments):
        shown.append(perturb(*arguments))
        return shown[-1]

    step.perturb = watched
    return shown


def test_the_teacher_is_the_average_of_its_students() -> None:
    step = make_step("mean_teacher", "together.ema=0.75", "supervised.batch_size=2")
    expected = flat(step.model)
    students: list[torch.Tensor] = []
    updated = step.finish_update

    def watched() -> None:
        students.append(flat(step.student))
        updated()

    step.finish_update = watched  # type: ignore[method-assign]
    for epoch in range(3):
        step.run(epoch, moved=False)
    assert len(students) == 9
    for update, student in enumerate(students, start=1):
        keep = min(1 - 1 / (update + 1), 0.75)
        expected = keep * expected + (1 - keep) * student
    torch.testing.assert_close(flat(step.model), expected)
    assert all(p.grad is None for p in step.model.parameters())


@pytest.mark.parametrize("strategy", ["mean_teacher", "unimatch"])
def test_running_statistics_are_averaged_as_the_weights_are(strategy) -> None:
    step = make_step(strategy, "together.ema=0.75", "training.statistics=running")
    norms = [network.encoder.levels[0][1] for network in (step.model, step.student)]
    expected = norms[0].running_var.clone()
    updated = step.finish_update

    def watched() -> None:
        updated()
        keep = min(1 - 1 / (step.teacher.updates + 1), 0.75)
        expected.lerp_(norms[1].running_var, 1 - keep)

    step.finish_update = watched
    step.run(0, moved=False)
    torch.testing.assert_close(norms[0].running_var, expected)
    assert not norms[0].running_var.equal(torch.ones(2))


@pytest.mark.parametrize("strategy", TAUGHT)
def test_unlabelled_slices_leave_no_trace_in_the_running_statistics(strategy) -> None:
    means = []
    for weight in (0, 1):
        step = make_step(
            strategy,
            "training.statistics=running",
            "supervised.batch_size=5",
            f"together.weight={weight}",
        )
        step.run(0, moved=False)
        (student,) = [getattr(step, "student", step.model)]
        means.append(student.encoder.levels[0][1].running_mean.clone())
    assert means[0].equal(means[1])


@pytest.mark.parametrize("strategy", TAUGHT)
def test_the_teacher_sees_the_slice_and_the_student_its_strong_view(strategy) -> None:
    step = make_step(strategy, *STRONG)
    pair, shown = make_pair(step), capture(step)
    seen: list[torch.Tensor] = []
    forward = step.forward

    def watched(function, image, *others):
        seen.append(image)
        return forward(function, image, *others)

    step.forward = watched
    step.trained.train()
    step.backward(pair)
    guessed = {"cps": 2}.get(strategy, 1)
    views = {"cps": 2, "unimatch": 2}.get(strategy, 1)
    assert len(shown) == views
    assert sum(image.equal(pair.unlabelled) for image in seen) == guessed
    students = torch.cat(seen)
    for image, _ in shown:
        assert not image.equal(pair.unlabelled)
        assert any(image.equal(part) for part in students.split(len(image)))


@pytest.mark.parametrize("strategy", TAUGHT)
def test_the_strong_view_changes_what_is_learned(strategy) -> None:
    weights = []
    for settings in (("strong.noise=0",), STRONG):
        step = make_step(strategy, *settings)
        step.run(0, moved=False)
        weights.append(flat(step.model))
    assert not weights[0].equal(weights[1])


def expected_loss(step, logits: torch.Tensor, guess: torch.Tensor) -> torch.Tensor:
    """Jaccard and the mean cross-entropy of the pixels where the guess is sure, spelt out."""
    sure = (guess >= step.recipe.together.confidence) | (
        guess <= 1 - step.recipe.together.confidence
    )
    sharp, hard = logits[sure].double(), (guess > 0.5)[sure].double()
    p = sharp.sigmoid()
    overlap, union = (p * hard).sum() + 5e-6, (p + hard - p * hard).sum() + 5e-6
    entropy = F.binary_cross_entropy_with_logits(sharp, hard)
    return (1 - overlap / union + entropy).float()


def guess_of(network, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), freeze_statistics(network):
        probability: torch.Tensor = network.train().segment(image).sigmoid()
    return probability


def sharpen(*networks) -> None:
    """So that some pixels are sure, and not all."""
    with torch.no_grad():
        for network in networks:
            network.segmentation.out.weight.mul_(20)


def test_only_sure_pixels_become_pseudo_labels() -> None:
    step = make_step("pseudo_label", "together.confidence=0.75", *STRONG)
    sharpen(step.model)
    pair, shown = make_pair(step), capture(step)
    guess = guess_of(step.model, pair.unlabelled)
    _, further = step.backward(pair)
    image, target = shown[0]
    torch.testing.assert_close(target, guess)
    assert 0.02 < ((guess >= 0.75) | (guess <= 0.25)).double().mean() < 0.98
    torch.testing.assert_close(
        further, expected_loss(step, step.model.segment(image), guess), rtol=1e-4, atol=1e-5
    )


def test_unsure_pixels_have_no_gradient() -> None:
    step = make_step("pseudo_label", "together.confidence=0.9")
    guess = torch.rand(2, 1, 16, 16)
    logits = torch.randn(2, 1, 16, 16, requires_grad=True)
    step.compare(logits, guess).backward()
    sure = (guess >= 0.9) | (guess <= 0.1)
    assert (logits.grad[~sure] == 0).all()
    assert (logits.grad[sure] != 0).all()


def test_peers_start_apart_and_teach_each_other() -> None:
    step = make_step("cps", "together.confidence=0.6", *STRONG)
    assert not flat(step.model).equal(flat(step.peer))
    sharpen(step.model, step.peer)
    pair, shown = make_pair(step), capture(step)
    guesses = [guess_of(network, pair.unlabelled) for network in (step.peer, step.model)]
    _, further = step.backward(pair)
    expected = torch.tensor(0.0)
    for network, (image, target), guess in zip(
        (step.model, step.peer), shown, guesses, strict=True
    ):
        torch.testing.assert_close(target, guess)
        expected = expected + expected_loss(step, network.segment(image), guess)
    torch.testing.assert_close(further, expected, rtol=1e-4, atol=1e-5)
    assert not shown[0][0].equal(shown[1][0])


def test_the_mean_teacher_s_loss_does_not_fall_with_the_share_of_background() -> None:
    step = make_step("mean_teacher", *STRONG)
    pair, shown = make_pair(step), capture(step)
    guess = guess_of(step.model, pair.unlabelled)
    step.student.train()
    _, further = step.backward(pair)
    image, target = shown[0]
    torch.testing.assert_close(target, guess)
    p = guess_of(step.student, image)
    expected = ((p - guess) ** 2).sum() / (p**2 + guess**2).sum()
    torch.testing.assert_close(further, expected, rtol=1e-4, atol=1e-6)


def test_the_mean_teacher_s_gradient_is_that_of_the_mean_square() -> None:
    gradients = []
    for scale in (None, 1.0):
        step = make_step("mean_teacher", *STRONG, "strong.cutmix=1")
        pair, shown = make_pair(step), capture(step)
        step.student.train()
        if scale is None:
            step.backward(pair)
        else:
            (image, guess) = step.perturb(pair, step.guess(step.model.train(), pair))
            p = step.student.segment(image).sigmoid()
            square = F.mse_loss(p, guess) / (p**2 + guess**2).detach().mean()
            step.loss(step.student.segment(pair.image), pair.mask).backward()
            square.backward()
        assert shown
        gradients.append(torch.cat([q.grad.flatten() for q in step.student.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_unimatch_s_loss() -> None:
    step = make_step("unimatch", "together.confidence=0.6", "together.dropout=0.4", *STRONG)
    sharpen(step.model, step.student)
    pair, shown = make_pair(step), capture(step)
    step.trained.train()
    guess = guess_of(step.model, pair.unlabelled)
    factors = step.draw_factors(pair)
    twin = models.build("unet", (2, 3, 4), 0).train()
    twin.load_state_dict(step.student.state_dict())
    _, further = step.backward(pair)
    images = torch.cat([pair.unlabelled, *(image for image, _ in shown)])
    features = twin.encoder(images)
    first = 0
    for level in features:  # in place, channel by channel, of the first third alone
        for channel in range(level.shape[1]):
            level[:5, channel] *= factors[:, first, None, None].clone()
            first += 1
    third, one, two = twin.segmentation(features).chunk(3)
    for _, target in shown:
        torch.testing.assert_close(target, guess)
    losses = [expected_loss(step, logits, guess) for logits in (third, one, two)]
    expected = 0.5 * losses[0] + 0.25 * (losses[1] + losses[2])
    torch.testing.assert_close(further, expected, rtol=1e-4, atol=1e-5)


def test_dropped_features() -> None:
    step = make_step("unimatch", "together.dropout=0.3")
    pair = make_pair(step)
    pair = pair._replace(batch=(np.zeros(4000, dtype=int), None))
    factors = step.draw_factors(pair)
    assert factors.shape == (4000, 9)
    torch.testing.assert_close(factors.unique(), torch.tensor([0, 1 / 0.7]))
    assert factors.mean() == pytest.approx(1, abs=0.02)
    assert factors.equal(step.draw_factors(pair))
    for other in (pair._replace(update=1), pair._replace(epoch=1)):
        assert not factors.equal(step.draw_factors(other))
    assert (make_step("unimatch", "together.dropout=0").draw_factors(pair) == 1).all()


def test_pseudo_labels_always_have_a_cross_entropy() -> None:
    logits, target = torch.randn(2, 1, 8, 8), torch.rand(2, 1, 8, 8) > 0.5
    for setting, weight in ((0, 1), (0.3, 0.3), (2, 2)):
        loss = make_pseudo_loss(tiny(f"supervised.cross_entropy={setting}"))
        own = TverskyBCELoss(
            alpha=1, beta=1, lambda_ce=weight, smooth_nr=5e-6, smooth_dr=5e-6, batch=True
        )
        assert loss(logits, target) == own(logits, target)


@pytest.mark.parametrize("strategy", TAUGHT)
def test_negative_slices_have_an_empty_mask_where_their_labels_are_used(strategy) -> None:
    """In tiny runs' table every other slice is negative, from the first on."""
    for choice in ("ignore", "use"):
        step = make_step(strategy, f"together.slice_labels={choice}")
        step.trained.train()
        pair, shown = make_pair(step), capture(step)
        step.backward(pair)
        for _, guess in shown:
            assert (guess[1::2] > 0).all()
            assert bool((guess[::2] == 0).all()) == (choice == "use")


def test_what_is_known_teaches_however_unsure_the_teacher() -> None:
    step = make_step("pseudo_label", "together.slice_labels=use", "together.confidence=0.999")
    pair = make_pair(step)
    guess = step.guess(step.model.train(), pair)
    logits = torch.zeros_like(guess).requires_grad_()
    step.compare(logits, guess).backward()
    assert (logits.grad[::2] > 0).all()
    assert not logits.grad[1::2].any()


def test_slice_labels_need_negative_slices() -> None:
    step = make_step("pseudo_label")
    for kinds in ((), (("subdural",),) * 9, (None,) * 9):
        slices = replace(synthetic("unlabelled", 9, masks=False), subtypes=kinds)
        recipe = tiny(
            "training.strategy=pseudo_label",
            "together.slice_labels=use",
            "supervised.optimizer=adam",
        )
        with pytest.raises(DataError, match="slice_labels = use needs unlabelled slices"):
            type(step)(step.model, synthetic("train", 5), recipe, CPU, unlabelled=slices)


def test_nothing_sure_teaches_nothing() -> None:
    step = make_step("pseudo_label", "together.confidence=0.99")
    loss = step.compare(torch.randn(2, 1, 8, 8), torch.full((2, 1, 8, 8), 0.6))
    assert math.isclose(float(loss), 0, abs_tol=1e-6)
