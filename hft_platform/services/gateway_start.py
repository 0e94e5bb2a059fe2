"""Start of a gateway, and of a runner's way to it: from signed permits to the parts.

Why: a gateway trades what runners hand it, and a runner hands over what its permit allows; so both
read the same permits and must find the same ones.

Invariants:
1. Every alpha of the gateway has a permit that verifies now; its content hash is what a runner must
   name to be heard.
2. The session of the trading day is continued under the engine config with which it began,
   whichever gateway leads; one that began with other alphas is refused.
3. Nothing is connected here.

Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hft_platform.config.canonical import canonical_json, write_once
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.keys import KeyRing
from hft_platform.config.promoted import Mode, PromotedConfig, read_unverified
from hft_platform.config.promotion_folder import head_config
from hft_platform.config.settings import Settings
from hft_platform.config.wall_clock import checked_time_ns
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.gateway.channel import ChannelLimits, RemoteAlpha
from hft_platform.gateway.channel_client import new_hello
from hft_platform.gateway.channel_socket import SOCKET_FILE
from hft_platform.gateway.gateway_service import FOLDER
from hft_platform.gateway.lease import LeaderLease, Lease
from hft_platform.gateway.redis_lease import RedisLease, redis_client
from hft_platform.market.instruments import Instrument, load_instruments
from hft_platform.market.sessions import Session, sessions_for
from hft_platform.order.broker import Broker
from hft_platform.order.gateway_broker import GatewayBroker
from hft_platform.services.call_means import call_breaker, call_budget
from hft_platform.services.gateway_plane import PlaneParts

MS = 1_000_000
DAY_NS = 86_400_000_000_000
WAL_ID = 90
REDIS_TIMEOUT_S = 1.0
CONNECT_S = 30.0
"""A runner waits so long for a gateway at its start: a takeover takes a fraction of it."""
SEGMENT_BYTES = 8 << 20
"""A takeover reads the open segment with its prepared rest: a large one costs it half a second."""
SLIPPAGE_TICKS = 2
"""How far behind the best price a gateway closes the position of an alpha that may not trade."""

MakeBroker = Callable[[Mapping[int, Instrument]], Broker]
"""Makes a broker's adapter for these instruments, by their id; it connects nothing."""


def gateway_parts(
    workspace: Path,
    alpha_ids: Sequence[str],
    settings: Settings,
    *,
    make_broker: MakeBroker,
    mode: Mode,
    clock_ns: Callable[[], int],
) -> PlaneParts:
    """What a gateway of these alphas is made of.

    Parameters
    ----------
    workspace : Path
        With promotions, keys and sessions.
    alpha_ids : sequence of str
        Alphas whose runners are served, in the order of their places in the engine.
    settings : Settings
        Limits and times.
    make_broker : callable
        Makes the broker's adapter, not connected.
    mode : str
        In which the permits must be valid: ``live``; tests judge paper permits.
    clock_ns : callable
        ns UTC.

    Raises
    ------
    PlatformError
        What a permit is refused with; SESSION_NOT_OPEN when no session is near; CLOCK_WENT_BACK;
        SETTINGS_INVALID for alphas whose products have other hours.
    """
    now_ns = checked_time_ns(workspace, clock_ns())
    configs = [_permit(workspace, alpha_id, settings, mode, now_ns) for alpha_id in alpha_ids]
    table = load_instruments()
    symbols = [config.instruments[0].symbol for config in configs]
    session = _session([table.by_symbol(symbol) for symbol in symbols], now_ns)
    engine_config = build_engine_config(
        [AlphaSpec.from_promoted(c, s) for c, s in zip(configs, symbols, strict=True)],
        instruments=table,
        session=session,
        account_limits=settings.account_limits(),
        storm_guard=settings.storm_guard(),
    )
    engine_config["alphas"] = [remote_alpha(alpha) for alpha in engine_config["alphas"]]
    folder = workspace / "sessions" / f"{session.session_id.replace('/', '_')}-gateway"
    engine_config = _begun(folder, engine_config)
    by_symbol = {symbol: table.by_symbol(symbol).on(session.trading_day) for symbol in symbols}
    instruments = {row.instrument_id: row for row in by_symbol.values()}
    return PlaneParts(
        workspace=workspace,
        session_dir=folder,
        engine_config=engine_config,
        options={
            "wal_id": WAL_ID, "durable": "record",
            "segment_bytes": min(settings.disk_pressure.segment_bytes, SEGMENT_BYTES),
            "contracts": {
                str(row.instrument_id): {
                    "product_root": row.product_root, "last_trading_day": row.last_trading_day,
                }
                for row in instruments.values()
            },
        },
        alphas={
            config.alpha_id: RemoteAlpha(
                config.alpha_id, index, frozenset({by_symbol[symbol].instrument_id}),
                bytes.fromhex(config.content_sha256), config.promotion_seq, config.ttl_ns,
            )
            for index, (config, symbol) in enumerate(zip(configs, symbols, strict=True))
        },
        instruments=instruments,
        make_broker=lambda: make_broker(instruments),
        reconciliation=settings.reconciliation,
        budget=lambda: call_budget(settings.broker),
        breaker=lambda: call_breaker(settings.broker),
        call_timeout_ns=settings.broker.call_timeout_ms * MS,
        clock_ns=clock_ns,
    )  # fmt: skip


