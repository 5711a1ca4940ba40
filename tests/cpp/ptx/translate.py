"""Translates PTX, what nvcc makes of the CUDA kernels, to C++ that machine.h runs on a CPU.

    python translate.py OP.ptx OP.cpp

Each .entry becomes a C++ function that one CUDA thread runs from its first to its last instruction:
registers are its variables, branches are gotos, and what other threads may see (memory, barriers,
shuffles) goes through ``Thread``, with the number of the instruction, by which a fault is named.
An instruction that is not known here ends the translation with its name.
"""

import re
import sys
from pathlib import Path

from parse import Function, Instruction, Module, UnknownError, parse, size_of

C_TYPES = {
    "pred": "bool",
    "b8": "uint8_t", "u8": "uint8_t", "s8": "int8_t",
    "b16": "uint16_t", "u16": "uint16_t", "s16": "int16_t", "f16": "uint16_t", "bf16": "uint16_t",
    "b32": "uint32_t", "u32": "uint32_t", "s32": "int32_t", "f32": "float",
    "b64": "uint64_t", "u64": "uint64_t", "s64": "int64_t", "f64": "double",
}  # fmt: skip
# What a register holds before anything is written to it: a number that no test would expect.
UNWRITTEN = {
    "pred": "true", "b16": "0xa5c3",
    "b32": "0x7fa5c3e1u", "f32": "std::bit_cast<float>(0x7fa5c3e1u)",
    "b64": "0x7ff5c3e17fa5c3e1u", "f64": "std::bit_cast<double>(uint64_t(0x7ff5c3e17fa5c3e1u))",
}  # fmt: skip
SPECIAL = {
    "%tid.x": "t.id", "%ctaid.x": "t.block", "%ntid.x": "t.threads", "%nctaid.x": "t.blocks",
}  # fmt: skip
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
LOGIC = {"and": "&", "or": "|", "xor": "^"}
SPACES = {"global", "shared", "param"}
# Of loads and stores: how they go through caches, which there are none of here.
CACHING = {"nc"}


def main() -> None:
    source, destination = map(Path, sys.argv[1:3])
    try:
        text = translate(source.read_text(encoding="utf-8"))
    except UnknownError as error:
        sys.exit(f"{source.name}: {error}; teach it to tests/cpp/ptx/translate.py")
    destination.write_text(text, encoding="utf-8")


def translate(ptx: str) -> str:
    """A module's PTX as C++."""
    module = parse(ptx)
    used = {word for f in module.functions for i in f.body for word in i.words()}
    constants = [c for name, c in module.constants.items() if name in used]
    out = ['#include "machine.h"', "", "namespace ptx {", "namespace {", "", *constants]
    registrations = []
    for number, function in enumerate(module.functions):
        writer = Writer(module, function, number)
        out += ["", *writer.write()]
        if function.is_entry:
            registrations.append(writer.register())
    out += ["", "const bool registered = [] {"]
    out += [f"  add_constant({name}, sizeof {name});" for name in module.constants if name in used]
    out += [*registrations, "  return true;", "}();", "", "}  // namespace", "}  // namespace ptx"]
    return "\n".join(out) + "\n"


