"""The platform's transcendental functions, for kernels and for plain Python.

Why: a math library differs from another in the last bits; these come from `_core` and are the same
in an expression, in a compiled kernel and here (`rust_core/src/math.rs` has the table).

Invariants:
1. A kernel refers to a function by name; its address is looked up in each process, so it is never
   part of compiled code that could outlive the process.

Operator's page: `docs/kernels.md`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from hft_platform import _core

MathFunction = Callable[..., float]

ADDRESSES: dict[str, tuple[int, int]] = dict(sorted(_core.math_addresses().items()))
"""Number of arguments and address in this process, by name."""

SYMBOL_PREFIX = "hft_math_"
"""What the functions are called in compiled code."""


def _bound(name: str, argument_count: int, address: int) -> MathFunction:
    call = ctypes.CFUNCTYPE(ctypes.c_double, *[ctypes.c_double] * argument_count)(address)

    def function(*arguments: float) -> float:
        return float(call(*arguments))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`{name}` of {argument_count} float argument(s), as the engine computes it."
    return function


FUNCTIONS: dict[str, MathFunction] = {
    name: _bound(name, count, address) for name, (count, address) in ADDRESSES.items()
}
"""Every function by name; each is also an attribute of this module."""


def __getattr__(name: str) -> MathFunction:
    try:
        return FUNCTIONS[name]
    except KeyError:
        raise AttributeError(f"kernels.math has {', '.join(FUNCTIONS)}, not {name}") from None
