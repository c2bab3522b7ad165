"""Counts what a compiled program does, from the text that XLA writes of it.

XLA's text of an optimised program has an instruction a line: `%name = shape
opcode(%operands), attributes`. What is not fused into another instruction is a kernel:
it reads its operands from the device's memory and writes its result there.
"""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

ARRAY = re.compile(r"\b(pred|token|[a-z]+(\d+)\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
# What does nothing, or is the end of what was counted at its start.
FREE = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|after-all|partition-id"
    r"|opt(imization)?-barrier|.*-(done|update)"
)
VIEWS = ("bitcast", "reshape")
SLICES = ("slice", "dynamic-slice", "gather")


class Instruction(NamedTuple):
    """A line of a program.

    Attributes:
        name: without %.
        shape: of the result, with its layout in memory.
        opcode: what is done.
        operands: the names of the arguments.
        literal: the arguments as they are written, as of a constant.
        attributes: the rest of the line.
        is_root: whether it is the result of its computation.
    """

    name: str
    shape: str
    opcode: str
    operands: list[str]
    literal: str
    attributes: str
    is_root: bool

    def called(self, attribute: str = "calls") -> str:
        """Returns the name of the computation that an attribute names, or ""."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""


Computation = dict[str, Instruction]


class Kernel(NamedTuple):
    """An instruction that runs by itself.

    Attributes:
        times: how often it runs in a program, or in one step of the training loop.
        in_training: whether it is in a loop whose length the program does not say.
        num_bytes: that pass through the device's memory each time.
        cost: the compiler's, of once: microseconds on a GPU, cycles on a TPU; None
            where it gives none.
        product: what convolution or matrix product it is, or "".
    """

    times: int
    in_training: bool
    instruction: Instruction
    num_bytes: int
    cost: float | None
    product: str


def list_kernels(text: str) -> list[Kernel]:
    """Lists what a program runs.

    A loop is counted as often as it runs. One that runs as often as an argument says
    is a training loop: of a program that has one, what is in it, once, is returned
    and nothing else.

    Args:
        text: of an optimised program, `compiled.as_text()`.
    """
    program = Program(text)
    kernels = list(program.walk(program.entry))
    inside = [kernel for kernel in kernels if kernel.in_training]
    return inside or kernels


GROWTH = 0.05  # that is no reason to worry


def list_growth(cases: list[dict], record: list[dict]) -> list[str]:
    """Lists what programs do more of than the same programs of a record.

    Args:
        cases: each a program, see `compiling.measure`.
        record: cases of before, which may lack some.

    Returns:
        A line for each count that grew by more than `GROWTH`.

    Raises:
        ValueError: if the record has none of the cases.
    """

    def name(case: dict) -> tuple:
        what = ("program", "dtype", "seeds", "images", "layer", "shape")
        return *(case[key] for key in what[:-1]), *case["shape"]

    before = {name(case): case for case in record}
    common = [case for case in cases if name(case) in before]
    if not common:
        raise ValueError("it has none of these programs")
    lines = []
    for case in common:
        for count in ("kernels", "bytes", "temporary_bytes"):
            old, new = before[name(case)][count], case[count]
            if new > (1 + GROWTH) * old:
                named = ", ".join(f"{part}" for part in name(case) if part)
                lines.append(f"{named}: {count} grew from {old:,} to {new:,}")
    return lines


def count_bytes(shape: str) -> int:
    """Counts the bytes of arrays in memory, with a TPU's padding to whole tiles.

    Args:
        shape: as XLA writes it, of an array or a tuple of them.

    Example:
        >>> count_bytes("(f32[2,3]{1,0}, bf16[4])")
        32
        >>> count_bytes("f32[100,16]{0,1:T(8,128)}")
        8192
    """
    total = 0
    for kind, bits, dims, layout in ARRAY.findall(shape):
        # What is in another memory space is in one of the chip.
        if kind == "token" or re.search(r"S\([1-9]", layout):
            continue
        sizes = [int(size) for size in dims.split(",") if size]
        order, _, tiling = layout.partition(":")
        if tile := re.match(r"T\(([\d,]+)\)", tiling):
            lengths = [int(length) for length in tile[1].split(",")]
            fastest = [int(axis) for axis in order.split(",") if axis]
            for axis, length in zip(fastest, reversed(lengths), strict=False):
                sizes[axis] = -(-sizes[axis] // length) * length
        total += math.prod(sizes) * int(bits or 8) // 8
    return total


class Program:
    """A program as a graph.

    Args:
        text: see `list_kernels`.

    Attributes:
        computations: by name, each its instructions by name.
        entry: the name of the one that is called.
    """

    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        for line in text.splitlines():
            if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{\s*$", line):
                current = self.computations[head[2]] = {}
                if head[1]:
                    self.entry = head[2]
            elif instruction := _read_instruction(line):
                current[instruction.name] = instruction

    def walk(
        self, name: str, times: int = 1, in_training: bool = False
    ) -> Iterator[Kernel]:
        """Walks through what a computation runs, loops and calls included."""
        for each in self.computations[name].values():
            if each.opcode == "while":
                trips = self._count_trips(each)
                yield from self.walk(
                    each.called("body"),
                    times * (trips or 1),
                    in_training or trips is None,
                )
            elif each.opcode == "call":
                yield from self.walk(each.called("to_apply"), times, in_training)
            elif each.opcode == "conditional":
                for branch in re.findall(r"%([\w.\-]+)", each.attributes):
                    if branch in self.computations:
                        yield from self.walk(branch, times, in_training)
            elif each.opcode.endswith("-start") and each.called() in self.computations:
                yield from self.walk(each.called(), times, in_training)
            elif not FREE.fullmatch(each.opcode):
                yield Kernel(
                    times,
                    in_training,
                    each,
                    self._count_bytes(each, self.computations[name]),
                    _read_cost(each),
                    self._name_product(each),
                )

    def _count_trips(self, loop: Instruction) -> int | None:
        if known := re.search(r"known_trip_count\W+n\W+(\d+)", loop.attributes):
            return int(known[1])
        # A TPU's text leaves the number in what the loop asks before each step.
        asked = list(self.computations[loop.called("condition")].values())
        for each in tuple(asked):
            asked += self.computations.get(each.called(), {}).values()
        numbers = [each.literal for each in asked if each.opcode == "constant"]
        return max((int(n) for n in numbers if n.isdecimal()), default=None)

    def _count_bytes(self, each: Instruction, computation: Computation) -> int:
        written = count_bytes(each.shape)
        if each.opcode == "fusion":
            return self._count_fused_bytes(self.computations[each.called()])
        if each.opcode in SLICES:
            return 2 * written
        operands = [
            count_bytes(computation[operand].shape)
            for operand in each.operands
            if operand in computation
        ]
        if each.opcode == "dynamic-update-slice":
            return 2 * operands[1]
        if each.opcode.endswith("-start"):
            # Its result names both sides: the copy, and what is copied.
            return written
        return written + sum(operands)

    def _count_fused_bytes(self, fused: Computation) -> int:
        """Counts what a fusion reads, of what it slices the slices, and writes."""
        users = collections.defaultdict(list)
        for each in fused.values():
            for operand in each.operands:
                users[operand].append(each)
        (root,) = (each for each in fused.values() if each.is_root)
        results = [root]
        if root.opcode == "tuple":
            results = [fused[operand] for operand in root.operands]
        total = 0
        for result in results:
            while result.opcode in VIEWS and result.operands[0] in fused:
                result = fused[result.operands[0]]
            if result.opcode == "dynamic-update-slice":  # in place
                total += count_bytes(fused[result.operands[1]].shape)
            else:
                total += count_bytes(result.shape)
        for parameter in fused.values():
            if parameter.opcode == "parameter":
                whole = count_bytes(parameter.shape)
                read, views = 0, [parameter.name]
                for view in views:
                    for user in users[view]:
                        if user.opcode in VIEWS:
                            views.append(user.name)
                        elif user.opcode in SLICES and user.operands[0] == view:
                            read += count_bytes(user.shape)
                        elif (
                            user.opcode != "dynamic-update-slice"
                            or user.operands[0] != view
                        ):
                            read += whole
                total += min(read, whole)
        return total

    def _name_product(self, each: Instruction) -> str:
        if each.opcode == "fusion":
            inside = self.computations[each.called()].values()
            names = [self._name_product(other) for other in inside]
            return " and ".join(name for name in names if name)
        is_library = each.opcode == "custom-call"
        target = re.search(r'custom_call_target="__cu\w+\$(\w+)"', each.attributes)
        if each.opcode == "dot" or (is_library and target and "gemm" in target[1]):
            return "product"
        if each.opcode != "convolution" and not (target and "conv" in target[1]):
            return ""
        window = re.search(r"window=\{size=([\dx]+)", each.attributes)
        if window is None:
            return "product"  # as a TPU writes one
        name = target[1] if target else "convolution"
        groups = re.search(r"(?:feature|batch)_group_count=(\d+)", each.attributes)
        return f"{name} {window[1]}" + (f" of {groups[1]} groups" if groups else "")


def _read_instruction(line: str) -> Instruction | None:
    found = re.match(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$", line)
    if not found:
        return None
    shape, rest = _split_at(found[3], " ")
    opcode, _, rest = rest.partition("(")
    literal, attributes = _split_at(rest, ")")
    plain = re.sub(r"/\*.*?\*/", "", literal)
    operands = [] if opcode == "constant" else re.findall(r"%([\w.\-]+)", plain)
    is_root = found[1] is not None
    return Instruction(found[2], shape, opcode, operands, literal, attributes, is_root)


def _split_at(text: str, mark: str) -> tuple[str, str]:
    """Splits a text at the first mark that no bracket encloses."""
    depth = 0
    for place, letter in enumerate(text):
        if letter == mark and depth == 0:
            return text[:place], text[place + 1 :]
        depth += (letter in "([{") - (letter in ")]}")
    return text, ""


def _read_cost(each: Instruction) -> float | None:
    # A GPU's fusion holds several records: that of itself has no name.
    microseconds = re.search(
        r'"exec_time_us":([\d.e+-]+),[^{}]*"name":""', each.attributes
    )
    cycles = re.search(r'"estimated_cycles":"(\d+)"', each.attributes)
    found = microseconds or cycles
    return float(found[1]) if found else None
