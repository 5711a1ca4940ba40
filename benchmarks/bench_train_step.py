"""Updates of the two-decoder model, ours under each option of the recipe beside plain PyTorch.

python -m benchmarks --ops train_step
python -m benchmarks.bench_train_step      where the time of an update goes
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.profiler import profile

from benchmarks import plain_step, report
from benchmarks.devices import Cpu, Device
from benchmarks.harness import OURS, Case, Owed, shape_name
from ichfast import models
from ichfast.data import SliceSet
from ichfast.training import PRESETS, recipe
from ichfast.training.steps.supervised import SupervisedAdam
from ichfast.training.steps.unsupervised import Unsupervised

WORKS = ("supervised", "unsupervised")
BATCH = {"cpu": 4, "cuda": 16}
CHANNELS_LAST = "compute.memory_format=channels_last"
BFLOAT16 = "compute.precision=bfloat16"
OPTIONS: dict[str, tuple[str, ...]] = {
    "float32": (),
    "float32, channels-last": (CHANNELS_LAST,),
    "float32, compiled": (CHANNELS_LAST, "compute.compile=on"),
    "bfloat16": (BFLOAT16,),
    "bfloat16, channels-last": (CHANNELS_LAST, BFLOAT16),
    "bfloat16, compiled": (CHANNELS_LAST, BFLOAT16, "compute.compile=on"),
}
GRAPHS: dict[str, tuple[str, ...]] = {
    "float32, graphs": (CHANNELS_LAST, "compute.compile=cuda_graphs"),
    "bfloat16, graphs": (CHANNELS_LAST, BFLOAT16, "compute.compile=cuda_graphs"),
}
OWED = {
    "cpu": {"float32": 1.25, "float32, channels-last": 1.25, "bfloat16, channels-last": 1.8},
    "cuda": {"bfloat16, graphs": 3.0},
}


def cases(device: Device, quick: bool) -> list[Callable[[], Iterable[Case]]]:
    options = OPTIONS | (GRAPHS if device.kind == "cuda" else {})
    if quick:  # compilers take their minute
        options = {name: chosen for name, chosen in options.items() if "compile" not in str(chosen)}
    return [
        partial(_case, device, work, name, settings, quick)
        for work in WORKS
        for name, settings in options.items()
    ]


def _case(
    device: Device, work: str, name: str, settings: Sequence[str], quick: bool
) -> Iterator[Case]:
    ours, plain, image = updates(device.place, work, settings, device.kind, quick)
    owed = OWED[device.kind].get(name)
    yield Case(
        op="train_step",
        work=work,
        shape=shape_name(image),
        dtype=name,
        contenders={OURS: [ours], "eager": [plain]},
        read=(image,),
        written=(image,),
        tolerance=0.2 if "bfloat16" in name else 2e-3,
        owed=() if owed is None or quick else (Owed("eager", owed),),
    )


Update = Callable[[], Sequence[Tensor]]


def updates(
    place: torch.device, work: str, settings: Sequence[str], kind: str, quick: bool = False
) -> tuple[Update, Update, Tensor]:
    """Ours, the plain one, and the batch; each update returns its loss and gradient."""
    size, batch = (32, 2) if quick else (256, BATCH[kind])
    channels = (4, 8, 16) if quick else PRESETS["paper"].model.channels
    chosen = recipe.with_settings(
        PRESETS["paper"],
        [f"model.channels={list(channels)}", "supervised.optimizer=adam", *settings],
    )
    slices = _slices(2 * batch, size, chosen.data.window).to(place)
    model = models.build("multitask", channels, 0).to(place).train()
    step = (
        SupervisedAdam(model, slices, chosen, place)
        if work == "supervised"
        else Unsupervised(model, slices, slices, chosen, place)
    )
    store = slices.store
    assert store is not None
    assert store.masks is not None
    theirs = plain_step.Step(channels, store.hu, store.masks, chosen.data.window)
    with torch.no_grad():
        for own, other in zip(model.parameters(), theirs.model.parameters(), strict=True):
            other.copy_(own)
    # Without a learning rate Adam does all its work, and every call sees the same weights.
    for optimizer in (step.optimizer, theirs.supervised_adam, theirs.unsupervised_adam):
        optimizer.param_groups[0]["lr"] = 0.0

    places = np.arange(0, 2 * batch, 2)
    index = torch.from_numpy(places).to(place)
    plain = theirs.supervised if work == "supervised" else theirs.unsupervised

    def run(update: Callable[[], Tensor], network: torch.nn.Module) -> Sequence[Tensor]:
        loss = update()
        gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        return loss, torch.cat(gradients)

    return (
        partial(run, lambda: step.update((places, None)), model),
        partial(run, lambda: plain(index), theirs.model),
        slices.batch(places)[0],
    )


def _slices(count: int, size: int, window: tuple[float, float]) -> SliceSet:
    random = np.random.default_rng(0)
    hu = random.integers(-40, 120, (count, size, size), dtype=np.int16)
    return SliceSet(
        hu=torch.from_numpy(hu),
        masks=torch.from_numpy((hu > 100).astype(np.uint8)),
        rows=torch.arange(count),
        window=window,
        patients=("",) * count,
        series=("",) * count,
        positions=(0.0,) * count,
        sources=("",) * count,
        spacings=((0.5, 0.5),) * count,
    )


PARTS = {
    "convolutions, backward": ("convolution_backward", "slow_conv2d_backward"),
    "convolutions, forward": ("convolution", "slow_conv2d_forward"),
    "batch normalisation": ("batch_norm",),
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
    place = Cpu.place
    columns = {}
    for work in WORKS:
        for name in ("float32", "bfloat16, channels-last"):
            ours, plain, _ = updates(place, work, OPTIONS[name], "cpu", options.quick)
            if name == "float32":
                columns[f"{work}, eager"] = shares(plain, options.calls)
            columns[f"{work}, {name}"] = shares(ours, options.calls)
    rows = [
        [part, *(f"{100 * column[part]:.1f} %" for column in columns.values())]
        for part in [*PARTS, "rest"]
    ]
    print(report.table(["part", *columns], rows))


if __name__ == "__main__":
    main()
