"""Typed face of the Rust core (`rust_core/src/python/`), written by hand.

`tests/rust_core/test_stub.py` holds names and signatures to the binary. A *tape* is records back to
back, in any mix of types; JSON arguments are text; bytes of rows are little-endian. Calls that
compute or touch the disk release the GIL.
"""

from collections.abc import Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Final, Self, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "BUILD_PROFILE",
    "ORDER_FACT_FIELDS",
    "PACKAGE_OUTCOME_FIELDS",
    "SCALE",
    "SCHEMA_HASH",
    "SCHEMA_TEXT",
    "SCHEMA_VERSION",
    "SOURCE_HASH",
    "Bus",
    "BusOverflowError",
    "BusReader",
    "ConfigError",
    "Engine",
    "ExpressionError",
    "GeneratorError",
    "KernelHandle",
    "LiveSession",
    "Normaliser",
    "OrderRequest",
    "PaperBroker",
    "PaperSession",
    "SegmentFollower",
    "TapeError",
    "TickLadder",
    "WalError",
    "WalWriter",
    "avellaneda_stoikov_quotes",
    "check_expression",
    "conversion_counts",
    "convert_session",
    "evaluate",
    "evaluate_expression",
    "evaluate_expressions",
    "evaluate_features",
    "explain_decisions",
    "expression_excerpt",
    "expression_language",
    "feature_columns",
    "feature_registry",
    "generate_hidden_state",
    "generate_session",
    "glft_distances",
    "index_tape",
    "kernel_calls",
    "manifest_append_archived",
    "manifest_append_deleted",
    "math_addresses",
    "merge_logs",
    "merge_tapes",
    "order_tag",
    "package_order_layout",
    "read_log",
    "read_manifest",
    "read_segment",
    "read_watermark",
    "reason_codes",
    "record_layouts",
    "recover_log",
    "replay",
    "run_backtest",
    "run_package",
    "run_script",
    "salvage_log",
    "sample_latency",
    "session_extent",
    "session_lives",
    "signal_terms",
    "split_tape",
    "trade_cost",
    "verify_log",
    "verify_segment",
]

SCHEMA_VERSION: Final[int]
"""Version of the record layouts."""
SCHEMA_HASH: Final[str]
"""SHA-256 of `SCHEMA_TEXT` in hex; every log segment carries it."""
SCHEMA_TEXT: Final[str]
"""Every record type and field with offset and numpy format, as text."""
SCALE: Final[int]
"""Units per 1.0 of price, quantity and money: 100,000,000."""
SOURCE_HASH: Final[str]
"""SHA-256 over the core's sources, a part of the code hash in verdicts and configs."""
BUILD_PROFILE: Final[str]
"""``release`` or ``debug``."""
ORDER_FACT_FIELDS: Final[list[tuple[str, str]]]
"""Fields of one row of ``order_facts``: ``[(name, numpy format)]``."""
PACKAGE_OUTCOME_FIELDS: Final[list[tuple[str, str]]]
"""Fields of one row of `run_package`: ``[(name, numpy format)]``."""

class ConfigError(Exception):
    """An engine config or a cost model is wrong; ``args == (code, message)``."""

class TapeError(Exception):
    """Bytes are no tape, or an input is missing; ``args == (code, message)``."""

class ExpressionError(Exception):
    """An expression is wrong; ``args == (code, message, position, suggestion)``."""

class WalError(Exception):
    """A log was refused or could not be written; ``args == (code, message)``."""

class GeneratorError(Exception):
    """A market cannot be generated; ``args == (code, message)``."""

# Records and tapes.

def record_layouts() -> dict[str, dict[str, Any]]:
    """Layout of every record type.

    Returns
    -------
    dict
        By name: ``code``, ``bytes``, ``fields`` as ``[(name, numpy format, offset)]``.
    """

def reason_codes() -> list[tuple[int, str, str, str, str]]:
    """Every reason code.

    Returns
    -------
    list of tuple
        ``(code, name, meaning, seen when, operator does)``, ascending by code in each family.
    """

def split_tape(tape: bytes) -> dict[str, bytes]:
    """Part a tape by record type; order is kept within a type.

    Parameters
    ----------
    tape : bytes
        Records back to back.

    Returns
    -------
    dict of str to bytes
        Every type name, also of types that do not occur.

    Raises
    ------
    ValueError
        When the bytes are no tape.
    """

def index_tape(tape: bytes) -> dict[str, tuple[bytes, bytes]]:
    """Part a tape by record type and say where each record stood.

    Parameters
    ----------
    tape : bytes
        Records back to back.

    Returns
    -------
    dict of str to (bytes, bytes)
        Records, and their places in the tape as ``u32``, counted in records.
    """

def merge_tapes(parts: list[bytes]) -> bytes:
    """Merge tapes by ``(receive_time_ns, source_seq)``; at equal keys the earlier part is first.

    Parameters
    ----------
    parts : list of bytes
        Tapes.

    Returns
    -------
    bytes
        One tape.
    """

def merge_logs(market: bytes, orders: bytes) -> tuple[bytes, bytes]:
    """Put a session's two logs together.

    Parameters
    ----------
    market, orders : bytes
        Tapes of the two logs.

    Returns
    -------
    (bytes, bytes)
        All inputs in the order of ``input_seq``, and all decisions in the order they were made.
    """

def session_extent(market: bytes, orders: bytes) -> dict[str, Any]:
    """Find how far a session can be decided again when one of its logs lost its tail.

    Parameters
    ----------
    market, orders : bytes
        Tapes of the two recovered logs.

    Returns
    -------
    dict
        ``ends_at``: highest input up to which none is missing. ``lost_tail``: ``market``,
        ``orders``, ``shed`` (records were left out and no SHED record names them) or None.
        ``market_last_seq`` and ``orders_last_seq``: ``input_seq`` of each log's
        last record, 0 without one. ``inputs``, ``decisions``: tapes up to there;
        ``inputs_past``, ``decisions_past``: what lies behind.

    Raises
    ------
    WalError
        LOG_SEQUENCE_GAP when what is missing is not the tail of one log.
    ValueError
        When a tape cannot be read.
    """

def session_lives(market: bytes, orders: bytes) -> list[dict[str, Any]]:
    """Find what every process of a live session left, and how far it can be decided again.

    Parameters
    ----------
    market, orders : bytes
        Tapes of the two logs.

    Returns
    -------
    list of dict
        As `session_extent`, one a process, with ``epoch``, ``first_seq`` and ``order_log``, the
        part of the order log that its engine recovered from. Empty without Epoch records.

    Raises
    ------
    WalError
        LOG_SEQUENCE_GAP when what is missing in a life is not the tail of one log.
    ValueError
        When a tape cannot be read.
    """

# Engine.

