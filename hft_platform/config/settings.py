"""Platform settings: the operator's few keys, in three layers.

Why: one place says what an installation does; everything else is signed or content-hashed.

Invariants:
1. Packaged defaults, then config/settings.yaml, then HFT_* variables; the later one wins.
2. Every key is in the packaged file with its meaning; an unknown key or a wrong type is an error.
3. A limit has no default in code: it is read from a file or the settings are refused.

Key files are named here, never their content. One value may be secret, a password inside
`store.dsn`: it comes from its variable only, and no message repeats it. Operator's page:
`docs/settings.md`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hft_platform.errors import PlatformError, ReasonCode

PREFIX = "HFT_"
ALIASES = {
    "HFT_RECORDER_MODE": "HFT_RECORDER__MODE",
    "HFT_GATEWAY_ENABLED": "HFT_GATEWAY__ENABLED",
}
"""Variables that operators know by another name than the rule gives; they are the same setting."""
SECRET_VARIABLE = "HFT_STORE__DSN"  # noqa: S105  # its name
_SETTINGS_BYTES_MAX = 64 * 1024
_Limit = Annotated[int, Field(gt=0, lt=1 << 63)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class AccountLimits(_Strict):
    """Limits of the account, as the engine takes them."""

    gross_notional_max: _Limit
    net_notional_max: _Limit
    position_lots_max: _Limit
    daily_loss_max: _Limit
    drawdown_max: _Limit
    loss_speed_max: _Limit
    free_margin_min: Annotated[int, Field(ge=0, lt=1 << 63)] | None
    account_age_ns_max: _Limit
    order_rate_max: Annotated[int, Field(gt=0, le=1_000_000)]
    cancel_reserve: Annotated[int, Field(ge=0, le=1_000_000)]
    order_to_trade_max: Annotated[int, Field(gt=0, lt=1 << 32)]
    reject_rate_max: Annotated[int, Field(gt=0, lt=1_024)]
    unknown_rate_max: Annotated[int, Field(gt=0, lt=1_024)]
    one_side_fill_max: Annotated[int, Field(gt=0, lt=1_024)]
    price_collar_bps: Annotated[int, Field(gt=0, le=10_000)]
    exit_collar_bps: Annotated[int, Field(gt=0, le=10_000)]
    quote_age_ns_max: _Limit
    clock_skew_ns_max: _Limit | None
    repeated_order_max: Annotated[int, Field(gt=0, le=1_000_000)]

    @model_validator(mode="after")
    def _reserve_leaves_room(self) -> AccountLimits:
        if self.cancel_reserve >= self.order_rate_max:
            raise ValueError("cancel_reserve is not below order_rate_max: nothing could be placed")
        return self

    @model_validator(mode="after")
    def _exits_are_not_held_tighter(self) -> AccountLimits:
        if self.exit_collar_bps < self.price_collar_bps:
            raise ValueError("exit_collar_bps is below price_collar_bps: an exit is never tighter")
        return self


_Time = Annotated[int, Field(ge=0, lt=1 << 63)]
_Span = Annotated[int, Field(gt=0, lt=1 << 63)]


class Band(_Strict):
    """Thresholds of one input of the storm guard; a level is taken at `_in`, left at `_out`."""

    warm_in: _Limit | None
    warm_out: _Time | None
    storm_in: _Limit | None
    storm_out: _Time | None
    halt_in: _Limit | None
    halt_out: _Time | None

    @model_validator(mode="after")
    def _pairs_rise(self) -> Band:
        milder = (1, 0)
        for name in ("warm", "storm", "halt"):
            enter, leave = getattr(self, f"{name}_in"), getattr(self, f"{name}_out")
            if enter is None and leave is None:
                continue
            if enter is None or leave is None:
                raise ValueError(f"{name}_in and {name}_out are both numbers or both null")
            if enter < milder[0] or not milder[1] <= leave < enter:
                raise ValueError(
                    f"{name}_out is below {name}_in, and neither is below a milder level's"
                )
            milder = (enter, leave)
        return self


class StormGuard(_Strict):
    """When trading is degraded or halted by itself, as the engine takes it."""

    risk_capital: _Limit
    drawdown_bps: Band
    feed_gap_ns: Band
    loop_lag_ns: Band
    order_rtt_ns: Band
    reject_count: Band
    drift_reports: Band
    feature_failures: Band
    normaliser_failures: Band
    open_grace_ns: _Time
    failure_window_ns: _Span
    clears: Annotated[int, Field(gt=0, le=1_024)]
    cool_down_warm_ns: _Time
    cool_down_storm_ns: _Time
    hold_warm_ns: _Time
    hold_storm_ns: _Time
    resume_window_ns: _Span


class RecorderSettings(_Strict):
    """How records reach the store (docs/recorder.md)."""

    mode: Literal["wal_first", "direct"]


class StoreSettings(_Strict):
    """Where the store is and how patiently it is asked."""

    dsn: Annotated[str, Field(min_length=1)] | None = Field(repr=False)
    password_file: Annotated[str, Field(min_length=1)] | None
    connect_timeout_ms: Annotated[int, Field(gt=0, le=60_000)]
    request_timeout_ms: Annotated[int, Field(gt=0, le=3_600_000)]
    attempts_max: Annotated[int, Field(gt=0, le=20)]
    breaker_failures_max: Annotated[int, Field(gt=0, le=1_000)]
    breaker_open_ms: Annotated[int, Field(gt=0, le=3_600_000)]
    cluster: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")] | None
    market_retention_days: Annotated[int, Field(ge=7, le=36_500)] | None


class LoaderSettings(_Strict):
    """What becomes of segments after they were loaded."""

    archive_after_days: Annotated[int, Field(ge=0, le=36_600)] | None
    archive_folder: Annotated[str, Field(min_length=1)] | None
    retention_days: Annotated[int, Field(ge=7, le=36_600)] | None


class DiskBand(_Strict):
    """Thresholds of one level of disk pressure; entered below `_in`, left from `_out` on."""

    free_bytes_in: _Limit
    free_bytes_out: _Limit
    seconds_in: Annotated[int, Field(gt=0, le=1_000_000)]
    seconds_out: Annotated[int, Field(gt=0, le=1_000_000)]

    @model_validator(mode="after")
    def _out_is_above_in(self) -> DiskBand:
        if self.free_bytes_out < self.free_bytes_in or self.seconds_out < self.seconds_in:
            raise ValueError(
                "an _out is below its _in: the level would be left where it is entered"
            )
        return self


_ShedAt = Literal["critical", "halt"] | None


class ShedAt(_Strict):
    """From which level on a topic of market data is left out of the log; None is never."""

    depth: _ShedAt
    books: _ShedAt
    trades: _ShedAt

    @model_validator(mode="after")
    def _in_order(self) -> ShedAt:
        ranks = [{"critical": 0, "halt": 1, None: 2}[at] for at in self.model_dump().values()]
        if ranks != sorted(ranks):
            raise ValueError("a topic is left out before one that goes first: depth, books, trades")
        return self


class DiskPressure(_Strict):
    """What happens when the disk of the logs runs full."""

    warn: DiskBand
    critical: DiskBand
    halt: DiskBand
    growth_window_s: Annotated[int, Field(gt=0, le=3_600)]
    shed_at: ShedAt
    segment_bytes: Annotated[int, Field(ge=8 << 10, le=1 << 30)]

    @model_validator(mode="after")
    def _levels_rise(self) -> DiskPressure:
        for milder, harder in ((self.warn, self.critical), (self.critical, self.halt)):
            fields = ("free_bytes_in", "free_bytes_out", "seconds_in", "seconds_out")
            if any(getattr(harder, name) > getattr(milder, name) for name in fields):
                raise ValueError("a level begins or ends before the milder one below it")
        return self


class BrokerSettings(_Strict):
    """How the broker is talked to (docs/shioaji.md)."""

    is_simulation: bool
    accounts: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,12}-[A-Za-z0-9]{1,16}$")]]
    order_calls_soft: Annotated[int, Field(gt=0, lt=250)]
    order_calls_hard: Annotated[int, Field(gt=0, le=250)]
    account_calls_max: Annotated[int, Field(gt=0, le=25)]
    call_timeout_ms: Annotated[int, Field(ge=100, le=5_000)]
    is_non_blocking: bool
    breaker_failures_max: Annotated[int, Field(gt=0, le=1_000)]
    breaker_open_ms: Annotated[int, Field(gt=0, le=3_600_000)]
    login_back_off_s: Annotated[int, Field(ge=60, le=3_600)]
    logins_per_day_max: Annotated[int, Field(gt=0, le=1_000)]
    feed_silence_ms: Annotated[int, Field(ge=1_000, le=600_000)]
    quote_ahead_ms_max: Annotated[int, Field(gt=0, le=600_000)]
    quote_behind_ms_max: Annotated[int, Field(gt=0, le=3_600_000)]
    on_total_mismatch: Literal["drop", "note"]
    certificate_warning_days: Annotated[int, Field(ge=0, le=365)]
    futures_octype: Literal["Auto", "New", "Cover", "DayTrade"]
    stock_condition: Literal[
        "Cash",
        "Netting",
        "MarginTrading",
        "ShortSelling",
        "SBLShort",
        "SBLShortPriceExempt",
        "Emerging",
    ]

    @model_validator(mode="after")
    def _soft_leaves_a_reserve(self) -> BrokerSettings:
        if self.order_calls_soft >= self.order_calls_hard:
            raise ValueError("order_calls_soft is not below order_calls_hard: cancels need a rest")
        return self


def _switch(value: Any) -> Any:  # Any: what YAML gives
    """0 and 1 are how a variable says no and yes."""
    return bool(value) if type(value) is int and value in (0, 1) else value


class GatewaySettings(_Strict):
    """One gateway for several strategy runners, and who of two leads (docs/gateway.md)."""

    enabled: Annotated[bool, BeforeValidator(_switch)]
    redis: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,253}:[0-9]{1,5}$")] | None
    redis_password_file: Annotated[str, Field(min_length=1)] | None
    hung_after_ms: Annotated[int, Field(ge=100, le=60_000)]
    outstanding_max: Annotated[int, Field(gt=0, le=4_096)]
    intent_ttl_ms: Annotated[int, Field(gt=0, le=60_000)]
    answer_timeout_ms: Annotated[int, Field(gt=0, le=60_000)]
    stall_ms: Annotated[int, Field(gt=0, le=600_000)]
    grace_ms: Annotated[int, Field(gt=0, le=3_600_000)]
    on_disconnect: Literal["cancel", "keep"]


_Milliseconds = Annotated[int, Field(gt=0, le=3_600_000)]


class ReconciliationSettings(_Strict):
    """When the broker is asked, and how often before an answer counts (docs/reconciliation.md)."""

    quarantine_ms: _Milliseconds
    not_found_gap_ms: _Milliseconds
    guard_ms: _Milliseconds
    in_flight_ms: _Milliseconds
    question_gap_ms: _Milliseconds
    orders_interval_ms: _Milliseconds
    positions_interval_ms: _Milliseconds
    account_interval_ms: _Milliseconds

    @model_validator(mode="after")
    def _questions_are_apart(self) -> ReconciliationSettings:
        if self.question_gap_ms > min(self.orders_interval_ms, self.positions_interval_ms):
            raise ValueError("question_gap_ms is above an interval: nothing could be asked in time")
        return self


class GovernorSettings(_Strict):
    """When a live process may start, and how long it may take to stop (docs/live.md)."""

    start_before_s: Annotated[int, Field(ge=0, le=86_400)]
    stop_wait_s: Annotated[int, Field(gt=0, le=600)]


class Settings(_Strict):
    """What an operator can set; the packaged settings.yaml explains each key."""

    workspace: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    promotion_key_file: str | None
    pinned_keys_file: str | None
    promotion_validity_days: Annotated[int, Field(gt=0, le=366)]
    store: StoreSettings
    loader: LoaderSettings
    account: AccountLimits = Field(alias="account_limits")
    storm: StormGuard = Field(alias="storm_guard")
    recorder: RecorderSettings
    disk_pressure: DiskPressure
    broker: BrokerSettings
    gateway: GatewaySettings
    reconciliation: ReconciliationSettings
    governor: GovernorSettings

    @property
    def workspace_path(self) -> Path:
        """Workspace folder."""
        return Path(self.workspace).expanduser()

    @property
    def promotion_key_path(self) -> Path | None:
        """Hand-made promotion key, if one is configured."""
        return Path(self.promotion_key_file).expanduser() if self.promotion_key_file else None

    @property
    def pinned_keys_path(self) -> Path | None:
        """File of pinned keys, if one is configured."""
        return Path(self.pinned_keys_file).expanduser() if self.pinned_keys_file else None

    def account_limits(self) -> dict[str, int | None]:
        """Account limits with the engine's keys."""
        return self.account.model_dump()

    def storm_guard(self) -> dict[str, Any]:
        """Thresholds and times of the storm guard with the engine's keys."""
        return self.storm.model_dump()


