"""What compiled code does, read from it: the reasons to refuse a kernel.

Why: a kernel that raises inside a callback would silently return 0.0, and one that allocates would
stall the engine; a promise in a docstring prevents neither.

Invariants:
1. Everything reachable from the entry is looked at; an instruction or a call that is not known to
   be harmless is a reason to refuse.
2. Features and parameters are only read: the compiler itself has found so.
3. Bounds are checked by the compiler: arrays have constant sizes and every index is checked, so
   code in which a check is left over has an index that was not proven.

It compiles nothing. Operator's page: `docs/kernels.md`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hft_platform.errors import ReasonCode
from hft_platform.kernels.math import ADDRESSES, SYMBOL_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED_SYMBOLS = frozenset(SYMBOL_PREFIX + name for name in ADDRESSES)
"""Code outside itself that a kernel may call: the platform's functions."""
ALLOWED_INTRINSICS = (
    "llvm.abs.", "llvm.assume", "llvm.ceil.", "llvm.copysign.", "llvm.experimental.noalias.scope",
    "llvm.fabs.", "llvm.floor.", "llvm.lifetime.", "llvm.memcpy.", "llvm.memmove.", "llvm.memset.",
    "llvm.rint.", "llvm.sadd.with.overflow.", "llvm.smax.", "llvm.smin.", "llvm.sqrt.",
    "llvm.ssub.with.overflow.", "llvm.trunc.", "llvm.umax.", "llvm.umin.", "llvm.vector.reduce.add",
    "llvm.vector.reduce.and", "llvm.vector.reduce.or", "llvm.is.fpclass.",
)  # fmt: skip
"""Compiler intrinsics that are exact in IEEE 754 or move bits only."""
MATH_SYMBOL = re.compile(
    r"^(llvm\.)?(a?(sin|cos|tan)h?|atan2|exp(2|10|m1)?|log(2|10|1p|b)?|pow(i|r|n)?|cbrt|hypot|erfc?"
    r"|t?l?gamma|fmod|remainder|ldexp|frexp|modf|sqrt|__svml_.*|__powi.*)f?($|\.|l$)"
)
CONTRACTED_INTRINSIC = re.compile(r"^llvm\.(fma|fmuladd)\.")
CONTRACTED_CODE = re.compile(r"\bvfn?m(add|sub|addsub|subadd)\w*")
FAST_FLAGS = re.compile(r"\b(fast|reassoc|contract|arcp|afn|nnan|ninf|nsz)\b")
TRAPPING = {"sdiv", "srem", "udiv", "urem"}
UNDEFINED = {"fptosi", "fptoui"}
SHIFTS = {"shl", "lshr", "ashr"}
FLOAT_OPCODES = {"fadd", "fsub", "fmul", "fdiv", "frem", "fneg", "fcmp", "call", "select", "phi"}

HINTS = {
    ReasonCode.KERNEL_ALLOCATES: "keep numbers in state; a kernel makes no array, list or string",
    ReasonCode.KERNEL_CAN_RAISE: "return a status instead; index with constants or range(len())",
    ReasonCode.KERNEL_CALLS_MATH: f"use hft_platform.kernels.math: {', '.join(ADDRESSES)}",
    ReasonCode.KERNEL_CALLS_OUT: "compute with features, parameters and state",
    ReasonCode.KERNEL_NOT_COMPILABLE: "write it with floats, integers and the arrays it is given",
    ReasonCode.KERNEL_NOT_DETERMINISTIC: "use plain arithmetic; compare floats, do not convert",
}
PRECEDENCE = (
    ReasonCode.KERNEL_ALLOCATES,
    ReasonCode.KERNEL_CALLS_MATH,
    ReasonCode.KERNEL_NOT_COMPILABLE,
    ReasonCode.KERNEL_CALLS_OUT,
    ReasonCode.KERNEL_NOT_DETERMINISTIC,
    ReasonCode.KERNEL_CAN_RAISE,
)
"""Which reason is reported first when there are several: the cause before its consequence."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One reason to refuse compiled code."""

    rank: int
    code: ReasonCode
    what: str


def _fault(code: ReasonCode, what: str) -> Fault:
    return Fault(PRECEDENCE.index(code), code, what)


