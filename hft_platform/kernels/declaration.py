"""What a kernel's text declares, read without running it.

Why: a text that comes with a config or a session folder is executed only when it can do nothing
but define one function.

Invariants:
1. The text holds imports from a short list, constants, and one function with the decorator.
2. Every loop has a bound that is known beforehand: `for` over `range` of constants and lengths.
3. Sizes are declared in one place, the decorator.

It does not judge what the function computes (see `inspection`). Operator's page:
`docs/kernels.md`.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode

ARGUMENTS = ("features", "parameters", "state", "out", "now_ns", "is_reset")
"""Names of a kernel's arguments, in order."""
SOURCE_BYTES_MAX = 16_384
"""`kernel::SOURCE_BYTES_MAX` in the core."""
STATE_COUNT_MAX = 4_096
"""`kernel::STATE_COUNT_MAX` in the core."""
PARAMETER_COUNT_MAX = 64
"""`kernel::PARAMETER_COUNT_MAX` in the core."""
IMPORTS = {
    "__future__": {"annotations"},
    "hft_platform.kernels": {"kernel", "math"},
    "math": None,
    "numpy": None,
}
"""Modules a kernel's text may import, and which names of them (None: the module itself)."""
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,63}$")
_RESERVED = frozenset({"range", "len", "kernel", "math", *ARGUMENTS})
_FORBIDDEN = {
    ast.While: "a while loop, which has no bound",
    ast.AsyncFor: "an async loop",
    ast.FunctionDef: "a function inside the kernel",
    ast.AsyncFunctionDef: "a function inside the kernel",
    ast.ClassDef: "a class",
    ast.Lambda: "a lambda",
    ast.Import: "an import inside the kernel",
    ast.ImportFrom: "an import inside the kernel",
    ast.Global: "a global statement",
    ast.Nonlocal: "a nonlocal statement",
    ast.Yield: "a generator",
    ast.YieldFrom: "a generator",
    ast.Await: "an await",
    ast.With: "a with block",
}


@dataclass(frozen=True, slots=True)
class KernelDeclaration:
    """Name and sizes of a kernel.

    Attributes
    ----------
    kernel_id : str
        Name of the function.
    features, parameters : tuple of str
        What it reads, in its order.
    state_count : int
        Numbers of state it keeps; zero at the start and after a gap.
    """

    kernel_id: str
    features: tuple[str, ...]
    parameters: tuple[str, ...]
    state_count: int

    def __post_init__(self) -> None:
        """Refuse sizes out of their bounds and features that do not exist."""
        if not _NAME.match(self.kernel_id):
            raise malformed(self.kernel_id, "its name is lower case letters, digits and _")
        known = [row["name"] for row in _core.feature_registry()]
        for name in self.features:
            if name not in known:
                raise PlatformError(
                    ReasonCode.UNKNOWN_FEATURE,
                    f"kernel {self.kernel_id} reads feature {name!r}, which does not exist",
                    next_step="docs/features.md lists them",
                )
        if not self.features or len(set(self.features)) != len(self.features):
            raise malformed(self.kernel_id, "it reads at least one feature, each once")
        if len(set(self.parameters)) != len(self.parameters):
            raise malformed(self.kernel_id, "a parameter is listed twice")
        if len(self.parameters) > PARAMETER_COUNT_MAX:
            raise malformed(
                self.kernel_id,
                f"it has {len(self.parameters)} parameters, at most {PARAMETER_COUNT_MAX}",
            )
        if not 0 <= self.state_count <= STATE_COUNT_MAX:
            raise malformed(
                self.kernel_id, f"state_count was {self.state_count}, allowed is 0 to 4096"
            )


def malformed(kernel_id: str, what: str, line: int | None = None) -> PlatformError:
    """Build the refusal of a text that breaks a rule of its form."""
    place = f" (line {line})" if line else ""
    return PlatformError(ReasonCode.KERNEL_MALFORMED, f"kernel {kernel_id}: {what}{place}")


def declared(source: str) -> KernelDeclaration:
    """Read a kernel's text without running it.

    Parameters
    ----------
    source : str
        The whole text of its file.

    Returns
    -------
    KernelDeclaration

    Raises
    ------
    PlatformError
        KERNEL_MALFORMED with the line, UNKNOWN_FEATURE.
    """
    if not 0 < len(source.encode()) <= SOURCE_BYTES_MAX:
        raise malformed("?", f"its text has {len(source.encode())} bytes, 1 to {SOURCE_BYTES_MAX}")
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise malformed("?", f"its text is no Python: {error}", line) from error
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    if len(functions) != 1:
        raise malformed("?", f"its text defines {len(functions)} functions; it defines one")
    function = functions[0]
    constants: dict[str, Any] = {}
    for node in module.body:
        if node is not function:
            _check_top_level(node, function.name, constants)
    _check_arguments(function)
    _check_body(function, constants)
    return _declaration(function)