@final
class Engine:
    """The state machine: records in, decisions out.

    Parameters
    ----------
    config_json : str
        Engine config, as ``build_engine_config`` makes it.
    kernels : sequence of KernelHandle, optional
        Kernels that the config names, as `hft_platform.kernels.kernels_of` makes them.

    Raises
    ------
    ConfigError
        When the config does not fit its schema.
    """

    def __new__(cls, config_json: str, kernels: Sequence[KernelHandle] = ...) -> Self: ...
    def on_tape(self, tape: bytes) -> bytes:
        """Decide on records; those without a sequence get one from their receive time.

        Parameters
        ----------
        tape : bytes
            Input records.

        Returns
        -------
        bytes
            Tape of decisions.
        """

    def book(self, instrument_id: int) -> dict[str, list[tuple[int, int]]]:
        """Levels in use of an instrument's book.

        Parameters
        ----------
        instrument_id : int
            As in the engine config.

        Returns
        -------
        dict
            ``bid`` and ``ask``: (price, quantity) of each level, scaled, best first.

        Raises
        ------
        ConfigError
            UNKNOWN_INSTRUMENT if the engine has no such instrument.
        """

    def recover(self, order_log: bytes) -> dict[str, Any]:
        """Take back what the order log of the same session says, before any record.

        Decided intents, order ids, fills, positions and halts are as they were; an order without
        an end is unknown, counts in full, and nothing opens until it is resolved and resumed.
        Records without a sequence go on behind the log's last.

        Parameters
        ----------
        order_log : bytes
            Tape of the order log; market records in it only move the sequence.

        Returns
        -------
        dict
            ``decisions``, ``broker_events``, ``unknown_orders``, ``odd_records``, ``last_seq``,
            ``halted_by`` (0: not halted).

        Raises
        ------
        TapeError
            If the log is no tape, or the engine has seen records.
        """

    def counters(self) -> dict[str, Any]:
        """What was counted, and the result of every alpha.

        Returns
        -------
        dict
            ``records``, ``refusals``, ``dropped``, ``broker_events`` and ``changes`` (of guard and
            policy) by code, ``decisions``,
            ``approved``, ``fills``, ``nan_signals``, ``signal_faults`` (calls of kernels without a
            value, by code), ``open_orders``, ``halted_by`` (0: not),
            ``storm`` (state of guard and policy with cause, times and every input), and a row for
            each alpha under ``alphas``; sums over all alphas under ``account``.
        """

def replay(
    engine_config_json: str,
    inputs_tape: bytes,
    kernels: Sequence[KernelHandle] = ...,
    *,
    order_log: bytes | None = ...,
) -> bytes:
    """Decide a sequenced input tape again.

    Parameters
    ----------
    engine_config_json : str
        Engine config of the session.
    inputs_tape : bytes
        Every input once, in the order of ``input_seq``.
    kernels : sequence of KernelHandle, optional
        Kernels that the config names.
    order_log : bytes, optional
        Order log of the processes before, from which the engine recovers first.

    Returns
    -------
    bytes
        Tape of decisions.

    Raises
    ------
    TapeError
        When an input is missing.
    """

def evaluate(
    tape: bytes,
    engine_config_json: str,
    alpha_index: int = 0,
    kernels: Sequence[KernelHandle] = ...,
) -> bytes:
    """Signal of an alpha at every good book of its instrument.

    Parameters
    ----------
    tape : bytes
        Market records of one session.
    engine_config_json : str
        Engine config.
    alpha_index : int, optional
        Which alpha of it.
    kernels : sequence of KernelHandle, optional
        Kernels that the config names.

    Returns
    -------
    bytes
        Rows ``(receive_time_ns i64, mid i64, signal f64)``.
    """

def evaluate_features(
    tape: bytes,
    engine_config_json: str,
    alpha_index: int = 0,
    kernels: Sequence[KernelHandle] = ...,
) -> tuple[list[str], bytes, bytes]:
    """Every feature at every good book of an alpha's instrument.

    Parameters
    ----------
    tape : bytes
        Market records of one session.
    engine_config_json : str
        Engine config.
    alpha_index : int, optional
        Which alpha of it.
    kernels : sequence of KernelHandle, optional
        Kernels that the config names.

    Returns
    -------
    (list of str, bytes, bytes)
        Names of the columns, values as ``f64`` row by row, receive times as ``i64``.
    """

def kernel_calls(
    tape: bytes,
    engine_config_json: str,
    alpha_index: int = 0,
    kernels: Sequence[KernelHandle] = ...,
) -> tuple[bytes, bytes, bytes, bytes]:
    """Every call of an alpha's kernel on a tape, so that a research loop can make the same calls.

    Parameters
    ----------
    tape : bytes
        Market records of one session.
    engine_config_json : str
        Engine config.
    alpha_index : int, optional
        Which alpha of it.
    kernels : sequence of KernelHandle, optional
        Kernels that the config names.

    Returns
    -------
    (bytes, bytes, bytes, bytes)
        Features as ``f64`` row by row in the kernel's order, time of each call as ``i64``, 1 where
        the state started over as ``u8``, 1 where the value is a row of `evaluate` as ``u8``.
    """

@final
class KernelHandle:
    """A compiled kernel as engines take it; `hft_platform.kernels` makes it, nobody else should.

    Parameters
    ----------
    kernel_id, sha256 : str
        As the config names it.
    address : int
        Entry of code that was inspected and stays for the rest of the process.
    features, parameters : list of str
        What it was compiled to read, in its order.
    state_count : int
        Numbers of state it was compiled to keep.
    """

    def __new__(
        cls,
        kernel_id: str,
        sha256: str,
        address: int,
        *,
        features: list[str],
        parameters: list[str],
        state_count: int,
    ) -> Self: ...
    @property
    def kernel_id(self) -> str:
        """Name in the config."""

    @property
    def sha256(self) -> str:
        """Hash of text, sizes, compiler and CPU target."""

def math_addresses() -> dict[str, tuple[int, int]]:
    """Functions that a kernel may call.

    Returns
    -------
    dict of str to (int, int)
        Number of float arguments and address in this process, by name.
    """

def check_expression(expr: str, parameter_names: list[str]) -> dict[str, Any]:
    """Compile an expression and say what it reads and needs.

    Parameters
    ----------
    expr : str
        Text over features and parameters.
    parameter_names : list of str
        Names that are parameters.

    Returns
    -------
    dict
        ``features``, ``canonical``, ``sha256``, ``unit``; ``memory_bytes``, ``operations`` (a
        record), ``nodes``; ``warm_up_ns`` and ``warm_up_events`` until the first value,
        ``window_ns_max`` and ``window_events_max``, the longest single windows.

    Raises
    ------
    ExpressionError
        With position and, for a misspelled name, a suggestion.
    """

def expression_excerpt(expr: str, position: int) -> str:
    """The line of an expression around a byte position, and below it a caret.

    Parameters
    ----------
    expr : str
        The text that was refused.
    position : int
        Of an `ExpressionError`.

    Returns
    -------
    str
        Two lines.
    """

def expression_language() -> list[list[str]]:
    """Signs and functions of the alpha language.

    Returns
    -------
    list of [str, str, str, str, str]
        Kind (``sign``, ``plain``, ``window``, ``both``), name, form, meaning, unit.
    """

