"""tools/check_kernels.py sees a spill and a missing vector; `make check-cuda` runs it for real."""

import runpy
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "csrc" / "kernels"
TOOL = runpy.run_path(str(ROOT / "tools" / "check_kernels.py"))
pytestmark = pytest.mark.skipif(shutil.which("c++filt") is None, reason="needs binutils' c++filt")

LOG = """\
ptxas info    : Compiling entry function '{name}' for 'sm_90'
ptxas info    : Function properties for {name}
    {stack} bytes stack frame, {spilled} bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 216 bytes smem
ptxas info    : Compile time = 12.3 ms
"""
SUMS = "_ZN7ichfast7tversky10sum_chunksILb1EffhLi256EEEvNS_4ViewIT1_Lb1EEE"
MASK = "_ZN7ichfast14attention_mask4maskIfffLi256EEEvNS_4ViewIT0_Lb1EEE"
MIXED_MASK = "_ZN7ichfast14attention_mask4maskIffNS_8BFloat16ELi256EEEvNS_4ViewIT0_Lb1EEE"
ANY_MASK = "_ZN7ichfast14attention_mask4maskIfNS_5OneOfIJfdEEEfLi256EEEvT_"
SOURCE = """\
struct Options {
  bool invert;
};

// Sums of each chunk.
// 16-byte accesses: stores where kSigmoid is false, since then the target alone
// is read.
// 16-byte accesses: loads, since a block writes no more than its sums.
template <bool kSigmoid, class A, class P, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<A, kThreads>)
    sum_chunks(Input<P> prediction) {}

template <class A, class X, class Z, int kThreads>
__global__ void mask(Input<X> image) {}
"""
SCALAR = "ld.global.nc.f32 %f1, [%rd1]; st.global.f32 [%rd2], %f1;"
VECTOR = "ld.global.nc.v4.u32 {%r1}, [%rd1]; st.global.v4.u32 [%rd2], {%r1};"


def choose_wide(name: str) -> set[str]:
    (variant,) = TOOL["parse_variants"]([name])
    kernels = TOOL["read_kernels"](SOURCE)
    return set(TOOL["choose_wide"](variant, {"tversky": kernels, "attention_mask": kernels}))


def test_reads_what_the_assembler_says() -> None:
    log = LOG.format(name=SUMS, stack=0, spilled=0) + LOG.format(name=MASK, stack=8, spilled=4)
    clean, spilling = TOOL["read_log"](log)
    assert (clean.architecture, clean.registers, clean.shared) == ("sm_90", 64, 216)
    ((fault,), others) = TOOL["find_spills"]([clean, spilling])  # of a kernel that is known for it
    assert not others
    assert "attention_mask::mask<float, float, float, 256>" in fault
    assert "8 bytes of stack, 4 spilled" in fault


def test_few_known_bytes_are_no_fault() -> None:
    usages = [
        *TOOL["read_log"](LOG.format(name=MASK, stack=8, spilled=4)),
        *TOOL["read_log"](LOG.format(name=MASK, stack=80, spilled=80)),
    ]
    ((known,), (fault,)) = TOOL["find_spills"](usages)
    assert "4 spilled" in known
    assert "80 spilled" in fault


def test_names_ops_and_kernels() -> None:
    sums, mask = TOOL["parse_variants"]([SUMS, MASK])
    assert (sums.op, sums.kernel, sums.arguments[3]) == ("tversky", "sum_chunks", "unsigned char")
    assert (mask.op, mask.kernel) == ("attention_mask", "mask")
    usages = TOOL["read_log"](LOG.format(name=SUMS, stack=0, spilled=0))
    assert "1 kernels for sm_90" in TOOL["summarise"](usages)
    with pytest.raises(ValueError, match="not the name of a kernel of an op of ichfast: main"):
        TOOL["parse_variants"](["main"])


def test_vectors_are_asked_of_a_kernel_unless_its_source_says_why_not() -> None:
    assert choose_wide(MASK) == {"loads", "stores"}
    assert choose_wide(SUMS) == {"loads"}
    assert choose_wide(SUMS.replace("Lb1E", "Lb0E", 1)) == {"stores"}
    assert choose_wide(ANY_MASK) == set()


def test_a_kernel_that_no_source_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tversky\.cuh has no __global__ add_chunks"):
        choose_wide(SUMS.replace("sum_chunks", "add_chunks"))
    with pytest.raises(ValueError, match=r"other\.cuh has no __global__ mask"):
        choose_wide(MASK.replace("14attention_mask", "5other"))


def test_an_exemption_needs_a_reason() -> None:
    for comment in ("none", "loads.", "some, since it reads sums"):
        source = f"// 16-byte accesses: {comment}\n__global__ void add(float* x) {{}}\n"
        with pytest.raises(ValueError, match="above add is none of those"):
            TOOL["read_kernels"](source)


def test_misses_vectors() -> None:
    """A kernel that should move 16 bytes at once, and its PTX without."""
    (variant,) = TOOL["parse_variants"]([MASK])
    find = TOOL["find_narrow"]
    loads, stores = find(variant, {"loads", "stores"}, SCALAR)
    assert "no 16-byte loads" in loads
    assert "no 16-byte stores" in stores
    assert find(variant, {"loads", "stores"}, VECTOR) == []
    assert len(find(variant, {"loads"}, SCALAR)) == 1
    assert find(variant, set(), SCALAR) == []


@pytest.mark.parametrize(
    "store", ["st.global.v4.u16 [%rd2], {%rs1};", "st.global.u64 [%rd2], %rd1;"]
)
def test_eight_bytes_are_wide_where_two_byte_voxels_go_with_float32(store: str) -> None:
    mixed, alike = TOOL["parse_variants"]([MIXED_MASK, MASK])
    ptx = VECTOR.partition("st.")[0] + store
    assert TOOL["find_narrow"](mixed, {"loads", "stores"}, ptx) == []
    assert len(TOOL["find_narrow"](alike, {"loads", "stores"}, ptx)) == 1
    assert len(TOOL["find_narrow"](mixed, {"loads", "stores"}, SCALAR)) == 2


@pytest.mark.parametrize("op", sorted(path.stem for path in KERNELS.glob("*.cuh")))
def test_finds_every_kernel_of_the_source(op: str) -> None:
    text = (KERNELS / f"{op}.cuh").read_text(encoding="utf-8")
    assert len(TOOL["read_kernels"](text)) == text.count("__global__")
