"""Compile a kernel for the engine and for research loops: one function, one compiler, one target.

Why: two compilations with other options would be two functions.

Invariants:
1. numpy error model, bounds checked, no fast math, no parallel sums, nothing cached on disk.
2. A library is kept for the rest of the process, so its address stays good.
3. Functions of the platform are linked by name when code is loaded; compiled code holds no address.

It does not judge what came out (see `inspection`). Operator's page: `docs/kernels.md`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.core.errors import NumbaError
from numba.core.registry import cpu_target
from numba.extending import overload

from hft_platform.config.canonical import sha256_hex
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.kernels import math
from hft_platform.kernels.declaration import KernelDeclaration
from hft_platform.kernels.inspection import HINTS, faults_of, instruction_count

Body = Callable[..., Any]
Loop = Callable[..., None]
# Any: numba's own types cover a part of its options and leave `carray` and `config` out.
_njit: Any = numba.njit
_cfunc: Any = numba.cfunc
_carray: Any = vars(numba)["carray"]
_settings: Any = vars(numba.core)["config"]
_types: Any = types
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": False, "boundscheck": True}
_POINTER = _types.CPointer(types.float64)
_SIGNATURE = types.int64(_POINTER, _POINTER, _POINTER, _POINTER, types.int64, types.int64)
_KEPT: list[Any] = []
"""Libraries of every kernel that was compiled; never emptied."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel's machine code.

    Attributes
    ----------
    address : int
        Of the callback that the engine calls, in this process.
    instruction_count : int
        Of the kernel in LLVM's terms.
    body : callable
        The function for other compiled code, with the same options.
    """

    address: int
    instruction_count: int
    body: Body


@functools.cache
def compiler() -> dict[str, str]:
    """What compiles for which CPU: everything besides the text that decides the machine code."""
    codegen = cpu_target.target_context.codegen()
    triple, cpu, features = codegen.magic_tuple()
    return {
        "numba": str(numba.__version__),
        "llvmlite": str(llvmlite.__version__),
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
        "python": ".".join(map(str, _python_version())),
        "triple": str(triple),
        "cpu": str(cpu),
        "cpu_features": sha256_hex(",".join(sorted(str(features).split(","))).encode())[:12],
        "options": f"O{int(_settings.OPT)} loop{_settings.LOOP_VECTORIZE:d}"
        f" slp{_settings.SLP_VECTORIZE:d}",
    }


def compile_kernel(function: Body, declaration: KernelDeclaration) -> Compiled:
    """Compile a kernel and refuse what may not run in the engine.

    Parameters
    ----------
    function : callable
        The plain Python function.
    declaration : KernelDeclaration
        Its name and sizes.

    Returns
    -------
    Compiled

    Raises
    ------
    PlatformError
        KERNEL_NOT_COMPILABLE, KERNEL_ALLOCATES, KERNEL_CAN_RAISE, KERNEL_CALLS_MATH,
        KERNEL_CALLS_OUT, KERNEL_NOT_DETERMINISTIC.
    """
    _link_math()
    body = _njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(
        function
    )
    sizes = (len(declaration.features), len(declaration.parameters), declaration.state_count)
    callback = _compiled(_entry(body, sizes), declaration.kernel_id)
    llvm_text = callback.inspect_llvm()
    faults = faults_of(llvm_text, callback._library.get_asm_str())
    if faults:
        first = faults[0]
        others = sorted({fault.what for fault in faults} - {first.what})
        also = f"; also {', '.join(others[:3])}" if others else ""
        raise PlatformError(
            first.code,
            f"kernel {declaration.kernel_id} holds {first.what}{also}",
            next_step=HINTS[first.code],
        )
    _KEPT.append(callback)
    return Compiled(int(callback.address), instruction_count(llvm_text), body)


def compile_loop(body: Body) -> Loop:
    """Compile the research loop: the kernel over rows of features, in order.

    Parameters
    ----------
    body : callable
        `Compiled.body`.

    Returns
    -------
    callable
        ``loop(features, parameters, state, now_ns, is_reset, values, statuses)``; `values` is
        given as NaN.
    """

    @_njit(**_OPTIONS)  # type: ignore[untyped-decorator]  # see above
    def loop(
        features: npt.NDArray[np.float64],
        parameters: npt.NDArray[np.float64],
        state: npt.NDArray[np.float64],
        now_ns: npt.NDArray[np.int64],
        is_reset: npt.NDArray[np.int64],
        values: npt.NDArray[np.float64],
        statuses: npt.NDArray[np.int64],
    ) -> None:
        for row in range(features.shape[0]):
            if is_reset[row] == 1:
                state[:] = 0.0
            statuses[row] = body(
                features[row], parameters, state, values[row : row + 1], now_ns[row], is_reset[row]
            )
            if statuses[row] != 0 or not np.isfinite(values[row]):
                values[row] = np.nan

    compiled_loop: Loop = loop
    return compiled_loop


def _entry(body: Body, sizes: tuple[int, int, int]) -> Body:
    feature_count, parameter_count, state_count = sizes

    def entry(
        features: Any, parameters: Any, state: Any, out: Any, now_ns: int, is_reset: int
    ) -> Any:  # Any: numba's pointers
        return body(
            _carray(features, (feature_count,)),
            _carray(parameters, (parameter_count,)),
            _carray(state, (state_count,)),
            _carray(out, (1,)),
            now_ns,
            is_reset,
        )

    return entry


def _compiled(entry: Body, kernel_id: str) -> Any:  # Any: numba's callback
    if _settings.DISABLE_JIT:
        raise PlatformError(
            ReasonCode.KERNEL_NOT_COMPILABLE,
            f"kernel {kernel_id}: numba's compiler is switched off by NUMBA_DISABLE_JIT",
            next_step="unset NUMBA_DISABLE_JIT",
        )
    try:
        return _cfunc(_SIGNATURE, **_OPTIONS)(entry)
    except (NumbaError, AttributeError, NotImplementedError, TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise PlatformError(
            ReasonCode.KERNEL_NOT_COMPILABLE,
            f"kernel {kernel_id} cannot be compiled: {' '.join(lines)[:400]}",
            next_step=HINTS[ReasonCode.KERNEL_NOT_COMPILABLE],
        ) from error


@functools.cache
def _link_math() -> None:
    """Make the platform's functions known to compiled code, by name."""
    for name, (argument_count, address) in math.ADDRESSES.items():
        symbol = math.SYMBOL_PREFIX + name
        llvm.add_symbol(symbol, address)
        arguments = [types.float64] * argument_count
        external = types.ExternalFunction(symbol, types.float64(*arguments))
        overload(math.FUNCTIONS[name])(
            _unary(external) if argument_count == 1 else _binary(external)
        )


# numba compares the argument lists of a typing function and of what it returns, annotations too.
def _unary(external: Any) -> Body:  # Any: numba's types
    def typed(x):  # type: ignore[no-untyped-def]  # see above
        if not isinstance(x, types.Float | types.Integer):
            return None
        return lambda x: external(np.float64(x))

    return typed


def _binary(external: Any) -> Body:  # Any: numba's types
    def typed(x, y):  # type: ignore[no-untyped-def]  # see above
        if not all(isinstance(one, types.Float | types.Integer) for one in (x, y)):
            return None
        return lambda x, y: external(np.float64(x), np.float64(y))

    return typed


def _python_version() -> tuple[int, int]:
    import sys

    return sys.version_info[:2]
