"""An alpha joins the pool that gate D judged it beside, or is judged again."""

from __future__ import annotations

from typing import Any

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from research.promotion.withdrawal import withdraw
from tests.research.promotion.test_promote import FIRST_FROZEN


def refused(bench: Any) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        bench.sign("canary")
    return caught.value


def judged_beside(bench: Any, *members: str) -> None:
    """Gate D ran beside these members, and gate E after it."""
    bench.rewrite("gate_d", inputs={"pool": dict.fromkeys(members, "5" * 64)})


def test_a_member_that_came_since_gate_d_is_judged_beside_first(bench: Any) -> None:
    bench.write_gates()
    member = bench.join_pool()
    error = refused(bench)
    assert error.code == ReasonCode.VERDICT_STALE
    assert f"came {member} and left nobody" in error.message
    assert error.next_step == f"hft-research gates {bench.alpha.alpha_id} --gate gate_d"
    judged_beside(bench, member)
    assert bench.sign("canary").is_new


def test_a_member_that_left_is_another_pool_as_well(bench: Any) -> None:
    bench.write_gates()
    member = bench.join_pool()
    judged_beside(bench, member)
    withdraw(bench.ws, "gen_other", by="operator", why="a doubt")
    assert f"came nobody and left {member}" in refused(bench).message


def test_who_trades_already_climbs_whoever_came_later(bench: Any) -> None:
    bench.write_gates()
    bench.sign("shadow")
    bench.sign("canary")
    bench.join_pool()
    for index in range(FIRST_FROZEN, FIRST_FROZEN + 3):
        bench.run_session(index)
    assert bench.sign("canary").weight_ppm == 200_000