def _check_top_level(node: ast.stmt, name: str, constants: dict[str, Any]) -> None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        if isinstance(node.value.value, str):
            return
    elif isinstance(node, ast.ImportFrom):
        allowed = IMPORTS.get(node.module or "", set())
        names = [alias.name for alias in node.names]
        is_plain = node.level == 0 and all(alias.asname is None for alias in node.names)
        if is_plain and allowed and all(one in allowed for one in names):
            return
        raise malformed(name, f"it may not import {', '.join(names)}", node.lineno)
    elif isinstance(node, ast.Import):
        if all(IMPORTS.get(alias.name, set()) is None for alias in node.names):
            return
        raise malformed(name, f"it may not import {node.names[0].name}", node.lineno)
    elif isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
        try:
            value = ast.literal_eval(node.value)
        except ValueError:
            value = None
        is_free = isinstance(target, ast.Name) and target.id not in _RESERVED
        if is_free and isinstance(value, int | float):
            constants[target.id] = value  # type: ignore[attr-defined]  # a Name, see above
            return
        raise malformed(name, "a constant is a name and a number", node.lineno)
    raise malformed(name, "beside the function its text holds imports and constants", node.lineno)


def _check_arguments(function: ast.FunctionDef) -> None:
    spec = function.args
    names = tuple(argument.arg for argument in spec.args)
    plain = not (spec.posonlyargs or spec.kwonlyargs or spec.vararg or spec.kwarg or spec.defaults)
    if names != ARGUMENTS or not plain:
        raise malformed(
            function.name, f"its arguments are ({', '.join(ARGUMENTS)})", function.lineno
        )
    if function.returns or any(argument.annotation for argument in spec.args):
        raise malformed(function.name, "it has no annotations", function.lineno)


def _check_body(function: ast.FunctionDef, constants: dict[str, Any]) -> None:
    # What bounds a loop keeps its meaning: nobody assigns to it.
    fixed = {*constants, *ARGUMENTS, "range", "len"}
    for statement in function.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and node.id in fixed and isinstance(node.ctx, ast.Store):
                raise malformed(function.name, f"it assigns to {node.id}", node.lineno)
            if what := _FORBIDDEN.get(type(node)):
                raise malformed(function.name, f"it holds {what}", getattr(node, "lineno", None))
            if isinstance(node, ast.For | ast.comprehension):
                _check_range(function.name, node.iter, constants)
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                raise malformed(function.name, f"it reads {node.attr}", node.lineno)


def _check_range(name: str, loop: ast.expr, constants: dict[str, Any]) -> None:
    is_range = (
        isinstance(loop, ast.Call) and isinstance(loop.func, ast.Name) and loop.func.id == "range"
    )
    is_array = isinstance(loop, ast.Name) and loop.id in ARGUMENTS[:3]
    bounds = loop.args if isinstance(loop, ast.Call) and is_range else []
    if is_array or (is_range and all(_is_bound(one, constants) for one in bounds)):
        return
    raise malformed(
        name,
        "a loop runs over range of integer constants, len(features), len(parameters) or "
        "len(state), so that its length is known beforehand",
        loop.lineno,
    )


def _is_bound(node: ast.expr, constants: dict[str, Any]) -> bool:
    if isinstance(node, ast.Constant):
        return type(node.value) is int and abs(node.value) <= STATE_COUNT_MAX
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _is_bound(node.operand, constants)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        return _is_bound(node.left, constants) and _is_bound(node.right, constants)
    if isinstance(node, ast.Name):
        value = constants.get(node.id)
        return type(value) is int and abs(value) <= STATE_COUNT_MAX
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "len"
        and len(node.args) == 1
        and isinstance(node.args[0], ast.Name)
        and node.args[0].id in ARGUMENTS[:3]
    )


def _declaration(function: ast.FunctionDef) -> KernelDeclaration:
    name = function.name
    decorators = function.decorator_list
    call = decorators[0] if len(decorators) == 1 else None
    is_ours = (
        isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "kernel"
    )
    if not isinstance(call, ast.Call) or not is_ours or call.args:
        raise malformed(
            name, "it has the one decorator @kernel(features=, parameters=, state_count=)"
        )
    try:
        given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except ValueError as error:
        raise malformed(name, "its sizes are literals", call.lineno) from error
    if set(given) != {"features", "parameters", "state_count"}:
        raise malformed(name, "it declares features, parameters and state_count", call.lineno)
    for key in ("features", "parameters"):
        is_names = isinstance(given[key], tuple) and all(isinstance(n, str) for n in given[key])
        if not is_names:
            raise malformed(name, f"{key} is a tuple of names", call.lineno)
    if type(given["state_count"]) is not int:
        raise malformed(name, "state_count is an integer", call.lineno)
    return KernelDeclaration(name, given["features"], given["parameters"], given["state_count"])
