"""The whole live process over a recorded session: start, trade, crash, go on, stop, explained."""

from __future__ import annotations

import json

from tests.hft_platform.services.live_process import LiveProcess
from tests.hft_platform.services.live_workspace import SESSIONS

REHEARSAL = ("--broker", "paper", "--session", SESSIONS[0], "--speed", "max")


def test_a_rehearsal_at_full_speed_ends_flat_explained_and_signed(process: LiveProcess) -> None:
    head = process.issue(stage="shadow")
    code, content = process.run(head, *REHEARSAL)
    assert code == 0, content
    print(json.dumps(content, indent=1)[:3000])
    assert content["mode"] == "rehearsal"
    assert content["counts"]["orders"] > 10
    assert content["report"]["is_flat"]
    assert content["report"]["problems"] == []
    assert content["parity"]["identical"] == content["parity"]["total"] > 0
