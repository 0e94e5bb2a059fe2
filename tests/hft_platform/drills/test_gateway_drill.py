"""The drill of the gateway, and that it would notice what it must notice."""

from __future__ import annotations

from pathlib import Path

from hft_platform.drills import gateway
from hft_platform.drills.drill import run_drill

DUPLICATES = "orders that reached the broker more than once"


def test_gateway_takeover(tmp_path: Path) -> None:
    report = run_drill(gateway.DRILLS[0], tmp_path / "drill", seed=1, size=1)
    assert report.passed, report.render()
    assert (report.facts["kills"], report.facts["stops"]) == (4, 2)
    assert report.facts["orders_sent"] >= 12


def test_a_leader_that_sends_again_what_was_left_is_noticed(tmp_path: Path) -> None:
    """Negative control: resend on takeover makes duplicates in the same drill."""
    takeovers, runners = gateway.take_over(tmp_path, 1, 4, 0, "--call-ms", "40", "--forgetful")
    claims = {claim.text: claim for claim in gateway._claims(tmp_path, 4, takeovers, runners)}
    assert not claims[DUPLICATES].holds
    assert claims["takeovers"].holds
