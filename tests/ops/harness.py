"""The shared tester: what every op owes, written once, on each device.

``test_<op>.py`` derives from :class:`OpTester`, or from :class:`GradientTester` where the op has a
gradient, and says how to make a call and which raw ops stand behind it. Tests that run over all
ops find it there (:func:`find_testers`).
"""

import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import pytest
import torch
from comparison import assert_close, assert_same_bits
from torch import Tensor, func

from ichfast import ops

# Exports that have a native op of their name.
OPS = [name for name in ops.__all__ if hasattr(torch.ops.ichfast, name)]
HALF = (torch.float16, torch.bfloat16)
FLOATING = (torch.float64, torch.float32, *HALF)
# Voxels around the borders of tiles (1024) and chunks (16 tiles), primes, and nothing at all.
SPATIAL = [
    (0,), (1,), (3,), (1023,), (1024,), (1025,), (16383,), (16384,), (16385,), (10007,),
    (37, 41), (4, 0), (5, 7, 11), (1, 1, 97),
]  # fmt: skip


@dataclass(frozen=True)
class Call:
    """An op, its plain form, and arguments for both; ``wrt`` names those with a gradient."""

    op: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    tensors: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    wrt: tuple[str, ...] = ()
    inherit: Callable[["Call"], dict[str, Tensor]] | None = None  # see assert_close; by name

    def replace(self, **tensors: Tensor) -> "Call":
        return dataclasses.replace(self, tensors={**self.tensors, **tensors})

    def run(self) -> list[Tensor]:
        """The value, then the gradients of ``wrt``; arguments are left as they were."""
        before = {name: tensor.clone() for name, tensor in self.tensors.items()}
        results = _evaluate(self.op, self.tensors, self.options, self.wrt)
        assert_same_bits(list(self.tensors.values()), list(before.values()))
        for gradient, name in zip(results[1:], self.wrt, strict=True):
            assert gradient.dtype == self.tensors[name].dtype
        return results

    def expected(self) -> list[Tensor]:
        """The same from the reference, in float64 on the CPU."""
        tensors = {name: tensor.cpu().double() for name, tensor in self.tensors.items()}
        options = (
            {**self.options, "dtype": torch.float64} if "dtype" in self.options else self.options
        )
        return _evaluate(self.reference, tensors, options, self.wrt)

    def check(self, case: str = "") -> list[tuple[Tensor, Tensor]]:
        """Compares each result of the op with the reference's; gives back these pairs."""
        inherited = self.inherit(self) if self.inherit else {}
        pairs = list(zip(self.run(), self.expected(), strict=True))
        for name, pair in zip(("value", *self.wrt), pairs, strict=True):
            what = "value" if name == "value" else f"gradient of {name}"
            assert_close(*pair, case + what, inherited.get(name))
        return pairs


def _evaluate(
    function: Callable[..., Tensor],
    tensors: dict[str, Tensor],
    options: dict[str, Any],
    wrt: tuple[str, ...],
) -> list[Tensor]:
    leaves = {name: tensor.detach().requires_grad_(name in wrt) for name, tensor in tensors.items()}
    value = function(**leaves, **options)
    if not wrt:
        return [value]
    gradients = torch.autograd.grad(value, [leaves[name] for name in wrt], upstream(value))
    return [value.detach(), *gradients]


def upstream(value: Tensor) -> Tensor:
    """The gradient that arrives at a result, and lies as it does: random, and the same number in
    every dtype."""
    generator = torch.Generator().manual_seed(7)
    grad = 256 * torch.randn(value.shape, generator=generator)
    return torch.empty_like(value).copy_(grad.bfloat16())


def sees_values(device: torch.device) -> bool:
    """Whether numbers out of their range are refused: a GPU's kernels find them when it is too late
    for an error, and answer with NaN; so do they in the PTX run (tests/cpp/ptx)."""
    return device.type == "cpu" and "PTX_LIBRARY" not in os.environ