class Writer:
    """One function."""

    def __init__(self, module: Module, function: Function, number: int) -> None:
        self.function = function
        self.name = f"function{number}"
        self.calls = {f.name: f"function{i}" for i, f in enumerate(module.functions)}
        self.constants = module.constants
        self.parameters = {name: offset for name, offset, _ in function.parameters}
        self.locals = {*function.locals, *(name for name, _ in function.results)}
        self.sites: list[str] = []
        self.meets = False  # whether threads wait for each other
        used = {word for i in function.body for word in i.words()}
        self.shared, self.shared_size = {}, 0
        for name, alignment, size in [*module.shared, *function.shared]:
            if name in used and name not in self.shared:
                self.shared[name] = -(-self.shared_size // alignment) * alignment
                self.shared_size = self.shared[name] + size

    def write(self) -> list[str]:
        body = []
        for instruction in self.function.body:
            if instruction.text.endswith(":"):
                body.append(f"{label(instruction.text[:-1])}:;")
            else:
                body.append("  " + self.translate(instruction))
        return [
            f"constexpr Site sites_of_{self.name}[] = {{",
            *(f"    {site}," for site in self.sites or ["{}"]),
            "};",
            "",
            f"// {self.function.name}",
            self.signature(),
            *self.declare(),
            *body,
            "}",
        ]

    def signature(self) -> str:
        results = "".join(f", uint8_t* {name}" for name, _ in self.function.results)
        return f"void {self.name}(const uint8_t* parameters, Thread& t{results}) {{"

    def declare(self) -> list[str]:
        words = {w for i in self.function.body for w in re.findall(r"%\w+", i.text)}
        lines = [
            f"  alignas(8) uint8_t {n}[{size}] = {{}};" for n, size in self.function.locals.items()
        ]
        for type_, value in UNWRITTEN.items():
            registers = [variable(word) for word in sorted(words) if self.type_of(word) == type_]
            if registers:
                list_ = ", ".join(f"{register} = {value}" for register in registers)
                lines.append(f"  {C_TYPES[type_]} {list_};")
        return lines

    def type_of(self, register: str) -> str | None:
        """None for a special one."""
        return self.function.registers.get(register) or self.function.registers.get(
            register.rstrip("0123456789")
        )

    def register(self) -> str:
        layout = ", ".join(f"{{{o}, {size}}}" for _, o, size in self.function.parameters)
        return (
            f'  add_kernel("{self.function.name}", {{{self.name}, sites_of_{self.name}, '
            f"{self.shared_size}, {self.function.threads}, {str(self.meets).lower()}, "
            f"{{{layout}}}}});"
        )

    def translate(self, instruction: Instruction) -> str:
        match = re.fullmatch(r"(?:@(!?)(%\w+) )?([\w.:]+)(?: (.*))?", instruction.text)
        if match is None:
            raise self.unknown(instruction.text)
        negated, predicate, mnemonic, rest = match.groups()
        operation, *modifiers = mnemonic.split(".")
        write = getattr(self, f"write_{operation}", None)
        if write is None:
            raise self.unknown(instruction.text)
        self.instruction = instruction
        try:
            text = str(write(modifiers, split_operands(rest or "")))
        except (KeyError, ValueError) as error:  # a type, or so many operands
            raise self.unknown(instruction.text) from error
        return f"if ({negated}{variable(predicate)}) {{ {text} }}" if predicate else text

    def unknown(self, what: str) -> UnknownError:
        return UnknownError(f"{self.function.name} has an instruction that is not known: {what}")

    def check(self, holds: bool) -> None:
        """What this translator relies on."""
        if not holds:
            raise self.unknown(self.instruction.text)

    def site(self) -> int:
        text = self.instruction.text.replace('"', "'")
        self.sites.append(f'{{"{text}", "{self.instruction.source}"}}')
        return len(self.sites) - 1

    # -- operands

    def value(self, operand: str, type_: str) -> str:
        """In C++, of the type."""
        c = C_TYPES[type_]
        if operand in SPECIAL:
            return f"{c}({SPECIAL[operand]})"
        if operand.startswith("%"):
            own = self.type_of(operand)
            self.check(own is not None)
            return as_type(variable(operand), str(own), type_)
        if bits := re.fullmatch(r"0[fd]([0-9A-Fa-f]+)", operand):
            width = "uint32_t" if len(bits[1]) == 8 else "uint64_t"
            return as_type(f"{width}(0x{bits[1]}u)", f"b{4 * len(bits[1])}", type_)
        if re.fullmatch(r"-?(\d+|0x[0-9A-Fa-f]+)", operand):
            return f"{c}({int(operand, 0)}{'u' if int(operand, 0) >= 2**63 else ''}ll)".replace(
                "-9223372036854775808ll", "INT64_MIN"
            )
        if operand in self.shared:
            return f"{c}({self.shared[operand]})"
        if operand in self.parameters:
            return f"{c}(reinterpret_cast<uintptr_t>(parameters) + {self.parameters[operand]})"
        self.check(operand in self.constants)
        return f"{c}(reinterpret_cast<uintptr_t>({operand}))"

    def values(self, operands: list[str], type_: str) -> list[str]:
        return [self.value(operand, type_) for operand in operands]

    def put(self, destination: str, value: str, type_: str) -> str:
        """A value of the type into a register, which may be wider: then C++ keeps a sign too."""
        if destination in ("_", "%temp"):
            return ""
        own = self.type_of(destination)
        self.check(own is not None and size_of(own) >= size_of(type_))
        return f"{variable(destination)} = {as_type(value, type_, str(own))};"

    def address(self, operand: str, space: str) -> str:
        match = re.fullmatch(r"\[([%\w$.]+?)(?:\+(-?\d+))?\]", operand)
        if match is None:
            raise self.unknown(self.instruction.text)
        base, offset = match[1], match[2] or "0"
        if space == "param" and base in self.locals:
            return f"({base} + {offset})"
        address = f"{self.value(base, 'u64')} + uint64_t({offset}ll)"
        return f"reinterpret_cast<const uint8_t*>({address})" if space == "param" else address

    # -- what other threads may see

    def access(self, modifiers: list[str]) -> tuple[str, str, int]:
        """State space, type and number of elements."""
        *how, type_ = modifiers
        spaces = [m for m in how if m in SPACES]
        vectors = [m for m in how if m in ("v2", "v4")]
        self.check(len(spaces) == 1 and set(how) <= {*spaces, *vectors, *CACHING})
        return spaces[0], type_, int(vectors[0][1]) if vectors else 1

    def write_ld(self, modifiers: list[str], operands: list[str]) -> str:
        space, type_, count = self.access(modifiers)
        destinations = split_vector(operands[0])
        self.check(len(destinations) == count)
        puts = " ".join(self.put(d, f"v[{i}]", type_) for i, d in enumerate(destinations))
        address = self.address(operands[1], space)
        load = (
            f"std::memcpy(v, {address}, sizeof v)"
            if space == "param"
            else f"t.load_{space}({address}, v, {self.site()})"
        )
        return f"{{ {C_TYPES[type_]} v[{count}]; {load}; {puts} }}"

    def write_st(self, modifiers: list[str], operands: list[str]) -> str:
        space, type_, count = self.access(modifiers)
        values = self.values(split_vector(operands[1]), type_)
        self.check(len(values) == count)
        address = self.address(operands[0], space)
        store = (
            f"std::memcpy({address}, v, sizeof v)"
            if space == "param"
            else f"t.store_{space}({address}, v, {self.site()})"
        )
        return f"{{ const {C_TYPES[type_]} v[{count}] = {{{', '.join(values)}}}; {store}; }}"

    def write_bar(self, modifiers: list[str], operands: list[str]) -> str:
        self.check(modifiers == ["sync"] and operands == ["0"])
        self.meets = True
        return f"t.wait_at_barrier({self.site()});"

    def write_shfl(self, modifiers: list[str], operands: list[str]) -> str:
        self.check(modifiers == ["sync", "down", "b32"])
        self.meets = True
        result, _, is_inside = operands[0].partition("|")
        arguments = ", ".join(self.values(operands[1:], "b32"))
        return (
            f"{{ bool inside; const uint32_t v = t.shuffle_down({arguments}, inside, "
            f"{self.site()}); {self.put(result, 'v', 'b32')} "
            f"{self.put(is_inside, 'inside', 'pred') if is_inside else ''} }}"
        )

    # -- control

    def write_bra(self, modifiers: list[str], operands: list[str]) -> str:
        self.check(modifiers in ([], ["uni"]))
        return f"goto {label(operands[0])};"

    def write_ret(self, modifiers: list[str], operands: list[str]) -> str:
        self.check(modifiers == [])
        return "return;"

    def write_call(self, modifiers: list[str], operands: list[str]) -> str:
        results, name, arguments = (split_vector(operand) for operand in operands)
        self.check(name[0] in self.calls and len(name) == 1)
        gather = "".join(
            f" std::memcpy(at + {8 * i}, {argument}, sizeof {argument});"
            for i, argument in enumerate(arguments)
        )
        # All are of 8 bytes, so that each lies where lay_out puts it.
        self.check(set(self.function.locals.values()) == {8})
        handed = "".join(f", {result}" for result in results)
        return (
            f"{{ alignas(8) uint8_t at[{8 * len(arguments)}];{gather} "
            f"{self.calls[name[0]]}(at, t{handed}); }}"
        )

    # -- moves

    def write_mov(self, modifiers: list[str], operands: list[str]) -> str:
        (type_,) = modifiers
        destination, source = operands
        whole = f"b{8 * size_of(type_)}"
        if destination.startswith("{"):
            parts = split_vector(destination)
            bits = int(whole[1:]) // len(parts)
            puts = " ".join(
                self.put(part, f"uint{bits}_t(v >> {bits * i})", f"b{bits}")
                for i, part in enumerate(parts)
            )
            return f"{{ const uint64_t v = {self.value(source, whole)}; {puts} }}"
        if source.startswith("{"):
            parts = split_vector(source)
            bits = int(whole[1:]) // len(parts)
            value = " | ".join(
                f"uint64_t({self.value(part, f'b{bits}')}) << {bits * i}"
                for i, part in enumerate(parts)
            )
            return self.put(destination, f"uint{whole[1:]}_t({value})", whole)
        return self.put(destination, self.value(source, type_), type_)

    def write_cvta(self, modifiers: list[str], operands: list[str]) -> str:
        self.check(modifiers in (["to", "global", "u64"], ["global", "u64"]))
        return self.put(operands[0], self.value(operands[1], "u64"), "u64")

    def write_selp(self, modifiers: list[str], operands: list[str]) -> str:
        (type_,) = modifiers
        yes, no = self.values(operands[1:3], type_)
        return self.put(operands[0], f"{self.value(operands[3], 'pred')} ? {yes} : {no}", type_)

    def write_setp(self, modifiers: list[str], operands: list[str]) -> str:
        self.check(len(modifiers) == 2)
        comparison, type_ = modifiers
        a, b = self.values(operands[1:], type_)
        ordered = f"!is_unordered({a}, {b})"
        if comparison in COMPARISONS:
            value = f"{a} {COMPARISONS[comparison]} {b}"
            if comparison == "ne" and type_.startswith("f"):
                value += f" && {ordered}"
        elif type_.startswith("f") and comparison in ("nan", "num"):
            value = f"is_unordered({a}, {b})" if comparison == "nan" else ordered
        else:  # or unordered
            self.check(type_.startswith("f") and comparison[-1] == "u")
            self.check(comparison[:-1] in COMPARISONS)
            value = f"{a} {COMPARISONS[comparison[:-1]]} {b} || is_unordered({a}, {b})"
        return self.put(operands[0], value, "pred")

    # -- integers and bits

    def write_logic(self, operation: str, modifiers: list[str], operands: list[str]) -> str:
        (type_,) = modifiers
        a, b = self.values(operands[1:], type_)
        return self.put(operands[0], f"{C_TYPES[type_]}({a} {LOGIC[operation]} {b})", type_)

    def write_and(self, modifiers: list[str], operands: list[str]) -> str:
        return self.write_logic("and", modifiers, operands)

    def write_or(self, modifiers: list[str], operands: list[str]) -> str:
        return self.write_logic("or", modifiers, operands)

    def write_xor(self, modifiers: list[str], operands: list[str]) -> str:
        return self.write_logic("xor", modifiers, operands)

    def write_not(self, modifiers: list[str], operands: list[str]) -> str:
        (type_,) = modifiers
        operator = "!" if type_ == "pred" else "~"
        value = self.value(operands[1], type_)
        return self.put(operands[0], f"{C_TYPES[type_]}({operator}{value})", type_)

    def write_shl(self, modifiers: list[str], operands: list[str]) -> str:
        return self.write_shift("shift_left", modifiers, operands)

    def write_shr(self, modifiers: list[str], operands: list[str]) -> str:
        return self.write_shift("shift_right", modifiers, operands)

    def write_shift(self, function: str, modifiers: list[str], operands: list[str]) -> str:
        (type_,) = modifiers
        value, count = self.value(operands[1], type_), self.value(operands[2], "u32")
        return self.put(operands[0], f"{function}({value}, {count})", type_)

    def write_prmt(self, modifiers: list[str], operands: list[str]) -> str:
        self.check(modifiers == ["b32"])
        a, b, selectors = self.values(operands[1:], "b32")
        return self.put(operands[0], f"permute_bytes({a}, {b}, {selectors})", "b32")

    def write_rem(self, modifiers: list[str], operands: list[str]) -> str:
        (type_,) = modifiers
        a, b = self.values(operands[1:], type_)
        return self.put(operands[0], f"t.remainder({a}, {b}, {self.site()})", type_)

    # -- arithmetic

    def rounded(self, modifiers: list[str], *others: str) -> str:
        """The type of an instruction that rounds to nearest."""
        *how, type_ = modifiers
        self.check(set(how) <= {"rn", *others})
        return type_

    def write_add(self, modifiers: list[str], operands: list[str]) -> str:
        return self.write_arithmetic("+", modifiers, operands)

    def write_sub(self, modifiers: list[str], operands: list[str]) -> str:
        return self.write_arithmetic("-", modifiers, operands)

    def write_arithmetic(self, operator: str, modifiers: list[str], operands: list[str]) -> str:
        type_ = self.rounded(modifiers)
        wraps = type_.replace("s", "u")  # no overflow in C++ either
        a, b = self.values(operands[1:], wraps)
        return self.put(operands[0], f"{C_TYPES[wraps]}({a} {operator} {b})", wraps)

    def product(self, modifiers: list[str], a: str, b: str) -> tuple[str, str]:
        """Of integers, and its type."""
        which, type_ = modifiers
        self.check(which in ("lo", "hi", "wide"))
        x, y = self.values([a, b], type_)
        if which == "wide":
            wide = f"{type_[0]}{2 * int(type_[1:])}"
            return f"{C_TYPES[wide]}({C_TYPES[wide]}({x}) * {y})", wide
        if which == "lo":  # the same of signed and unsigned numbers
            return f"{C_TYPES[type_]}(uint64_t({x}) * uint64_t({y}))", type_
        whole = "int128_t" if type_[0] == "s" else "uint128_t"
        return f"{C_TYPES[type_]}({whole}({x}) * {y} >> {type_[1:]})", type_

    def write_mul(self, modifiers: list[str], operands: list[str]) -> str:
        if modifiers[-1].startswith("f"):
            return self.write_arithmetic("*", modifiers, operands)
        return self.put(operands[0], *self.product(modifiers, *operands[1:]))

    def write_mad(self, modifiers: list[str], operands: list[str]) -> str:
        value, type_ = self.product(modifiers, *operands[1:3])
        wraps = type_.replace("s", "u")
        addend = self.value(operands[3], wraps)
        return self.put(
            operands[0], f"{C_TYPES[wraps]}({C_TYPES[wraps]}({value}) + {addend})", wraps
        )

    def write_fma(self, modifiers: list[str], operands: list[str]) -> str:
        how, type_ = modifiers
        self.check(how == "rn" or (how == "rm" and type_ == "f32"))
        arguments = ", ".join(self.values(operands[1:], type_))
        function = "std::fma" if how == "rn" else "fma_downward"
        return self.put(operands[0], f"{function}({arguments})", type_)

    def write_div(self, modifiers: list[str], operands: list[str]) -> str:
        type_ = self.rounded(modifiers)
        a, b = self.values(operands[1:], type_)
        if type_.startswith("f"):
            return self.put(operands[0], f"{a} / {b}", type_)
        return self.put(operands[0], f"t.quotient({a}, {b}, {self.site()})", type_)

    def write_neg(self, modifiers: list[str], operands: list[str]) -> str:
        (type_,) = modifiers
        if type_.startswith("f"):
            return self.put(operands[0], f"-{self.value(operands[1], type_)}", type_)
        wraps = type_.replace("s", "u")
        return self.put(operands[0], f"{C_TYPES[wraps]}(-{self.value(operands[1], wraps)})", wraps)

    def write_abs(self, modifiers: list[str], operands: list[str]) -> str:
        (type_,) = modifiers
        self.check(type_.startswith("f"))
        return self.put(operands[0], f"std::abs({self.value(operands[1], type_)})", type_)

    def write_min(self, modifiers: list[str], operands: list[str]) -> str:
        (type_,) = modifiers
        a, b = self.values(operands[1:], type_)
        return self.put(operands[0], f"minimum({a}, {b})", type_)

    def write_max(self, modifiers: list[str], operands: list[str]) -> str:
        (type_,) = modifiers
        a, b = self.values(operands[1:], type_)
        return self.put(operands[0], f"maximum({a}, {b})", type_)

    def write_sqrt(self, modifiers: list[str], operands: list[str]) -> str:
        type_ = self.rounded(modifiers)
        return self.put(operands[0], f"std::sqrt({self.value(operands[1], type_)})", type_)

    def write_rcp(self, modifiers: list[str], operands: list[str]) -> str:
        if modifiers[0] == "approx":
            self.check(modifiers[1] == "ftz")
            value = self.value(operands[1], modifiers[2])
            return self.put(operands[0], f"approximate_reciprocal({value})", modifiers[2])
        type_ = self.rounded(modifiers)
        value = self.value(operands[1], type_)
        return self.put(operands[0], f"{C_TYPES[type_]}(1) / {value}", type_)

    def write_ex2(self, modifiers: list[str], operands: list[str]) -> str:
        self.check(modifiers == ["approx", "ftz", "f32"])
        value = self.value(operands[1], "f32")
        return self.put(operands[0], f"approximate_exp2({value})", "f32")

    # -- conversions

    def write_cvt(self, modifiers: list[str], operands: list[str]) -> str:
        *how, to, from_ = modifiers
        value = self.value(operands[1], from_)
        return self.put(operands[0], self.convert(how, to, from_, value), to)

    def convert(self, how: list[str], to: str, from_: str, x: str) -> str:
        c = C_TYPES[to]
        halves = {"f16": "half", "bf16": "bfloat16"}
        if from_ in halves:
            self.check(to == "f32" and how == [])
            return f"{halves[from_]}_to_float({x})"
        if to in halves:
            self.check(from_ == "f32" and how == ["rn"])
            return f"float_to_{halves[to]}({x})"
        is_float, was_float = to.startswith("f"), from_.startswith("f")
        if is_float and to == from_:  # to an integer, or into [0, 1]
            function = {"sat": "saturate", "rni": "std::nearbyint", "rzi": "std::trunc",
                        "rpi": "std::ceil", "rmi": "std::floor"}  # fmt: skip
            self.check(len(how) == 1 and how[0] in function)
            return f"{function[how[0]]}({x})"
        if was_float and not is_float:
            self.check(how == ["rzi"])
            return f"to_integer<{c}>({x})"
        self.check(how == (["rn"] if is_float and (to == "f32" or not was_float) else []))
        return f"{c}({x})"


def as_type(value: str, from_: str, to: str) -> str:
    """What a register holds as another type: the same bits, or of an integer its lower ones."""
    c = C_TYPES[to]
    if c == C_TYPES[from_]:
        return value
    if {c, C_TYPES[from_]} & {"float", "double"}:
        return f"std::bit_cast<{c}>({value})"
    return f"{c}({value})"


def variable(register: str) -> str:
    return register.replace("%", "r_")


def label(name: str) -> str:
    return name.lstrip("$")


def split_operands(text: str) -> list[str]:
    """At commas outside of braces, brackets and parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "{[(") - (character in "}])")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def split_vector(operand: str) -> list[str]:
    return [part.strip() for part in operand.strip("{}()").split(",")]


if __name__ == "__main__":
    main()
