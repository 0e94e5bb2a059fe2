"""Salvage as a command: the original stays, what is missing is named, only a token moves anything.

What is copied out of a damaged log is proven in `rust_core/src/wal/tests/salvage.rs`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hft_platform import _core, cli, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.explain import list_orders
from hft_platform.services.parity import read_session, replay_session
from hft_platform.services.wal_salvage import MARKER, salvage, swap_in
from tests.hft_platform.services.live_workspace import Live

Copied = tuple[Live, Path]


def damage(log: Path, share: float = 0.5) -> None:
    """Flip a bit of the log's first segment."""
    segment = log / "00000001.seg"
    raw = bytearray(segment.read_bytes())
    raw[int(share * len(raw))] ^= 4
    segment.write_bytes(raw)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_damaged_log_is_copied_and_what_is_missing_is_named(copied: Copied) -> None:
    _, session_dir = copied
    log = session_dir / "orders"
    whole = _core.read_log(str(log))["tape"]
    damage(log)
    before = bytes_of(log)
    row, problems = salvage(log)
    assert bytes_of(log) == before
    target = Path(row["target"])
    assert target == session_dir / "orders-salvaged-1"
    content = json.loads((target / MARKER).read_text())
    (hole,) = content["holes"]
    assert hole["first_seq"] == hole["last_seq"]
    assert (len(problems), content["refused_by"]["code"]) == (1, ReasonCode.WAL_SEGMENT_MISMATCH)
    assert f"records {hole['first_seq']} to {hole['last_seq']} are missing" in problems[0]
    kept = b"".join(
        _core.read_log(str(target / part["log_dir"]))["tape"] for part in content["parts"]
    )
    first = _core.read_log(str(target))["tape"]
    assert whole.startswith(first)
    assert whole.endswith(kept[len(first) :])
    assert 0 < len(whole) - len(kept) <= 256
    assert set(content["orders"]) == {"open_at_hole", "only_behind"}
    assert all(isinstance(order, int) for ids in content["orders"].values() for order in ids)


def test_decisions_whose_cause_is_in_the_hole_are_named(copied: Copied) -> None:
    _, session_dir = copied
    decisions = records.split(_core.read_log(str(session_dir / "orders"))["tape"])["Decision"]
    placed = decisions[(decisions["action"] == 1) & (decisions["verdict"] == 1)]
    cause = placed["input_seq"][0]
    market = _core.read_log(str(session_dir / "market"))["tape"]
    seqs = np.sort(np.concatenate([p["input_seq"] for p in records.split(market).values()]))
    share = float(np.searchsorted(seqs, cause)) / seqs.size
    # The file is not evenly filled, so look for the byte that hits the cause or its neighbours.
    damage(session_dir / "market", min(max(share, 0.05), 0.95))
    row, _ = salvage(session_dir / "market")
    content = json.loads((Path(row["target"]) / MARKER).read_text())
    (hole,) = content["holes"]
    inside = (placed["input_seq"] > hole["after_input_seq"]) & (
        placed["input_seq"] < hole["before_input_seq"]
    )
    expected = sorted({int(order) for order in placed["order_id"][inside]})
    assert content["orders"]["without_cause"] == expected


def test_a_sound_log_is_left_alone(copied: Copied) -> None:
    live, session_dir = copied
    row, problems = salvage(session_dir / "market")
    assert (row["state"], problems) == ("sound", [])
    assert not list(session_dir.glob("*-salvaged-*"))
    assert cli.main(["wal", "salvage", session_dir.name, "--workspace", str(live.ws)]) == 0


def test_only_the_token_swaps_it_in_and_the_session_is_no_evidence_after(
    copied: Copied, capsys: pytest.CaptureFixture[str]
) -> None:
    live, session_dir = copied
    log = session_dir / "orders"
    damage(log, 0.7)
    before = bytes_of(log)
    command = ["wal", "salvage", str(log), "--workspace", str(live.ws), "--json"]
    assert cli.main(command) == 1, "records are missing"
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert cli.main([*command, "--swap-in", "000000000000"]) == 3
    assert bytes_of(log) == before
    capsys.readouterr()
    assert cli.main([*command, "--swap-in", row["token"]]) == 0
    (moved,) = json.loads(capsys.readouterr().out)["rows"]
    assert bytes_of(session_dir / "orders.damaged") == before | {"lock": b""}
    assert moved["last_seq"] == _core.recover_log(str(log))["last_seq"]
    for look in (read_session, replay_session, list_orders):
        with pytest.raises(PlatformError, match="was salvaged") as caught:
            look(session_dir)
        assert caught.value.code == ReasonCode.WAL_SALVAGED
    # A writer goes on behind what is left.
    info = _core.read_log(str(log))["segments"][-1]
    with _core.WalWriter(str(log), info["wal_id"], "orders", epoch=info["epoch"]) as writer:
        assert writer.last_seq() == moved["last_seq"]
        writer.append_durable(records.empty("Command", 1).tobytes())


def test_a_log_that_changed_or_is_held_is_not_swapped(copied: Copied) -> None:
    _, session_dir = copied
    log = session_dir / "orders"
    damage(log, 0.3)
    row, _ = salvage(log)
    damage(log, 0.9)
    with pytest.raises(PlatformError) as caught:
        swap_in(log, row["token"])
    assert caught.value.code == ReasonCode.SEGMENT_CHANGED
    assert log.exists()


def test_a_swap_interrupted_between_its_renames_is_completed(copied: Copied) -> None:
    _, session_dir = copied
    log = session_dir / "orders"
    damage(log, 0.3)
    row, _ = salvage(log)
    log.rename(session_dir / "orders.damaged")
    assert swap_in(log, row["token"])["state"] == "swapped in"
    assert (log / MARKER).exists()


def test_an_unfinished_salvage_is_not_swapped_in(copied: Copied) -> None:
    _, session_dir = copied
    log = session_dir / "orders"
    damage(log, 0.3)
    row, _ = salvage(log)
    (Path(row["target"]) / MARKER).unlink()
    with pytest.raises(PlatformError) as caught:
        swap_in(log, row["token"])
    assert caught.value.code == ReasonCode.CONFIG_NOT_FOUND
    assert salvage(log)[0]["target"].endswith("orders-salvaged-2")