def load_settings(
    config_dir: Path | None = None, *, environment: Mapping[str, str] | None = None
) -> Settings:
    """Load and check the settings.

    Parameters
    ----------
    config_dir : Path, optional
        Folder with an optional `settings.yaml`; by default `config` in the working folder.
    environment : mapping of str to str, optional
        Variables to read; by default those of the process.

    Returns
    -------
    Settings
        Complete and valid.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID naming file or variable, key, value and what is allowed.
    """
    packaged = resources.files("hft_platform") / "defaults" / "settings.yaml"
    layers: dict[str, Any] = _parse("packaged settings.yaml", packaged.read_bytes())
    path = (config_dir if config_dir is not None else Path("config")) / "settings.yaml"
    source = "packaged settings.yaml"
    if path.exists():
        layers = _overlay(layers, _parse(str(path), path.read_bytes()), str(path))
        _refuse_password(layers, str(path))
        source = str(path)
    variables = _by_setting(os.environ if environment is None else environment)
    for name in sorted(variables):
        keys = _keys_of(name, layers)
        if keys is not None:
            layers = _overlay(layers, _nested(keys, _value(name, variables[name])), name)
            source = f"{source} and {name}"
    try:
        return Settings.model_validate(layers)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "settings"
        text = f"{source}: {place}: {problem['msg']}"
        if place == "store" or place.startswith("store.dsn"):
            # The cause would show the value, which may hold a password.
            raise PlatformError(ReasonCode.SETTINGS_INVALID, text) from None
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID, f"{text}, was {problem.get('input')!r:.80}"
        ) from error


