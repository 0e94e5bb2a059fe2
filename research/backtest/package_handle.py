"""A native run of the hftbacktest package, handed to the simulation by address.

Why: the package's own compiled exchange matches our orders, and a session runs in it without the
interpreter; its jitclass interface would cost seconds of compilation in every process.

Invariants:
1. Version and struct layout are checked before anything is built: this interface is not
   documented by the package.
2. The feed stays in memory, 64-byte aligned, until the run is over.
3. A native run is taken over once; whoever holds it closes it.

It runs nothing: `rust_core/src/package_venue.rs` does. Operator's page: `docs/backtest.md`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from hft_platform import _core
from hft_platform.errors import PlatformError, ReasonCode

if TYPE_CHECKING:
    from hft_platform.market.instruments import Instrument

PACKAGE_VERSION = "2.4.4"
QUEUE_MODELS = ("risk_adverse", "power_prob3", "log_prob")
END_MARK_NS = 86_400_000_000_000
"""The end mark lies a day behind the last row: behind every request and response."""
ORDER_LATENCY_NS_MAX = 60_000_000_000
"""One minute, as in a latency profile."""
_END_MARK_KIND = 100
_EXCHANGE, _LOCAL = 1 << 31, 1 << 30
_POWER = 3.0
_ALIGNMENT = 64
_FUNCTIONS = {
    "elapse": "hashmapbt_elapse",
    "submit_buy_order": "hashmapbt_submit_buy_order",
    "submit_sell_order": "hashmapbt_submit_sell_order",
    "cancel": "hashmapbt_cancel",
    "orders": "hashmapbt_orders",
    "orders_get": "orders_get",
    "close": "hashmapbt_close",
}


@cache
def _package() -> tuple[ModuleType, ModuleType, dict[str, int]]:
    """The package's native module, its dtypes and the addresses of its functions.

    Both files are loaded without the package's `__init__`, which compiles for over a second.
    """
    try:
        version = metadata.version("hftbacktest")
    except metadata.PackageNotFoundError as error:
        raise PlatformError(
            ReasonCode.SCHEMA_MISMATCH,
            "the package hftbacktest is not installed",
            next_step="pip install -r requirements.txt",
        ) from error
    if version != PACKAGE_VERSION:
        raise PlatformError(
            ReasonCode.SCHEMA_MISMATCH,
            f"hftbacktest is {version}; its binary interface is known for {PACKAGE_VERSION} only",
            next_step="pip install -r requirements.txt",
        )
    folder = Path(str(metadata.distribution("hftbacktest").locate_file("hftbacktest")))
    libraries = sorted(folder.glob("_hftbacktest*.so")) + sorted(folder.glob("_hftbacktest*.pyd"))
    if not libraries:
        raise PlatformError(
            ReasonCode.SCHEMA_MISMATCH, "hftbacktest is installed without its native library"
        )
    native = _load("hftbacktest._hftbacktest", libraries[0])
    types = _load("hftbacktest.types", folder / "types.py")
    check_layout(types.order_dtype, types.event_dtype)
    library = ctypes.CDLL(str(libraries[0]))
    addresses = {}
    for name, symbol in _FUNCTIONS.items():
        address = ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value
        if not address:
            raise PlatformError(ReasonCode.SCHEMA_MISMATCH, f"hftbacktest has no function {symbol}")
        addresses[name] = address
    return native, types, addresses


def _load(name: str, path: Path) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PlatformError(ReasonCode.SCHEMA_MISMATCH, f"hftbacktest: {path.name} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_layout(order_dtype: np.dtype[Any], event_dtype: np.dtype[Any]) -> None:
    """Compare the package's structs with those that the native code reads and writes.

    Raises
    ------
    PlatformError
        SCHEMA_MISMATCH naming the first field that lies elsewhere.
    """
    fields, size = _core.package_order_layout()
    for name, offset in fields:
        known = order_dtype.fields
        found = known[name] if known is not None and name in known else None
        if found is None or found[1] != offset:
            raise PlatformError(
                ReasonCode.SCHEMA_MISMATCH,
                f"hftbacktest order field {name} is at {None if found is None else found[1]},"
                f" expected {offset}",
            )
    if order_dtype.itemsize != size:
        raise PlatformError(
            ReasonCode.SCHEMA_MISMATCH,
            f"hftbacktest order has {order_dtype.itemsize} bytes, expected {size}",
        )
    names = ("ev", "exch_ts", "local_ts", "px", "qty", "order_id", "ival", "fval")
    if event_dtype.names != names or event_dtype.itemsize != 8 * len(names):
        raise PlatformError(
            ReasonCode.SCHEMA_MISMATCH, f"hftbacktest event rows are {event_dtype}, not {names}"
        )


def _feed(rows: bytes, event_dtype: np.dtype[Any]) -> npt.NDArray[np.void]:
    """The rows and the end mark in one aligned array."""
    source = np.frombuffer(rows, dtype=event_dtype)
    if source.size == 0:
        raise PlatformError(
            ReasonCode.GATE_INSUFFICIENT_EVIDENCE, "the session has no market data to match against"
        )
    bytes_needed = (source.size + 1) * event_dtype.itemsize
    buffer = np.empty(bytes_needed + _ALIGNMENT, dtype=np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    feed = buffer[start : start + bytes_needed].view(event_dtype)
    feed[:-1] = source
    mark = feed[-1:]
    mark.view(np.uint8)[:] = 0
    # The mark is also the only row of the package's local side, which would otherwise run out of
    # data and free the feed under the exchange side.
    mark["ev"] = _END_MARK_KIND | _EXCHANGE | _LOCAL
    mark["exch_ts"] = mark["local_ts"] = int(source["exch_ts"][-1]) + END_MARK_NS
    return feed


class PackageHandle:
    """A native run of one session; a context manager.

    Parameters
    ----------
    rows : bytes
        Rows of `_core.convert_session`.
    instrument : Instrument
        The one traded: id, tick size and lot size.
    queue_model : str
        ``risk_adverse``, ``power_prob3`` or ``log_prob``.
    order_latency_ns : int
        Latency that the package's own model gives every request and every response; 0 when our
        simulation delays.

    Raises
    ------
    PlatformError
        SCHEMA_MISMATCH when the installed package is not the known one, SETTINGS_INVALID for an
        unknown queue model.
    """

    def __init__(
        self, rows: bytes, instrument: Instrument, *, queue_model: str, order_latency_ns: int = 0
    ) -> None:
        native, types, addresses = _package()
        if queue_model not in QUEUE_MODELS:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID,
                f"queue model was {queue_model!r}, allowed is one of {', '.join(QUEUE_MODELS)}",
            )
        # A negative latency is the package's way to say "rejected".
        if not 0 <= order_latency_ns <= ORDER_LATENCY_NS_MAX:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID,
                f"order latency was {order_latency_ns} ns, allowed is 0 to {ORDER_LATENCY_NS_MAX}",
            )
        self._feed = _feed(rows, types.event_dtype)
        asset = native.BacktestAsset()
        asset._add_data_ndarray(self._feed.ctypes.data, self._feed.size)
        asset.linear_asset(1.0)
        asset.constant_order_latency(order_latency_ns, order_latency_ns)
        if queue_model == "power_prob3":
            asset.power_prob_queue_model3(_POWER)
        elif queue_model == "log_prob":
            asset.log_prob_queue_model()
        else:
            asset.risk_adverse_queue_model()
        asset.no_partial_fill_exchange()
        asset.trading_value_fee_model(0.0, 0.0)
        asset.tick_size(instrument.tick_size / _core.SCALE)
        asset.lot_size(instrument.lot_size / _core.SCALE)
        self._handle: int | None = int(native.build_hashmap_backtest([asset]))
        self._close_address = addresses["close"]
        self._parts = addresses | {
            "handle": self._handle,
            "instrument_id": int(instrument.instrument_id),
            "tick_size": int(instrument.tick_size),
            "lot_size": int(instrument.lot_size),
            "first_time_ns": int(self._feed["exch_ts"][0]),
            "end_time_ns": int(self._feed["exch_ts"][-1]),
        }

    def take(self) -> dict[str, int]:
        """Hand the native run over; the taker closes it.

        Raises
        ------
        PlatformError
            INVARIANT_BROKEN when it was taken or closed before: one run a session.
        """
        if self._handle is None:
            raise PlatformError(
                ReasonCode.INVARIANT_BROKEN,
                "a package run serves one session once; this one was taken or closed before",
            )
        self._handle = None
        return self._parts

    def close(self) -> None:
        """Close the native run if nobody took it over.

        Raises
        ------
        PlatformError
            INVARIANT_BROKEN when the package reports an error.
        """
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        closer = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(self._close_address)
        result = closer(handle)
        if result != 0:
            raise PlatformError(
                ReasonCode.INVARIANT_BROKEN, f"hftbacktest close returned {result}; 0 was expected"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
