"""One replay of a session on NautilusTrader; runs in its own environment, not in the project's.

Takes an .npz with the session's books and prints, writes one JSON line. A snapshot is one
`OrderBookDepth10` (the platform's own form of one), a print one `TradeTick`; the strategy's
callback counts and reads both best prices. Building the objects is not timed; `engine.run()` is.
"""

import gc
import json
import statistics
import sys
import time
from decimal import Decimal

import nautilus_trader
import numpy as np
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.common.config import LoggingConfig
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.data import BookOrder, OrderBookDepth10, TradeTick
from nautilus_trader.model.enums import (
    AccountType,
    AggressorSide,
    AssetClass,
    BookType,
    OmsType,
    OrderSide,
)
from nautilus_trader.model.identifiers import InstrumentId, Symbol, TradeId, Venue
from nautilus_trader.model.instruments import FuturesContract
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.risk.config import RiskEngineConfig
from nautilus_trader.trading.strategy import Strategy

VENUE = Venue("XTAF")
INSTRUMENT_ID = InstrumentId(Symbol("TXF"), VENUE)
FLAG_LAST = 128
FLAG_SNAPSHOT = 32


class Reader(Strategy):
    """Counts what it is shown, and sends limit orders far from the market when told to."""

    def __init__(self, order_count: int, order_every: int) -> None:
        super().__init__()
        self.books = self.prints = self.denied = self.rejected = 0
        self.last = None
        self.order_left = order_count
        self.order_every = order_every
        self.submit_ns: list[int] = []

    def on_start(self) -> None:
        self.subscribe_order_book_depth(INSTRUMENT_ID, book_type=BookType.L2_MBP)
        self.subscribe_trade_ticks(INSTRUMENT_ID)

    def on_order_book_depth(self, depth: OrderBookDepth10) -> None:
        self.books += 1
        self.last = (depth.bids[0].price, depth.asks[0].price)
        if self.order_left and self.books % self.order_every == 0:
            self.order_left -= 1
            self._submit(depth)

    def on_trade_tick(self, tick: TradeTick) -> None:
        self.prints += 1

    def on_order_denied(self, event: object) -> None:
        self.denied += 1

    def on_order_rejected(self, event: object) -> None:
        self.rejected += 1

    def _submit(self, depth: OrderBookDepth10) -> None:
        price = Price(float(depth.bids[0].price) - 100.0, precision=0)
        order = self.order_factory.limit(INSTRUMENT_ID, OrderSide.BUY, Quantity.from_int(1), price)
        started = time.perf_counter_ns()
        self.submit_order(order)
        self.submit_ns.append(time.perf_counter_ns() - started)
        self.cancel_order(order)


def instrument() -> FuturesContract:
    """The contract: one point a tick, 200 a point."""
    return FuturesContract(
        instrument_id=INSTRUMENT_ID,
        raw_symbol=Symbol("TXF"),
        asset_class=AssetClass.INDEX,
        exchange="XTAF",
        currency=USD,
        price_precision=0,
        price_increment=Price.from_int(1),
        multiplier=Quantity.from_int(200),
        lot_size=Quantity.from_int(1),
        underlying="TAIEX",
        activation_ns=0,
        expiration_ns=4_000_000_000_000_000_000,
        ts_event=0,
        ts_init=0,
    )


def objects(session: dict[str, np.ndarray]) -> list[object]:
    """Books and prints as the platform's own objects, in the session's order."""
    rows: list[tuple[int, object]] = []
    sides = (
        (OrderSide.BUY, session["bid_price"], session["bid_qty"]),
        (OrderSide.SELL, session["ask_price"], session["ask_qty"]),
    )
    for place, (order, time_ns) in enumerate(
        zip(session["book_order"], session["book_time_ns"], strict=True)
    ):
        levels = [
            [
                BookOrder(side, Price(float(price), 0), Quantity(float(qty), 0), 0)
                for price, qty in zip(prices[place], qtys[place], strict=True)
                if qty > 0
            ]
            for side, prices, qtys in sides
        ]
        bids, asks = levels
        rows.append(
            (
                int(order),
                OrderBookDepth10(
                    INSTRUMENT_ID,
                    bids,
                    asks,
                    [1] * len(bids),
                    [1] * len(asks),
                    FLAG_LAST | FLAG_SNAPSHOT,
                    int(order),
                    int(time_ns),
                    int(time_ns),
                ),
            )
        )
    aggressor = {
        1: AggressorSide.BUYER,
        -1: AggressorSide.SELLER,
        0: AggressorSide.NO_AGGRESSOR,
    }
    rows.extend(
        (
            int(order),
            TradeTick(
                INSTRUMENT_ID,
                Price(float(price), 0),
                Quantity(float(qty), 0),
                aggressor[int(side)],
                TradeId(str(int(order))),
                int(time_ns),
                int(time_ns),
            ),
        )
        for order, time_ns, price, qty, side in zip(
            session["trade_order"],
            session["trade_time_ns"],
            session["trade_price"],
            session["trade_qty"],
            session["trade_side"],
            strict=True,
        )
    )
    rows.sort(key=lambda row: row[0])
    return [row[1] for row in rows]


def replay(data: list[object], order_count: int) -> dict[str, object]:
    """One run; times it and reads the final book."""
    engine = BacktestEngine(
        BacktestEngineConfig(
            logging=LoggingConfig(bypass_logging=True),
            risk_engine=RiskEngineConfig(
                max_order_submit_rate="1000000/00:00:01", max_order_modify_rate="1000000/00:00:01"
            ),
            run_analysis=False,
        )
    )
    engine.add_venue(
        venue=VENUE,
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        starting_balances=[Money(1_000_000_000, USD)],
        base_currency=USD,
        default_leverage=Decimal(1),
        book_type=BookType.L2_MBP,
    )
    contract = instrument()
    engine.add_instrument(contract)
    engine.add_data(data, sort=False)
    books = sum(isinstance(row, OrderBookDepth10) for row in data)
    reader = Reader(order_count, max(1, books // (order_count + 1)) if order_count else 1)
    engine.add_strategy(reader)
    gc.collect()
    started, cpu = time.perf_counter(), time.thread_time()
    engine.run()
    seconds, cpu_seconds = time.perf_counter() - started, time.thread_time() - cpu
    book = engine.cache.order_book(INSTRUMENT_ID)
    final = {
        "bid": [[float(level.price), float(level.size())] for level in book.bids()],
        "ask": [[float(level.price), float(level.size())] for level in book.asks()],
    }
    result = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "events": reader.books + reader.prints,
        "books": reader.books,
        "denied": reader.denied,
        "rejected": reader.rejected,
        "orders": len(reader.submit_ns),
        "submit_ns": sorted(reader.submit_ns),
        "final": final,
    }
    engine.dispose()
    return result


def main() -> None:
    """Replay as often as asked; the last line is the result."""
    path, runs, order_count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with np.load(path) as file:
        session = {name: file[name] for name in file.files}
    data = objects(session)
    idle = [replay(data, 0) for _ in range(runs)]
    ordering = replay(data, order_count)
    submit = ordering["submit_ns"]
    result = {
        "version": nautilus_trader.__version__,
        "events": idle[0]["events"],
        "events_per_s": [row["events"] / row["seconds"] for row in idle],
        "cpu_share": statistics.median(row["cpu_seconds"] / row["seconds"] for row in idle),
        "final": idle[-1]["final"],
        "denied": ordering["denied"],
        "rejected": ordering["rejected"],
        "orders": ordering["orders"],
        "submit_ns_p50": submit[len(submit) // 2],
        "submit_ns_p99": submit[len(submit) * 99 // 100],
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