def evaluate_expression(
    expr: str,
    parameters: dict[str, float],
    features: npt.NDArray[np.float64],
    times_ns: npt.NDArray[np.int64],
    starts: npt.NDArray[np.uint8],
    out: npt.NDArray[np.float64],
) -> None:
    """Values of an expression at every row of a feature matrix, bit-equal to the engine's.

    Nothing is copied and the GIL is released: no array may be changed meanwhile.

    Parameters
    ----------
    expr : str
        Text over features and parameters.
    parameters : dict of str to float
        Values of its parameters.
    features : ndarray of float64, shape (n, number of features)
        Contiguous; feature by feature (Fortran order) is read faster than row by row.
    times_ns : ndarray of int64, shape (n,)
        Engine time of each row; it goes back at a start only.
    starts : ndarray of uint8, shape (n,)
        Not 0 where the market started over before the row.
    out : ndarray of float64, shape (n,)
        Written; apart from the other arrays.

    Raises
    ------
    ExpressionError
        When the text does not compile.
    TapeError
        When arrays do not fit together.
    """

def evaluate_expressions(
    expressions: list[tuple[str, dict[str, float]]],
    features: npt.NDArray[np.float64],
    times_ns: npt.NDArray[np.int64],
    starts: npt.NDArray[np.uint8],
    out: npt.NDArray[np.float64],
) -> None:
    """Values of many expressions; 32 at a time share a pass over the table and common parts.

    Parameters
    ----------
    expressions : list of (str, dict)
        Text, and values of its parameters.
    features, times_ns, starts : ndarray
        As for `evaluate_expression`, which gives the same bits one by one.
    out : ndarray of float64, shape (number of expressions, n)
        Written, in C order.

    Raises
    ------
    ExpressionError
        When a text does not compile.
    TapeError
        When arrays do not fit together.
    """

def feature_columns(tape: bytes, engine_config_json: str, alpha_index: int = 0) -> dict[str, Any]:
    """Features at every record at which an alpha's signal is computed.

    Parameters
    ----------
    tape : bytes
        Market records of one session.
    engine_config_json : str
        Engine config.
    alpha_index : int, optional
        Which alpha of it.

    Returns
    -------
    dict
        ``names``; as bytes ``features`` (``f64`` row by row), ``times_ns``, ``receive_time_ns``,
        ``mid`` (``i64``), ``starts`` and ``is_good_book`` (``u8``). `evaluate_expression` over them
        gives the engine's signal at every row, and at the good books what `evaluate` gives.
    """

def signal_terms(
    tape: bytes, engine_config_json: str, alpha_index: int, input_seq: int
) -> dict[str, Any] | None:
    """What an alpha's signal was made of at its last market record up to an input.

    Parameters
    ----------
    tape : bytes
        Sequenced inputs.
    engine_config_json : str
        Engine config.
    alpha_index : int
        Which alpha of it.
    input_seq : int
        Nothing behind this input is read.

    Returns
    -------
    dict or None
        ``input_seq`` of the market record, ``features`` (name to value, those it reads),
        ``terms`` (list of canonical text and value), ``value``; None before the first record.
    """

def explain_decisions(
    inputs: bytes,
    engine_config_json: str,
    input_seqs: list[int],
    kernels: Sequence[KernelHandle] = ...,
    *,
    order_log: bytes | None = ...,
) -> list[dict[str, Any]]:
    """Tell what every intent of some inputs met on its way, from a replay.

    Parameters
    ----------
    inputs : bytes
        Sequenced inputs, every one once; those behind the last one asked for are not read.
    engine_config_json : str
        Engine config.
    input_seqs : list of int
        Inputs to tell about.
    kernels : list of KernelHandle
        Kernels that the config names.
    order_log : bytes, optional
        Order log of the processes before, from which the engine recovers first.

    Returns
    -------
    list of dict
        An intent a row, in the order in which the engine took them: ``input_seq``,
        ``alpha_index``, ``action``, ``intent_id``, ``order_id``, ``intent_reason``, ``side``,
        ``price``, ``qty``, ``is_reducing``; ``code``, ``observed`` and ``limit`` of its refusal
        (zeros without one); ``strategy`` (mode, causes, position, own orders, what its template
        wanted); ``checks`` in order of precedence, each with ``name``, ``applies``, ``codes``,
        ``limit_key``, ``asks``, ``result`` (``passed``, ``not_for_this``, ``refused``),
        ``numbers`` (value and limit, None for a yes or no), ``code``, ``observed``, ``limit``;
        ``storm`` as in `Engine.counters`; ``decision``, the bytes written about it or None.

    Raises
    ------
    ConfigError
        When the config is wrong or a kernel is missing.
    TapeError
        When the inputs are damaged or one is missing.
    """

def feature_registry() -> list[dict[str, Any]]:
    """Every feature that an expression may name.

    Returns
    -------
    list of dict
        ``id``, ``name``, ``unit``, ``formula``, ``warm_up_ns``, ``source``, ``reset``.
    """

@final
class TickLadder:
    """The prices that orders may have: a step that may grow with the price.

    Parameters
    ----------
    bands : list of (int, int)
        First price and step of each band, scaled, the first from 0, rising. A band starts on a
        multiple of its own step and of the one before.

    Raises
    ------
    ConfigError
        CONFIG_MALFORMED naming the band and what is allowed.
    """

    def __new__(cls, bands: list[tuple[int, int]]) -> TickLadder: ...
    @property
    def bands(self) -> list[tuple[int, int]]:
        """First price and step of each band."""

    @property
    def finest(self) -> int:
        """The smallest step."""

    def tick_at(self, price: int) -> int:
        """Step of the band that holds a price."""

    def is_on_grid(self, price: int) -> bool:
        """Whether an order may have this price."""

    def floor(self, price: int) -> int | None:
        """The highest price of the ladder at or below, None when there is none above 0."""

    def ceil(self, price: int) -> int | None:
        """The lowest price of the ladder at or above."""

    def step(self, price: int, direction: int) -> int | None:
        """The next price of the ladder upward (+1) or downward (-1)."""

    def daily_limits(self, reference: int, bps: int) -> tuple[int, int] | None:
        """Limit-down and limit-up around a reference price, rounded inward to the ladder."""

    def __eq__(self, other: object, /) -> bool: ...

def trade_cost(
    costs_json: str, price: int, qty: int, multiplier: int, side: int, is_maker: bool = False
) -> int:
    """What one trade costs, scaled money.

    Parameters
    ----------
    costs_json : str
        Cost model (docs/costs.md).
    price, qty, multiplier : int
        Scaled, above 0.
    side : int
        +1 buy, -1 sell.
    is_maker : bool, optional
        True for a passive fill.

    Returns
    -------
    int
        Negative for a rebate.

    Raises
    ------
    ConfigError
        When the model is wrong, or the cost does not fit 64 bits.
    """

def avellaneda_stoikov_quotes(
    mid: float, inventory: float, *, gamma: float, sigma: float, k: float, time_left: float
) -> tuple[float, float]:
    """Bid and ask that an Avellaneda-Stoikov maker wants, before rounding.

    Parameters
    ----------
    mid, inventory : float
        Price, and units held; negative is short.
    gamma, sigma, k : float
        Risk aversion, volatility and decay of the rate of fills, above 0, in matching units.
    time_left : float
        Until the end of the horizon.

    Returns
    -------
    tuple of float
        Bid and ask.

    Raises
    ------
    ValueError
        When a number that has to be above 0 is not.

    Notes
    -----
    Avellaneda, Stoikov (2008), Quantitative Finance 8(3).
    """

