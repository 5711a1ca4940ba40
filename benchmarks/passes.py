"""The cases of an op that runs in passes: forward and backward, together or apart."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.devices import Device, Prepared, Run
from benchmarks.harness import BANDWIDTH, Case, Target, name_dtype, name_shape

FORWARD, BACKWARD, BOTH = "forward", "backward", "forward + backward"
APART = (FORWARD, BACKWARD, BOTH)
QUICK_SIZE = (2, 1, 32, 32)
BANDWIDTH_TARGET = (Target(BANDWIDTH, 0.85),)


@dataclass(frozen=True)
class PassPlan:
    """The input, and the passes to time on it."""

    size: tuple[int, ...]
    dtype: torch.dtype
    works: tuple[str, ...] = (BOTH,)
    in_graph: bool = False  # also as single calls and in a CUDA graph
    targets: tuple[Target, ...] = ()  # by forward and backward together
    targets_apart: tuple[Target, ...] = ()  # by each of them

    def quick(self) -> "PassPlan":
        return replace(self, size=QUICK_SIZE, targets=(), targets_apart=())


@dataclass(frozen=True, eq=False)
class Inputs:
    """One input set."""

    arguments: tuple[Tensor, ...]
    wanted: tuple[Tensor, ...] = ()  # those that get a gradient
    incoming: Tensor = field(default_factory=lambda: torch.empty(0))  # the gradient that arrives


def choose_plans(table: Sequence[PassPlan], quick: bool) -> Sequence[PassPlan]:
    return list(dict.fromkeys(plan.quick() for plan in table)) if quick else table


def make_input_sets(
    make: Callable[[torch.Generator], Inputs], device: Device, *, read: int | None = None
) -> list[Inputs]:
    """As many as the device wants to go through, each of other values.

    ``read``: the bytes that one set makes an op read, where they are not those of its arguments.
    """

    def one(seed: int) -> Inputs:
        with device.place:
            return make(torch.Generator(device.place).manual_seed(seed))

    first = one(0)
    if read is None:
        read = sum(argument.nbytes for argument in first.arguments)
    count = device.count_sets(read)
    return [first, *(one(seed) for seed in range(1, count))]


def make_pass_cases(
    op: str,
    plan: PassPlan,
    sets: Sequence[Inputs],
    implementations: Mapping[str, Callable[..., Tensor]],
    *,
    note: str = "",
    returns_images: bool = False,
    tolerance: float | None = None,
) -> Iterator[Case]:
    """A case for each pass of the plan.

    A result that is not an image is a few numbers per image, and is not counted as traffic.
    """
    if tolerance is None:
        tolerance = 1e-4 if plan.dtype == torch.float32 else 5e-3
    inputs = sets[0]
    result = (inputs.incoming,) if returns_images else ()
    read = {FORWARD: inputs.arguments, BACKWARD: (*inputs.arguments, *result)}
    written = {FORWARD: result, BACKWARD: inputs.wanted}
    for traffic in (read, written):
        traffic[BOTH] = (*traffic[FORWARD], *traffic[BACKWARD])
    for work in plan.works:
        yield Case(
            op=op,
            work=work + note,
            shape=name_shape(inputs.arguments[0]),
            dtype=", ".join(dict.fromkeys(name_dtype(a.dtype) for a in inputs.arguments)),
            contenders={
                name: [_RUNS[work](partial(function, *one.arguments), one) for one in sets]
                for name, function in implementations.items()
            },
            read=read[work],
            written=written[work],
            tolerance=tolerance,
            in_graph=tuple(implementations) if plan.in_graph else (),
            targets=plan.targets if work == BOTH else plan.targets_apart,
        )


def _forward(function: Callable[[], Tensor], inputs: Inputs) -> Run:
    """As training runs it: what backward needs is kept, as long as the result lives."""
    return lambda: (function().detach(),)


def _backward(function: Callable[[], Tensor], inputs: Inputs) -> Run:
    """Of a graph that a forward pass has just built, untimed."""

    def prepare() -> Run:
        value = function()
        return lambda: torch.autograd.grad(value, inputs.wanted, inputs.incoming)

    return Prepared(prepare)


def _both(function: Callable[[], Tensor], inputs: Inputs) -> Run:
    """By torch.autograd.grad, so that adding into ``.grad`` is not timed."""

    def run() -> Sequence[Tensor]:
        value = function()
        return value.detach(), *torch.autograd.grad(value, inputs.wanted, inputs.incoming)

    return run


_RUNS = {FORWARD: _forward, BACKWARD: _backward, BOTH: _both}
