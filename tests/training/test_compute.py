"""[compute]: each option learns, resumes exactly and leaves weights and results as they were."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import assert_same_end
from tiny_runs import labelled_by_table, synthetic, tiny
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ichfast import models
from ichfast.errors import RecipeError
from ichfast.models.compute import has_bfloat16, to_channels_last
from ichfast.training.forward import Forward, choose_precision
from ichfast.training.registry import STRATEGIES
from ichfast.training.steps import Step, build_steps
from ichfast.training.steps.supervised import SupervisedAdam, SupervisedLBFGS
from ichfast.training.strategy import make_strategy

CPU = torch.device("cpu")
OPTIONS = {
    "contiguous": ("compute.memory_format=contiguous",),
    "plain": ("compute.normalisation=plain",),
    "bfloat16": ("compute.precision=bfloat16",),
    "both": ("compute.memory_format=contiguous", "compute.precision=bfloat16"),
}
STEPS = {
    "supervised": ("supervised",),
    "unsupervised": ("curriculum",),
    "turns": ("alternating", "training.turn=step"),
    "classification": ("pretrained",),
    "joint": ("joint",),
    "mean_teacher": ("mean_teacher",),
    "cps": ("cps",),
    "pseudo_label": ("pseudo_label",),
    "unimatch": ("unimatch", "strong.cutmix=0.5"),
    "paste_negatives": ("paste_negatives", "augmentation.gamma=1.2"),
}
"""a strategy that takes the step, and further settings"""
ADAM = "supervised.optimizer=adam"


def one_step(name: str, *settings: str, device: torch.device = CPU) -> Step:
    strategy, *more = STEPS[name]
    recipe = tiny(
        f"training.strategy={strategy}",
        "together.confidence=0.5",
        "adam.learning_rate=0.01",
        *more,
        *settings,
    )
    model = models.build(STRATEGIES[strategy].model, (2, 3, 4), 0).to(device)
    unlabelled = labelled_by_table(synthetic("unlabelled", 9, masks=False))
    classes = make_strategy(recipe).steps
    return build_steps(classes, model, synthetic("train", 7), unlabelled, recipe, device)[name]


def model_of(step: Any) -> models.ReducedUNet:
    model: models.ReducedUNet = getattr(step, "supervised", step).model
    return model


@pytest.mark.parametrize("settings", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("step_class", [SupervisedLBFGS, SupervisedAdam])
def test_it_learns(step_class, settings) -> None:
    model = models.build("unet", (2, 3, 4), 0)
    step = step_class(model, synthetic("train", 7), tiny("adam.learning_rate=0.02", *settings), CPU)
    losses = [step.run(epoch, moved=False).loss for epoch in range(12)]
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("settings", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_resume_is_exact(optimizer, settings, start, tmp_path) -> None:
    settings = (*settings, f"supervised.optimizer={optimizer}", "training.epochs=4")
    start(tmp_path / "whole", *settings)
    start(tmp_path / "halves", *settings, "training.epochs=2")
    start(tmp_path / "halves", *settings)
    assert_same_end(tmp_path / "whole", tmp_path / "halves")


@pytest.mark.parametrize("name", STEPS)
def test_channels_last_is_the_same_function(name) -> None:
    """From the same weights, the same loss and gradients, up to the order of sums."""
    ends = []
    for settings in ((), OPTIONS["contiguous"]):
        step = one_step(name, ADAM, *settings)
        outcome = step.run(0, moved=False)
        ends.append(
            (outcome, torch.cat([p.detach().flatten() for p in model_of(step).parameters()]))
        )
    (plain, weights), (other, its_weights) = ends
    assert other.loss == pytest.approx(plain.loss, rel=1e-3)
    # Adam divides by the gradient's own size, so the rounding of a tiny one may show.
    assert (its_weights - weights).norm() < 1e-2 * weights.norm()


@pytest.mark.parametrize("settings", OPTIONS.values(), ids=OPTIONS)
def test_gradients(settings) -> None:
    gradients = []
    image, mask = synthetic("train", 7).batch(torch.arange(7))
    for chosen in ((), settings):
        model = models.build("multitask", (8, 16, 32), 0)
        logits, reconstruction = Forward(tiny(*chosen), CPU)(model, image)
        assert logits.dtype == reconstruction.dtype == choose_precision(tiny(*chosen), CPU)
        ((logits - mask).square().mean() + reconstruction.square().mean()).backward()
        assert all(p.grad.is_contiguous() and p.grad.dtype == p.dtype for p in model.parameters())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    distance = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert distance < (0.1 if "compute.precision=bfloat16" in settings else 1e-4)


class Losses(TorchDispatchMode):
    """Which dtypes the native losses read of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.ichfast.attention_wmse.default:
            self.seen |= {tensor.dtype for tensor in args[1:3]}  # logits and reconstruction
        elif func.overloadpacket in (torch.ops.ichfast.tversky, torch.ops.ichfast.tversky_bce):
            self.seen.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "name", [name for name in STEPS if name not in ("classification", "turns")]
)
def test_losses_read_what_the_network_computed(name) -> None:
    """Not a copy of it in float32."""
    step = one_step(name, ADAM, "compute.precision=bfloat16")
    losses = Losses()
    with losses:
        step.run(0, moved=False)
    assert losses.seen == {torch.bfloat16}


