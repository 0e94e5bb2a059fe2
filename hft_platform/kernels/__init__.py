"""Kernels: alphas that are one compiled function instead of an expression.

Why: research loops and the engine run the same machine code, so a kernel that was judged is the
kernel that trades.

Invariants:
1. numba is imported when a kernel is used, never before.
2. A kernel is its text: a config carries the text, a hash covers text, sizes, compiler and CPU.
3. One that allocates, can raise, leaves its arrays, calls out or depends on the compiler's mood is
   refused with a code before an address of it exists.

Operator's page: `docs/kernels.md`.
"""

from __future__ import annotations

from hft_platform.kernels import math
from hft_platform.kernels.declaration import KernelDeclaration, declared
from hft_platform.kernels.definition import Kernel, kernel, kernel_of_source
from hft_platform.kernels.of_config import kernel_config, kernels_of

__all__ = [
    "Kernel",
    "KernelDeclaration",
    "declared",
    "kernel",
    "kernel_config",
    "kernel_of_source",
    "kernels_of",
    "math",
]
