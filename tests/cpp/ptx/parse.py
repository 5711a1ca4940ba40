"""PTX taken apart: a module's functions, with their parameters, registers, shared memory and
instructions, each with the line of the source that it comes from."""

import re
from dataclasses import dataclass, field
from pathlib import Path


class UnknownError(Exception):
    """PTX that this translator has no C++ for."""


@dataclass(frozen=True)
class Instruction:
    text: str  # without its semicolon, or a label with its colon
    source: str  # file:line of the CUDA code, from inside out

    def words(self) -> list[str]:
        return re.findall(r"[\w$]+", self.text)


@dataclass
class Function:
    name: str
    is_entry: bool
    parameters: list[tuple[str, int, int]]  # name, offset and size in bytes
    results: list[tuple[str, int]]  # name and size: of a .func
    threads: int  # of a block, at most
    registers: dict[str, str] = field(default_factory=dict)  # prefix as "%rd" → type
    shared: list[tuple[str, int, int]] = field(default_factory=list)  # name, alignment and size
    locals: dict[str, int] = field(default_factory=dict)  # what it hands to a .func: sizes
    body: list[Instruction] = field(default_factory=list)


@dataclass
class Module:
    shared: list[tuple[str, int, int]]
    constants: dict[str, str]  # name → its definition in C++
    functions: list[Function]


def parse(ptx: str) -> Module:
    files = dict(re.findall(r'^\s*\.file\s+(\d+)\s+"(.+?)"', ptx, re.MULTILINE))
    names = {  # of the project's, not of the toolkit's
        number: Path(path).name
        for number, path in files.items()
        if {"csrc", "tests"} & set(Path(path).parts)
    }
    constants = {
        name: f"alignas({alignment}) constexpr uint8_t {name}[{size}] = {{{values}}};"
        for alignment, name, size, values in re.findall(
            r"^\.(?:global|const) \.align (\d+) \.b8 ([\w$]+)\[(\d+)\] = \{(.*?)\};",
            ptx,
            re.MULTILINE,
        )
    }
    functions = []
    for match in re.finditer(
        r"\.(?P<kind>entry|func)\s+(?:\((?P<results>[^)]*)\)\s*)?(?P<name>[\w$]+)\s*"
        r"\((?P<parameters>[^)]*)\)\s*(?P<directives>(?:\.\w+[^\n{;]*\n)*)\{\n(?P<body>.*?)\n\}",
        ptx,
        re.DOTALL,
    ):
        threads = re.search(r"\.maxntid (\d+)", match["directives"])
        function = Function(
            match["name"],
            match["kind"] == "entry",
            lay_out(match["parameters"]),
            [(name, size) for name, _, size in lay_out(match["results"] or "")],
            int(threads[1]) if threads else 1024,
        )
        read_body(match["body"], function, names)
        functions.append(function)
    missed = set(re.findall(r"\.entry\s+([\w$]+)", ptx)) - {f.name for f in functions}
    if missed:
        raise UnknownError(f"{', '.join(sorted(missed))} begins in a way that is not known")
    functions.sort(key=lambda function: function.is_entry)  # C++ wants what is called first
    return Module(find_shared(ptx), constants, functions)


def size_of(type_: str) -> int:
    return 1 if type_ == "pred" else int(type_[1:].lstrip("f")) // 8


def lay_out(parameters: str) -> list[tuple[str, int, int]]:
    found, end = [], 0
    for parameter in filter(None, map(str.strip, parameters.split(","))):
        block = re.fullmatch(r"\.param \.align (\d+) \.b8 ([\w$]+)\[(\d+)\]", parameter)
        single = re.fullmatch(r"\.param \.(\w+) ([\w$]+)", parameter)
        if block:
            alignment, name, size = int(block[1]), block[2], int(block[3])
        elif single:
            alignment = size = size_of(single[1])
            name = single[2]
        else:
            raise UnknownError(f"unknown parameter {parameter!r}")
        start = -(-end // alignment) * alignment
        found.append((name, start, size))
        end = start + size
    return found


def find_shared(text: str) -> list[tuple[str, int, int]]:
    return [
        (name, int(alignment), size_of(type_) * int(count or 1))
        for alignment, type_, name, count in re.findall(
            r"^\s*\.shared \.align (\d+) \.(\w+) ([\w$]+)(?:\[(\d+)\])?;", text, re.MULTILINE
        )
    ]


def read_body(text: str, function: Function, files: dict[str, str]) -> None:
    """Declarations, and instructions with where in the source they come from.

    A .loc says into what its line is inlined; what that is inlined into stands in one before it.
    """
    callers: dict[tuple[str, str], tuple[str, str] | None] = {}
    source, statement = "", ""
    for raw in text.splitlines():
        line = raw.split("//")[0].strip()
        if re.match(r"\.loc\s", line):
            here = re.match(r"\.loc\s+(\d+) (\d+) \d+(?:.*inlined_at (\d+) (\d+))?", line)
            assert here is not None
            at: tuple[str, str] | None = (here[1], here[2])
            callers[here[1], here[2]] = (here[3], here[4]) if here[3] else None
            chain = []
            while at is not None and len(chain) < 20:
                chain.append(at)
                at = callers.get(at)
            lines = [f"{files[file]}:{line}" for file, line in chain if file in files]
            source = ", in ".join(dict.fromkeys([*lines[:1], *lines[-1:]]))
        elif not statement and re.fullmatch(r"[\w$]+:", line):
            function.body.append(Instruction(line, source))
        else:
            statement += f" {line}"
            while ";" in statement:
                one, statement = statement.split(";", 1)
                # Braces before it are a block's; those of operands stand within.
                read_statement(one.lstrip(" {}"), function, source)
            if not statement.strip(" {}"):
                statement = ""
    if statement:
        raise UnknownError(f"{function.name} ends within {statement.strip()!r}")


def read_statement(text: str, function: Function, source: str) -> None:
    if not text or text.startswith(".pragma"):
        return
    if declared := re.fullmatch(r"\.reg \.(\w+)\s+(%?\w+)(?:<\d+>)?", text):
        function.registers[declared[2]] = declared[1]
    elif text.startswith(".shared"):
        function.shared += find_shared(text + ";")
    elif handed := re.fullmatch(r"\.param \.(\w+) (\w+)", text):
        function.locals[handed[2]] = size_of(handed[1])
    elif text.startswith("."):
        raise UnknownError(f"{function.name} has an unknown directive {text!r}")
    else:
        function.body.append(Instruction(" ".join(text.split()), source))
