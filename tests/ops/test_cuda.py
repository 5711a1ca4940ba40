"""What only a GPU can show. The shared testers run on it too; this is what they do not ask."""

import gc
from collections.abc import Callable

import pytest
import torch
from comparison import assert_close, assert_same_bits
from harness import LAYOUTS, Call, GradientTester, find_testers
from torch import Tensor

import ichfast
from ichfast import ops

pytestmark = pytest.mark.gpu

if not (ichfast.build_info()["cuda"] and torch.cuda.is_available()):
    pytest.skip("needs a GPU and the CUDA kernels", allow_module_level=True)

CUDA = torch.device("cuda")


TESTERS = find_testers()
MAKERS: dict[str, Callable[..., Call]] = {name: tester.make for name, tester in TESTERS.items()}
every_op = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def gigabytes(n: float) -> None:
    """Skips where the GPU has no room for so much."""
    gc.collect()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    if free < n * 2**30:
        pytest.skip(f"needs {n} GiB of GPU memory, {free / 2**30:.1f} are free")


def other_values(call: Call) -> dict[str, Tensor]:
    """Other arguments of the same shapes and dtypes."""
    return {name: tensor.roll(1, -1).contiguous() for name, tensor in call.tensors.items()}


@every_op
def test_same_bits_many_times(make: Callable[..., Call]) -> None:
    """On a GPU that is busy with other work at the same time."""
    call = make(CUDA, spatial=(301, 277), images=4)
    expected = call.run()
    busy = torch.randn(2048, 2048, device=CUDA)
    side = torch.cuda.Stream()
    for _ in range(20):
        with torch.cuda.stream(side):
            busy = (busy @ busy).tanh()
        assert_same_bits(call.run(), expected)


@every_op
def test_graph_capture_and_replay(make: Callable[..., Call]) -> None:
    """Captured once, with its gradient; replayed on other values in the same memory."""
    call = make(CUDA, spatial=(61, 64))
    leaves = {n: t.clone().requires_grad_(n in call.wrt) for n, t in call.tensors.items()}
    wrt = [leaves[name] for name in call.wrt]

    def step() -> list[Tensor]:
        value = call.op(**leaves, **call.options)
        return [value, *torch.autograd.grad(value.sum(), wrt)] if wrt else [value]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    for values in (call.tensors, other_values(call), call.tensors):
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.copy_(values[name])
        for result in results:
            result.detach().fill_(-7)  # the replay must write all of it
        graph.replay()
        assert_same_bits([r.detach() for r in results], [r.detach() for r in step()])


@every_op
def test_on_the_current_stream(make: Callable[..., Call]) -> None:
    """Behind what the caller's stream has to do first, and not on the default one."""
    call = make(CUDA)
    late = other_values(call)
    expected = call.replace(**late).run()
    arguments = {name: tensor.clone() for name, tensor in call.tensors.items()}
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        call.run()  # what the stream's memory pool has to fetch first, it fetches now
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)  # cycles: some 50 ms
        for name, tensor in arguments.items():
            tensor.copy_(late[name])
        leaves = {n: t.detach().requires_grad_(n in call.wrt) for n, t in arguments.items()}
        value = call.op(**leaves, **call.options)
        assert not side.query()  # neither has waited
    side.synchronize()
    assert_same_bits([value.detach()], expected[:1])


@every_op
def test_no_host_sync(make: Callable[..., Call]) -> None:
    call = make(CUDA)
    leaves = {n: t.detach().requires_grad_(n in call.wrt) for n, t in call.tensors.items()}
    wrt = [leaves[name] for name in call.wrt]
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = call.op(**leaves, **call.options)
        if wrt:
            torch.autograd.grad(value, wrt, torch.ones_like(value))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second GPU")
@every_op
def test_second_device(make: Callable[..., Call]) -> None:
    """Where the tensors are, whatever the current device."""
    expected = make(CUDA).run()
    results = make(torch.device("cuda:1")).run()
    assert all(result.device.index == 1 for result in results)
    for result, e in zip(results, expected, strict=True):
        assert_close(result, e.double())


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "channel_slice"])
@pytest.mark.parametrize("name", [n for n, t in TESTERS.items() if isinstance(t, GradientTester)])
def test_peak_memory_on_the_device(name: str, layout: str) -> None:
    """The results and the sums of the chunks, at most 32 bytes for each 1024 voxels of a row."""
    call = MAKERS[name](CUDA, spatial=(512, 512), images=4)
    if layout != "contiguous":
        call = call.replace(**{n: LAYOUTS[layout](t) for n, t in call.tensors.items()})
    leaves = {n: t.detach().requires_grad_(n in call.wrt) for n, t in call.tensors.items()}
    wrt = [leaves[n] for n in call.wrt]
    rows = max(t.shape[0] * t.shape[1] for t in call.tensors.values())
    slots = rows * 512 * 512 // 1024 * 32
    for _ in range(2):  # the first call may allocate what is kept, such as a stream's pool
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        value = call.op(**leaves, **call.options)
        results = [value.detach(), *torch.autograd.grad(value, wrt, torch.ones_like(value))]
        # Each block of the allocator is a multiple of 512 bytes.
        held = torch.ones_like(value).nbytes + sum(r.nbytes for r in results) + slots + 16 * 512
        assert torch.cuda.max_memory_allocated() - before <= held
        del value, results


