"""tools/check_kernels.py sees a spill and a missing vector; `make check-cuda` runs it for real."""

import runpy
from pathlib import Path

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "check_kernels.py"))

LOG = """\
ptxas info    : Compiling entry function '{name}' for 'sm_90'
ptxas info    : Function properties for {name}
    {stack} bytes stack frame, {spilled} bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 216 bytes smem
ptxas info    : Compile time = 12.3 ms
"""
SUMS = "_ZN7ichfast7tversky10sum_chunksILb1EffhLi256EEEvNS_4ViewIT1_Lb1EEE"
MASK = "_ZN7ichfast14attention_mask4maskIfffLi256EEEvNS_4ViewIT0_Lb1EEE"


def test_reads_what_the_assembler_says() -> None:
    log = LOG.format(name=SUMS, stack=0, spilled=0) + LOG.format(name=MASK, stack=8, spilled=4)
    clean, spilling = TOOL["from_log"](log)
    assert (clean.architecture, clean.registers, clean.shared) == ("sm_90", 64, 216)
    (fault,) = TOOL["spills"]([clean, spilling])
    assert MASK in fault
    assert "8 bytes of stack, 4 spilled" in fault


def test_names_ops_and_kernels() -> None:
    assert TOOL["short"](SUMS) == ("tversky", "sum_chunks")
    assert TOOL["short"](MASK) == ("attention_mask", "mask")
    kernels = TOOL["from_log"](LOG.format(name=SUMS, stack=0, spilled=0))
    assert "1 kernels for sm_90" in TOOL["summary"](kernels)


def test_misses_vectors() -> None:
    """A kernel that should move 16 bytes at once, and its PTX without."""
    scalar = "ld.global.nc.f32 %f1, [%rd1]; st.global.f32 [%rd2], %f1;"
    vector = "ld.global.nc.v4.u32 {%r1}, [%rd1]; st.global.v4.u32 [%rd2], {%r1};"
    missing = TOOL["missing_vectors"]
    assert len(missing(MASK, scalar)) == 2
    assert missing(MASK, vector) == []
    assert len(missing(SUMS, scalar)) == 1  # it writes sums