def has_password(dsn: str) -> bool:
    """True when a store's DSN holds a password, which a file of settings must not.

    Parameters
    ----------
    dsn : str
        Anything a person may have written.

    Returns
    -------
    bool
    """
    place = dsn.partition("://")[2].partition("/")[0]
    return ":" in place.rpartition("@")[0] or "password=" in dsn.lower()


def _refuse_password(layers: Mapping[str, Any], source: str) -> None:
    section = layers["store"]
    dsn = section.get("dsn") if isinstance(section, Mapping) else None
    if isinstance(dsn, str) and has_password(dsn):
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"{source}: store.dsn holds a password; it was read by everyone who can read the file",
            next_step="take it out and change it; set HFT_STORE__DSN, or store.password_file to a"
            " file of mode 0600",
        )


def _parse(name: str, raw: bytes) -> dict[str, Any]:
    if len(raw) > _SETTINGS_BYTES_MAX:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID, f"{name} is larger than {_SETTINGS_BYTES_MAX} bytes"
        )
    try:
        content = yaml.safe_load(raw)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = str(error).replace("\n", " ")
        raise PlatformError(ReasonCode.SETTINGS_INVALID, f"{name} is not YAML: {text}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise PlatformError(ReasonCode.SETTINGS_INVALID, f"{name} does not hold keys and values")
    return content


def _overlay(base: dict[str, Any], layer: Mapping[str, Any], source: str) -> dict[str, Any]:
    result = dict(base)
    for key, value in layer.items():
        if key not in base:
            close = difflib.get_close_matches(str(key), base, n=1)
            hint = f"; did you mean {close[0]}" if close else ""
            raise PlatformError(ReasonCode.SETTINGS_INVALID, f"{source}: unknown key {key!r}{hint}")
        if isinstance(base[key], dict) and isinstance(value, Mapping):
            result[key] = _overlay(base[key], value, f"{source}: {key}")
        else:
            result[key] = value
    return result


def _by_setting(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables under the names of their settings; two names of one with two values are refused."""
    variables = dict(environment)
    for alias, name in ALIASES.items():
        value = variables.pop(alias, None)
        if value is None:
            continue
        if variables.get(name, value) != value:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID,
                f"{alias} is {value!r} and {name} is {variables[name]!r}; they are one setting",
                next_step=f"unset {alias}",
            )
        variables[name] = value
    return variables


def _keys_of(name: str, known: Mapping[str, Any]) -> list[str] | None:
    # HFT_ is also the prefix of variables that are no settings (HFT_LIVE, HFT_DATA), so an unknown
    # one is refused only when it looks like a mistyped setting.
    if not name.startswith(PREFIX):
        return None
    names = _names(known)
    if name in names:
        return names[name]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.85)
    if close:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"environment variable {name} is no setting; did you mean {close[0]}",
        )
    return None


def _names(known: Mapping[str, Any]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for key, value in known.items():
        if isinstance(value, Mapping):
            for inner in value:
                names[f"{PREFIX}{key}__{inner}".upper()] = [key, inner]
        else:
            names[f"{PREFIX}{key}".upper()] = [key]
    return names


def _nested(keys: list[str], value: Any) -> dict[str, Any]:  # Any: what YAML gives
    for key in reversed(keys):
        value = {key: value}
    return value  # type: ignore[no-any-return]  # keys is never empty


def _value(name: str, text: str) -> Any:  # Any: what YAML gives, checked by the model
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        if name == SECRET_VARIABLE:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID, f"environment variable {name} is not a value"
            ) from None
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID, f"environment variable {name} is not a value: {text!r}"
        ) from error
