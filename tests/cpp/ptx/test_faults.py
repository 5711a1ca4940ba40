"""The tests of the test: each planted fault is found by the PTX run, and named (faults.cu)."""

import os

import pytest
import torch

if "PTX_LIBRARY" not in os.environ:
    pytest.skip("part of `make check-ptx`", allow_module_level=True)

LOOKS_FOR_HAZARDS = os.environ.get("PTX_HAZARDS") == "1"
APPROXIMATIONS = os.environ.get("PTX_APPROXIMATIONS", "nearest")
NUMBERS = torch.arange(512.0)

# What is seen first depends on the order in which threads run.
RACE = (
    r"(race in shared memory with .+|load of shared memory that nobody has written,) of 4 bytes: "
    r"block \d, thread \d+, at `(ld|st).shared.* \((reduce.h:\d+, in )?faults.cu:\d+\)"
)
FAULTS = {
    "missing_barrier": RACE,
    "race_in_a_warp": RACE,
    "late_writer": "race in shared memory with another thread, which read .* thread 1, at `st",
    "unwritten_shared": "load of shared memory that nobody has written, of 4 bytes: .* thread 77,",
    "divergent_barrier": "a barrier that only 255 threads of 256 reach: .* at `bar.sync 0`",
    "divergent_shuffle": "a shuffle that only 16 lanes of a warp reach: .* `shfl.sync.down.b32",
    "load_behind_the_end": "load outside of all tensors, of 4 bytes: block 1, thread 255,",
    "store_before_the_beginning": "store outside of all tensors, of 4 bytes: block 0, thread 0,",
    "store_into_an_argument": "store into an argument, of 4 bytes: block ., thread .* `st.global",
    "misaligned_vector": r"misaligned load of 16 bytes: .*`ld.global.nc.v4.u32.*vector.h:\d+, in",
    "division_by_zero": "integer division by zero: block 0, thread 0, at `div.s32",
}
HAZARDS = {
    "two_writers": "second store in this launch, of 4 bytes: block 1, thread 4[34],",
    "reads_a_neighbours_result": "load of what (another thread wrote in this launch|nobody has)",
    "shifts_in_place": "(store over what another thread read|load of what another thread wrote) in",
    "reads_unwritten_memory": "load of what nobody has written, of 4 bytes: .* `ld.global.f32",
}


def run(kernel: str) -> torch.Tensor:
    return torch.ops.ichfast_faults.run(NUMBERS, kernel)


def test_a_kernel_without_fault() -> None:
    assert torch.equal(run("no_fault"), NUMBERS.view(2, 256).flip(1).flatten())


@pytest.mark.parametrize("kernel", FAULTS)
def test_fault(kernel: str) -> None:
    with pytest.raises(RuntimeError, match=FAULTS[kernel]) as caught:
        run(kernel)
    message = str(caught.value)
    assert f"::{kernel}" in message
    assert "ichfast: a CUDA kernel, this one or one launched before it, failed: " in message
    test_a_kernel_without_fault()  # as if nothing had been


@pytest.mark.parametrize("kernel", HAZARDS)
def test_hazard(kernel: str) -> None:
    if not LOOKS_FOR_HAZARDS:
        run(kernel)
        return
    with pytest.raises(RuntimeError, match=HAZARDS[kernel]) as caught:
        run(kernel)
    assert f"::{kernel}" in str(caught.value)


def test_memory_is_poisoned_before_anyone_writes_it() -> None:
    torch.ops.ichfast_faults.run(NUMBERS, "no_fault")
    assert torch.ops.ichfast_faults.run(NUMBERS, "no kernel of this name").isnan().all()


def test_approximations_are_as_far_off_as_they_may() -> None:
    numbers = torch.linspace(-9.0, 11.0, 4096)
    results = torch.ops.ichfast_faults.run(numbers, "approximations")
    for first, exact, most in ((0, numbers.double().exp2(), 2), (1, 1 / numbers.double(), 1)):
        nearest = exact[first::2].float()
        ulps = (results[first::2].view(torch.int32) - nearest.view(torch.int32)).tolist()
        ulps = [u if n > 0 else -u for u, n in zip(ulps, nearest.tolist(), strict=True)]
        expected = {
            "nearest": {0}, "up": {most}, "down": {-most}, "mixed": set(range(-most, most + 1)),
        }[APPROXIMATIONS]  # fmt: skip
        assert set(ulps) == expected
