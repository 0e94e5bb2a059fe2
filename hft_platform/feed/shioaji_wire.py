"""Wire layout of the SDK's six quote classes, to build real quote objects without a broker.

Why: before a feed is opened, one object of every class is decoded and its attributes are compared
with what the normaliser was written for. Tests build theirs the same way.

Invariants:
1. A layout is the positional list that `from_msgpack` decodes; every field has a kind.
2. Nothing here opens a connection: decoding needs no session.

The SDK is passed in by the caller, who imports it. Operator's page: `docs/normaliser.md`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import msgpack

_STAMP = ("code", "date", "time")
_SIDES = ("bid_price", "bid_volume", "diff_bid_vol", "ask_price", "ask_volume", "diff_ask_vol")
_DERIVED = (
    "first_derived_bid_price",
    "first_derived_ask_price",
    "first_derived_bid_vol",
    "first_derived_ask_vol",
)
_STK_TRADE = (
    *_STAMP, "open", "avg_price", "close", "high", "low", "amount", "total_amount", "volume",
    "total_volume", "tick_type", "chg_type", "price_chg", "pct_chg_x100", "bid_side_total_vol",
    "ask_side_total_vol", "bid_side_total_cnt", "ask_side_total_cnt", "closing_oddlot_shares",
    "closing_oddlot_close", "closing_oddlot_amount", "closing_oddlot_bid_price",
    "closing_oddlot_ask_price", "fixed_trade_vol", "fixed_trade_amount",
)  # fmt: skip

LAYOUTS: dict[str, tuple[str, ...]] = {
    "TickFOPv1": (
        *_STAMP, "open", "underlying_price", "bid_side_total_vol", "ask_side_total_vol",
        "avg_price", "close", "high", "low", "amount", "total_amount", "volume", "total_volume",
        "tick_type", "chg_type", "price_chg", "pct_chg", "simtrade",
    ),
    "BidAskFOPv1": (
        *_STAMP, "bid_total_vol", "ask_total_vol", *_SIDES, *_DERIVED, "underlying_price",
        "simtrade",
    ),
    "TickSTKv1": (*_STK_TRADE, "suspend", "simtrade"),
    "BidAskSTKv1": (*_STAMP, *_SIDES, "suspend", "simtrade"),
    "QuoteFOPv1": (
        *_STAMP, "underlying_price", "open", "avg_price", "close", "high", "low", "amount",
        "total_amount", "volume", "total_volume", "tick_type", "chg_type", "price_chg", "pct_chg",
        "bid_side_total_vol", "ask_side_total_vol", "bid_side_total_cnt", "ask_side_total_cnt",
        *_SIDES, *_DERIVED, "simtrade",
    ),
    "QuoteSTKv1": (*_STK_TRADE, *_SIDES, "avail_borrowing", "suspend", "simtrade"),
}  # fmt: skip
"""Fields by position. Prices and amounts are text, counts are unsigned integers, sides are lists
of five, `simtrade` and `suspend` are 0 or 1; `pct_chg_x100` is the attribute `pct_chg` times 100.
"""

TEXT_FIELDS = frozenset({"code", "date", "time"})
PRICE_LISTS = frozenset({"bid_price", "ask_price"})
COUNT_LISTS = frozenset({"bid_volume", "ask_volume", "diff_bid_vol", "diff_ask_vol"})
FLAGS = frozenset({"simtrade", "suspend"})
PRICES = frozenset(
    {
        "open", "underlying_price", "avg_price", "close", "high", "low", "amount", "total_amount",
        "price_chg", "pct_chg", "closing_oddlot_close", "closing_oddlot_amount",
        "closing_oddlot_bid_price", "closing_oddlot_ask_price", "fixed_trade_amount",
        "first_derived_bid_price", "first_derived_ask_price",
    }
)  # fmt: skip


def encode(class_name: str, fields: dict[str, Any]) -> bytes:  # Any: what msgpack can carry
    """Wire form of one quote.

    Parameters
    ----------
    class_name : str
        Key of `LAYOUTS`.
    fields : dict
        Every field of the layout by name.

    Returns
    -------
    bytes
        For the class's `from_msgpack`.
    """
    packed: bytes = msgpack.packb([fields[name] for name in LAYOUTS[class_name]])
    return packed


def sample(class_name: str) -> dict[str, Any]:  # Any: text, numbers and lists by field
    """Fields of a plausible quote in which no two numbers are equal.

    Parameters
    ----------
    class_name : str
        Key of `LAYOUTS`.

    Returns
    -------
    dict
        Every field of the layout by name.
    """
    is_stock = "STK" in class_name
    fields: dict[str, Any] = {}
    for place, name in enumerate(LAYOUTS[class_name]):
        if name in PRICES:
            fields[name] = f"{1000 + place}.{place:02d}"
        elif name in FLAGS:
            fields[name] = 0
        else:
            fields[name] = 200 + place
    fields |= {
        "code": "2330" if is_stock else "TXFD6",
        "date": "2026/04/10",
        "time": "10:11:12.345678",
        "close": "2220" if is_stock else "20001",
        "volume": 3,
        "total_volume": 4321,
        "tick_type": 1,
        "chg_type": 2,
    }
    if "bid_price" in fields:
        fields |= {
            "bid_price": ["2215", "2210", "2205", "2200", "2195"],
            "ask_price": ["2220", "2225", "2230", "2235", "2240"],
            "bid_volume": [11, 22, 33, 44, 55],
            "ask_volume": [12, 23, 34, 45, 56],
            "diff_bid_vol": [1, -2, 3, -4, 5],
            "diff_ask_vol": [-1, 2, -3, 4, -5],
        }
    if "bid_total_vol" in fields:
        fields |= {"bid_total_vol": 165, "ask_total_vol": 170}
    return {name: fields[name] for name in LAYOUTS[class_name]}


def probes(sdk: ModuleType) -> list[Any]:  # Any: objects of the SDK's classes
    """One object of every quote class that the SDK has.

    Parameters
    ----------
    sdk : module
        The imported SDK.

    Returns
    -------
    list
        In the order of `LAYOUTS`; a class that the SDK lacks, or that cannot decode its layout, is
        left out, and the normaliser then drops whatever comes under its name.
    """
    found = (_probe(sdk, name) for name in LAYOUTS)
    return [probe for probe in found if probe is not None]


def _probe(sdk: ModuleType, class_name: str) -> Any | None:  # Any: an object of the SDK
    try:
        return getattr(sdk, class_name).from_msgpack(encode(class_name, sample(class_name)))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - a panic of the SDK is no `Exception`
        return None
