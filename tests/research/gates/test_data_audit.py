"""The data audit where no recording is needed: form, provenance, calendars and contracts."""

import datetime as dt
from pathlib import Path
from types import SimpleNamespace

import pytest

from hft_platform import _core
from hft_platform.market.instruments import load_instruments
from hft_platform.market.sessions import sessions_for
from research.data.datasets import INGESTION_VERSION
from research.data.exceptions import NO_EXCEPTIONS
from research.data.ingestions import Ingestion, enter, ingestions_of
from research.gates import data_audit

TABLE = load_instruments(Path("no-such-folder"))


def ns(day: dt.date, hour: int) -> int:
    return int(dt.datetime.combine(day, dt.time(hour), dt.UTC).timestamp()) * 1_000_000_000


def content_of(sessions, symbol: str) -> dict:
    return {
        "schema": 1,
        "ingestion_version": INGESTION_VERSION,
        "record_schema": _core.SCHEMA_HASH,
        "receive_times": {"sha256": "r" * 64},
        "instruments": {symbol: TABLE.by_symbol(symbol).as_dict()},
        "inputs": [{"symbol": symbol, "kind": "parquet", "sha256": "i" * 64}],
        "sessions": [
            {"symbol": symbol, "session_id": s.session_id, "tape_sha256": "t"} for s in sessions
        ],
    }


@pytest.fixture
def audit(tmp_path, monkeypatch):
    """Faults of a dataset that holds some of an instrument's sessions; no tape is read."""

    def run(symbol: str, sessions, *, change=None, book=True, contracts=()) -> dict[str, tuple]:
        content = content_of(sessions, symbol)
        if book:
            enter(tmp_path, ingestions_of(content))
        if change:
            change(content)
        held = tuple(
            SimpleNamespace(
                symbol=symbol,
                session_id=s.session_id,
                trading_day=s.trading_day,
                start_ns=s.start_ns,
                end_ns=s.end_ns,
            )
            for s in sessions
        )
        monkeypatch.setattr(data_audit.catalog, "description", lambda _: content)
        found = data_audit.audit_data(
            SimpleNamespace(sessions=held, path=tmp_path / "dataset"),
            (),
            {symbol: TABLE.by_symbol(symbol)},
            contracts=contracts,
            exceptions=NO_EXCEPTIONS,
            delay_s_max=60.0,
            delayed_share_max=0.001,
        )
        return {kind: sessions for kind, sessions in found.faults.items() if sessions}

    return run


APRIL = (dt.date(2026, 4, 1), dt.date(2026, 4, 14))
TXF = sessions_for(TABLE.by_symbol("TXFD6"), ns(APRIL[0], 8), ns(APRIL[1], 5))


def test_a_whole_dataset_has_no_fault(audit):
    assert audit("TXFD6", TXF) == {}


def test_holidays_and_weekends_are_not_missing_and_each_session_is(audit):
    """2026-04-03 and 04-06 were holidays: no session of them is asked for."""
    assert {s.trading_day for s in TXF}.isdisjoint({20260403, 20260404, 20260405, 20260406})
    for place in range(1, len(TXF) - 1):
        found = audit("TXFD6", TXF[:place] + TXF[place + 1 :])
        assert found == {"sessions_missing": (f"TXFD6 {TXF[place].session_id}",)}


def test_who_records_no_night_leaves_no_night_out(audit):
    days = [session for session in TXF if session.session_id.endswith("/day")]
    assert audit("TXFD6", days) == {}
    found = audit("TXFD6", days[:1] + days[2:])
    assert found == {"sessions_missing": (f"TXFD6 {days[1].session_id}",)}
    one_night = [session for session in TXF if session in days or session == TXF[0]]
    assert TXF[0].session_id.endswith("/night")
    nights = len(TXF) - len(days)
    assert len(audit("TXFD6", one_night)["sessions_missing"]) == nights - 1


@pytest.mark.parametrize("ends", [slice(1, None), slice(None, -1)])
def test_a_dataset_may_begin_and_end_anywhere(audit, ends):
    assert audit("TXFD6", TXF[ends]) == {}


def test_a_venue_that_never_closes_is_whole_within_each_day(audit):
    day, later = dt.date(2024, 7, 18), dt.date(2024, 7, 25)
    instrument = TABLE.by_symbol("BTCUSDT.USDM")
    pieces = [
        session
        for date in (day, later)
        for session in sessions_for(instrument, ns(date, 9), ns(date, 9) + 600 * 1_000_000_000)
    ]
    assert len(pieces) > 8
    assert audit("BTCUSDT.USDM", pieces) == {}
    found = audit("BTCUSDT.USDM", pieces[:2] + pieces[3:])
    assert found == {"sessions_missing": (f"BTCUSDT.USDM {pieces[2].session_id}",)}


@pytest.mark.parametrize("name", ["schema", "ingestion_version", "record_schema"])
def test_a_dataset_of_another_form_is_not_judged(audit, name):
    found = audit("TXFD6", TXF, change=lambda content: content.update({name: "other"}))
    assert "data_schema" in found


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["inputs"].clear(),
        lambda content: content["inputs"][0].update(sha256=""),
        lambda content: content["inputs"][0].update(symbol="TXFE6"),
    ],
)
def test_a_session_whose_source_is_not_known_has_no_provenance(audit, change):
    found = audit("TXFD6", TXF, change=change)
    assert set(found) == {"data_provenance"}
    assert len(found["data_provenance"]) == len(TXF)


def test_a_session_that_is_not_in_the_book_is_refused(audit):
    assert len(audit("TXFD6", TXF, book=False)["restated"]) == len(TXF)


def test_the_first_tape_counts_and_generated_markets_are_told_apart(tmp_path):
    content = content_of(TXF[:1], "TXFD6")
    (recorded,) = ingestions_of(content)
    content["inputs"][0] |= {"kind": "generator"}
    (generated,) = ingestions_of(content)
    content["inputs"][0] |= {"sha256": "j" * 64}
    (reseeded,) = ingestions_of(content)
    assert isinstance(recorded, Ingestion)
    assert len({recorded.way, generated.way, reseeded.way}) == 3


def test_days_of_another_front_contract_are_named(audit):
    # The contract before ended on 2026-03-18; the roll day of TXFD6 is 2026-04-14.
    days = (dt.date(2026, 3, 16), dt.date(2026, 4, 15))
    sessions = sessions_for(TABLE.by_symbol("TXFD6"), *(ns(day, 8) for day in days))
    assert audit("TXFD6", sessions) == {
        "front_contract": tuple(
            f"TXFD6 {day}/{name}"
            for day in ("2026-03-17", "2026-04-15")
            for name in ("night", "day")
        )
    }
