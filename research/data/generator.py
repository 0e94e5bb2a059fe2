"""The market generator: what is to be generated, and the tapes of its sessions.

Why: the loop must be shown with nothing downloaded, and gates must be tested against a market
whose edge is known.

Invariants:
1. A spec decides every byte: two equal specs give equal tapes, in any process and order.
2. Session hours come from the instrument's calendar, one session a trading day.
3. `config/generator.yaml` replaces the packaged markets and calibration as a whole.

The arithmetic is in `rust_core/src/generator/`. Operator's page: `docs/generator.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json, canonical_sha256
from hft_platform.config.yaml_files import parse_yaml, read_yaml, validated
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.market.instruments import Instrument, InstrumentTable, load_instruments
from hft_platform.market.sessions import DAY_NS, SECOND_NS, Session, date_of, sessions_for

DAYS_PER_SESSION_MAX = 8
"""Calendar days searched for each wanted session: weekends and a holiday week fit."""
SEARCH_DAYS = 100
"""Days of the calendar that are looked up at once."""
_EPOCH_ORDINAL = 719_163

Weights = Annotated[tuple[float, ...], Field(strict=False, min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class NoEdge(_Strict):
    """The hidden state shows in the queues and means nothing."""

    kind: Literal["none"]


class PlantedEdge(_Strict):
    """The mid moves by +-`strength_ticks` in the mean over `horizon_s`, given the hidden state."""

    kind: Literal["planted"]
    strength_ticks: float
    horizon_s: float


class DyingEdge(_Strict):
    """Planted before session `dies_at_session` (0-based), nothing from it on."""

    kind: Literal["dying"]
    strength_ticks: float
    horizon_s: float
    dies_at_session: Annotated[int, Field(ge=0)]


Edge = Annotated[NoEdge | PlantedEdge | DyingEdge, Field(discriminator="kind")]


class MarketModel(_Strict):
    """Calibration; fields, units and ranges as in `rust_core/src/generator/params.rs`."""

    start_price_ticks: int
    updates_per_slot: float
    off_grid_share: float
    activity_fast_sd: float
    activity_fast_s: float
    activity_slow_sd: float
    activity_slow_s: float
    move_probability: float
    move_continuation: float
    move_ticks_max: int
    queue_pressure: float
    spread_weights: Weights
    spread_change: float
    queue_best_weights: Weights
    queue_second_weights: Weights
    queue_deep_weights: Weights
    queue_refresh: float
    queue_step: float
    queue_deep_step: float
    queue_tilt: float
    level_gap: float
    state_hold_s: float
    orders_per_update: float
    orders_per_tick: float
    print_continuation: float
    side_follows_move: float
    side_repeats: float
    side_persistent: float
    side_turns: float
    print_beyond: float
    print_inside: float
    print_weights: Weights
    feed_delay_us: float
    feed_jitter_us: float


class MarketRow(_Strict):
    """One market of the YAML, without the calibration."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    symbol: Annotated[str, Field(min_length=1, max_length=24)]
    seed: Annotated[int, Field(ge=0, lt=1 << 64)]
    session_count: Annotated[int, Field(ge=1, le=10_000)]
    first_day: Annotated[int, Field(ge=19_700_101, le=21_001_231)]
    session_seconds: Annotated[int, Field(ge=1)] | None
    clip_lots: Annotated[int, Field(ge=1, le=1000)]
    activity: float
    edge: Edge


class GeneratorSpec(MarketRow):
    """Everything that decides a generated market.

    Attributes
    ----------
    name : str
        Name of the dataset.
    symbol : str
        Instrument; its calendar gives the hours, its tick and lot the grid.
    seed : int
        Seed of every stream.
    session_count : int
        Sessions, one a trading day.
    first_day : int
        Earliest trading day, yyyymmdd.
    session_seconds : int or None
        Length of a session from its open; None is the calendar's.
    clip_lots : int
        Lots of the instrument in one of the model's: how deep the market is for who trades single
        lots.
    activity : float
        Multiplier on updates and prints per second.
    edge : NoEdge or PlantedEdge or DyingEdge
        What the hidden state does.
    model : MarketModel
        Calibration.
    """

    model: MarketModel

    @property
    def sha256(self) -> str:
        """Content hash: equal specs give equal tapes."""
        return canonical_sha256(self.model_dump(mode="json"))


class Band(_Strict):
    """Range in which a stylized fact must lie."""

    low: float
    high: float


