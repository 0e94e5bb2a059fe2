"""Kernels that may not run in the engine, each with the code that says why."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from hft_platform import kernels
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.kernels import inspection
from tests.hft_platform.kernels.sources import FINE, around

NUMPY = "import numpy as np"


def compiled(body: str, imports: str = ""):
    return kernels.kernel_of_source(around(body, imports=imports)).compiled


def refusal(body: str, imports: str = "") -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        compiled(body, imports)
    return caught.value


ALLOCATES, RAISES = ReasonCode.KERNEL_ALLOCATES, ReasonCode.KERNEL_CAN_RAISE
MATH, OUT = ReasonCode.KERNEL_CALLS_MATH, ReasonCode.KERNEL_CALLS_OUT
OBJECTS, MOOD = ReasonCode.KERNEL_NOT_COMPILABLE, ReasonCode.KERNEL_NOT_DETERMINISTIC


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("out[0] = np.zeros(3)[0]", ALLOCATES),
        ("out[0] = sum([state[i] for i in range(2)])", ALLOCATES),
        ("if features[0] > 1.0:\n    raise ValueError('large')\nout[0] = 1.0", RAISES),
        ("assert features[0] > 0.0\nout[0] = 1.0", RAISES),
        ("out[0] = features[1]", RAISES),
        ("out[0] = state[now_ns]", RAISES),
        ("out[1] = 1.0", RAISES),
        ("features[0] = 1.0\nout[0] = 1.0", RAISES),
        ("parameters[0] += 1.0\nout[0] = parameters[0]", RAISES),
        ("values = features\nvalues[0] = 2.0\nout[0] = values[0]", RAISES),
        ("out[0] = float(now_ns // is_reset)", RAISES),
        ("out[0] = np.exp(features[0])", MATH),
        ("out[0] = np.log(abs(features[0]) + 1.0)", MATH),
        ("out[0] = features[0] ** parameters[0]", MATH),
        ("out[0] = features[0] % parameters[0]", MATH),
        ("out[0] = np.arctan2(features[0], 2.0)", MATH),
        ("out[0] = np.random.random()", OUT),
        ("out[0] = math.sin(features[0])", OBJECTS),
        ("out[0] = features.no_such_thing", OBJECTS),
        ("out[0] = {'a': features[0]}.items()", OBJECTS),
        ("out[0] = float(int(features[0]))", MOOD),
        ("out[0] = float(1 << is_reset)", MOOD),
    ],
)
def test_a_kernel_that_may_not_run_is_refused_with_the_code_that_says_why(body, code):
    error = refusal(body, NUMPY)
    assert ReasonCode(error.code) == code, error.message
    assert "tested" in error.message
    assert error.next_step


@pytest.mark.parametrize(
    "body",
    [
        "out[0] = features[0] ** 2 / parameters[0]",
        "out[0] = max(features[0], state[1]) - min(0.5, abs(features[0]))",
        "out[0] = np.floor(features[0]) + float(now_ns // 1000)",
        "out[0] = 1.0 if np.isfinite(features[0]) else 0.0",
        "for i in range(len(state) - 1):\n    state[i + 1] = state[i]\nout[0] = state[-1]",
        "out[0] = math.exp(features[0]) + math.log1p(abs(features[0])) + math.erf(state[0])",
    ],
)
def test_plain_arithmetic_comparisons_and_the_platforms_functions_are_fine(body):
    assert compiled(body, NUMPY).address > 0


@contextlib.contextmanager
def swallowed() -> Iterator[list[object]]:
    """Take what is reported about an exception that nobody can catch."""
    seen: list[object] = []
    hook, sys.unraisablehook = sys.unraisablehook, seen.append
    try:
        yield seen
    finally:
        sys.unraisablehook = hook


def test_what_a_raise_in_a_callback_would_have_done_without_the_inspection():
    """The reason for all of this: the engine would have seen status 0, a value of 0 or garbage."""
    from numba import carray, cfunc, types

    pointer = types.CPointer(types.float64)

    @cfunc(types.int64(pointer, pointer))
    def raises(features, out):
        values = carray(features, (1,))
        if values[0] > 1.0:
            raise ValueError("large")
        carray(out, (1,))[0] = 7.0
        return 5

    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(raises.address)
    feature, out = np.array([2.0]), np.array([0.0])
    with swallowed() as seen:
        assert call(feature.ctypes.data, out.ctypes.data) == 0
    assert out[0] == 0.0
    assert len(seen) == 1, "numba can only print it"
    error = refusal("if features[0] > 1.0:\n    raise ValueError('large')\nout[0] = 7.0")
    assert error.code == RAISES


def _text_of(source: str) -> tuple[str, str]:
    import numba

    from hft_platform.kernels import compiled as module

    kernel = kernels.kernel_of_source(source)
    module._link_math()
    body = numba.njit(
        forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, **module._OPTIONS
    )(kernel.function)
    sizes = kernel.declaration
    counts = (len(sizes.features), len(sizes.parameters), sizes.state_count)
    callback = numba.cfunc(module._SIGNATURE, **module._OPTIONS)(module._entry(body, counts))
    return callback.inspect_llvm(), callback._library.get_asm_str()


@pytest.fixture(scope="module")
def fine_text() -> tuple[str, str]:
    return _text_of(FINE)


def test_the_fine_kernel_has_no_fault_and_no_address_in_its_code(fine_text):
    llvm_text, assembly = fine_text
    assert inspection.faults_of(llvm_text, assembly) == []
    assert "@hft_math_tanh" in llvm_text
    for _, address in kernels.math.ADDRESSES.values():
        assert str(address) not in llvm_text + assembly
        assert hex(address) not in llvm_text + assembly


@pytest.mark.parametrize(
    ("change", "code", "what"),
    [
        (("fmul double", "fmul contract double"), MOOD, "fast math"),
        (("fadd double", "fadd fast double"), MOOD, "fast math"),
        (("@hft_math_tanh", "@tanh"), MATH, "tanh"),
        (("@hft_math_tanh", "@somebody_elses"), OUT, "somebody_elses"),
        (("@hft_math_tanh", "@NRT_Allocate"), ALLOCATES, "NRT_Allocate"),
        (("@hft_math_tanh", "@PyFloat_AsDouble"), OBJECTS, "PyFloat_AsDouble"),
        (("ret i32 0", "ret i32 1"), RAISES, "raises"),
    ],
)
def test_a_change_of_the_compiled_code_is_found(fine_text, change, code, what):
    llvm_text, assembly = fine_text
    old, new = change
    assert old in llvm_text
    faults = inspection.faults_of(llvm_text.replace(old, new), assembly)
    assert faults[0].code == code
    assert what in faults[0].what


def test_a_fused_multiply_add_in_the_machine_code_is_found(fine_text):
    llvm_text, assembly = fine_text
    fused = assembly + "\n\tvfmadd231sd %xmm0, %xmm1, %xmm2\n"
    (fault,) = inspection.faults_of(llvm_text, fused)
    assert fault.code == MOOD
    assert "vfmadd231sd" in fault.what


def test_compiled_code_fuses_nothing_on_this_machine():
    body = "out[0] = features[0] * parameters[0] + state[0] * state[1] + features[0]"
    llvm_text, assembly = _text_of(around(body))
    assert inspection.faults_of(llvm_text, assembly) == []
    assert "fmul" in llvm_text
    assert not inspection.CONTRACTED_CODE.search(assembly)