def peak_memory(function: Callable[[], Any]) -> int:
    """Most bytes of tensors on the CPU that ``function`` has at a time, beyond those before it."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        results = function()
    del results
    assert profile.profiler is not None
    events = profile.profiler.kineto_results.events()
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return int(max(itertools.accumulate(changes)))


def _filled(view: Tensor, values: Tensor) -> Tensor:
    return view.copy_(values)


def _crop(x: Tensor) -> Tensor:
    big = x.new_empty(*x.shape[:-2], x.shape[-2] + 3, x.shape[-1] + 5)
    return _filled(big[..., 1:-2, 2:-3], x)


# The same values, otherwise in memory.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "channel_slice": lambda x: _filled(
        x.new_empty(len(x), x.shape[1] + 2, *x.shape[2:])[:, 1:-1], x
    ),
    "batch_slice": lambda x: _filled(x.new_empty(2 * len(x), *x.shape[1:])[::2], x),
    "batch_last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "every_other": lambda x: _filled(x.new_empty(*x.shape[:-1], 2 * x.shape[-1])[..., ::2], x),
    "transposed": lambda x: x.mT.contiguous().mT,
    "crop": _crop,
    "offset": lambda x: _filled(x.new_empty(x.numel() + 1)[1:].view(x.shape), x),
    "negative_view": lambda x: torch.complex(x, -x).conj().imag if x.dtype == torch.float32 else x,
}

# Several elements in one place.
OVERLAPPING: dict[str, Callable[[Tensor], Tensor]] = {
    "one_image": lambda x: x[:1].expand_as(x),
    "one_row": lambda x: x[..., :1, :].expand_as(x),
    "one_voxel": lambda x: x[..., :1, :1].expand_as(x),
    "windows": lambda x: x.flatten().as_strided(x.shape, (2, *[1] * (x.ndim - 3), x.shape[-1], 1)),
}


Samples = dict[str, Tensor]
Transform = Callable[[Callable[[Any, Any], Tensor], Samples, Samples], Any]


def _one(samples: Samples, names: Callable[[int], bool] = lambda i: True) -> Samples:
    """Of several samples the first, in those of the tensors that ``names`` picks."""
    return {n: x[0] if names(i) else x for i, (n, x) in enumerate(samples.items())}


def _first(i: int) -> bool:
    return i == 0


def _others(i: int) -> bool:
    return i > 0


def _dims(samples: Samples, names: Callable[[int], bool]) -> Any:
    """The in_dims of vmap over the tensors that ``names`` picks, of x and of all y."""
    dims = {n: 0 if names(i) else None for i, n in enumerate(samples)}
    return dims, 0 if names(1) else None


def _last(samples: Samples) -> Samples:
    return {name: tensor.movedim(0, -1) for name, tensor in samples.items()}


def _squares(f: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    return lambda x, y: f(x, y).square().sum()


def _penalty(f: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    gradients = func.grad(_squares(f))
    return lambda x, y: torch.stack([g.square().sum() for g in gradients(x, y).values()]).sum()


# Of f(x, y), y without a gradient; several samples of both, in the first dimension.
TRANSFORMS: dict[str, Transform] = {
    "grad": lambda f, x, y: func.grad(_squares(f))(_one(x), _one(y)),
    "grad of grad": lambda f, x, y: func.grad(_penalty(f))(_one(x), _one(y)),
    "jacrev": lambda f, x, y: func.jacrev(f)(_one(x), _one(y)),
    "vmap": lambda f, x, y: func.vmap(f)(x, y),
    "vmap of grad": lambda f, x, y: func.vmap(func.grad(_squares(f)))(x, y),
    "vmap over the first": lambda f, x, y: func.vmap(func.grad(_squares(f)), _dims(x, _first))(
        _one(x, _others), _one(y)
    ),
    "vmap over the others": lambda f, x, y: func.vmap(func.grad(_squares(f)), _dims(x, _others))(
        _one(x, _first), y
    ),
    "vmap over the last dimension": lambda f, x, y: func.vmap(func.grad(_squares(f)), -1, -1)(
        _last(x), _last(y)
    ),
    "vmap of vmap": lambda f, x, y: func.vmap(func.vmap(f, _dims(x, _first)), _dims(x, _others))(
        x, y
    ),
    "vmap of grad of grad": lambda f, x, y: func.vmap(func.grad(_penalty(f)))(x, y),
    "grad of vmap": lambda f, x, y: func.grad(_squares(func.vmap(f)))(x, y),
}


def check_transform(call: Call, transform: str) -> None:
    """A transform of the op equals that of its plain form."""
    samples = {n: torch.stack([t, t.flip(0), 0.5 * t.roll(1, -1)]) for n, t in call.tensors.items()}
    leaves = {name: samples.pop(name) for name in call.wrt}
    results = []
    for function in (call.op, call.reference):

        def f(x: dict[str, Tensor], y: dict[str, Tensor], function: Any = function) -> Tensor:
            result: Tensor = function(**x, **y, **call.options)
            return result

        results.append(TRANSFORMS[transform](f, leaves, samples))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


class OpTester:
    """Derive, name the class Test…, and define ``make`` and ``raw``."""

    def make(
        self,
        device: torch.device,
        *,
        spatial: tuple[int, ...] = (37, 41),
        images: int = 3,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> Call:
        raise NotImplementedError

    def raw(self, call: Call) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        """Each native op with arguments for it, none of which requires a gradient."""
        raise NotImplementedError

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_layout(self, device: torch.device, layout: str) -> None:
        call = self.make(device)
        expected = call.run()
        images = [name for name, tensor in call.tensors.items() if tensor.ndim >= 3]
        for names in (images, *([name] for name in images)):
            relaid = {name: LAYOUTS[layout](call.tensors[name]) for name in names}
            results = call.replace(**relaid).run()
            assert_same_bits(results, expected)
            if layout == "channels_last":  # the gradient lies as its argument, for the next layer
                for gradient, name in zip(results[1:], call.wrt, strict=True):
                    tensor = relaid.get(name, call.tensors[name])
                    assert gradient.stride() == tensor.stride()

    @pytest.mark.parametrize("layout", OVERLAPPING)
    def test_overlapping_elements(self, device: torch.device, layout: str) -> None:
        call = self.make(device)
        images = {name: OVERLAPPING[layout](x) for name, x in call.tensors.items() if x.ndim >= 3}
        expected = call.replace(**{name: x.contiguous() for name, x in images.items()}).run()
        assert_same_bits(call.replace(**images).run(), expected)

    def test_same_bits_whatever_the_threads(self) -> None:
        call = self.make(torch.device("cpu"), spatial=(301, 277))  # six chunks per image
        torch.set_num_threads(1)
        expected = call.run()
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            assert_same_bits(call.run(), expected)

    def test_same_bits_again(self, device: torch.device) -> None:
        call = self.make(device, spatial=(301, 277))
        expected = call.run()
        for _ in range(3):
            assert_same_bits(call.run(), expected)

    def test_opcheck(self, device: torch.device) -> None:
        call = self.make(device, spatial=(5, 6), images=2)
        for op, arguments in self.raw(call):
            torch.library.opcheck(op, arguments)

    def test_raw_ops_refuse_two_devices(self) -> None:
        """Called past the Python function, and with each tensor in turn somewhere else: the native
        kernel says so and reads nothing."""
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
        for op, arguments in self.raw(self.make(torch.device("cpu"), spatial=(5, 6), images=2)):
            tensors = [i for i, argument in enumerate(arguments) if isinstance(argument, Tensor)]
            for i in tensors:
                moved = [*arguments]
                moved[i] = arguments[i].to("meta")
                name = op.overloadpacket.__name__
                with pytest.raises(RuntimeError, match=f"{name}: .* move both to one device"):
                    op.redispatch(keys, *moved)

    def test_raw_ops_refuse_dtypes(self) -> None:
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
        for op, arguments in self.raw(self.make(torch.device("cpu"), spatial=(5, 6), images=2)):
            for i, argument in enumerate(arguments):
                if isinstance(argument, Tensor):
                    cast = [*arguments]
                    cast[i] = argument.to(torch.complex64)
                    with pytest.raises(
                        RuntimeError, match=f"{op.overloadpacket.__name__}: .* must "
                    ):
                        op.redispatch(keys, *cast)

    def test_fake_kernel_on_meta(self, device: torch.device) -> None:
        call = self.make(device)
        meta = call.replace(**{name: x.to("meta") for name, x in call.tensors.items()})
        results = _evaluate(meta.op, meta.tensors, meta.options, meta.wrt)
        for result, real in zip(results, call.run(), strict=True):
            assert result.is_meta
            assert (result.shape, result.dtype) == (real.shape, real.dtype)
            assert result.stride() == real.stride()

    @pytest.mark.parametrize("dynamic", [False, True])
    def test_compile(self, device: torch.device, dynamic: bool) -> None:
        """One graph without breaks, native both ways; with ``dynamic`` one for several sizes."""
        from functorch.compile import make_boxed_func
        from torch._dynamo.backends.common import aot_autograd

        forward: list[str] = []
        backward: list[str] = []

        def record(graphs: list[str]) -> Callable[..., Any]:
            def compiler(graph: torch.fx.GraphModule, _: Any) -> Any:
                graphs.append(graph.code)
                return make_boxed_func(graph)

            return compiler

        torch.compiler.reset()
        backend = aot_autograd(fw_compiler=record(forward), bw_compiler=record(backward))
        first = self.make(device)
        compiled = torch.compile(first.op, fullgraph=True, dynamic=dynamic, backend=backend)
        sizes = [(37, 41), (29, 53), (41, 37)] if dynamic else [(37, 41)]
        for spatial in sizes:
            call = self.make(device, spatial=spatial)
            assert_same_bits(dataclasses.replace(call, op=compiled).run(), call.run())
        name = first.op.__name__
        assert len(forward) == 1
        assert f"ops.ichfast.{name}." in forward[0]
        assert len(backward) == bool(first.wrt)
        assert all(f"ops.ichfast.{name}_backward." in code for code in backward)

    def test_without_autograd(self, device: torch.device) -> None:
        call = dataclasses.replace(self.make(device), wrt=())
        expected = call.run()
        for context in (torch.no_grad(), torch.inference_mode()):
            with context:
                assert_same_bits(call.run(), expected)


class GradientTester(OpTester):
    """The further debts of an op with a gradient; ``saturating`` names the arguments that it takes
    the sigmoid of."""

    native_under_transforms = True

    saturating: tuple[str, ...] = ()

    @pytest.mark.parametrize("spatial", SPATIAL, ids=str)
    def test_sizes(self, device: torch.device, spatial: tuple[int, ...]) -> None:
        self.make(device, spatial=spatial, images=2).check()

    @pytest.mark.parametrize("images", [0, 1, 5])
    def test_batch(self, device: torch.device, images: int) -> None:
        self.make(device, images=images).check()

    @pytest.mark.parametrize("dtype", FLOATING, ids=str)
    def test_dtype(self, device: torch.device, dtype: torch.dtype) -> None:
        self.make(device, dtype=dtype, spatial=(47, 53)).check()

    def test_mixed_dtypes(self, device: torch.device) -> None:
        call = self.make(device, spatial=(11, 13))
        dtypes = (torch.float64, torch.float32, torch.bfloat16)
        for mix in itertools.product(dtypes, repeat=len(call.tensors)):
            tensors = {
                name: x.to(d) for (name, x), d in zip(call.tensors.items(), mix, strict=True)
            }
            call.replace(**tensors).check()

    def test_gradient_subsets(self, device: torch.device) -> None:
        """To rounding, since a compiler fuses other operations where one is left out."""
        call = self.make(device)
        for name in call.wrt:
            dataclasses.replace(call, wrt=(name,)).check()

    def test_gradient_nobody_asked_for_takes_no_memory(self) -> None:
        call = self.make(torch.device("cpu"), spatial=(512, 511))
        for name in call.wrt:
            leaves = {n: t.detach().requires_grad_(n == name) for n, t in call.tensors.items()}
            value, leaf = call.op(**leaves, **call.options), leaves[name]
            arguments = value, leaf, upstream(value)
            peak = peak_memory(functools.partial(torch.autograd.grad, *arguments))
            assert leaf.nbytes <= peak <= leaf.nbytes + 8192

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("logit", [10.0, 20.0, 40.0, 60.0, 80.0])
    def test_saturated_slope(self, device: torch.device, logit: float, dtype: torch.dtype) -> None:
        """The gradient is that of the sigmoid times its slope y(1 − y) to the last digits, also
        where y is 1 to a float32. From 20 on the former does not change; the plain form's slope is
        lost, in float64, from 36 on."""

        def slope(z: float) -> float:
            return math.exp(-z) / (1 + math.exp(-z)) ** 2

        call = self.make(device, dtype=dtype)
        for name in self.saturating:
            sign = torch.where(call.tensors[name] < 0, -1.0, 1.0).to(dtype)
            known = min(logit, 20.0)
            alone = dataclasses.replace(call, wrt=(name,))
            expected = alone.replace(**{name: known * sign}).expected()[1] / slope(known)
            actual = alone.replace(**{name: logit * sign}).run()[1].cpu().double() / slope(logit)
            size = expected.abs().clamp(min=expected.square().mean().sqrt().item())
            tolerance = 1e-5 if dtype == torch.float32 else 2.0**-7
            assert ((actual - expected).abs() <= tolerance * size).all()

    def test_expanded_gradient(self, device: torch.device) -> None:
        """As a sum hands it back: one number for all, of stride 0."""
        call = self.make(device)
        leaves = {n: t.detach().requires_grad_(n in call.wrt) for n, t in call.tensors.items()}
        wrt = [leaves[name] for name in call.wrt]
        value = call.op(**leaves, **call.options)
        grad = torch.full((), 3.0, dtype=value.dtype, device=device).expand_as(value)
        per_channel = torch.arange(1.0, grad.shape[1] + 1) if value.ndim > 2 else None
        grads = [grad]
        if per_channel is not None:  # one number for each channel
            shape = (1, -1, *[1] * (value.ndim - 2))
            grads.append(per_channel.to(grad).view(shape).expand_as(value))
        for given in grads:
            expected = torch.autograd.grad(value, wrt, given.contiguous(), retain_graph=True)
            actual = torch.autograd.grad(value, wrt, given, retain_graph=True)
            assert_same_bits(list(actual), list(expected))

    def test_vmap_has_rules(self, device: torch.device) -> None:
        """Without one, torch loops over the samples."""
        if not self.native_under_transforms:
            pytest.skip("transforms take the plain form")
        for op, _ in self.raw(self.make(device)):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "FuncTorchBatched")

    @pytest.mark.parametrize("transform", TRANSFORMS)
    def test_transform(self, device: torch.device, transform: str) -> None:
        check_transform(self.make(device, dtype=torch.float64, spatial=(2, 3), images=2), transform)

    def test_gradcheck(self, device: torch.device) -> None:
        function, leaves = self._function_of_leaves(device)
        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves)

    def _function_of_leaves(
        self, device: torch.device
    ) -> tuple[Callable[..., Tensor], list[Tensor]]:
        call = self.make(device, dtype=torch.float64, spatial=(2, 3), images=2)

        def function(*leaves: Tensor) -> Tensor:
            tensors = {**call.tensors, **dict(zip(call.wrt, leaves, strict=True))}
            return call.op(**tensors, **call.options)

        return function, [call.tensors[name].requires_grad_() for name in call.wrt]

    @pytest.mark.parametrize("dtype", FLOATING, ids=str)
    def test_gradient_penalty(self, device: torch.device, dtype: torch.dtype) -> None:
        """Through the gradient once more, with more voxels than a float16 can count."""
        call = self.make(device, dtype=dtype, spatial=(2**16 + 7,), images=1)

        def penalty(function: Callable[..., Tensor], tensors: dict[str, Tensor]) -> list[Tensor]:
            leaves = {n: t.detach().requires_grad_(n in call.wrt) for n, t in tensors.items()}
            wrt = [leaves[name] for name in call.wrt]
            value = function(**leaves, **call.options)
            grad = upstream(value) / 256 * (2**16 if value.ndim <= 2 else 1)  # gradients around 1
            squares = torch.zeros(())
            for gradient in torch.autograd.grad(value, wrt, grad, create_graph=True):
                wide = torch.promote_types(gradient.dtype, torch.float32)
                squares = squares + gradient.to(wide).square().sum()
            return list(torch.autograd.grad(squares, wrt))

        expected = penalty(call.reference, {n: t.cpu().double() for n, t in call.tensors.items()})
        # The plain form rounds at every step, the half types the gradient in between too.
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 0.02)
        for actual, e in zip(penalty(call.op, call.tensors), expected, strict=True):
            assert (actual.cpu().double() - e).norm() <= tolerance * e.norm()

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_not_finite(self, device: torch.device, value: float) -> None:
        call = self.make(device, spatial=(2051,), images=2)
        for name, tensor in call.tensors.items():
            for position in (0, 1023, 1024, 2050):
                spoiled = tensor.clone()
                spoiled[1, 0, position] = value
                pairs = call.replace(**{name: spoiled}).check(f"{name} {value}: ")
                for actual, expected in pairs:
                    if value != value:
                        assert torch.equal(actual.isnan().cpu(), expected.isnan()), name

    @pytest.mark.parametrize("layout", ["contiguous", "channels_last", "channel_slice"])
    def test_peak_memory(self, layout: str) -> None:
        """Results, and a few kilobytes of partial sums: no copy, nothing kept for backward."""
        call = self.make(torch.device("cpu"), spatial=(512, 511))
        if layout != "contiguous":
            call = call.replace(**{name: LAYOUTS[layout](x) for name, x in call.tensors.items()})
        results = call.run()
        bytes_of_results = sum(result.nbytes for result in results)
        grad = upstream(results[0])
        leaves = {n: t.detach().requires_grad_(n in call.wrt) for n, t in call.tensors.items()}
        wrt = [leaves[name] for name in call.wrt]

        def loss_and_gradients(function: Callable[..., Tensor]) -> Any:
            value = function(**leaves, **call.options)
            return value, torch.autograd.grad(value, wrt, grad)

        peak = peak_memory(lambda: loss_and_gradients(call.op))
        assert bytes_of_results <= peak <= bytes_of_results + 8192
        assert (
            peak_memory(lambda: loss_and_gradients(call.reference)) > 1.5 * peak
        )  # it does measure

    def test_changed_in_place(self, device: torch.device) -> None:
        """An argument changed between forward and backward is noticed."""
        call = self.make(device)
        for name in call.tensors:
            leaves = {n: t.clone().requires_grad_(n in call.wrt) for n, t in call.tensors.items()}
            loss = call.op(**leaves, **call.options).sum()
            with torch.no_grad():
                leaves[name].add_(1)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()


def find_testers() -> dict[str, OpTester]:
    """The tester of each op, from the file of its name."""
    testers = {}
    for op in OPS:
        module = import_module(f"test_{op}")
        own = [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, OpTester)
            and value.__module__ == module.__name__
        ]
        assert len(own) == 1, f"tests/ops/test_{op}.py derives {len(own)} testers, not one"
        testers[op] = own[0]()
    return testers