class GeneratorFile(_Strict):
    """Schema of generator.yaml."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    markets: Annotated[tuple[MarketRow, ...], Field(strict=False, min_length=1)]
    model: MarketModel
    bands: dict[str, Band]


@dataclass(frozen=True, slots=True)
class HiddenState:
    """What nobody in the market sees: a value for each published book.

    Attributes
    ----------
    exchange_time_ns : ndarray of int64
        Stamp of the book.
    state : ndarray of int64
        -1, 0 or +1.
    mid_ticks : ndarray of float64
        Mid of the book.
    drift_ticks : ndarray of float64
        Integral of the drift since the session's first book.
    """

    exchange_time_ns: npt.NDArray[np.int64]
    state: npt.NDArray[np.int64]
    mid_ticks: npt.NDArray[np.float64]
    drift_ticks: npt.NDArray[np.float64]


def load_generator(config_dir: Path | None = None) -> GeneratorFile:
    """Read the generator's settings.

    Parameters
    ----------
    config_dir : Path, optional
        Folder with an optional ``generator.yaml``, by default ``config`` in the working folder.

    Returns
    -------
    GeneratorFile
        The folder's file if there is one, else the packaged one.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID naming file, field, value and what is allowed.
    """
    path = (config_dir if config_dir is not None else Path("config")) / "generator.yaml"
    if path.is_file():
        return validated(read_yaml(path), GeneratorFile, name=str(path))
    name = "hft_platform/defaults/generator.yaml"
    packaged = resources.files("hft_platform") / "defaults" / "generator.yaml"
    return validated(parse_yaml(packaged.read_bytes(), name=name), GeneratorFile, name=name)


def default_specs(config_dir: Path | None = None) -> list[GeneratorSpec]:
    """Markets of the settings, in their order; see `load_generator`."""
    file = load_generator(config_dir)
    return [_spec(row, file.model) for row in file.markets]


def spec_by_name(name: str, config_dir: Path | None = None, **changes: Any) -> GeneratorSpec:
    """One market of the settings, with some fields changed.

    Parameters
    ----------
    name : str
        Name in the settings.
    config_dir : Path, optional
        As in `load_generator`.
    **changes : Any
        Fields of `GeneratorSpec` to replace; the result is checked again.

    Returns
    -------
    GeneratorSpec
        The spec.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID for an unknown name or a wrong value.
    """
    found = {spec.name: spec for spec in default_specs(config_dir)}
    if name not in found:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"generator.yaml has no market {name!r}, only {', '.join(sorted(found))}",
        )
    content = found[name].model_dump(mode="json") | changes
    return validated(content, GeneratorSpec, name=f"market {name}")


def tapes(
    spec: GeneratorSpec, instruments: InstrumentTable | None = None
) -> Iterator[tuple[int, bytes]]:
    """Generate one session after the other.

    Parameters
    ----------
    spec : GeneratorSpec
        The market.
    instruments : InstrumentTable, optional
        Resolves the symbol; by default `load_instruments()`.

    Yields
    ------
    tuple of int and bytes
        Session number from 0, and its tape in order of receive time.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID for a value out of range, UNKNOWN_INSTRUMENT for the symbol.
    """
    table = instruments if instruments is not None else load_instruments()
    params = params_json(spec, table)
    tick_size = table.by_symbol(spec.symbol).tick_size
    close: int | None = None
    for index in range(spec.session_count):
        tape = generate_session(params, index, opening_mid_twice=close)
        yield index, tape
        close = _closing_mid_twice(tape, tick_size)


def generate_session(
    params: str, session_index: int, *, opening_mid_twice: int | None = None
) -> bytes:
    """Tape of one session.

    Parameters
    ----------
    params : str
        What `params_json` gave.
    session_index : int
        From 0; sessions can be made in any order.
    opening_mid_twice : int, optional
        Best bid plus best ask at the close of the session before, in ticks. It only saves time:
        without it the earlier price paths are walked again, with the same result.

    Returns
    -------
    bytes
        Records in order of receive time.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID for a value out of range, VALUE_OUT_OF_RANGE for a session that is not
        there or a price that ran away.
    """
    try:
        return _core.generate_session(params, session_index, opening_mid_twice)
    except _core.GeneratorError as error:
        raise _platform_error(error) from error


def hidden_states(
    spec: GeneratorSpec, instruments: InstrumentTable | None = None
) -> Iterator[tuple[int, HiddenState]]:
    """The state behind one session after the other, for tests against the truth.

    Parameters
    ----------
    spec : GeneratorSpec
        The market.
    instruments : InstrumentTable, optional
        Resolves the symbol; by default `load_instruments()`.

    Yields
    ------
    tuple of int and HiddenState
        Session number from 0, and what was behind its books.
    """
    params = params_json(spec, instruments)
    close: int | None = None
    for index in range(spec.session_count):
        try:
            columns = _core.generate_hidden_state(params, index, close)
        except _core.GeneratorError as error:
            raise _platform_error(error) from error
        mid_twice = np.frombuffer(columns["mid_twice_ticks"], dtype="<i8")
        close = int(mid_twice[-1]) if mid_twice.size else None
        yield (
            index,
            HiddenState(
                exchange_time_ns=np.frombuffer(columns["exchange_time_ns"], dtype="<i8"),
                state=np.frombuffer(columns["state"], dtype="<i8"),
                mid_ticks=mid_twice / 2.0,
                drift_ticks=np.frombuffer(columns["drift_ticks"], dtype="<f8"),
            ),
        )


def params_json(spec: GeneratorSpec, instruments: InstrumentTable | None = None) -> str:
    """Parameters of the core: the spec with its instrument and session hours resolved.

    Parameters
    ----------
    spec : GeneratorSpec
        The market.
    instruments : InstrumentTable, optional
        Resolves the symbol; by default `load_instruments()`.

    Returns
    -------
    str
        Canonical JSON.
    """
    table = instruments if instruments is not None else load_instruments()
    instrument = table.by_symbol(spec.symbol)
    content = spec.model_dump(mode="json")
    hours = [
        {"trading_day": row.trading_day, "start_ns": row.start_ns, "end_ns": _end_ns(spec, row)}
        for row in session_hours(spec, instrument)
    ]
    return canonical_json(
        {
            "seed": spec.seed,
            "instrument_id": instrument.instrument_id,
            "tick_size": instrument.tick_size,
            "lot_size": instrument.lot_size * spec.clip_lots,
            "activity": spec.activity,
            "edge": content["edge"],
            "sessions": hours,
            "model": content["model"],
        }
    ).decode()


def session_hours(spec: GeneratorSpec, instrument: Instrument) -> list[Session]:
    """Sessions that a spec asks for: the first ones from its first day on.

    Parameters
    ----------
    spec : GeneratorSpec
        Count and first day.
    instrument : Instrument
        Its calendar.

    Returns
    -------
    list of Session
        In time order, `spec.session_count` of them.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID when the day is none, or the calendar has too few sessions.
    """
    try:
        ordinal = date_of(spec.first_day).toordinal()
    except ValueError as error:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"market {spec.name}: first_day {spec.first_day} is no date",
        ) from error
    first_ns = (ordinal - _EPOCH_ORDINAL - 1) * DAY_NS
    last_ns = first_ns + (spec.session_count * DAYS_PER_SESSION_MAX + 14) * DAY_NS
    found: list[Session] = []
    while first_ns < last_ns and len(found) < spec.session_count:
        known_end_ns = found[-1].end_ns if found else 0
        found += [
            session
            for session in sessions_for(instrument, first_ns, first_ns + SEARCH_DAYS * DAY_NS)
            if session.trading_day >= spec.first_day and session.start_ns >= known_end_ns
        ]
        first_ns += SEARCH_DAYS * DAY_NS
    if len(found) < spec.session_count:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"market {spec.name}: calendar {instrument.calendar} has {len(found)} sessions after"
            f" {spec.first_day}, wanted are {spec.session_count}",
            next_step="choose a calendar with more sessions, or fewer sessions",
        )
    return found[: spec.session_count]


def _closing_mid_twice(tape: bytes, tick_size: int) -> int | None:
    books = records.split(tape)["Book"]
    if not books.size:
        return None
    return int(books["bid_price"][-1, 0] + books["ask_price"][-1, 0]) // tick_size


def _end_ns(spec: GeneratorSpec, session: Session) -> int:
    if spec.session_seconds is None:
        return session.end_ns
    end_ns = session.start_ns + spec.session_seconds * SECOND_NS
    if end_ns > session.end_ns:
        length_s = (session.end_ns - session.start_ns) // SECOND_NS
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"market {spec.name}: session_seconds is {spec.session_seconds}, but session"
            f" {session.session_id} lasts {length_s} s",
            next_step="shorten it, or choose an instrument with longer sessions",
        )
    return end_ns


def _spec(row: MarketRow, model: MarketModel) -> GeneratorSpec:
    content = row.model_dump(mode="json") | {"model": model.model_dump(mode="json")}
    return validated(content, GeneratorSpec, name=f"market {row.name}")


def _platform_error(error: Exception) -> PlatformError:
    code, message = error.args
    return PlatformError(code, message, next_step="correct the value in config/generator.yaml")
