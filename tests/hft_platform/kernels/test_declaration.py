"""What a kernel's text may say, found without running it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hft_platform import kernels
from hft_platform.errors import PlatformError, ReasonCode
from tests.hft_platform.kernels.sources import FINE, around


def refusal(source: str) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        kernels.declared(source)
    return caught.value


def test_a_kernel_declares_its_name_and_sizes():
    found = kernels.declared(FINE)
    assert found.kernel_id == "squashed"
    assert found.features == ("imbalance_l1", "return_1s")
    assert found.parameters == ("gain", "rate")
    assert found.state_count == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "0 bytes"),
        ("x" * 20_000, "20000 bytes"),
        ("def broken(:\n", "no Python"),
        ("GAIN = 1.0\n", "defines 0 functions"),
        (FINE + "\n\ndef second():\n    return 0\n", "defines 2 functions"),
        (FINE.replace("COUNT = 2", "import os"), "may not import os"),
        (FINE.replace("COUNT = 2", "from numba import njit"), "may not import njit"),
        (FINE.replace("COUNT = 2", "from . import kernel"), "may not import kernel"),
        (FINE.replace("COUNT = 2", "TABLE = [1, 2]"), "a name and a number"),
        (FINE.replace("COUNT = 2", "COUNT = open('/etc/passwd')"), "a name and a number"),
        (FINE.replace("COUNT = 2", "print(1)"), "imports and constants"),
        (FINE.replace("COUNT = 2", "range = 3"), "a name and a number"),
        (FINE.replace("now_ns, is_reset", "is_reset, now_ns"), "its arguments are"),
        (FINE.replace("is_reset)", "is_reset=0)"), "its arguments are"),
        (FINE.replace("features, parameters, s", "features: int, parameters, s"), "no annotations"),
        (FINE.replace("@kernel(", "@other("), "one decorator"),
        (FINE.replace("@kernel(", "@print\n@kernel("), "one decorator"),
        (FINE.replace("state_count=2", "state_count=COUNT"), "sizes are literals"),
        (FINE.replace("state_count=2", "state_count=2.0"), "state_count is an integer"),
        (FINE.replace("state_count=2", "state_count=5000"), "allowed is 0 to 4096"),
        (FINE.replace(", state_count=2", ""), "declares features, parameters and state_count"),
        (FINE.replace('"return_1s")', '"imbalance_l1")'), "each once"),
        (FINE.replace('("gain", "rate")', '["gain", "rate"]'), "a tuple of names"),
        (around("while features[0] > 0.0:\n    state[0] += 1.0"), "while loop"),
        (around("for i in range(int(features[0])):\n    state[0] += 1.0"), "a loop runs over"),
        (around("for i in range(99999):\n    state[0] += 1.0"), "a loop runs over"),
        (around("for i in [1, 2]:\n    state[0] += 1.0"), "a loop runs over"),
        (around("len = 3"), "assigns to len"),
        (around("state = features"), "assigns to state"),
        (around("def inner():\n    return 1"), "a function inside"),
        (around("x = lambda: 1"), "a lambda"),
        (around("import os"), "an import inside"),
        (around("with features:\n    x = 1"), "a with block"),
        (around("out[0] = features.__class__"), "reads __class__"),
        (around("out[0] = sum([x for x in now_ns])"), "a loop runs over"),
    ],
)
def test_a_text_that_breaks_a_rule_is_refused_before_it_is_run(source: str, said: str):
    error = refusal(source)
    assert error.code == ReasonCode.KERNEL_MALFORMED
    assert said in error.message


def test_a_constant_that_bounds_a_loop_may_not_become_a_variable():
    source = FINE.replace("range(len(features))", "range(COUNT)")
    assert kernels.declared(source).kernel_id == "squashed"
    changed = source.replace("    total = 0.0", "    COUNT = int(features[0])\n    total = 0.0")
    assert "assigns to COUNT" in refusal(changed).message


def test_a_feature_that_does_not_exist_is_named():
    error = refusal(FINE.replace('"imbalance_l1"', '"imbalance_l9"'))
    assert error.code == ReasonCode.UNKNOWN_FEATURE
    assert "imbalance_l9" in error.message


def test_nothing_imports_numba_before_a_kernel_is_used():
    code = (
        "import sys\n"
        "from hft_platform import kernels\n"
        "from hft_platform.services import parity, session_runner\n"
        f"kernels.kernel_of_source({FINE!r})\n"
        "assert kernels.kernels_of({'alphas': [{'expression': '1'}]}) == []\n"
        "assert 'numba' not in sys.modules, 'numba'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
