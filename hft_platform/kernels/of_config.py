"""Kernels of an engine config: its JSON carries their text, this process their machine code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.kernels.definition import Kernel, kernel_of_source


def kernel_config(kernel: Kernel, *, sign: int = 1) -> dict[str, Any]:
    """Say in an engine config which kernel computes a value.

    Parameters
    ----------
    kernel : Kernel
        With a text of its own.
    sign : int, optional
        -1 for the placebo that trades the other way.

    Returns
    -------
    dict
        Content of ``alphas[].kernel``; it holds no address.
    """
    return {
        "id": kernel.kernel_id,
        "sha256": kernel.sha256,
        "features": list(kernel.declaration.features),
        "parameters": list(kernel.declaration.parameters),
        "state_count": kernel.declaration.state_count,
        "sign": sign,
        "source": kernel.source,
        "compiler": compiler_text(kernel.compiler),
    }


def compiler_text(compiler: Mapping[str, str]) -> str:
    """Words on what compiles a kernel for which CPU."""
    return (
        f"numba {compiler['numba']}, llvmlite {compiler['llvmlite']}, LLVM {compiler['llvm']}, "
        f"Python {compiler['python']}, {compiler['triple']} {compiler['cpu']} "
        f"({compiler['cpu_features']}), {compiler['options']}"
    )


def kernels_of(config: Mapping[str, Any]) -> list[_core.KernelHandle]:
    """Compile the kernels that an engine config names, from the text it carries.

    Parameters
    ----------
    config : mapping
        Engine config.

    Returns
    -------
    list of KernelHandle
        For the engine, in the order of the alphas; empty when every alpha is an expression.

    Raises
    ------
    PlatformError
        KERNEL_MISSING when a config names a kernel and carries no text of it, KERNEL_MISMATCH when
        what is compiled here is not what the config's hash names, and what `compile_kernel` raises.
    """
    handles: dict[str, _core.KernelHandle] = {}
    for alpha in config.get("alphas", ()):
        if named := alpha.get("kernel"):
            handles.setdefault(named["sha256"], _handle_of(named))
    return list(handles.values())


def _handle_of(named: Mapping[str, Any]) -> _core.KernelHandle:
    source = named.get("source")
    if not source:
        raise PlatformError(
            ReasonCode.KERNEL_MISSING,
            f"the config names kernel {named.get('id')} ({str(named.get('sha256'))[:12]}) and "
            "carries no text of it",
            next_step="use the engine.json that the session was run with",
        )
    kernel = kernel_of_source(source)
    if kernel.sha256 != named["sha256"]:
        here = compiler_text(kernel.compiler)
        differs = "its text was changed" if here == named["compiler"] else f"compiled by {here}"
        raise PlatformError(
            ReasonCode.KERNEL_MISMATCH,
            f"kernel {named['id']} is {kernel.sha256[:12]} here and {named['sha256'][:12]} in the "
            f"config: {differs}; the config was made by {named['compiler']}",
        )
    return kernel.handle