def glft_distances(
    inventory: float, *, gamma: float, sigma: float, k: float, fills_per_s: float
) -> tuple[float, float]:
    """Distances of bid and ask from the mid that a GLFT maker wants, before rounding.

    Parameters
    ----------
    inventory : float
        Units held; negative is short.
    gamma, sigma, k, fills_per_s : float
        Risk aversion, volatility, decay and level of the rate of fills, above 0, in matching units.

    Returns
    -------
    tuple of float
        How far the bid is below and the ask above the mid.

    Raises
    ------
    ValueError
        When a number that has to be above 0 is not.

    Notes
    -----
    Guéant, Lehalle, Fernandez-Tapia (2013), Mathematics and Financial Economics 7(4): the limit
    far from the end, in closed form.
    """

# Bus.

class BusOverflowError(Exception):
    """A reader was lapped: `(code, message, lost, from_seq, to_seq)`."""

@final
class Bus:
    """A bounded ring of records: one publisher, several readers, none of which slows it.

    Parameters
    ----------
    slot_count : int
        A power of two from 2 to 1,048,576; a slot takes 256 bytes.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID for another number.
    """

    def __new__(cls, slot_count: int) -> Self: ...
    def reader(self) -> BusReader:
        """Make a reader of everything that is published from now on.

        Returns
        -------
        BusReader

        Raises
        ------
        PlatformError
            CAPACITY_REACHED when the bus has its most readers.
        """

    def publish(self, tape: bytes) -> int:
        """Publish every record of a tape, where no session publishes.

        Parameters
        ----------
        tape : bytes
            Records of any types.

        Returns
        -------
        int
            Bus sequence of the last one.
        """

    def close(self) -> None:
        """End the bus where no session publishes; readers find its end."""

    def head_seq(self) -> int:
        """Bus sequence of the last record published, 0 before the first."""

    def slot_count(self) -> int:
        """Slots it has."""

    def reader_lags(self) -> list[int]:
        """How many records each reader is behind."""

@final
class BusReader:
    """A reader with a cursor of its own; as a context manager it leaves on leaving."""

    def read(self, max_records: int) -> bytes:
        """Read what is new.

        Parameters
        ----------
        max_records : int
            Most records of this batch.

        Returns
        -------
        bytes
            A tape; empty when there is nothing new.

        Raises
        ------
        BusOverflowError
            When the next records are gone; the next call goes on behind them.
        """

    def wait(self, timeout_s: float) -> str:
        """Wait for something to read, without the GIL and without keeping a core busy.

        Parameters
        ----------
        timeout_s : float
            Longest wait.

        Returns
        -------
        str
            ``ready``, ``timed_out``, or ``closed`` when all is read and nobody publishes.
        """

    def lag(self) -> int:
        """Records published and neither read nor told lost."""

    def read_seq(self) -> int:
        """Bus sequence of the last record read or told lost."""

    def close(self) -> None:
        """Leave; the place is free for another reader."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: object) -> None: ...

# Simulation.

def run_backtest(
    tape: bytes,
    engine_config_json: str,
    latency_json: str,
    venue_json: str,
    handle: object | None = None,
    kernels: Sequence[KernelHandle] = ...,
) -> dict[str, Any]:
    """Run one session of a tape through the engine and an exchange.

    Parameters
    ----------
    tape : bytes
        Market records of one session in receive order.
    engine_config_json, latency_json, venue_json : str
        Engine config, latency profile, venue options.
    handle : PackageHandle, optional
        A run of the hftbacktest package; without it the paper exchange matches.
    kernels : sequence of KernelHandle, optional
        Kernels that the config names.

    Returns
    -------
    dict
        ``inputs``, ``broker``, ``decisions`` (tapes), ``order_facts`` (rows of
        `ORDER_FACT_FIELDS`), ``counters``.

    Raises
    ------
    PlatformError
        When the tape, a JSON or the exchange is refused.
    """

def run_script(
    tape: bytes,
    script: bytes,
    instruments: list[tuple[int, int, int]],
    latency_json: str,
    venue_json: str,
    handle: object | None = None,
) -> dict[str, Any]:
    """Run given decisions instead of an engine, for tests of exchanges.

    Parameters
    ----------
    tape : bytes
        Market records of one session.
    script : bytes
        Tape of decisions, each made at its ``sequence_time_ns``.
    instruments : list of (int, int, int)
        Instrument id, tick size, lot size.
    latency_json, venue_json : str
        Latency profile, venue options.
    handle : PackageHandle, optional
        As for `run_backtest`.

    Returns
    -------
    dict
        As `run_backtest`.
    """

def run_package(decisions: bytes, handle: object) -> bytes:
    """Drive the hftbacktest package by decisions, under its own latency model and scheduler.

    Parameters
    ----------
    decisions : bytes
        Tape of decisions in time order; approved ones are handed over at their
        ``sequence_time_ns``.
    handle : PackageHandle
        A run of the package, with its latency.

    Returns
    -------
    bytes
        Rows of `PACKAGE_OUTCOME_FIELDS`: what became of every order, in order id order.

    Raises
    ------
    PlatformError
        When the tape is none of decisions, or the package refuses a call.
    """

def convert_session(tape: bytes, instrument_id: int, tick_size: int, lot_size: int) -> bytes:
    """Rows of the hftbacktest package for one instrument of a market tape.

    Parameters
    ----------
    tape : bytes
        Market records of one session.
    instrument_id, tick_size, lot_size : int
        Which instrument, and its scaled grids.

    Returns
    -------
    bytes
        64 bytes a row, by the published-set diff (docs/backtest.md).
    """

def conversion_counts(
    tape: bytes, instrument_id: int, tick_size: int, lot_size: int
) -> dict[str, int]:
    """What a conversion leaves out and has to decide, by name.

    Parameters
    ----------
    tape : bytes
        Market records of one session.
    instrument_id, tick_size, lot_size : int
        Which instrument, and its scaled grids.

    Returns
    -------
    dict of str to int
        Counts.
    """

def sample_latency(profile_json: str, order_id: int, kind: int) -> int:
    """Delay of one order under a latency profile.

    Parameters
    ----------
    profile_json : str
        Latency profile.
    order_id : int
        Draws are a function of the order, not of a random state.
    kind : int
        1 place, 2 cancel, 3 response, 4 activation (a part of place, 0 where it is not stated).

    Returns
    -------
    int
        Nanoseconds.
    """

def package_order_layout() -> tuple[list[tuple[str, int]], int]:
    """Layout of the hftbacktest package's order as the core reads it.

    Returns
    -------
    (list of (str, int), int)
        Fields with offsets, and the size.
    """

@final
class OrderRequest:
    """One request to the broker: decided, approved, and durable if the session asks for that."""

    @property
    def decision_seq(self) -> int:
        """The decision it follows from."""
    @property
    def intent_id(self) -> int:
        """The intent behind it."""
    @property
    def order_id(self) -> int:
        """The order to place or cancel."""
    @property
    def action(self) -> int:
        """1 place, 2 cancel."""
    @property
    def alpha_index(self) -> int:
        """Which alpha of the engine config."""
    @property
    def instrument_id(self) -> int:
        """Which instrument."""
    @property
    def side(self) -> int:
        """+1 buy, -1 sell."""
    @property
    def price(self) -> int:
        """Limit price, scaled."""
    @property
    def qty(self) -> int:
        """Quantity, scaled."""
    @property
    def time_in_force(self) -> int:
        """1 rest of day, 2 immediate or cancel, 3 fill or kill."""
    @property
    def tag(self) -> str:
        """The order's tag; of a cancel, that of the order to cancel."""
    @property
    def epoch(self) -> int:
        """Epoch of this process."""
    @property
    def decided_ns(self) -> int:
        """Engine time of the decision, ns UTC."""

    @property
    def ttl_ns(self) -> int:
        """Validity from there, ns."""

    @property
    def received_ns(self) -> int:
        """``receive_time_ns`` of what caused it, ns UTC."""

