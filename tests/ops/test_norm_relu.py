"""ichfast.ops.norm_relu and norm_relu_pool against their plain forms, and what is their own."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from comparison import assert_close, assert_same_bits
from harness import FLOATING, HALF, Call, GradientTester, peak_memory, upstream
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ichfast.ops import norm_relu, norm_relu_pool, reference

OPTIONS: list[dict[str, Any]] = [
    {"training": True},
    {"training": True, "relu": False},
    {"training": True, "eps": 0.1},
    {"training": False},
    {"training": False, "relu": False},
]
LAST = torch.channels_last


def inherit(call: Call) -> dict[str, Tensor]:
    """The gradient of the input is a difference of three terms: each with its own rounding."""
    tensors = {name: tensor.cpu().double() for name, tensor in call.tensors.items()}
    x, weight, bias = (tensors[name] for name in ("input", "weight", "bias"))
    if not call.options["training"] or x.numel() == 0:
        return {}
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    inverse = (variance + call.options.get("eps", 1e-5)).rsqrt()
    normal = (x - mean[:, None, None]) * inverse[:, None, None]
    z = normal * weight[:, None, None] + bias[:, None, None]
    g = upstream(torch.empty_like(z)) * ((z > 0) | (not call.options.get("relu", True)))
    terms = g.abs() + g.mean((0, 2, 3), keepdim=True).abs()
    terms = terms + normal.abs() * (g * normal).mean((0, 2, 3), keepdim=True).abs()
    size = (weight * inverse).abs()[:, None, None]
    eps = torch.finfo(torch.promote_types(call.tensors["input"].dtype, torch.float32)).eps
    return {
        "input": 4 * eps * size * terms,
        "weight": eps * (g * normal).abs().sum((0, 2, 3)),
        "bias": eps * g.abs().sum((0, 2, 3)),
    }


class TestNormReLU(GradientTester):
    native_under_transforms = False

    def make(
        self,
        device: torch.device,
        *,
        spatial: tuple[int, ...] = (37, 41),
        images: int = 3,
        dtype: torch.dtype = torch.float32,
        channels: int = 2,
        **options: Any,
    ) -> Call:
        generator = torch.Generator().manual_seed(5)
        height, width = (*spatial[:-1], 1)[0] if len(spatial) > 1 else 1, spatial[-1]
        if len(spatial) > 2:
            height = spatial[0] * spatial[1]
        shape = (images, channels, height, width)
        tensors = {
            "input": 2 * torch.randn(shape, generator=generator) + 1,
            "weight": torch.rand(channels, generator=generator) + 0.5,
            "bias": torch.randn(channels, generator=generator) / 4,
        }
        tensors = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
        tensors["input"] = tensors["input"].contiguous(memory_format=LAST)
        options = {"training": True, **options}
        if not options["training"]:
            tensors["running_mean"] = torch.linspace(0.5, 1.5, channels).to(device, dtype)
            tensors["running_var"] = torch.linspace(3, 5, channels).to(device, dtype)
        wrt = ("input", "weight", "bias")
        return Call(norm_relu, reference.norm_relu, tensors, options, wrt, inherit)

    def raw(self, call: Call) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        x, weight, bias = call.tensors.values()
        x = x[..., : x.shape[2] // 2 * 2, :].contiguous(memory_format=LAST)  # for the pooling
        ops = torch.ops.ichfast
        mean, variance = ops.norm_relu_moments(x)
        arguments = (x, weight, bias, mean, variance)
        grad = torch.ones_like(x)
        pooled = grad[:, :, ::2, ::2].contiguous(memory_format=LAST)
        for beside, relu, pool in ((None, True, True), (x, False, False)):
            yield ops.norm_relu.default, (*arguments, beside, 1e-5, relu, pool)
        for grads, relu in (((grad, None), False), ((None, pooled), True), ((grad, pooled), True)):
            yield ops.norm_relu_sums_backward.default, (*grads, *arguments, 1e-5, relu)
            sums = ops.norm_relu_sums_backward(*grads, *arguments, 1e-5, relu)
            for own in (sums, None):
                yield ops.norm_relu_backward.default, (*grads, *arguments, own, 1e-5, relu)

    def test_moments(self, device: torch.device) -> None:
        """A single tensor, which is never on another device than itself."""
        x = self.make(device).tensors["input"]
        torch.library.opcheck(torch.ops.ichfast.norm_relu_moments.default, (x,))
        mean, variance = torch.ops.ichfast.norm_relu_moments(x)
        expected = x.double().mean((0, 2, 3)), x.double().var((0, 2, 3), unbiased=False)
        torch.testing.assert_close((mean.double(), variance.double()), expected, rtol=1e-6, atol=0)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_not_finite(self, device: torch.device, value: float) -> None:
        """In training a whole channel has no number, in inference what it touches."""
        for training in (True, False):
            call = self.make(device, spatial=(3, 701), images=2, training=training)
            for name in ("input", "bias", *["weight"] * (value != value)):
                spoiled = call.tensors[name].clone()
                spoiled[(1, 0, 2, 300) if name == "input" else 0] = value
                for actual, expected in call.replace(**{name: spoiled}).check(f"{name} {value}: "):
                    if value != value:
                        assert torch.equal(actual.isnan().cpu(), expected.isnan()), name

    @pytest.mark.parametrize("layout", ["channels_last"])
    def test_peak_memory(self, layout: str) -> None:
        """Results, and a few kilobytes of sums: no copy, nothing kept for backward."""
        call = self.make(torch.device("cpu"), spatial=(512, 511))
        leaves = [tensor.requires_grad_() for tensor in call.tensors.values()]
        grad = torch.randn_like(leaves[0])

        def run() -> Any:
            value = call.op(*leaves, **call.options)
            return value, torch.autograd.grad(value, leaves, grad)

        assert peak_memory(run) <= 2 * grad.nbytes + 8192

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    @pytest.mark.parametrize("dtype", FLOATING, ids=str)
    def test_options(
        self, device: torch.device, options: dict[str, Any], dtype: torch.dtype
    ) -> None:
        self.make(device, dtype=dtype, **options).check()

    @pytest.mark.parametrize("channels", [1, 3, 64, 65, 5000])
    def test_channels(self, device: torch.device, channels: int) -> None:
        self.make(device, channels=channels, spatial=(6, 10)).check()

    def test_mean_far_from_zero(self, device: torch.device) -> None:
        """Where a difference of squares would have no digit left."""
        call = self.make(device, spatial=(64, 64))
        x = (call.tensors["input"] + 3000).float()
        output = call.replace(input=x).run()[0]
        assert_close(
            output, call.replace(input=x).expected()[0], inherited=torch.full_like(x, 3e-4).double()
        )
        mean, variance = torch.ops.ichfast.norm_relu_moments(x)
        torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=2e-7, atol=0)
        expected = x.double().var((0, 2, 3), unbiased=False)
        # Each step rounds a mean of 1500 deviations to 2⁻²⁴ of itself.
        torch.testing.assert_close(variance.double(), expected, rtol=1e-4, atol=0)

    @pytest.mark.large
    def test_more_values_than_int32(self, device: torch.device) -> None:
        x = torch.ones(1, 2, 2**15 + 1, 2**15, dtype=torch.bfloat16, device=device)
        x = x.contiguous(memory_format=LAST)
        x[0, 1, -1, -1] = 3
        mean, variance = torch.ops.ichfast.norm_relu_moments(x)
        n = x[0, 0].numel()
        assert mean[1].item() == pytest.approx(1 + 2 / n, abs=1e-7)
        assert variance[1].item() == pytest.approx(4 / n, rel=1e-5)


def layer(
    device: torch.device | str = "cpu",
    *,
    size: tuple[int, int, int, int] = (2, 5, 8, 12),
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Channels-last input, weight, bias, and running statistics."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, generator=generator).to(device, dtype).contiguous(memory_format=LAST)
    weight, bias, mean = (torch.randn(size[1], generator=generator).to(device) for _ in range(3))
    return x, weight, bias, mean, mean.square() + 0.5


@pytest.mark.parametrize("momentum", [0.1, 1.0, torch.tensor(0.25)])
def test_running_statistics_move_as_torch_s(device: torch.device, momentum: float | Tensor) -> None:
    x, weight, bias, mean, variance = layer(device)
    ours, theirs = (mean.clone(), variance.clone()), (mean.clone(), variance.clone())
    norm_relu(x, weight, bias, *ours, training=True, momentum=momentum)
    F.batch_norm(x, *theirs, weight, bias, True, float(momentum))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    moved = [t.clone() for t in ours]
    norm_relu(x, weight, bias, *ours)
    assert_same_bits(list(ours), moved)


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_beside(device: torch.device, dtype: torch.dtype, training: bool) -> None:
    """The concatenation, and its gradients in place: a slice each."""
    x, weight, bias, *running = layer(device, dtype=dtype)
    other = torch.randn(2, 3, 8, 12, device=device).to(dtype).contiguous(memory_format=LAST)
    cotangent = torch.randn(2, 8, 8, 12, device=device).to(dtype).contiguous(memory_format=LAST)
    statistics = [] if training else running
    alone, joined = [], []
    for own in (alone, joined):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias, other)]
        options: dict[str, Any] = {"training": training, "relu": False}
        if own is joined:
            result = norm_relu(*leaves[:3], *statistics, beside=leaves[3], **options)
        else:
            y = norm_relu(*leaves[:3], *statistics, **options)
            result = torch.cat([leaves[3], y], 1)
        own += [result.detach(), *torch.autograd.grad(result, leaves, cotangent)]
    assert joined[0].is_contiguous(memory_format=LAST)
    assert_same_bits(joined, alone)


def test_beside_takes_no_copy() -> None:
    x, weight, bias, *_ = layer(size=(4, 32, 64, 64))
    other = torch.randn_like(x).requires_grad_()
    leaf = x.requires_grad_()

    def run() -> Any:
        result = norm_relu(leaf, weight, bias, training=True, beside=other)
        return result, torch.autograd.grad(result, (leaf, other), result.detach())

    assert peak_memory(run) <= 3 * x.nbytes + 8192


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@pytest.mark.parametrize("arrives", ["both", "output", "pooled"])
@pytest.mark.parametrize("training", [True, False])
def test_pool(device: torch.device, dtype: torch.dtype, arrives: str, training: bool) -> None:
    x, weight, bias, *running = layer(device, dtype=dtype, size=(3, 4, 26, 34))
    statistics = () if training else tuple(running)
    found = []
    for function, wide in ((norm_relu_pool, dtype), (reference.norm_relu_pool, torch.float64)):
        leaves = [t.to(dtype).to(wide).requires_grad_() for t in (x, weight, bias)]
        others = [t.to(dtype).to(wide) for t in statistics]
        results = dict(
            zip(("output", "pooled"), function(*leaves, *others, training=training), strict=True)
        )
        taken = [r for name, r in results.items() if arrives in ("both", name)]
        grads = torch.autograd.grad(taken, leaves, [upstream(r) / 256 for r in taken])
        found.append([*(r.detach() for r in results.values()), *grads])
    assert found[0][1].equal(F.max_pool2d(found[0][0], 2))
    for name, actual, expected in zip(
        ("output", "pooled", "input", "weight", "bias"), *found, strict=True
    ):
        slack = 4 * torch.finfo(torch.promote_types(dtype, torch.float32)).eps
        inherited = torch.full_like(expected, slack * expected.abs().max().item()).cpu()
        assert_close(actual, expected, name, inherited)


@given(st.integers(0, 2**31), st.sampled_from(["ties", "nan", "infinite"]))
def test_pool_routes_as_torch(seed: int, kind: str) -> None:
    """Whole numbers, so that nothing rounds: the same values and gradients to the bit."""
    x, *_ = layer(size=(2, 3, 8, 12), seed=seed)
    x = (2 * x).round()
    if kind != "ties":
        spoilt = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
        x[spoilt] = float("nan" if kind == "nan" else "inf")
    one, none = torch.ones(3), torch.zeros(3)
    results = []
    for kernel in (True, False):
        leaf = x.clone().requires_grad_()
        if kernel:
            pair = norm_relu_pool(leaf, one, none, none, one, eps=0.0)
        else:
            y = F.relu(leaf)
            pair = (y, F.max_pool2d(y, 2))
        generator = torch.Generator().manual_seed(1)
        grads = [torch.randn(r.shape, generator=generator).mul(4).round() for r in pair]
        results.append([*(r.detach() for r in pair), *torch.autograd.grad(pair, leaf, grads)])
    assert_same_bits(*results)


@given(
    st.integers(0, 3),
    st.integers(1, 70),
    st.integers(1, 5),
    st.integers(1, 40),
    st.sampled_from(FLOATING),
    st.booleans(),
)
def test_any_size(
    images: int, channels: int, rows: int, columns: int, dtype: torch.dtype, training: bool
) -> None:
    x, weight, bias, *running = layer(
        size=(images, channels, 2 * rows, 2 * columns), dtype=dtype, seed=channels
    )
    statistics = [] if training else running
    output, pooled = norm_relu_pool(x, weight, bias, *statistics, training=training)
    expected, _ = reference.norm_relu_pool(
        *(t.double() for t in (x, weight, bias, *statistics)), training=training
    )
    inherited = torch.full_like(expected, 2e-5 if dtype != torch.float64 else 1e-10)
    assert_close(output, expected, inherited=inherited)
    assert pooled.equal(F.max_pool2d(output, 2))
    assert norm_relu(x, weight, bias, *statistics, training=training).equal(output)


def test_gradients_between_others_have_the_same_bits(device: torch.device) -> None:
    """A slice of a wider gradient, as that of a concatenation is."""
    x, weight, bias, *_ = layer(device, size=(3, 20, 32, 34))
    wide = torch.randn(3, 50, 32, 34, device=device).contiguous(memory_format=LAST)
    pooled = torch.randn(3, 20, 16, 17, device=device)
    found = []
    for grad, small in (
        (wide[:, 7:27], pooled.contiguous(memory_format=LAST)),
        (wide[:, 7:27].contiguous(), pooled),
    ):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
        pair = norm_relu_pool(*leaves, training=True)
        found.append(list(torch.autograd.grad(pair, leaves, (grad, small))))
    assert_same_bits(*found)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_parameters_of_a_half_type(device: torch.device, dtype: torch.dtype) -> None:
    x, weight, bias, *_ = (t.to(dtype) for t in layer(device))
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    result = norm_relu(*leaves, training=True)
    gradients = torch.autograd.grad(result.float().square().sum(), leaves)
    assert [t.dtype for t in (result, *gradients)] == [dtype] * 4


X, C = torch.rand(2, 3, 4, 6), torch.ones(3)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((X.numpy(), C, C), {}, TypeError, "input must be a torch.Tensor, not ndarray"),
        ((X.int(), C, C), {}, TypeError, "input must be float64.* not torch.int32"),
        ((X, C.int(), C), {}, TypeError, "weight must be float64.* not torch.int32"),
        ((X[0], C, C), {}, ValueError, r"input must be \(N, C, H, W\), not \(3, 4, 6\)"),
        ((X, C[:2], C), {}, ValueError, r"weight must be \(3,\).* not \(2,\)"),
        ((X, C, C.view(3, 1)), {}, ValueError, r"bias must be \(3,\).* not \(3, 1\)"),
        ((X, C, C, C[:1], C), {}, ValueError, r"running_mean must be \(3,\)"),
        ((X, C, C, C), {}, ValueError, "running_mean and running_var both, or neither"),
        ((X, C, C), {"training": False}, ValueError, "or training=True"),
        ((X, C.to("meta"), C), {}, ValueError, "weight is on meta but input is on cpu"),
        ((X[:1, :, :1, :1], C, C), {}, ValueError, "expected more than 1 value per channel when"),
        ((X, C, C), {"beside": X[:1]}, ValueError, r"beside must have .*\(1, 3, 4, 6\) beside \(2"),
        ((X, C, C), {"beside": X.double()}, TypeError, "beside must be torch.float32 as input"),
    ],
)
def test_bad_arguments(
    arguments: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^norm_relu: .*{message}"):
        norm_relu(*arguments, **{"training": True, **options})


def test_pooling_wants_even_sides() -> None:
    with pytest.raises(ValueError, match=r"norm_relu_pool: the sides .* not \(4, 5\); pad it"):
        norm_relu_pool(X[..., :5], C, C, training=True)


def test_raw_ops_check_their_own() -> None:
    ops = torch.ops.ichfast
    with pytest.raises(RuntimeError, match="float32"):
        ops.norm_relu(X, C.double(), C, C, C, None, 1e-5, True, False)
    with pytest.raises(RuntimeError, match="even sides"):
        ops.norm_relu(X[..., :5], C, C, C, C, None, 1e-5, True, True)
    with pytest.raises(RuntimeError, match="at least must arrive"):
        ops.norm_relu_backward(None, None, X, C, C, C, C, None, 1e-5, True)
    with pytest.raises(RuntimeError, match="shape and dtype of input"):
        ops.norm_relu_sums_backward(X.double(), None, X, C, C, C, C, 1e-5, True)