def remote_alpha(alpha: Mapping[str, Any]) -> dict[str, Any]:
    """An alpha of the engine config as the gateway runs it: it takes intents instead of deciding.

    Parameters
    ----------
    alpha : mapping
        With expression or kernel.
    """
    kept = {key: value for key, value in alpha.items() if key not in ("expression", "kernel")}
    return kept | {"template": {"kind": "remote", "slippage_ticks": SLIPPAGE_TICKS}}


def gateway_lease(workspace: Path, settings: Settings) -> Lease:
    """The lease that the settings ask for: of one host, or of two.

    Parameters
    ----------
    workspace : Path
        With the lease file.
    settings : Settings
        Section ``gateway``.

    Raises
    ------
    PlatformError
        KEY_PERMISSIONS for a password file that others can read.
    """
    section = settings.gateway
    local = LeaderLease(workspace / FOLDER, hung_after_ns=section.hung_after_ms * MS)
    if section.redis is None:
        return local
    host, _, port = section.redis.rpartition(":")
    password = _password(section.redis_password_file)
    client = redis_client(host, int(port), timeout_s=REDIS_TIMEOUT_S, password=password)
    return RedisLease(local, client)


def channel_limits(settings: Settings) -> ChannelLimits:
    """Bounds of the channel, from the settings.

    Parameters
    ----------
    settings : Settings
        Section ``gateway``.
    """
    section = settings.gateway
    return ChannelLimits(
        section.outstanding_max, section.stall_ms * MS, section.grace_ms * MS,
        section.on_disconnect,
    )  # fmt: skip


def gateway_broker(
    workspace: Path, config: PromotedConfig, instruments: Mapping[int, Instrument],
    settings: Settings,
) -> GatewayBroker:  # fmt: skip
    """A runner's broker: the gateway of this workspace.

    Parameters
    ----------
    workspace : Path
        With the channel.
    config : PromotedConfig
        The runner's permit.
    instruments : mapping of int to Instrument
        Every instrument of the runner's engine config, by its id.
    settings : Settings
        Section ``gateway``.
    """
    section = settings.gateway
    return GatewayBroker(
        workspace / FOLDER / SOCKET_FILE,
        new_hello(config.alpha_id, bytes.fromhex(config.content_sha256), config.promotion_seq),
        {number: row.symbol for number, row in instruments.items()},
        intent_ttl_ns=section.intent_ttl_ms * MS,
        answer_s=section.answer_timeout_ms / 1_000,
        connect_s=CONNECT_S,
    )


