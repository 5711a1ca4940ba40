"""tools/count_instructions.py counts a loop and names a kernel that is too slow; `make check-cuda`
runs it for real."""

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "count_instructions.py"))
pytestmark = pytest.mark.skipif(shutil.which("c++filt") is None, reason="needs binutils' c++filt")

# tversky::sum_chunks<true, float, BFloat16, unsigned char, 256>: 8 voxels of 3 bytes in the loop.
NAME = "_ZN7ichfast7tversky10sum_chunksILb1EfNS_8BFloat16EhLi256EEEvNS_4ViewIT1_Lb1EEE"
ANY = "_ZN7ichfast7tversky10sum_chunksILb1EfNS_5OneOfIJfdEEEhLi256EEEvNS_4ViewIT1_Lb1EEE"
LOOP = ["LDG.E.128.CONSTANT R4, [R2]", "LDG.E.64.CONSTANT R8, [R6]", "MUFU.EX2 R1, R1"]
END = "@!P0 BRA `(.L_x_1)"


def sass(name: str, loop: list[str]) -> str:
    lines = [f".text.{name}:", *write(["S2R R0, SR_TID.X"] * 99), ".L_x_1:", *write(loop)]
    return "\n".join([*lines, *write(["LDG.E.U8 R1, [R2]", "EXIT"]), "//---", ""])


def write(instructions: list[str]) -> list[str]:
    return [f"        /*{16 * i:04x}*/                   {x} ;" for i, x in enumerate(instructions)]


def count(loop: list[str], name: str = NAME) -> list[Any]:
    return list(TOOL["read_sass"](sass(name, loop)))


def test_the_loop_alone() -> None:
    (counted,) = count([*LOOP, "@P1 FADD R1, R1, R2", "LOP3.LUT R3, R3, 0xff, RZ", END])
    assert (counted.voxels, counted.moved) == (8, 3)
    assert counted.instructions == {"issue": 6, "mufu": 1, "fma": 1, "alu": 1}


def test_dtypes_that_are_looked_up_are_left_out() -> None:
    assert count([*LOOP, END], ANY) == []


@pytest.mark.parametrize(
    ("opcode", "unit", "at_once"),
    [
        ("FADD R1, R1, R2", "issue", 128),
        ("LOP3.LUT R1", "alu", 64),
        ("MUFU.RCP R1, R1", "mufu", 16),
    ],
)
def test_the_busiest_unit_is_named(opcode: str, unit: str, at_once: int) -> None:
    """Of 3 bytes and 8 voxels it may start so many while 85 % of a copy's bandwidth moves them."""
    may = int(8 * 3 * at_once * 132 * 1.98e9 / 4.3e12 / 0.85)
    for number in (may - 6, may + 1):
        counts = count([*LOOP, *[opcode] * number, END])
        faults = TOOL["find_faults"](counts)
        assert len(faults) == (number > may)
        assert all(f"({unit})" in fault and "of 3 bytes" in fault for fault in faults)


def test_stores_count_as_bytes_moved() -> None:
    name = NAME.replace("10sum_chunks", "13differentiate")
    (counted,) = count([*LOOP, "STG.E.128 [R2], R4", END], name)
    assert (counted.voxels, counted.moved) == (8, 5)


# norm_relu::sum_windows<kOutput, float, BFloat16, 256>
WINDOWS = "_ZN7ichfast9norm_relu11sum_windowsILb{}EfNS_8BFloat16ELi256EEEvNS_4ViewIT1_Lb1EEE"


@pytest.mark.parametrize(("output", "loads", "moved"), [(0, 5, 2.5), (1, 9, 4.5)])
def test_a_pooled_gradient_counts_by_a_quarter(output: int, loads: int, moved: float) -> None:
    load = "LDG.E.128.CONSTANT R4, [R2]"
    (counted,) = count([*[load] * loads, END], WINDOWS.format(output))
    assert (counted.voxels, counted.moved, counted.read) == (32, moved, moved)


def test_the_loop_over_vectors_is_taken_though_another_moves_as_much() -> None:
    one_by_one = ["LDG.E.U16.CONSTANT R4, [R2]"] * 40 + ["FADD R1, R1, R2"] * 9
    vectors = ["LDG.E.128.CONSTANT R4, [R2]"] * 5
    (counted,) = count([*one_by_one, END, *vectors, END], WINDOWS.format(0))
    assert counted.instructions == {"issue": 6}


def test_float64_is_left_out() -> None:
    name = WINDOWS.format(0).replace("EfNS_8BFloat16E", "Edd")
    assert count(["LDG.E.128.CONSTANT R4, [R2]", END], name) == []


@pytest.mark.parametrize(("last", "blocks"), [(63, 4), (64, 3), (127, 2), (128, 1)])
def test_bytes_in_flight_follow_from_the_registers(last: int, blocks: int) -> None:
    """80 bytes of each thread; one block of 256 has 20 KiB, and 28 are needed."""
    loop = [*["LDG.E.128.CONSTANT R4, [R2]"] * 5, f"FADD R{last}, R1, R2", END]
    counts = count(loop, WINDOWS.format(0))
    assert counts[0].in_flight() == blocks * 256 * 80
    faults = TOOL["find_faults"](counts)
    assert len(faults) == (blocks == 1)
    assert all("20 KiB in flight at 129 registers, 28 are needed" in fault for fault in faults)
