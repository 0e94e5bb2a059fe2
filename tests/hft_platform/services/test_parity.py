"""Replay: identical on what was logged, and different after any one change to it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.services.parity import (
    engine_config_of,
    parity_of,
    read_session,
    replay_session,
    summary_agrees,
    write_report,
)
from hft_platform.services.session_runner import SessionOutcome
from tests.hft_platform.services.live_workspace import Live

Copied = tuple[Live, Path]
CUTS = 100


def rewrite(session_dir: Path, kind: str, change: Callable[[bytearray], bytes | bytearray]) -> None:
    """Write a log anew with changed records: every checksum holds, only the content is other."""
    log = session_dir / kind
    read = _core.read_log(str(log))
    wal_id = read["segments"][0]["wal_id"]
    tape = bytes(change(bytearray(read["tape"])))
    shutil.rmtree(log)
    with _core.WalWriter(str(log), wal_id, kind) as writer:
        writer.append(tape)


def offset_of(tape: bytes | bytearray, name: str, input_seq: int, field: str) -> int:
    """Byte offset of a field of the record of a type that has this input sequence."""
    offset, code = 0, records.TYPE_CODES[name]
    while offset < len(tape):
        size = int.from_bytes(tape[offset : offset + 2], "little")
        if tape[offset + 2] == code and input_seq == int.from_bytes(
            tape[offset + 8 : offset + 16], "little"
        ):
            fields = records.DTYPES[name].fields
            assert fields is not None
            return offset + int(fields[field][1])
        offset += size
    raise AssertionError(f"no {name} with input_seq {input_seq}")


def flip(name: str, input_seq: int, field: str, bit: int) -> Callable[[bytearray], bytearray]:
    """Flip one bit of one field of one record."""

    def change(tape: bytearray) -> bytearray:
        place = offset_of(tape, name, input_seq, field)
        tape[place + bit // 8] ^= 1 << bit % 8
        return tape

    return change


def first_entry(session_dir: Path) -> np.void:
    """First placed order."""
    decisions = np.frombuffer(read_session(session_dir).decisions, dtype=records.DTYPES["Decision"])
    return decisions[decisions["action"] == 1][0]


def test_replaying_the_logs_reproduces_every_decision(copied: Copied) -> None:
    live, session_dir = copied
    report = replay_session(session_dir)
    assert report.is_identical
    assert report.share == 1.0
    assert report.total == report.logged == report.replayed > 100
    assert summary_agrees(session_dir, report, workspace=live.ws) is True
    assert json.loads((session_dir / "parity.json").read_bytes())["is_identical"] is True


def test_one_flipped_bit_of_the_book_that_caused_an_order_breaks_parity(copied: Copied) -> None:
    live, session_dir = copied
    seq = int(first_entry(session_dir)["input_seq"])
    rewrite(session_dir, "market", flip("Book", seq, "bid_price", 27))
    _core.verify_segment(str(session_dir / "market" / "00000001.seg"))
    report = replay_session(session_dir)
    assert not report.is_identical
    assert report.identical < report.total
    assert report.differences[0].input_seq <= seq
    assert summary_agrees(session_dir, report, workspace=live.ws) is False


def test_one_flipped_bit_of_one_fill_breaks_parity(copied: Copied) -> None:
    _, session_dir = copied
    broker = records.split(read_session(session_dir).inputs)["Broker"]
    fill = broker[broker["event_kind"] == 3][0]
    rewrite(session_dir, "orders", flip("Broker", int(fill["input_seq"]), "qty", 20))
    assert not replay_session(session_dir).is_identical


def test_one_flipped_bit_of_one_decision_is_one_difference_and_named(copied: Copied) -> None:
    _, session_dir = copied
    decision = first_entry(session_dir)
    rewrite(session_dir, "orders", flip("Decision", int(decision["input_seq"]), "price", 0))
    report = replay_session(session_dir)
    assert report.identical == report.total - 1
    (difference,) = report.differences
    assert list(difference.fields) == ["price"]
    assert difference.fields["price"][1] == int(decision["price"])


def test_any_flipped_bit_of_any_input_is_noticed(finished: tuple[Live, SessionOutcome]) -> None:
    """Many bits change no decision (a fifth level's quantity); the summary's hash sees them all."""
    live, outcome = finished
    logs, config = read_session(outcome.session_dir), engine_config_of(outcome.session_dir)
    random = np.random.default_rng(1)
    widths = {name: dtype.itemsize for name, dtype in records.DTYPES.items()}
    harmless = 0
    for _ in range(60):
        row = int(random.integers(0, 2_000))
        place = offset_of(logs.inputs, "Book", _book_seq(logs.inputs, row), "bid_price") + int(
            random.integers(0, widths["Book"] - 64)
        )
        inputs = bytearray(logs.inputs)
        inputs[place] ^= 1 << int(random.integers(0, 8))
        changed = type(logs)(bytes(inputs), logs.decisions, logs.segments)
        report = parity_of(changed, config)
        harmless += report.is_identical
        assert summary_agrees(outcome.session_dir, report, workspace=live.ws) is False
    assert 0 < harmless < 60, "some bits decide and some do not"


def _book_seq(inputs: bytes, row: int) -> int:
    return int(records.split(inputs)["Book"]["input_seq"][row])


RULES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a parameter of the expression": lambda c: c["alphas"][0]["parameters"].update(k=8.01),
    "the expression": lambda c: c["alphas"][0].update(expression="k * imbalance_l1"),
    "the entry threshold": lambda c: c["alphas"][0]["template"].update(entry_ticks=2.75),
    "the holding time": lambda c: c["alphas"][0]["template"].update(hold_ns=7_000_000_000),
    "the slippage": lambda c: c["alphas"][0]["template"].update(slippage_ticks=2),
    "the order size": lambda c: c["alphas"][0].update(order_qty=400_000_000),
    "the time to live": lambda c: c["alphas"][0].update(ttl_ns=999_999_999),
    "the position limit": lambda c: c["alphas"][0]["limits"].update(position_qty_max=100_000_000),
    "the daily loss": lambda c: c["alphas"][0]["limits"].update(daily_loss_max=10_000_000_000),
    "the alpha's order rate": lambda c: c["alphas"][0]["limits"].update(order_rate_max=1),
    "the notional limit": lambda c: c["account_limits"].update(gross_notional_max=10**12),
    "the account's order rate": lambda c: c["account_limits"].update(
        order_rate_max=2, cancel_reserve=1
    ),
    "the age of a quote": lambda c: c["account_limits"].update(quote_age_ns_max=1_000_000),
    "the session's phases": lambda c: c["session"]["phases"][0].update(phase="close_only"),
    "the daily price limit": lambda c: c["instruments"][0].update(
        limit_up=2_000_100_000_000, limit_down=1_999_900_000_000
    ),
}
"""Weight, stage and expiry are not here: the config switch in the log decides them, so the flip of
a bit of that record stands for them."""


def test_one_flipped_bit_of_the_config_switch_breaks_parity(copied: Copied) -> None:
    _, session_dir = copied
    switch = records.split(read_session(session_dir).inputs)["ConfigSwitch"][0]
    rewrite(session_dir, "orders", flip("ConfigSwitch", int(switch["input_seq"]), "weight_ppm", 18))
    assert not replay_session(session_dir).is_identical


@pytest.mark.parametrize("rule", RULES)
def test_one_changed_rule_breaks_parity(finished: tuple[Live, SessionOutcome], rule: str) -> None:
    session_dir = finished[1].session_dir
    config = copy.deepcopy(engine_config_of(session_dir))
    RULES[rule](config)
    report = replay_session(session_dir, engine_config=config, write=False)
    assert not report.is_identical
    assert report.differences
    same = replay_session(session_dir, write=False)
    assert same.is_identical, "and nothing of it stays"


def test_a_lost_decision_and_an_added_one_are_differences(copied: Copied) -> None:
    _, session_dir = copied
    width = records.DTYPES["Decision"].itemsize
    logs, config = read_session(session_dir), engine_config_of(session_dir)
    for decisions in (logs.decisions[:-width], logs.decisions + logs.decisions[-width:]):
        report = parity_of(type(logs)(logs.inputs, decisions, logs.segments), config)
        assert not report.is_identical
        assert report.identical == min(report.logged, report.replayed)
        (difference,) = report.differences
        assert difference.cause.startswith("only in the")


def test_a_difference_that_is_no_number_can_be_written_down(copied: Copied) -> None:
    """A parity report is canonical JSON; a NaN in a broken decision once kept it from existing."""
    _, session_dir = copied
    logs, config = read_session(session_dir), engine_config_of(session_dir)
    decisions = np.frombuffer(logs.decisions, dtype=records.DTYPES["Decision"]).copy()
    decisions["signal"][0] = np.nan
    report = parity_of(type(logs)(logs.inputs, decisions.tobytes(), logs.segments), config)
    write_report(session_dir, report)
    content = json.loads((session_dir / "parity.json").read_bytes())
    assert content["differences"][0]["fields"]["signal"][0] == "nan"


def test_a_lost_input_is_a_gap_and_no_parity(copied: Copied) -> None:
    _, session_dir = copied

    def without_one(tape: bytearray) -> bytearray:
        place = offset_of(tape, "Book", _book_seq(bytes(tape), 100), "record_bytes")
        del tape[place : place + records.DTYPES["Book"].itemsize]
        return tape

    rewrite(session_dir, "market", without_one)
    with pytest.raises(PlatformError, match="missing or doubled") as caught:
        replay_session(session_dir)
    assert caught.value.code == ReasonCode.LOG_SEQUENCE_GAP


def test_empty_logs_are_no_parity_of_nothing(copied: Copied) -> None:
    _, session_dir = copied
    for kind in ("market", "orders"):
        (session_dir / kind / "00000001.seg").unlink()
    with pytest.raises(PlatformError, match="the manifest says it was sealed") as caught:
        replay_session(session_dir)
    assert caught.value.code == ReasonCode.LOG_SEQUENCE_GAP
    for kind in ("market", "orders"):
        (session_dir / kind / "manifest.log").unlink()
    with pytest.raises(PlatformError, match="hold no input") as caught:
        replay_session(session_dir)
    assert caught.value.code == ReasonCode.LOG_SEQUENCE_GAP


@pytest.mark.parametrize("kind", ["market", "orders"])
def test_a_sealed_segment_cut_at_any_byte_is_refused(copied: Copied, kind: str) -> None:
    _, session_dir = copied
    segment = session_dir / kind / "00000001.seg"
    whole = segment.read_bytes()
    report_before = (session_dir / "parity.json").read_bytes()
    for cut in np.linspace(0, len(whole) - 1, CUTS).astype(int).tolist():
        segment.write_bytes(whole[:cut])
        with pytest.raises(PlatformError) as caught:
            replay_session(session_dir)
        assert caught.value.code in (
            ReasonCode.WAL_DAMAGED,
            ReasonCode.WAL_SEGMENT_MISMATCH,
        ), f"cut at {cut}: {caught.value.message}"
        assert kind in caught.value.message
    assert (session_dir / "parity.json").read_bytes() == report_before
    segment.write_bytes(whole)
    assert replay_session(session_dir).is_identical


@pytest.mark.parametrize("kind", ["market", "orders"])
def test_an_open_segment_cut_at_any_byte_recovers_a_prefix_and_never_passes_for_the_session(
    copied: Copied, kind: str
) -> None:
    """What a process leaves that died: no footer, the last frame torn. Recovery keeps whole
    records only; the session is then a gap, or decisions that are missing, or all of it."""
    live, session_dir = copied
    log = session_dir / kind
    whole = (log / "00000001.seg").read_bytes()
    tape = _core.read_log(str(log))["tape"]
    outcomes: set[str] = set()
    for cut in np.linspace(0, len(whole) - 1, CUTS).astype(int).tolist():
        # The writer died before it could seal: its manifest says nothing of that either.
        for path in (*log.glob("0*"), log / "manifest.log"):
            path.unlink(missing_ok=True)
        (log / "00000001.open").write_bytes(whole[:cut])
        _core.recover_log(str(log))
        kept = _core.read_log(str(log))["tape"]
        assert tape.startswith(kept), f"cut at {cut}"
        assert not list(log.glob("*.open")), "nothing is left half-written"
        try:
            report = replay_session(session_dir, write=False)
        except PlatformError as error:
            assert error.code == ReasonCode.LOG_SEQUENCE_GAP
            outcomes.add("gap")
            continue
        is_whole = kept == tape
        assert report.is_identical == is_whole
        assert summary_agrees(session_dir, report, workspace=live.ws) is is_whole
        outcomes.add("whole" if is_whole else "missing decisions")
    assert "gap" in outcomes


def test_a_damaged_engine_config_is_a_typed_error(copied: Copied) -> None:
    _, session_dir = copied
    path = session_dir / "engine.json"
    whole = path.read_bytes()
    for raw, code in (
        (whole[:100], ReasonCode.FILE_DAMAGED),
        (b"[]", ReasonCode.FILE_DAMAGED),
        (b"\xff\xfe", ReasonCode.FILE_DAMAGED),
        (whole.replace(b'"schema":1', b'"schema":2'), ReasonCode.CONFIG_MALFORMED),
        (whole.replace(b'"ttl_ns"', b'"ttl_nz"'), ReasonCode.CONFIG_MALFORMED),
    ):
        path.write_bytes(raw)
        with pytest.raises(PlatformError) as caught:
            replay_session(session_dir)
        assert caught.value.code == code


def test_without_a_summary_or_a_key_there_is_nothing_to_agree_with(
    copied: Copied, tmp_path: Path
) -> None:
    live, session_dir = copied
    report = replay_session(session_dir, write=False)
    assert summary_agrees(session_dir, report, workspace=tmp_path / "other") is None
    summary = session_dir / "summary.json"
    summary.write_bytes(summary.read_bytes().replace(b'"stage":"shadow"', b'"stage":"canary"'))
    with pytest.raises(PlatformError) as caught:
        summary_agrees(session_dir, report, workspace=live.ws)
    assert caught.value.code == ReasonCode.SUMMARY_TAMPERED
    summary.unlink()
    assert summary_agrees(session_dir, report, workspace=live.ws) is None
