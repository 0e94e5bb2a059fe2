"""Kernel: one function with its sizes, its text, its hash and, once used, its machine code."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hft_platform import _core
from hft_platform.config.canonical import canonical_sha256, sha256_hex
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.kernels.declaration import KernelDeclaration, declared, malformed

if TYPE_CHECKING:
    from hft_platform.kernels.compiled import Compiled, Loop

CONTRACT = 1
"""Version of ``kernel(features, parameters, state, out, now_ns, is_reset) -> status``."""
_SOURCE_NAME = "__kernel_source__"


class Kernel:
    """A function that computes an alpha's value, for research loops and for the engine.

    Parameters
    ----------
    function : callable
        ``kernel(features, parameters, state, out, now_ns, is_reset) -> status``: it writes its
        value to ``out[0]`` and returns 0, or another status when there is no value.
    declaration : KernelDeclaration
        Name and sizes.
    """

    def __init__(self, function: Callable[..., Any], declaration: KernelDeclaration) -> None:
        self.function = function
        self.declaration = declaration

    @property
    def kernel_id(self) -> str:
        """Name of the function."""
        return self.declaration.kernel_id

    @functools.cached_property
    def source(self) -> str:
        """Text of its file, which declares this kernel and nothing else."""
        text = self.function.__globals__.get(_SOURCE_NAME)
        if not isinstance(text, str):
            path = inspect.getsourcefile(self.function)
            if path is None or not Path(path).is_file():
                raise malformed(self.kernel_id, "its text is in no file of its own")
            text = Path(path).read_text(encoding="utf-8")
        if declared(text) != self.declaration:
            raise malformed(self.kernel_id, "its file declares another kernel")
        return text

    @functools.cached_property
    def compiler(self) -> Mapping[str, str]:
        """What compiles it for which CPU."""
        from hft_platform.kernels.compiled import compiler

        return compiler()

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of text, sizes, compiler versions and CPU target."""
        return canonical_sha256(
            {
                "contract": CONTRACT,
                "source": sha256_hex(self.source.encode()),
                "kernel_id": self.kernel_id,
                "features": list(self.declaration.features),
                "parameters": list(self.declaration.parameters),
                "state_count": self.declaration.state_count,
                "compiler": dict(self.compiler),
            }
        )

    @functools.cached_property
    def compiled(self) -> Compiled:
        """Its machine code; compiled, inspected and, where it may not run, refused on first use."""
        from hft_platform.kernels.compiled import compile_kernel

        return compile_kernel(self.function, self.declaration)

    @functools.cached_property
    def handle(self) -> _core.KernelHandle:
        """What an engine takes."""
        return _core.KernelHandle(
            self.kernel_id,
            self.sha256,
            self.compiled.address,
            features=list(self.declaration.features),
            parameters=list(self.declaration.parameters),
            state_count=self.declaration.state_count,
        )

    @functools.cached_property
    def _loop(self) -> Loop:
        from hft_platform.kernels.compiled import compile_loop

        return compile_loop(self.compiled.body)

    def run(
        self,
        features: npt.NDArray[np.float64],
        parameters: Mapping[str, float],
        *,
        now_ns: npt.NDArray[np.int64],
        is_reset: npt.NDArray[np.integer[Any]] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Run it over rows of features in order, as the engine would.

        Parameters
        ----------
        features : ndarray of float64, shape (n, features)
            A row a call, columns in the declared order.
        parameters : mapping of str to float
            A value for each declared parameter; others are ignored.
        now_ns : ndarray of int64, shape (n,)
            Time of each call.
        is_reset : ndarray of int, shape (n,), optional
            1 where the state starts over; by default at the first row.

        Returns
        -------
        ndarray of float64, shape (n,)
            NaN where the status was not 0 or the value not finite.
        """
        rows = np.ascontiguousarray(features, dtype=np.float64)
        count = len(self.declaration.features)
        if rows.ndim != 2 or rows.shape[1] != count or rows.shape[0] != now_ns.size:
            raise ValueError(f"features have shape {rows.shape}, expected ({now_ns.size}, {count})")
        resets = np.zeros(now_ns.size, dtype=np.int64)
        if is_reset is not None:
            resets[:] = is_reset
        resets[:1] = 1
        values = np.full(now_ns.size, np.nan)
        chosen = [float(parameters[name]) for name in self.declaration.parameters]
        self._loop(
            rows,
            np.array(chosen, dtype=np.float64),
            np.zeros(self.declaration.state_count),
            np.ascontiguousarray(now_ns, dtype=np.int64),
            resets,
            values,
            np.zeros(now_ns.size, dtype=np.int64),
        )
        return values

    def __repr__(self) -> str:
        """Name and sizes."""
        return f"Kernel({self.declaration})"


def kernel(
    *, features: tuple[str, ...], parameters: tuple[str, ...], state_count: int
) -> Callable[[Callable[..., Any]], Kernel]:
    """Make a function a kernel.

    Parameters
    ----------
    features, parameters : tuple of str
        What it reads, in the order of its arrays.
    state_count : int
        Numbers of state it keeps.

    Returns
    -------
    callable
        The decorator.
    """

    def decorated(function: Callable[..., Any]) -> Kernel:
        name = function.__name__
        return Kernel(function, KernelDeclaration(name, features, parameters, state_count))

    return decorated


@functools.cache
def kernel_of_source(source: str) -> Kernel:
    """Make the kernel of a text; the same text gives the same kernel, compiled once a process.

    Parameters
    ----------
    source : str
        Whole text of a kernel's file.

    Returns
    -------
    Kernel

    Raises
    ------
    PlatformError
        KERNEL_MALFORMED or UNKNOWN_FEATURE, before anything of the text is run.
    """
    declaration = declared(source)
    name = f"hft_kernel_{sha256_hex(source.encode())[:12]}"
    namespace: dict[str, Any] = {"__name__": name, _SOURCE_NAME: source}
    # Nothing but imports from a short list, numbers and one decorated function: see `declared`.
    exec(compile(source, f"<{name}>", "exec"), namespace)  # noqa: S102  # text was checked
    made = namespace[declaration.kernel_id]
    if not isinstance(made, Kernel):
        raise PlatformError(
            ReasonCode.KERNEL_MALFORMED, f"kernel {declaration.kernel_id}: its text makes no kernel"
        )
    return made