def runner_broker(
    workspace: Path, config: PromotedConfig, instruments: Mapping[int, Instrument],
    settings: Settings, *, make_broker: Callable[[], Broker],
) -> Broker:  # fmt: skip
    """A live process's broker: the gateway when `gateway.enabled` is set, else its own.

    Parameters
    ----------
    workspace : Path
        With the channel.
    config : PromotedConfig
        The process's permit.
    instruments : mapping of int to Instrument
        Every instrument of its engine config, by its id.
    settings : Settings
        Section ``gateway``.
    make_broker : callable
        Makes its own.
    """
    if settings.gateway.enabled:
        return gateway_broker(workspace, config, instruments, settings)
    return make_broker()


def broker_factory(name: str) -> MakeBroker:
    """The factory of a broker's adapter, by its place.

    Parameters
    ----------
    name : str
        ``package.module:function``; the function takes the instruments and gives an adapter.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID when there is none.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID, f"broker {name!r} cannot be had: {error}",
            next_step="name it as package.module:function (docs/gateway.md)",
        ) from error  # fmt: skip
    if not callable(found):
        raise PlatformError(ReasonCode.SETTINGS_INVALID, f"broker {name!r} is no function")
    made: MakeBroker = found
    return made


def _permit(
    workspace: Path, alpha_id: str, settings: Settings, mode: Mode, now_ns: int
) -> PromotedConfig:
    path = head_config(workspace, alpha_id)
    ring = KeyRing(workspace, settings.pinned_keys_path)
    return PromotedConfig.load_verified(
        path, workspace=workspace, trusted_keys=ring.trusted(), mode=mode, now_ns=now_ns,
        symbol=_symbol_of(path), code_sha256=code_sha256(),
    )  # fmt: skip


def _symbol_of(path: Path) -> str:
    content = read_unverified(path)
    if content is None or len(content.instruments) != 1:
        raise PlatformError(
            ReasonCode.CONFIG_WRONG_INSTRUMENT,
            f"{path} is not for one instrument; the gateway takes one contract an alpha",
        )
    return content.instruments[0].symbol


def _session(instruments: Sequence[Instrument], now_ns: int) -> Session:
    """The session that is on or next, which must be that of every product."""
    found: list[Session] = []
    for instrument in instruments:
        rows = sessions_for(instrument, now_ns, now_ns + DAY_NS)
        row = next((row for row in rows if row.end_ns > now_ns), None)
        if row is None:
            raise PlatformError(
                ReasonCode.SESSION_NOT_OPEN, f"{instrument.symbol} has no session within a day"
            )
        if found and row != found[0]:
            raise PlatformError(
                ReasonCode.SETTINGS_INVALID,
                f"{instrument.symbol} trades {row.session_id} by other hours than"
                f" {instruments[0].symbol} {found[0].session_id}",
                next_step="run a gateway for the products of each calendar, in its own workspace",
            )
        found.append(row)
    return found[0]


def _begun(folder: Path, engine_config: dict[str, Any]) -> dict[str, Any]:
    """The engine config with which the session began: this one, or what lies there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "engine.json"
    with contextlib.suppress(FileExistsError):
        write_once(path, canonical_json(engine_config) + b"\n")
    begun: dict[str, Any] = json.loads(path.read_bytes())
    names = [row["alpha_id"] for row in begun["alphas"]]
    if names != [row["alpha_id"] for row in engine_config["alphas"]]:
        raise PlatformError(
            ReasonCode.SETTINGS_INVALID,
            f"session {folder.name} began with alphas {', '.join(names)}",
            next_step="start the gateway with the same alphas, in the same order",
        )
    return begun


def _password(path: str | None) -> str | None:
    if path is None:
        return None
    file = Path(path).expanduser()
    if file.stat().st_mode & 0o077:
        raise PlatformError(ReasonCode.KEY_PERMISSIONS, f"{file} can be read by others")
    return file.read_text(encoding="utf-8").strip()
