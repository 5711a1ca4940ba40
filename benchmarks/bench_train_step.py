"""Updates of the two-decoder model, ours under each option of the recipe beside plain PyTorch.

python -m benchmarks --ops train_step
python -m benchmarks.bench_train_step      where the time of an update goes

On a CPU ours keeps its heap and flushes denormals, as a run of ``ichfast.train`` does. These are
settings of the whole process: so it has one of its own, with the plain update beside it that gains
by them too.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.profiler import profile

from benchmarks import plain_step, report
from benchmarks.apart import apart
from benchmarks.devices import Cpu, Device
from benchmarks.harness import OURS, Case, Target, name_shape
from benchmarks.registry import Benchmark
from ichfast import models
from ichfast.data import SliceSet
from ichfast.training import PRESETS, recipe
from ichfast.training.host import keep_heap
from ichfast.training.steps.supervised import SupervisedAdam
from ichfast.training.steps.unsupervised import UnsupervisedStep

WORKS = ("supervised", "unsupervised")
BATCH = {"cpu": 2, "cuda": 16}
CONTIGUOUS = "compute.memory_format=contiguous"
BFLOAT16 = "compute.precision=bfloat16"
OPTIONS: dict[str, tuple[str, ...]] = {
    "float32": (),
    "float32, contiguous": (CONTIGUOUS,),
    "float32, compiled": ("compute.compile=on",),
    "bfloat16": (BFLOAT16,),
    "bfloat16, compiled": (BFLOAT16, "compute.compile=on"),
}
GRAPHS: dict[str, tuple[str, ...]] = {
    "float32, graphs": ("compute.compile=cuda_graphs",),
    "bfloat16, graphs": (BFLOAT16, "compute.compile=cuda_graphs"),
}
TARGETS = {
    "cpu": {"float32": 1.6, "bfloat16": 1.8},
    "cuda": {"bfloat16, graphs": 3.0},
}


def list_cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    options = OPTIONS | (GRAPHS if device.kind == "cuda" else {})
    if quick:  # compilers take their minute
        options = {name: chosen for name, chosen in options.items() if "compile" not in str(chosen)}
    return [
        partial(_case, device, work, name, settings, quick)
        for work in WORKS
        for name, settings in options.items()
    ]


# An update takes seconds, and a case many of them.
BENCHMARK = Benchmark(list_cases, whole_run=False)


def _case(
    device: Device, work: str, name: str, settings: Sequence[str], quick: bool
) -> Iterator[Case]:
    place, batch = device.place, Batch(device.kind, quick)
    own = partial(our_update, place, work, settings, batch)
    plain = partial(plain_update, place, work, batch)
    eager = plain()
    if device.kind == "cpu":
        makes = {OURS: own} | ({"eager, kept heap": plain} if name == "float32" else {})
        runs = apart().prepare(list(makes.values()), like=eager())
        contenders = {key: [run] for key, run in zip(makes, runs, strict=True)}
    else:
        contenders = {OURS: [own()]}
    contenders["eager"] = [eager]
    image = batch.slices().batch(batch.places)[0].to(place)
    target = TARGETS[device.kind].get(name)
    yield Case(
        op="train_step",
        work=work,
        shape=name_shape(image),
        dtype=name,
        contenders=contenders,
        read=(image,),
        written=(image,),
        tolerance=0.2 if "bfloat16" in name else 2e-3,
        targets=() if target is None or quick else (Target("eager", target),),
        rounds=5,
    )


Update = Callable[[], Sequence[Tensor]]
"""returns its loss and its gradient, all parameters in one"""


class Batch:
    def __init__(self, kind: str, quick: bool) -> None:
        self.size, self.count = (32, 2) if quick else (256, BATCH[kind])
        self.channels = (4, 8, 16) if quick else PRESETS["paper"].model.channels
        self.places = np.arange(0, 2 * self.count, 2)

    def slices(self) -> SliceSet:
        count, size = 2 * self.count, self.size
        random = np.random.default_rng(0)
        hu = random.integers(-40, 120, (count, size, size), dtype=np.int16)
        return SliceSet(
            hu=torch.from_numpy(hu),
            masks=torch.from_numpy((hu > 100).astype(np.uint8)),
            rows=torch.arange(count),
            window=PRESETS["paper"].data.window,
            patients=("",) * count,
            series=("",) * count,
            positions=(0.0,) * count,
            sources=("",) * count,
            spacings=((0.5, 0.5),) * count,
        )

    def model(self) -> models.ReducedUNet:
        return models.build("multitask", self.channels, 0)


def our_update(place: torch.device, work: str, settings: Sequence[str], batch: Batch) -> Update:
    chosen = recipe.apply_settings(
        PRESETS["paper"],
        [f"model.channels={list(batch.channels)}", "supervised.optimizer=adam", *settings],
    )
    slices, model = batch.slices().to(place), batch.model().to(place).train()
    step = (
        SupervisedAdam(model, slices, chosen, place)
        if work == "supervised"
        else UnsupervisedStep(model, slices, chosen, place, unlabelled=slices)
    )
    _stand_still(step.optimizer)
    return partial(_run, lambda: step.update((batch.places, None)), model)


def plain_update(place: torch.device, work: str, batch: Batch) -> Update:
    store = batch.slices().to(place).store
    assert store is not None
    assert store.masks is not None
    step = plain_step.Step(batch.channels, store.hu, store.masks, PRESETS["paper"].data.window)
    with torch.no_grad():
        for own, ours in zip(step.model.parameters(), batch.model().parameters(), strict=True):
            own.copy_(ours)
    _stand_still(step.supervised_adam, step.unsupervised_adam)
    update = step.supervised if work == "supervised" else step.unsupervised
    return partial(_run, partial(update, torch.from_numpy(batch.places).to(place)), step.model)


def _stand_still(*optimizers: torch.optim.Optimizer) -> None:
    """Without a learning rate Adam does all its work, and every call sees the same weights."""
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = 0.0


def _run(update: Callable[[], Tensor], network: torch.nn.Module) -> Sequence[Tensor]:
    loss = update()
    gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return loss, torch.cat(gradients)


PARTS = {
    "convolutions, backward": ("convolution_backward", "slow_conv2d_backward"),
    "convolutions, forward": ("convolution", "slow_conv2d_forward"),
    "batch normalisation and what is fused with it": ("batch_norm", "norm_relu", "NormReLU"),
    "pooling": ("max_pool2d",),
    "ReLU": ("clamp_min", "threshold_backward", "relu"),
    "skip connections (cat)": ("aten::cat",),
    "losses": ("ichfast::tversky", "ichfast::attention", "sigmoid", "aten::pow", "aten::mean"),
    "making the batch": ("ichfast::pool_batch", "aten::index"),
    "conversions and copies": ("aten::copy_",),
    "Adam": ("Adam", "lerp", "addcdiv", "addcmul", "aten::sqrt", "aten::div"),
}


def shares(update: Update, calls: int) -> dict[str, float]:
    """Share of each part in the time of the operators themselves."""
    update()
    with profile() as record:
        for _ in range(calls):
            update()
    found = dict.fromkeys([*PARTS, "rest"], 0.0)
    for event in record.key_averages():
        name = next(
            (part for part, keys in PARTS.items() if any(key in event.key for key in keys)), "rest"
        )
        found[name] += event.self_cpu_time_total
    total = sum(found.values())
    return {name: time / total for name, time in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_train_step")
    parser.add_argument("--calls", type=int, default=3, help="updates profiled (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny inputs")
    options = parser.parse_args()
    place, batch = Cpu.place, Batch("cpu", options.quick)
    columns = {}
    for work in WORKS:
        columns[f"{work}, eager"] = shares(plain_update(place, work, batch), options.calls)
        for name in ("float32", "bfloat16"):
            with keep_heap():
                update = our_update(place, work, OPTIONS[name], batch)
                columns[f"{work}, {name}"] = shares(update, options.calls)
    rows = [
        [part, *(f"{100 * column[part]:.1f} %" for column in columns.values())]
        for part in [*PARTS, "rest"]
    ]
    print(report.format_table(["part", *columns], rows))


if __name__ == "__main__":
    main()
