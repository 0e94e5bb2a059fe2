"""Texts of kernels for tests: one that is fine, and how to write one around a statement."""

from __future__ import annotations

FINE = '''"""A smoothed imbalance, squashed."""

from hft_platform.kernels import kernel, math

COUNT = 2


@kernel(features=("imbalance_l1", "return_1s"), parameters=("gain", "rate"), state_count=2)
def squashed(features, parameters, state, out, now_ns, is_reset):
    """Status 1 where a feature has no value."""
    total = 0.0
    for place in range(len(features)):
        total += features[place]
    if total - total != 0.0:
        return 1
    if state[1] == 0.0:
        state[0] = total
    state[0] += parameters[1] * (total - state[0])
    state[1] += 1.0
    out[0] = parameters[0] * math.tanh(state[0]) + 1e-3 * math.pow(1.5, features[0])
    return 0
'''
"""Uses state, a loop, a status and two functions of the platform."""


def around(body: str, *, imports: str = "", name: str = "tested", state_count: int = 2) -> str:
    """Text of a kernel whose body is `body`, followed by the usual end."""
    lines = [
        imports,
        "from hft_platform.kernels import kernel, math",
        "",
        f"@kernel(features=('imbalance_l1',), parameters=('gain',), state_count={state_count})",
        f"def {name}(features, parameters, state, out, now_ns, is_reset):",
        *[f"    {line}" for line in body.splitlines()],
        "    return 0",
        "",
    ]
    return "\n".join(lines).lstrip("\n")