def test_ct_window_sigmoid_is_near_the_cpu() -> None:
    """Within 4 units in the last place of 1: the two have exponentials of their own."""
    call = MAKERS["ct_window"](CUDA, spatial=(512, 512), size=(256, 256), function="sigmoid")
    on_cpu = call.replace(**{name: tensor.cpu() for name, tensor in call.tensors.items()})
    assert (call.run()[0].cpu() - on_cpu.run()[0]).abs().max() <= 4 * 2**-23


@pytest.mark.parametrize("window", [(40.0, 0.5), (float("nan"), 80.0), (40.0, -1.0)], ids=str)
def test_ct_window_marks_a_bad_window(window: tuple[float, float]) -> None:
    """Without a look at the values, which would stall the stream, NaN is all that can be said."""
    call = MAKERS["ct_window"](CUDA, windows=((40.0, 80.0), window))
    good, bad = call.run()[0].unbind(1)
    assert good.isfinite().all()
    assert bad.isnan().all()


def test_more_elements_than_int32() -> None:
    """In memory of its own, past 2^31 elements, forward and backward."""
    gigabytes(22)
    n = 2**31 + 1029
    logits = torch.zeros(1, 1, n, dtype=torch.float16, device=CUDA)
    target = torch.zeros(1, 1, n, dtype=torch.uint8, device=CUDA)
    target[..., -1000:] = 1
    logits[..., -1000:] = 8
    logits.requires_grad_()
    loss = ops.tversky(logits, target, alpha=1.0, beta=1.0, sigmoid=True)
    sigma = torch.sigmoid(torch.tensor(8.0, dtype=torch.float64)).item()
    intersection, union = 1000 * sigma, 0.5 * (n - 1000) + 1000
    assert loss.item() == pytest.approx(1 - intersection / union, rel=1e-6)
    (grad,) = torch.autograd.grad(loss * 2.0**40, logits)  # within float16's range
    ratio = intersection / union
    outside, inside = ratio / union * 0.25, -1 / union * sigma * (1 - sigma)
    for index, expected in ((0, outside), (2**31 - 1, outside), (n - 1, inside)):
        assert grad[0, 0, index].item() == pytest.approx(expected * 2**40, rel=2e-3)
    assert grad.isfinite().all()
    del grad, loss
    counts = ops.overlap_counts(logits.detach(), target, 0.0)
    assert counts.tolist() == [[[1000, 0, 0]]]


@pytest.mark.parametrize("n", [2**31 + 1032, 2**31 + 1029], ids=["vectors", "scalars"])
def test_attention_beyond_int32(n: int) -> None:
    gigabytes(30)
    image = torch.ones(1, 1, n, dtype=torch.bfloat16, device=CUDA)
    logits = torch.zeros_like(image)
    pair = torch.zeros(1, 2, n, dtype=torch.bfloat16, device=CUDA)
    pair[..., -1000:] = 0.5
    pair.requires_grad_()
    loss = ops.attention_wmse(image, logits, pair, sigmoid_reconstruction=False)
    assert loss.item() == pytest.approx(0.25 * (n - 1000) / n, rel=1e-6)
    (grad,) = torch.autograd.grad(loss * 2.0**31, pair)
    assert grad[0, :, -1000:].count_nonzero() == 0
    assert grad[0, 1, 2**31 - 1001].item() == pytest.approx(-0.5 * 2**31 / n, rel=1e-2)


@every_op
def test_cpu_and_cuda_arguments_do_not_mix(make: Callable[..., Call]) -> None:
    call = make(CUDA)
    for name, tensor in call.tensors.items():
        with pytest.raises(ValueError, match=rf"{name}|is on cpu"):
            call.replace(**{name: tensor.cpu()}).run()


def test_ops_inside_autocast() -> None:
    """Half types go in as they are."""
    call = MAKERS["attention_wmse"](CUDA, dtype=torch.bfloat16)
    expected = call.run()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert_same_bits(call.run(), expected)