@final
class LiveSession:
    """A live session: records of any thread in, approved requests for one dispatcher out.

    A new folder gets both logs; one that another process left is recovered, and what was under way
    is unknown from then on.

    Parameters
    ----------
    engine_config_json : str
        Engine config.
    session_dir : path
        Folder of ``market/`` and ``orders/``.
    options_json : str
        ``wal_id`` and ``epoch``, which is above every epoch in the logs. If wanted ``durable``
        (``record`` or ``group``), ``segment_bytes``, ``group_commit_ms``, ``seal_after_s``,
        ``contracts`` (by instrument id), ``queue_capacity``, ``opened_ns``, ``process_id``; for
        drills ``drill_sync_delay``.
    kernels : sequence of KernelHandle, optional
        Kernels that the config names.

    Raises
    ------
    PlatformError
        A JSON that is refused; WAL_BUSY for an epoch that is not above all in the logs, or while
        another process writes them; the code of a log that cannot be opened.
    """

    def __new__(
        cls,
        engine_config_json: str,
        session_dir: str | PathLike[str],
        options_json: str,
        kernels: Sequence[KernelHandle] = ...,
    ) -> Self: ...
    def recovered(self) -> dict[str, Any]:
        """Tell what was found at opening.

        Returns
        -------
        dict
            ``decisions``, ``broker_events``, ``unknown_orders``, ``odd_records``, ``last_seq``,
            ``last_time_ns``, ``halted_by``, ``last_epoch``, ``is_new``.
        """

    def push(self, tape: bytes) -> int:
        """Take the records of a tape as inputs, in their order and with no other in between.

        Each gets the next ``input_seq`` and ``sequence_time_ns = max(previous + 1,
        receive_time_ns)``; a trading day of 0 becomes the session's. Any thread may call it.

        Parameters
        ----------
        tape : bytes
            Inputs of any type but Epoch and Shed.

        Returns
        -------
        int
            ``input_seq`` of the last.

        Raises
        ------
        PlatformError
            SCHEMA_MISMATCH for bytes that are no such tape, CAPACITY_REACHED for market records and
            intents while too many requests wait (nothing of the tape is taken then); the log's code
            after a failure; SESSION_NOT_OPEN after the end.
        """

    def next_request(self, timeout_ms: int) -> OrderRequest | None:
        """Wait for the next request and take it; in the order of the decisions.

        Parameters
        ----------
        timeout_ms : int
            Longest time to wait; 0 does not.

        Returns
        -------
        OrderRequest or None
            None when none came in time, and after the end.

        Raises
        ------
        PlatformError
            The log's code after a failure: nothing leaves any more.
        """

    def pending(self) -> int:
        """Count the requests that wait for the dispatcher."""

    def mark_call(self, decision_seq: int, entered_ns: int, returned_ns: int) -> None:
        """Count how long the way to the broker's call of a request took, and the call.

        Parameters
        ----------
        decision_seq : int
            Of the request.
        entered_ns, returned_ns : int
            Wall clock before and after the call, ns UTC.
        """

    def orders(self) -> list[dict[str, Any]]:
        """List the orders that the engine holds open, oldest first.

        Returns
        -------
        list of dict
            ``order_id``, ``intent_id``, ``alpha_index``, ``instrument_id``, ``side``, ``price``,
            ``qty``, ``filled_qty``, ``time_in_force``, ``state`` (``pending_new``, ``working``,
            ``pending_cancel`` or ``unknown``), ``decision_seq``, ``epoch``, ``tag``,
            ``decided_ns``.
        """

    def order(self, order_id: int) -> dict[str, Any] | None:
        """Look one order up, open or recently done.

        Parameters
        ----------
        order_id : int
            Which.

        Returns
        -------
        dict or None
            As in `orders`, with ``state`` also ``filled``, ``canceled``, ``rejected`` or
            ``expired``.
        """

    def adopted(self) -> dict[int, int]:
        """What an operator adopted as external, by instrument id, scaled."""

    def positions(self) -> list[dict[str, Any]]:
        """Tell position and result of every alpha, in config order.

        Returns
        -------
        list of dict
            As the ``alphas`` of `state`, with ``instrument_id``.
        """

    def state(self) -> dict[str, Any]:
        """Tell what was counted and where the session stands.

        Returns
        -------
        dict
            As `Engine.counters`, with ``last_seq``, ``last_time_ns``, ``inputs``, ``requests``,
            ``pending``, ``epoch``, ``market_bytes``, ``orders_bytes``, ``space_ahead``,
            ``halted_by`` (a log's failure before the engine's halt) and its ``message``.
        """

    def halted_by(self, alpha_index: int | None = None) -> int:
        """Tell why nothing may open.

        Parameters
        ----------
        alpha_index : int, optional
            Also what halted this alpha alone: its own halt, a loss limit, a fault of its permit.

        Returns
        -------
        int
            Reason code; 0 when nothing does.
        """

    def routes(self) -> bytes:
        """Read every Route record of the order log.

        Returns
        -------
        bytes
            A tape.
        """

    def order_decisions(self) -> bytes:
        """Read every approved order of the order log.

        Returns
        -------
        bytes
            A tape of Decision records.
        """

    def latency(self) -> dict[str, dict[str, int]]:
        """Tell how long every step took.

        Returns
        -------
        dict
            By step (``callback_to_sequenced``, ``log_append``, ``decide``, ``queue``, ``durable``,
            ``to_call``, ``call``): ``count``, ``p50_ns``, ``p99_ns``,
            ``p999_ns``, ``max_ns``.
        """

    def finish(self) -> dict[str, Any]:
        """End the session and seal both logs; nothing leaves any more.

        Returns
        -------
        dict
            ``halted_by``, ``message``, ``untaken`` requests, ``counters``, ``market_last_seq``,
            ``orders_last_seq``, and where it stood.
        """

    def close(self) -> None:
        """Let go of the session without sealing its logs; the next one recovers them."""

