"""Every field of every event replaced by everything: nothing raises, nothing wrong is published.

`HFT_FUZZ_CASES` sets how many random double damages are tried besides every single one.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shioaji as sj

from hft_platform.order.broker import FillEvent, OrderEvent
from tests.hft_platform.order.shioaji_fake import (
    Desk,
    Event,
    futures_deal_event,
    futures_order_event,
    stock_deal_event,
    stock_order_event,
)

CASES = int(os.environ.get("HFT_FUZZ_CASES", "1500"))
MISSING = object()


class Hostile:
    """Raises whatever is done to it, with what is no `Exception`."""

    def __getattribute__(self, name: str) -> Any:
        raise BaseException(f"panic at {name}")

    def __str__(self) -> str:
        raise BaseException("panic")


BAD: tuple[Any, ...] = (
    MISSING, None, True, -1, 2**31, 2**63, -(2**63), 10**40, 1.5, -0.5, 1e300, float("nan"),
    float("inf"), "", "x" * 70, "\n", "\u00e4", b"x", [], {}, {"a": 1}, object(), Hostile(),
)  # fmt: skip
USED = {
    "FORDER": (
        "operation", "operation.op_type", "operation.op_code", "order", "order.id", "order.seqno",
        "order.ordno", "order.account", "order.account.broker_id", "order.account.account_id",
        "order.action", "order.price", "order.quantity", "order.time_in_force", "order.price_type",
        "status", "status.exchange_ts", "status.modified_price", "status.cancel_quantity",
        "contract", "contract.full_code",
    ),
    "SORDER": (
        "operation", "operation.op_type", "operation.op_code", "order", "order.id", "order.seqno",
        "order.ordno", "order.account.broker_id", "order.account.account_id", "order.action",
        "order.price", "order.quantity", "order.time_in_force", "order.price_type",
        "order.order_lot", "order.custom_field", "status.exchange_ts", "status.modified_price",
        "status.cancel_quantity", "contract", "contract.code",
    ),
    "FDEAL": (
        "trade_id", "seqno", "ordno", "exchange_seq", "broker_id", "account_id", "action",
        "full_code", "price", "quantity", "ts",
    ),
    "SDEAL": (
        "trade_id", "seqno", "ordno", "exchange_seq", "broker_id", "account_id", "action", "code",
        "order_lot", "price", "quantity", "custom_field", "ts",
    ),
}  # fmt: skip
GOOD = {
    "FORDER": futures_order_event(),
    "SORDER": stock_order_event(),
    "FDEAL": futures_deal_event(),
    "SDEAL": stock_deal_event(),
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A connected broker."""
    made = Desk(tmp_path_factory.mktemp("desk"))
    made.connect()
    return made


def damaged(content: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """The content with one field replaced or taken out."""
    result = copy.deepcopy(content)
    *folders, name = place.split(".")
    part = result
    for folder in folders:
        part = part[folder]
    if value is MISSING:
        del part[name]
    else:
        part[name] = value
    return result


def feed(desk: Desk, state: str, content: Any) -> list[OrderEvent | FillEvent]:
    """Events that came of one callback; counted if and only if none came."""
    desk.listener.orders.clear()
    desk.listener.fills.clear()
    before = sum(desk.counts.values())
    desk.sessions[-1].callbacks["order"](sj.OrderState(state), content)
    published = [*desk.listener.orders, *desk.listener.fills]
    counted = sum(desk.counts.values()) - before
    assert len(published) + counted == 1
    return published


def places(content: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every field of an event."""
    for name, value in content.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from places(value, f"{prefix}{name}.")


HARMLESS = {
    # Nothing or zero says that there is none.
    ("status.exchange_ts", None), ("status.modified_price", None), ("order.price", None),
    ("seqno", None), ("ordno", None), ("order.seqno", None), ("order.ordno", None),
    ("seqno", ""), ("ordno", ""), ("order.seqno", ""), ("order.ordno", ""),
    ("operation.op_code", ""), ("operation.op_code", None),
    # A note of another program, and a price that is one.
    ("order.custom_field", None), ("order.custom_field", ""), ("custom_field", None),
    ("custom_field", ""), ("price", 1.5), ("order.price", 1.5), ("status.modified_price", 1.5),
    ("price", 2**31), ("order.price", 2**31), ("status.modified_price", 2**31), ("ts", 2**31),
    ("status.exchange_ts", 2**31),
}  # fmt: skip


@pytest.mark.parametrize("state", GOOD)
def test_whatever_a_used_field_holds_nothing_raises_and_nothing_wrong_comes_out(
    desk: Desk, state: str
) -> None:
    (good,) = feed(desk, state, Event(GOOD[state]))
    assert good.tag in ("", "0a1B2c")
    for place in USED[state]:
        for value in BAD:
            content = Event(damaged(GOOD[state], place, value))
            published = feed(desk, state, content)
            is_plain = value is None or type(value) in (int, float, str)
            if is_plain and (place, value) in HARMLESS:
                assert len(published) == 1, (place, value)
            elif place.endswith("custom_field") and value is MISSING:
                assert published[0].tag == ""
            elif published:
                raise AssertionError(f"{state} {place} = {type(value).__name__}: published")


@pytest.mark.parametrize("state", GOOD)
def test_fields_that_are_not_used_change_nothing(desk: Desk, state: str) -> None:
    unused = [
        place
        for place in places(GOOD[state])
        if place not in USED[state]
        and not any(used.startswith(place + ".") for used in USED[state])
        and place != "operation.op_msg"
    ]
    assert len(unused) >= 3
    (good,) = feed(desk, state, Event(GOOD[state]))
    for place in unused:
        assert feed(desk, state, Event(damaged(GOOD[state], place, None))) == [good], place


def test_an_event_that_is_no_mapping_or_of_no_known_kind_is_counted(desk: Desk) -> None:
    for content in (None, 5, "x", [], object(), Hostile(), Event({})):
        assert feed(desk, "FDEAL", content) == []
    callback = desk.sessions[-1].callbacks["order"]
    for state in (None, "DEAL", 5, object(), Hostile()):
        before = sum(desk.counts.values())
        callback(state, Event(futures_deal_event()))
        assert sum(desk.counts.values()) == before + 1


def test_events_of_other_accounts_are_counted_and_not_published(desk: Desk) -> None:
    assert feed(desk, "FDEAL", Event(futures_deal_event(account_id="7654321"))) == []
    assert feed(desk, "SDEAL", Event(stock_deal_event(broker_id="F002000"))) == []


def test_random_double_damage_never_raises(desk: Desk) -> None:
    seeded = random.Random(7)
    for _ in range(CASES):
        state = seeded.choice(list(GOOD))
        content = GOOD[state]
        for _ in range(2):
            try:
                content = damaged(
                    content, seeded.choice(list(places(GOOD[state]))), seeded.choice(BAD[:-1])
                )
            except (KeyError, TypeError):
                continue
        feed(desk, state, Event(content))


def test_prices_are_exact_and_units_are_shares(desk: Desk, tmp_path: Path) -> None:
    (fill,) = feed(
        desk, "SDEAL", Event(stock_deal_event(price=267.5, order_lot="IntradayOdd", quantity=3))
    )
    assert isinstance(fill, FillEvent)
    assert (fill.symbol, fill.price, fill.qty) == ("2330.ODD", 26_750_000_000, 300_000_000)
    assert feed(desk, "FDEAL", Event(futures_deal_event(price=0.1 + 0.2))) == []
    (fill,) = feed(desk, "FDEAL", Event(futures_deal_event(price=0.3)))
    assert fill.price == 30_000_000