def faults_of(llvm_text: str, assembly: str) -> list[Fault]:
    """Read optimized code and say why it may not run in the engine.

    Parameters
    ----------
    llvm_text : str
        Optimized LLVM IR of the module that holds the callback and its entry.
    assembly : str
        Machine code of the same module, as text.

    Returns
    -------
    list of Fault
        Most telling first; empty when there is none.
    """
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(llvm_text)
    functions = {function.name: function for function in module.functions}
    callbacks = [name for name in functions if name.startswith("cfunc.")]
    entry = callbacks[0].removeprefix("cfunc.") if len(callbacks) == 1 else ""
    if entry not in functions:
        return [_fault(ReasonCode.KERNEL_CALLS_OUT, "code without an entry of its own")]
    found = set(_argument_faults(functions[entry]))
    waiting, seen = [entry], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for instruction in _instructions(functions[name]):
            text, opcode = str(instruction), instruction.opcode
            if opcode in ("call", "invoke"):
                callee = list(instruction.operands)[-1].name
                if callee in functions and not functions[callee].is_declaration:
                    waiting.append(callee)
                elif fault := _call_fault(callee, text):
                    found.add(fault)
            elif name == entry and opcode == "ret" and "ret i32 0" not in text:
                found.add(_fault(ReasonCode.KERNEL_CAN_RAISE, "a path that raises"))
            else:
                found.update(_operation_faults(instruction, text))
            if opcode in FLOAT_OPCODES and FAST_FLAGS.search(text.split("@")[0]):
                found.add(_fault(ReasonCode.KERNEL_NOT_DETERMINISTIC, "fast math"))
    if match := CONTRACTED_CODE.search(assembly):
        what = f"fused multiply-add ({match.group(0)})"
        found.add(_fault(ReasonCode.KERNEL_NOT_DETERMINISTIC, what))
    return sorted(found)


def instruction_count(llvm_text: str) -> int:
    """Number of instructions of the entry of a module."""
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(llvm_text)
    functions = {function.name: function for function in module.functions}
    entry = next(name for name in functions if f"cfunc.{name}" in functions)
    return sum(1 for _ in _instructions(functions[entry]))


def _instructions(function: Any) -> Iterator[Any]:  # Any: llvmlite has no types
    for block in function.blocks:
        yield from block.instructions


def _argument_faults(entry: Any) -> Iterator[Fault]:  # Any: llvmlite
    """Arrays that a kernel may only read, of which the compiler could not tell that it does."""
    # Behind the places for the return value and for an exception.
    arguments = list(entry.arguments)[2:4]
    for name, argument in zip(("features", "parameters"), arguments, strict=True):
        attributes = b" ".join(argument.attributes)
        if b"readonly" not in attributes and b"readnone" not in attributes:
            yield _fault(ReasonCode.KERNEL_CAN_RAISE, f"a write to {name}")


def _call_fault(callee: str, text: str) -> Fault | None:
    if not callee:
        return _fault(ReasonCode.KERNEL_CALLS_OUT, "a call by address or inline machine code")
    if callee in ALLOWED_SYMBOLS or callee.startswith(ALLOWED_INTRINSICS):
        return None
    if CONTRACTED_INTRINSIC.match(callee):
        return _fault(ReasonCode.KERNEL_NOT_DETERMINISTIC, f"fused multiply-add ({callee})")
    if callee.startswith("NRT_"):
        return _fault(ReasonCode.KERNEL_ALLOCATES, f"a call of {callee}")
    if callee.startswith(("Py", "_Py", "numba_unpickle", "numba_gil", "numba_recreate")):
        return _fault(ReasonCode.KERNEL_NOT_COMPILABLE, f"Python objects ({callee})")
    if MATH_SYMBOL.match(callee) or callee.startswith(("numba_xx", "npy_")):
        return _fault(ReasonCode.KERNEL_CALLS_MATH, f"a call of {callee}")
    if callee == "llvm.x86.atomic.sub.cc.i64":
        return _fault(ReasonCode.KERNEL_ALLOCATES, "reference counts")
    if callee.startswith("llvm.trap") or "unreachable" in text:
        return _fault(ReasonCode.KERNEL_CAN_RAISE, "a path that stops the process")
    return _fault(ReasonCode.KERNEL_CALLS_OUT, f"a call of {callee}")


def _operation_faults(instruction: Any, text: str) -> Iterator[Fault]:  # Any: llvmlite
    opcode = instruction.opcode
    if opcode in TRAPPING and not _has_safe_constant(instruction):
        yield _fault(ReasonCode.KERNEL_CAN_RAISE, "an integer division that can trap")
    elif opcode == "frem":
        yield _fault(ReasonCode.KERNEL_CALLS_MATH, "a float remainder, which calls fmod")
    elif opcode in UNDEFINED:
        yield _fault(ReasonCode.KERNEL_NOT_DETERMINISTIC, "a float made an integer")
    elif opcode in SHIFTS and not _has_safe_constant(instruction):
        yield _fault(ReasonCode.KERNEL_NOT_DETERMINISTIC, "a shift by a number that varies")
    elif "inttoptr" in text:
        yield _fault(ReasonCode.KERNEL_CALLS_OUT, "an address made of a number")
    elif opcode == "unreachable":
        yield _fault(ReasonCode.KERNEL_CAN_RAISE, "a path that stops the process")


def _has_safe_constant(instruction: Any) -> bool:  # Any: llvmlite
    """Tell whether the right operand is a constant that cannot trap or vary."""
    right = str(list(instruction.operands)[1]).strip()
    numbers = re.findall(r"(?<=\s)-?\d+(?=[\s,>]|$)", right)
    return bool(numbers) and "%" not in right and all(int(n) not in (0, -1) for n in numbers)