def order_tag(epoch: int, decision_seq: int) -> str:
    """Tag of the order that a decision of an epoch places.

    Parameters
    ----------
    epoch, decision_seq : int
        Both are in the order log before the order is sent.

    Returns
    -------
    str
        Six characters of ``0-9A-Za-z``.
    """

@final
class PaperBroker:
    """The paper exchange as a broker: requests come from outside, records go out.

    Parameters
    ----------
    latency_json : str
        Latency profile.
    options_json : str
        ``queue_model``, ``trading_day``, ``instruments`` (``instrument_id``, ``lot_size`` and
        ``ticks`` as ``[from, step]`` bands) and, if wanted, ``faults``.

    Raises
    ------
    PlatformError
        When a JSON is refused.
    """

    def __new__(cls, latency_json: str, options_json: str) -> Self: ...
    def feed(self, tape: bytes, *, more: bool = False) -> None:
        """Give the exchange its market, whole or in pieces.

        Parameters
        ----------
        tape : bytes
            Market records in receive order, behind those of the piece before.
        more : bool
            Another piece follows; the last one, without it, may be empty.

        Raises
        ------
        PlatformError
            When the tape is refused, or the market has its last piece.
        """

    def next(self, limit_ns: int | None = None, records_max: int = 1) -> bytes | None:
        """Let time pass until records have reached us.

        Parameters
        ----------
        limit_ns : int, optional
            Time up to which it may pass; a market that still comes in pieces needs one.
        records_max : int
            Most records to give at once.

        Returns
        -------
        bytes or None
            Market, broker and timer records; None when nothing reaches us.
        """

    def place(
        self,
        order_id: int,
        instrument_id: int,
        *,
        side: int,
        price: int,
        qty: int,
        time_in_force: int,
        now_ns: int | None = None,
    ) -> tuple[int, int]:
        """Send an order at the time of the last record, or at `now_ns` if that is later.

        Parameters
        ----------
        order_id : int
            Ours, 0 for one that is none of ours.
        instrument_id : int
            What is traded.
        side, price, qty : int
            +1 or -1, limit price and quantity at 1e-8.
        time_in_force : int
            1 rest of day, 2 immediate or cancel, 3 fill or kill.
        now_ns : int, optional
            The caller's clock.

        Returns
        -------
        (int, int)
            The exchange's number of the order, and 1 taken, 2 unanswered, 3 refused.
        """

    def cancel(self, id: int, *, now_ns: int | None = None) -> int:
        """Ask for a cancel; gives what `place` does, or 0 when there is no such order."""

    def orders(self) -> list[dict[str, Any]] | None:
        """Every order that the exchange or the broker knows of; None when the question fails."""

    def positions(self) -> dict[int, int] | None:
        """Net position an instrument; None when the question fails."""

    def truth(self) -> dict[int, int]:
        """Net position an instrument as the exchange knows it; this never fails."""

    @property
    def now_ns(self) -> int:
        """Simulated time; 0 before the first market record."""

    @property
    def is_done(self) -> bool:
        """True when nothing is left to happen."""

    def finish(self) -> dict[str, Any] | None:
        """End the exchange and give what it counted; None the second time."""

@final
class PaperSession:
    """A session on the paper exchange with two write-ahead logs: feed it, step it, finish it.

    Parameters
    ----------
    engine_config_json, latency_json, venue_json : str
        Engine config, latency profile, venue options.
    session_dir : path
        Folder in which ``market/`` and ``orders/`` are made.
    options_json : str
        ``wal_id``, and if wanted ``durable`` (``record`` or ``group``), ``segment_bytes``,
        ``group_commit_ms``, ``epoch``, ``seal_after_s``; for drills ``drill_sync_delay``.
    kernels : sequence of KernelHandle, optional
        Kernels that the config names.

    Raises
    ------
    PlatformError
        When a JSON is refused or the logs cannot be opened.
    """

    def __new__(
        cls,
        engine_config_json: str,
        latency_json: str,
        venue_json: str,
        session_dir: str | PathLike[str],
        options_json: str,
        kernels: Sequence[KernelHandle] = ...,
    ) -> Self: ...
    def publish_to(self, bus: Bus) -> None:
        """Publish every input and decision on a bus, after the logs took them.

        Parameters
        ----------
        bus : Bus
            With its publisher still to be had; the bus is closed when the session ends.

        Raises
        ------
        PlatformError
            When the bus has a publisher, or the session has its recording.
        """

    def feed(self, tape: bytes, *, more: bool = False) -> None:
        """Give the session its recording, whole or in pieces.

        Parameters
        ----------
        tape : bytes
            Market records in receive order, behind those of the piece before.
        more : bool
            Another piece follows; the last one, without it, may be empty.

        Raises
        ------
        PlatformError
            When the tape is refused, or the session has its last piece.
        """

    def run(self, until_ns: int | None, max_records: int) -> dict[str, Any]:
        """Step to a time or by a number of inputs, whichever comes first.

        Parameters
        ----------
        until_ns : int or None
            Time of the recording; None is its end. While more is fed it must be given, and says
            that nothing of a time up to it is still to come.
        max_records : int
            Most inputs of this step.

        Returns
        -------
        dict
            ``now_ns``, ``records_done``, ``records_total``, ``done``, ``halted_by`` and the
            simulation's counts.
        """

    def health(self, kind: int, value: int, argument: int = 0, instrument_id: int = 0) -> int:
        """Put what the runtime measured into the input sequence here; gives its `input_seq`.

        Parameters
        ----------
        kind : int
            `HealthKind` in rust_core/src/record.rs.
        value, argument : int
            In the unit of the kind.
        instrument_id : int
            Which instrument a position drift is of.
        """

    def command(
        self,
        kind: int,
        alpha_index: int,
        argument: int,
        reason: int,
        *,
        instrument_id: int = 0,
    ) -> int:
        """Put an operator's command into the input sequence here; gives its `input_seq`.

        Parameters
        ----------
        kind : int
            `CommandKind` in rust_core/src/record.rs.
        alpha_index : int
            Which alpha; 0xFFFFFFFF is all.
        argument : int
            As the kind needs it.
        reason : int
            Reason code.
        instrument_id : int
            Narrows a halt or reduce-only of all alphas to those that trade it; 0 is all of them.
        """

    def shed(self, up_to: str | None, level: int, reason: int) -> None:
        """Leave topics of the market out of its log from here on; reduce-only comes first.

        Parameters
        ----------
        up_to : str or None
            Last topic that is left out (``depth``, ``books``, ``trades``) with all before it; None
            ends it.
        level : int
            1 warning, 2 critical, 3 halt; stands in the SHED records.
        reason : int
            Reason code, of the SHED records and the reduce-only commands.

        Raises
        ------
        PlatformError
            SETTINGS_INVALID for an unknown topic, SHED_NOT_PERMITTED when an instrument could not
            be restricted, SESSION_NOT_OPEN after the end.
        """

    def logs(self) -> dict[str, Any]:
        """How the logs stand.

        Returns
        -------
        dict
            ``market_bytes`` and ``orders_bytes`` written, frames included; ``shed``, records left
            out by topic; ``shedding_count``, instruments of which something is left out now;
            ``space_ahead``, false when the disk had no room for a segment to come.
        """

    def intents(self, tape: bytes) -> None:
        """Put intents of a strategy outside the engine into the input sequence here, in order.

        Parameters
        ----------
        tape : bytes
            `Intent` records.

        Raises
        ------
        PlatformError
            SCHEMA_MISMATCH for another tape, SESSION_NOT_OPEN after the end.
        """

    def config_switch(
        self,
        alpha_index: int,
        *,
        stage: int,
        weight_ppm: int,
        promotion_seq: int,
        expires_ns: int,
        config_sha256: str,
    ) -> None:
        """Put a switch to another verified config into the input sequence here.

        Parameters
        ----------
        alpha_index : int
            Which alpha.
        stage : int
            1 shadow, 2 canary, 3 live.
        weight_ppm, promotion_seq, expires_ns : int
            Of the config.
        config_sha256 : str
            Its content hash.
        """

    def counters(self) -> dict[str, Any]:
        """What the engine has counted; see `Engine.counters`."""

    def finish(self) -> dict[str, Any]:
        """End the session and seal its logs.

        Returns
        -------
        dict
            ``halted_by`` and ``message``, ``counters``, ``order_facts``, ``decide_ns`` (count, p50,
            p99, p999, max), ``market_last_seq``, ``orders_last_seq``.
        """

