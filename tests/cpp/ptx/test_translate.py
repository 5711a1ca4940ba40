"""What the translator of PTX does not know ends it, with its name."""

import pytest
from parse import UnknownError
from translate import translate

PTX = """
.version 9.0
.target sm_90
.visible .entry turn(
\t.param .u64 turn_param_0
)
.maxntid 256, 1, 1
{{
\t.reg .pred \t%p<2>;
\t.reg .f32 \t%f<9>;
\t.reg .b32 \t%r<9>;
\t.reg .b64 \t%rd<9>;
\tld.param.u64 \t%rd1, [turn_param_0];
\t{}
\tret;
}}
"""


def test_known() -> None:
    text = translate(PTX.format("ld.global.v2.f32 {%f1, %f2}, [%rd1+8];"))
    assert "t.load_global(r_rd1 + uint64_t(8ll), v, 0); r_f1 = v[0]; r_f2 = v[1];" in text
    assert 'add_kernel("turn", {function0, sites_of_function0, 0, 256, false, {{0, 8}}});' in text


@pytest.mark.parametrize(
    ("instruction", "value"),
    [
        ("mul.lo.s32 %r1, %r2, %r3;", "int32_t(uint64_t(int32_t(r_r2)) * uint64_t(int32_t(r_r3)))"),
        ("mul.hi.u32 %r1, %r2, %r3;", "uint32_t(uint128_t(r_r2) * r_r3 >> 32)"),
        ("mul.wide.s32 %rd1, %r2, -3;", "int64_t(int64_t(int32_t(r_r2)) * int32_t(-3ll))"),
        ("@!%p1 bra $L__BB0_1;", "if (!r_p1) { goto L__BB0_1; }"),
    ],
)
def test_text(instruction: str, value: str) -> None:
    assert value in translate(PTX.format(instruction))


@pytest.mark.parametrize(
    "instruction",
    [
        "frobnicate.b32 %r1, %r2;",
        "add.sat.f32 %f1, %f2, %f3;",
        "fma.rz.f32 %f1, %f2, %f3, %f4;",
        "ld.volatile.global.f32 %f1, [%rd1];",
        "ld.f32 %f1, [%rd1];",
        "atom.global.add.f32 %f1, [%rd1], %f2;",
        "bar.sync 1;",
        "bar.sync 0, 64;",
        "shfl.sync.bfly.b32 %r1|%p1, %r2, %r3, %r4, %r5;",
        "cvt.rna.tf32.f32 %r1, %f1;",
        "mov.u32 %r1, %laneid;",
        "mov.u64 %rd2, nowhere;",
        "setp.lt.and.f32 %p1, %f1, %f2, %p1;",
    ],
)
def test_unknown(instruction: str) -> None:
    with pytest.raises(UnknownError, match="turn has an instruction that is not known: ") as caught:
        translate(PTX.format(instruction))
    assert instruction.rstrip(";") in str(caught.value)


def test_unknown_directive() -> None:
    with pytest.raises(UnknownError, match=r"turn has an unknown directive '\.local"):
        translate(PTX.format(".local .align 8 .b8 __local_depot0[16];"))


def test_unknown_beginning() -> None:
    with pytest.raises(UnknownError, match="turn begins in a way that is not known"):
        translate(PTX.format("ret;").replace(".maxntid 256, 1, 1", "maxntid 256"))
