"""A small market with a signed permit: what a drill needs to run real sessions in.

Why: a drill breaks the disk under a session that trades, and a session trades only a recording of a
dataset by a signed config. Both are made here, by the same functions that verify them.

Invariants:
1. Everything follows from the seed.
2. The heavier side of the book tells where the price goes, so that the taker has orders to be
   halted with.

It is no evidence: the config names no alpha that was judged. Operator's page: `docs/drills.md`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from hft_platform import _core, records
from hft_platform.config.canonical import atomic_write, canonical_json, canonical_sha256
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.keys import signing_key
from hft_platform.config.promoted import render_config, signed_message
from hft_platform.config.promotion_folder import head_path, issued_path, promotions_root
from hft_platform.config.settings import load_settings
from hft_platform.execution.venue_options import venue_options
from hft_platform.feed.recording import DATASET_SCHEMA, FILES, records_table, tape_of
from hft_platform.market.instruments import Instrument, load_instruments
from hft_platform.market.latency import load_latency_profile
from hft_platform.market.sessions import Session, sessions_for, yyyymmdd

SYMBOL, PRODUCT = "SIM_EDGE", "SIM"
ALPHA_ID = "drill_taker"
DAY = dt.date(2026, 1, 5)
SCALE = records.SCALE
LATENCY = "shioaji_live_2026_04"
STEP_NS = 250_000_000
DAY_NS = 86_400_000_000_000
LEVELS = 5
MAKER: dict[str, Any] = {
    "kind": "maker",
    "half_spread_ticks": 1.0,
    "requote_ticks": 1.0,
    "signal_skew": 0.25,
    "inventory_skew_ticks": 0.5,
}
"""A template that keeps orders resting, so that there is something to cancel."""
TAKER: dict[str, Any] = {
    "kind": "taker",
    "entry_ticks": 2.5,
    "exit_ticks": 0.0,
    "hold_ns": 8_000_000_000,
    "slippage_ticks": 1,
}


def market_records(
    seed: int, *, start_ns: int, count: int, instrument_id: int, trading_day: int
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    """Books every 250 ms and a print behind every fourth.

    Parameters
    ----------
    seed : int
        Decides everything that is drawn.
    start_ns : int
        Before the first book.
    count : int
        Number of books.
    instrument_id, trading_day : int
        For the records' heads.

    Returns
    -------
    books, trades : ndarray
    """
    random = np.random.default_rng(seed)
    times = start_ns + (1 + np.arange(count)) * STEP_NS
    state = np.where(np.cumsum(random.random(count) < STEP_NS / 12e9) % 2 == 0, 1, -1)
    moves = 0.7 * STEP_NS / 1e9 * state + random.normal(0, 0.4, count)
    bid = 20_000 + np.floor(np.cumsum(moves)).astype(np.int64)
    heavy, light = random.integers(20, 30, count), random.integers(6, 12, count)
    books, some = records.empty("Book", count), slice(None, None, 4)
    trades = records.empty("Trade", bid[some].size)
    levels = np.arange(LEVELS)
    books["bid_price"] = (bid[:, None] - levels) * SCALE
    books["ask_price"] = (bid[:, None] + 1 + levels) * SCALE
    books["bid_qty"] = np.where(state > 0, heavy, light)[:, None] * SCALE
    books["ask_qty"] = np.where(state > 0, light, heavy)[:, None] * SCALE
    trades["price"] = (bid[some] + 1) * SCALE
    trades["qty"] = SCALE
    trades["aggressor_side"] = 1
    for rows, at, first in ((books, times, 0), (trades, times[some] + 1_000_000, 1)):
        rows["instrument_id"] = instrument_id
        rows["trading_day"] = trading_day
        rows["source_id"] = 2
        rows["source_seq"] = first + 2 * np.arange(rows.size)
        rows["exchange_time_ns"] = at
        rows["receive_time_ns"] = at + 3_000_000
    return books, trades


def market_session() -> tuple[Instrument, Session]:
    """Instrument and session of every drill."""
    instrument = load_instruments().by_symbol(SYMBOL)
    day_ns = int(dt.datetime.combine(DAY, dt.time(), dt.UTC).timestamp()) * 1_000_000_000
    return instrument, sessions_for(instrument, day_ns, day_ns + DAY_NS)[0]


def market_tape(seed: int, *, book_count: int) -> bytes:
    """Books and prints of `market_records` as one tape."""
    instrument, session = market_session()
    return tape_of(
        *market_records(
            seed,
            start_ns=session.start_ns,
            count=book_count,
            instrument_id=instrument.instrument_id,
            trading_day=session.trading_day,
        )
    )


def make_session(
    folder: Path,
    tape: bytes | None,
    *,
    template: dict[str, Any],
    options: dict[str, Any],
    expires_ns: int | None = None,
) -> tuple[_core.PaperSession, dict[str, Any]]:
    """Open a paper session of the core, without a workspace.

    Parameters
    ----------
    folder : Path
        Of the session.
    tape : bytes or None
        Its whole recording; None when it is fed in pieces.
    template : dict
        How the alpha trades.
    options : dict
        Of the logs, as the core takes them.
    expires_ns : int, optional
        When the permit ends; never by default.

    Returns
    -------
    session : PaperSession
    engine_config : dict
        To replay it with.
    """
    instrument, session = market_session()
    content = permit(session.start_ns, template)
    fields = (
        "alpha_id", "expression", "parameters", "template", "order_qty", "ttl_ns", "limits",
        "on_withdrawal", "stage", "weight_ppm",
    )  # fmt: skip
    spec = AlphaSpec(symbol=SYMBOL, **{name: content[name] for name in fields})
    if expires_ns is not None:
        spec = replace(spec, expires_ns=expires_ns)
    settings = load_settings(folder / "no-config", environment={})
    engine_config = build_engine_config(
        [spec],
        instruments=[instrument],
        session=session,
        account_limits=settings.account_limits(),
        storm_guard=settings.storm_guard(),
    )
    paper = _core.PaperSession(
        canonical_json(engine_config).decode(),
        canonical_json(load_latency_profile(LATENCY)[0]).decode(),
        canonical_json(venue_options(instrument, queue_model="power_prob3")).decode(),
        str(folder),
        canonical_json(options).decode(),
    )
    if tape is not None:
        paper.feed(tape)
    return paper, engine_config


def make_workspace(workspace: Path, seed: int, *, book_count: int, template: dict[str, Any]) -> str:
    """Make a workspace with one recorded session and one signed shadow permit.

    Parameters
    ----------
    workspace : Path
        Folder to make.
    seed : int
        Of the market.
    book_count : int
        Books of the session.
    template : dict
        How the alpha trades.

    Returns
    -------
    str
        Name of the session.
    """
    instrument, session = market_session()
    books, trades = market_records(
        seed,
        start_ns=session.start_ns,
        count=book_count,
        instrument_id=instrument.instrument_id,
        trading_day=session.trading_day,
    )
    folder = workspace / "datasets" / "drill"
    folder.mkdir(parents=True)
    for name, rows in (("Book", books), ("Trade", trades)):
        pq.write_table(records_table(rows, name), folder / FILES[name])
    row = {
        "symbol": SYMBOL,
        "session_id": session.session_id,
        "trading_day": session.trading_day,
        "start_ns": session.start_ns,
        "end_ns": session.end_ns,
        "path": ".",
        "tape_sha256": records.tape_sha256(tape_of(books, trades)),
        "record_count": books.size + trades.size,
    }
    dataset = {"schema": DATASET_SCHEMA, "sessions": [row]}
    atomic_write(folder / "dataset.json", canonical_json(dataset))
    _issue(workspace, session.start_ns, template)
    return session.session_id


def permit(start_ns: int, template: dict[str, Any]) -> dict[str, Any]:
    """Content of a shadow permit from a day before `start_ns` on."""
    limit = 1_000_000 * SCALE
    return {
        "schema": 1,
        "alpha_id": ALPHA_ID,
        "alpha_hash": "a" * 64,
        "stage": "shadow",
        "expression": "k * imbalance_ema_2s",
        "parameters": {"k": 8.0},
        "template": template,
        "order_qty": 2 * SCALE,
        "ttl_ns": 1_000_000_000,
        "limits": {
            "order_qty_max": 2 * SCALE,
            "position_qty_max": 2 * SCALE,
            "daily_loss_max": limit,
            "drawdown_max": limit,
            "loss_speed_max": limit,
            "order_rate_max": 60,
        },
        "weight_ppm": 500_000,
        "instruments": [{"symbol": SYMBOL, "product_root": PRODUCT}],
        "roll_rule": {"kind": "none", "trading_days_before": 0},
        "latency_profile": LATENCY,
        "latency_profile_sha256": load_latency_profile(LATENCY)[1],
        "queue_model": "power_prob3",
        "on_withdrawal": {"action": "flatten", "deadline_ns": 5_000_000_000},
        "issued_trading_day": yyyymmdd(DAY - dt.timedelta(days=3)),
        "not_before_ns": start_ns - DAY_NS,
        "expires_ns": start_ns + 30 * DAY_NS,
        "promotion_seq": 1,
        "code_sha256": code_sha256(),
        "data_sha256": "e" * 64,
        "verdicts": {"gate_a": "1" * 64, "gate_b": "2" * 64},
    }


def _issue(workspace: Path, start_ns: int, template: dict[str, Any]) -> None:
    """Sign and publish the permit."""
    content = permit(start_ns, template)
    signer = signing_key(workspace, "promotion")
    raw = render_config(
        content, key_id=signer.key_id, signature=signer.sign(signed_message(content))
    )
    root = promotions_root(workspace)
    atomic_write(issued_path(root, ALPHA_ID, 1, canonical_sha256(content)), raw)
    atomic_write(head_path(root, ALPHA_ID, content["issued_trading_day"]), raw)
