"""Status: what is there, without believing what does not verify."""

from __future__ import annotations

from pathlib import Path

from hft_platform.config.canonical import canonical_json
from hft_platform.services import latch
from hft_platform.services.status import workspace_status
from tests.hft_platform.services.live_workspace import ALPHA_ID, Live

Copied = tuple[Live, Path]


def test_an_empty_or_missing_workspace_has_nothing(tmp_path: Path) -> None:
    status = workspace_status(tmp_path / "none")
    assert (status["halt"], status["promotions"], status["sessions"]) == (None, [], [])
    assert not (tmp_path / "none").exists()


def test_a_finished_session_and_its_promotion_are_shown(copied: Copied) -> None:
    live, session_dir = copied
    status = workspace_status(live.ws)
    (row,) = status["sessions"]
    assert row["run_id"] == session_dir.name
    assert (row["state"], row["stage"], row["halted_by"]) == ("finished", "shadow", 0)
    same, total = row["parity"].split("/")
    assert same == total
    assert row["orders"] > 50
    (promotion,) = status["promotions"]
    assert (promotion["alpha_id"], promotion["withdrawn"]) == (ALPHA_ID, False)
    canonical_json(status)


def test_a_summary_that_does_not_verify_shows_no_numbers(copied: Copied) -> None:
    live, session_dir = copied
    path = session_dir / "summary.json"
    whole = path.read_bytes()
    for raw in (whole.replace(b":0,", b":1,", 1), whole[:200], b"{}", b"\xff"):
        path.write_bytes(raw)
        (row,) = workspace_status(live.ws)["sessions"]
        assert (row["state"], row["net"], row["parity"]) == ("SUMMARY_TAMPERED", None, None)


def test_a_session_without_summary_is_unfinished_and_one_without_key_unproven(
    copied: Copied,
) -> None:
    live, session_dir = copied
    (live.ws / "keys" / "session.pub").unlink()
    (row,) = workspace_status(live.ws)["sessions"]
    assert (row["state"], row["net"]) == ("KEY_MISSING", None)
    (session_dir / "summary.json").unlink()
    (row,) = workspace_status(live.ws)["sessions"]
    assert row["state"] == "unfinished"


def test_the_latch_is_shown(copied: Copied) -> None:
    live, _ = copied
    latch.halt(live.ws, who="a", why="b")
    assert workspace_status(live.ws)["halt"]["why"] == "b"