def test_every_layer_is_channels_last() -> None:
    model = models.build("multitask", (4, 8, 16), 0)
    seen: list[Tensor] = []

    def see(module: torch.nn.Module, given: Any, result: Any) -> None:
        seen.extend(result if isinstance(result, tuple) else (result,))

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d):
            module.register_forward_hook(see)
    Forward(tiny(), CPU)(model, torch.rand(2, 1, 16, 16))
    assert len(seen) == 18  # two levels are pooled
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


def test_channels_last_is_a_view() -> None:
    image = torch.rand(2, 1, 4, 6)
    assert to_channels_last(image).equal(image)
    assert to_channels_last(image).data_ptr() == image.data_ptr()


def test_compile(monkeypatch) -> None:
    """Each network is compiled once, for every batch."""
    asked: list[tuple[Callable[..., Any], dict[str, Any]]] = []

    def compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        asked.append((function, options))
        return function

    monkeypatch.setattr(torch, "compile", compile)
    step = one_step("cps", ADAM, "compute.compile=on")
    step.run(0, moved=False)
    assert [function.__self__ for function, _ in asked] == [step.model, step.peer]
    assert all(options == {"dynamic": False, "mode": None} for _, options in asked)


@pytest.mark.large
def test_compiled_runs_resume_exactly(start, tmp_path) -> None:
    settings = ("compute.compile=on", ADAM, "training.epochs=4")
    start(tmp_path / "whole", *settings)
    start(tmp_path / "halves", *settings, "training.epochs=2")
    start(tmp_path / "halves", *settings)
    assert_same_end(tmp_path / "whole", tmp_path / "halves")


def test_cuda_graphs_need_a_gpu() -> None:
    with pytest.raises(RecipeError, match=r"needs a GPU.*set compute\.compile = on"):
        one_step("supervised", "compute.compile=cuda_graphs")


class Synchronizations(TorchDispatchMode):
    """Operators that make the host wait for a device's numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "is_nonzero"):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", STEPS)
def test_no_number_is_read_within_an_epoch(name, monkeypatch) -> None:
    """Until its very end, where the losses are read together."""
    step: Any = one_step(name, ADAM)
    assert step.labelled.positive.any()  # looked up on the host, once for all epochs
    mode = Synchronizations()
    for one in getattr(step, "kinds", {"": step}).values():
        # Adam counts its steps on the host.
        monkeypatch.setattr(one.optimizer, "step", lambda: None)
    monkeypatch.setattr(f"{step.run.__module__}.average_losses", lambda losses: 0.0)
    with mode:
        step.run(0, moved=False)
    assert mode.seen == []
    with mode:
        torch.ones(1).item()
    assert mode.seen


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("graphs", [(), ("compute.compile=cuda_graphs",)], ids=["plain", "graphs"])
@pytest.mark.parametrize("name", STEPS)
def test_no_synchronization_within_an_epoch_on_a_gpu(name, graphs, monkeypatch) -> None:
    step: Any = one_step(name, ADAM, *graphs, device=torch.device("cuda", 0))
    step.run(0, moved=False)  # what is set up at the first use may wait
    monkeypatch.setattr(f"{step.run.__module__}.average_losses", lambda losses: 0.0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step.run(1, moved=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_lbfgs_reads_only_what_its_line_search_compares() -> None:
    step: Any = one_step("supervised", device=torch.device("cuda", 0))
    step.run(0, moved=False)
    step.optimizer.zero_grad()
    image, mask = step.labelled.batch(step.batches[0])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss: Tensor = step.loss(step.forward(step.model.segment, image), mask)
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("settings", [(), *OPTIONS.values(), ("compute.compile=cuda_graphs",)])
def test_gpu_runs_repeat_to_the_bit(settings, parts, tmp_path) -> None:
    from ichfast.training import RunFolder, run

    for name in ("one", "two"):
        with RunFolder(tmp_path / name, resume=False) as held:
            run(tiny(ADAM, *settings), held, torch.device("cuda", 0), parts)
    assert_same_end(tmp_path / "one", tmp_path / "two")


def test_lbfgs_is_float32_whatever_adam_is() -> None:
    losses = []
    for settings in ((), OPTIONS["bfloat16"]):
        step = one_step("supervised", *settings)
        losses.append([step.run(epoch, moved=False).loss for epoch in range(3)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("flags", "bfloat16"),
    [
        ("fma avx2", False),
        ("avx2 avx512f avx512bw", False),  # torch would take it, and be slow
        ("avx512f avx512_bf16", True),
        ("amx_tile amx_bf16", True),
        ("asimd bf16", True),
    ],
)
def test_precision_auto_is_what_the_processor_computes_in(
    flags: str, bfloat16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert has_bfloat16(CPU, cpuinfo) == bfloat16
    assert not has_bfloat16(CPU, tmp_path / "absent")

    monkeypatch.setattr("ichfast.training.forward.has_bfloat16", lambda device: bfloat16)
    expected = torch.bfloat16 if bfloat16 else torch.float32
    assert choose_precision(tiny("compute.precision=auto"), CPU) == expected
    assert Forward(tiny("compute.precision=auto"), CPU).precision == expected