# Write-ahead log.

@final
class WalWriter:
    """Writer of one log (docs/wal-format.md); as a context manager it seals on leaving.

    Parameters
    ----------
    log_dir : path
        Folder of the log; a log that is there is recovered first.
    wal_id : int
        Identity of the log.
    log_kind : str
        ``market`` or ``orders``.
    segment_bytes : int, optional
        Size at which a segment is sealed.
    group_commit_ms : int, optional
        Longest time until an append is durable; 0: the caller syncs.
    epoch : int, optional
        Of the writer; never falls.
    seal_after_ms : int or None, optional
        Age at which a segment is sealed; None: only size and trading day count.
    reserve : bool, optional
        Take the space of the next segment before one is used; opening fails without it.

    Raises
    ------
    WalError
        When the log is held by another writer, damaged, or of another schema.
    """

    def __new__(
        cls,
        log_dir: str | PathLike[str],
        wal_id: int,
        log_kind: str,
        segment_bytes: int = ...,
        group_commit_ms: int = 10,
        epoch: int = 1,
        seal_after_ms: int | None = None,
        reserve: bool = False,
    ) -> Self: ...
    def append(self, tape: bytes) -> int:
        """Append records.

        Parameters
        ----------
        tape : bytes
            Records of this log's types.

        Returns
        -------
        int
            Sequence of the last one; not durable yet.
        """

    def append_durable(self, tape: bytes) -> int:
        """Append records and return once they are durable.

        Parameters
        ----------
        tape : bytes
            Records of this log's types.

        Returns
        -------
        int
            Sequence of the last one.
        """

    def durable_seq(self) -> int:
        """Highest acknowledged sequence, 0 before the first."""

    def last_seq(self) -> int:
        """Sequence of the last record appended, 0 before the first."""

    def has_space_ahead(self) -> bool:
        """Whether the next segment has its space; if not, the disk is full one segment early."""

    def sync(self) -> int:
        """Make everything appended durable; returns the watermark."""

    def rotate(self) -> None:
        """Seal the segment and begin the next."""

    def seal(self) -> int:
        """Make everything durable and seal the last segment; returns the last sequence."""

    def close(self) -> int:
        """Sync and let go without sealing; the next open recovers."""

    def recovery(self) -> dict[str, Any]:
        """What opening the log found and did; see `recover_log`."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        _exception: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None: ...

@final
class SegmentFollower:
    """Reader of one segment that another process may still be writing (docs/recorder.md).

    Parameters
    ----------
    log_dir : path
        Folder of the log.
    segment_id : int
        Its number.

    Raises
    ------
    WalError
        When the file cannot be read, or its header is not whole.
    """

    def __new__(cls, log_dir: str | PathLike[str], segment_id: int) -> Self: ...
    def poll(self, records_max: int, durable_seq: int = 0) -> dict[str, Any]:
        """Read records that are durable and were not given before.

        Parameters
        ----------
        records_max : int
            At most so many.
        durable_seq : int, optional
            Known to be durable, whatever the log's watermark and later frames say.

        Returns
        -------
        dict
            ``first_seq``, ``record_count``, ``tape``, and ``durable_seq`` of the log.

        Raises
        ------
        WalError
            When bytes that are durable are damaged.
        """

    @property
    def wal_id(self) -> int:
        """Identity of the log."""
    @property
    def log_kind(self) -> str:
        """``market`` or ``orders``."""
    @property
    def first_seq(self) -> int:
        """Sequence of the segment's first record."""
    @property
    def next_seq(self) -> int:
        """Sequence that the next record given has."""

def read_segment(path: str | PathLike[str]) -> dict[str, Any]:
    """Read one segment, verified.

    Parameters
    ----------
    path : path
        ``.seg`` or ``.open`` file.

    Returns
    -------
    dict
        ``info``, ``tape``, ``torn`` (None for a segment that ends whole). The tape is in today's
        layouts; ``info`` says what the file was written in (``record_schema_version``,
        ``schema_hash``, ``is_current_schema``).

    Raises
    ------
    WalError
        When it is damaged.
    """

def read_log(log_dir: str | PathLike[str]) -> dict[str, Any]:
    """Read a whole log, verified.

    Parameters
    ----------
    log_dir : path
        Folder of the log.

    Returns
    -------
    dict
        ``segments`` (a list of infos), ``tape``, ``torn``.

    Raises
    ------
    WalError
        When a segment is damaged, missing, archived, or not the one that the manifest names.
    """

def salvage_log(log_dir: str | PathLike[str], target: str | PathLike[str]) -> dict[str, Any]:
    """Copy what is good in a damaged log into a new folder; the log itself is only read.

    Parameters
    ----------
    log_dir : path
        Folder of the damaged log.
    target : path
        Folder to make; must not exist.

    Returns
    -------
    dict
        ``log_dir``, ``wal_id``, ``log_kind``; ``parts``: the new logs, each without a hole;
        ``holes``: file, bytes, sequences and input sequences that are missing.

    Raises
    ------
    WalError
        No whole record or an existing target (515), another schema (604), a live writer (611),
        or the disk's refusal (605, 612).
    """

def recover_log(log_dir: str | PathLike[str]) -> dict[str, Any]:
    """Bring a log into its final form: all segments sealed.

    Parameters
    ----------
    log_dir : path
        Folder of the log.

    Returns
    -------
    dict
        ``action`` (``nothing``, ``sealed``, ``cut`` or ``removed``), ``code``, ``segment_count``,
        ``last_seq``, ``last_input_seq`` of the last record, ``manifest`` (``nothing``, ``whole``,
        ``cut`` or ``rebuilt``), and what was cut.

    Raises
    ------
    WalError
        When cutting would destroy acknowledged records; no byte is changed then.
    """

def verify_segment(path: str | PathLike[str]) -> dict[str, Any]:
    """Check one segment; damage is reported, not raised.

    Parameters
    ----------
    path : path
        ``.seg`` or ``.open`` file.

    Returns
    -------
    dict
        ``is_valid``, ``code``, ``message``, ``fault``, ``bad_offset``, ``valid_frames``,
        ``last_valid_seq``, ``following_frames``, ``info`` and more.
    """

def verify_log(log_dir: str | PathLike[str]) -> dict[str, Any]:
    """Hold every segment of a log against its footer, its neighbors and the manifest.

    Parameters
    ----------
    log_dir : path
        Folder of the log.

    Returns
    -------
    dict
        ``segment_count``, ``away_count`` (archived or deleted segments that are not in the folder)
        and ``has_manifest``.

    Raises
    ------
    WalError
        For the first segment that is damaged, missing, or not the one that the manifest names.
    """

def read_manifest(log_dir: str | PathLike[str]) -> dict[str, Any] | None:
    """Read what the log noted of its segments.

    Parameters
    ----------
    log_dir : path
        Folder of the log.

    Returns
    -------
    dict or None
        ``wal_id``, ``log_kind``, ``torn_bytes`` and ``entries``, oldest first, each with ``kind``,
        ``segment_id``, ``epoch``, ``record_count``, ``first_seq``, ``last_seq``, ``data_bytes``,
        ``sha256`` and ``place``; None for a log that has no manifest yet.

    Raises
    ------
    WalError
        When it is damaged or cannot be read.
    """

def manifest_append_archived(
    log_dir: str | PathLike[str], segment_ids: list[int], place: str = "archive"
) -> None:
    """Note, durably, that sealed segments are about to leave the folder; then remove the files.

    Parameters
    ----------
    log_dir : path
        Folder of the log.
    segment_ids : list of int
        Segments of which a copy is in the archive.
    place : str, optional
        Where; an operator is told it when the log is read without them.

    Raises
    ------
    WalError
        A segment that is not sealed (SETTINGS_INVALID), or another process is adding its own
        entries (WAL_BUSY: try again).
    """

def manifest_append_deleted(log_dir: str | PathLike[str], segment_ids: list[int]) -> None:
    """Note, durably, that sealed segments are about to be deleted for good.

    Parameters
    ----------
    log_dir : path
        Folder of the log.
    segment_ids : list of int
        Sealed or archived segments.

    Raises
    ------
    WalError
        As `manifest_append_archived`.
    """

def read_watermark(log_dir: str | PathLike[str]) -> dict[str, Any] | None:
    """Where the writer of a log stands, without a lock; advisory, no recovery reads it.

    Parameters
    ----------
    log_dir : path
        Folder of the log.

    Returns
    -------
    dict or None
        ``wal_id``, ``log_kind``, ``epoch``, ``last_seq`` (handed to the disk), ``durable_seq``,
        ``segment_id``, ``phase`` (``open``, ``sealed``, ``closed`` or ``failed``),
        ``failure_code``, ``has_space_ahead`` and ``sync_time_ns`` (wall clock of the last sync);
        None without a watermark.

    Raises
    ------
    WalError
        When it is no watermark or cannot be read.
    """

# Generator.

def generate_session(
    params_json: str, session_index: int, opening_mid_twice: int | None = None
) -> bytes:
    """Generate one session of a market (docs/generator.md).

    Parameters
    ----------
    params_json : str
        Parameters, seed included.
    session_index : int
        Which session, from 0.
    opening_mid_twice : int, optional
        Close of the session before, best bid plus best ask in ticks; without it the earlier
        price paths are walked again, with the same result.

    Returns
    -------
    bytes
        Tape of books and trades.

    Raises
    ------
    GeneratorError
        When a parameter is out of its range.
    """

def generate_hidden_state(
    params_json: str, session_index: int, opening_mid_twice: int | None = None
) -> dict[str, bytes]:
    """What nobody in a generated market sees, a value for each book.

    Parameters
    ----------
    params_json : str
        Parameters, seed included.
    session_index : int
        Which session, from 0.
    opening_mid_twice : int, optional
        As for `generate_session`.

    Returns
    -------
    dict of str to bytes
        Columns ``exchange_time_ns`` i64, ``state`` i64 (-1, 0, +1), ``mid_twice_ticks`` i64,
        ``drift_ticks`` f64 (integral of the drift since the first book).

    Raises
    ------
    GeneratorError
        When a parameter is out of its range.
    """

# Broker quotes.

@final
class Normaliser:
    """Broker SDK quotes to records; see docs/normaliser.md.

    Parameters
    ----------
    config_json : str
        Made by `hft_platform.feed.shioaji_normaliser.normaliser_config`.
    sdk_version : str
        Version of the SDK that is installed.
    probes : list
        One object of every quote class, with every field filled. A class that is not exactly what
        the normaliser was written for is not admitted: its objects are dropped under
        ``QuoteSchemaMismatch``, and `schema_faults` says why.
    is_portable : bool, optional
        Read times through their attributes only, also where their layout in memory is known.

    Raises
    ------
    ConfigError
        When the config is wrong.
    """

    def __new__(
        cls,
        config_json: str,
        sdk_version: str,
        probes: list[Any],  # Any: objects of the SDK
        is_portable: bool = False,
    ) -> Self: ...
    @property
    def schema_faults(self) -> list[str]:
        """How the SDK differs from what is expected; empty when it does not."""

    @property
    def is_portable(self) -> bool:
        """Whether times are read through attributes: by request, or for want of a known layout."""

    def on_object(self, object: Any, receive_time_ns: int) -> bytes | None:  # Any: an SDK object
        """Records of one quote.

        Parameters
        ----------
        object : Any
            An object of a quote class; anything else is dropped and counted.
        receive_time_ns : int
            When the callback was entered, UTC ns.

        Returns
        -------
        bytes or None
            One record, or a print and its book; None when it was dropped, which `counters` tell.
            No exception comes out but `KeyboardInterrupt` and `SystemExit`.
        """

    def on_objects(self, objects: list[Any], receive_times_ns: bytes) -> bytes:
        """Records of many quotes as one tape, for tests and tools.

        Parameters
        ----------
        objects : list
            Quotes in the order they came.
        receive_times_ns : bytes
            A little-endian ``int64`` for each.

        Returns
        -------
        bytes
            A tape.

        Raises
        ------
        ValueError
            When there is not one time for each object.
        """

    def read_attributes(self, objects: list[Any]) -> int:
        """Read the attributes that the conversion reads and do nothing else: the benchmark's floor.

        Parameters
        ----------
        objects : list
            Quotes.

        Returns
        -------
        int
            How many could be read.
        """

    def counters(self) -> dict[str, Any]:
        """What was counted so far.

        Returns
        -------
        dict
            ``fed`` = ``published`` + the sum of ``dropped`` (by reason code); ``books``,
            ``trades`` and ``simulated`` count records, ``receive_time_moved`` those whose receive
            time was moved to keep it growing, ``noted`` what was odd but published, by reason
            code, and ``schema_faults`` the differences found at construction.
        """
