"""SystemBootstrapper: puts a live process together, in the one order in which it may start.

Why: a start is the moment at which most can be wrong. Each step refuses with its own code, and what
was opened before it is let go of again.

Invariants:
1. Order: settings, latch, config and the other pre-market checks, lock or lease, session (recovered
   from its logs), order ids, broker, reconciliation, quotes, ready, dispatcher.
2. The same command continues the session of its trading day from the logs, under the engine config
   that it began with; a session whose end has passed is brought to its end before another begins.
3. Before the logs are open nothing is left behind by a refusal; behind that, everything stays.
4. Whatever broker it is, it is made by a factory: tests give theirs, `shioaji` is imported when it
   is asked for.

It decides nothing and logs in nowhere by itself. Operator's page: `docs/live.md`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from hft_platform import _core, records
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.promoted import read_signed
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.execution_gateway import ExecutionGateway
from hft_platform.execution.order_ids import OrderIds
from hft_platform.execution.reconciliation import ReconciliationService
from hft_platform.kernels import kernels_of
from hft_platform.market.instruments import Instrument
from hft_platform.market.sessions import Session
from hft_platform.order.fence import LatchFence
from hft_platform.order.order_adapter import OrderAdapter
from hft_platform.recorder.disk_monitor import DiskPressureMonitor
from hft_platform.services import operator_requests
from hft_platform.services.broker_probe import ProbedBroker, SystemListener
from hft_platform.services.call_means import call_breaker, call_budget
from hft_platform.services.core_calls import typed_errors
from hft_platform.services.hft_system import HFTSystem, SystemParts
from hft_platform.services.live_control import ControlledBy, LiveControl
from hft_platform.services.live_report import SUMMARY_FILE
from hft_platform.services.parity import engine_config_of
from hft_platform.services.premarket import PreMarket
from hft_platform.services.session_governor import SessionGovernor
from hft_platform.services.session_register import register_begin
from hft_platform.services.venues import VenueFactory, VenueRequest
from hft_platform.services.workspace_lock import WorkspaceLock

LIVE_FILE = "live.json"
"""In the folder of a session that a live process opened: which one it is, and when it ends."""
SEAL_AFTER_S = 60
GROUP_COMMIT_MS = 5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Opened:
    """A live process that is ready to run.

    Attributes
    ----------
    system : HFTSystem
        To be run.
    engine_config : dict
        What its engine decides by.
    session : LiveSession
        The core's. (Any: only what the Protocol of `hft_system` names is used elsewhere.)
    recovered : dict
        What was found in its logs.
    """

    system: HFTSystem
    engine_config: dict[str, Any]
    session: Any
    recovered: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Folder:
    """The session's folder, new or to be continued."""

    path: Path
    engine_config: dict[str, Any]
    traded: Session
    is_new: bool


class SystemBootstrapper:
    """Starts one live process.

    Parameters
    ----------
    before : PreMarket
        The checks of this start.
    make_venue : callable
        Makes broker, clock and pace.
    pid : int, optional
        Of this process.
    """

    def __init__(
        self,
        before: PreMarket,
        *,
        make_venue: VenueFactory,
        pid: int | None = None,
    ) -> None:
        self._before = before
        self._make_venue = make_venue
        self._pid = os.getpid() if pid is None else pid

    @contextlib.contextmanager
    def open(self) -> Iterator[Opened]:
        """Check, lock, recover and put together; nothing is connected yet.

        Yields
        ------
        Opened

        Raises
        ------
        PlatformError
            The refusal of whatever refused.
        """
        before = self._before
        runner = before.runner()
        with WorkspaceLock(before.request.workspace, pid=self._pid, runner=runner) as lock:
            unfinished = self._unfinished()
            if unfinished is not None:
                before.continue_session(*unfinished)
            before.require_all()
            folder = self._new_folder() if unfinished is None else self._old_folder(unfinished[0])
            session = self._session(folder, lock.epoch)
            try:
                if folder.is_new and not before.request.is_rehearsal:
                    register_begin(
                        before.request.workspace,
                        folder.path.name,
                        before.config,
                        before.ring.session_key(),
                    )
                system = self._assemble(folder, session)
                try:
                    yield Opened(system, folder.engine_config, session, session.recovered())
                finally:
                    system.parts.broker.close()
            finally:
                session.close()

    @property
    def _mode(self) -> str:
        return "rehearsal" if self._before.request.is_rehearsal else "live"

    # Which session

    def _base(self) -> Path:
        name = "rehearsals" if self._before.request.is_rehearsal else "sessions"
        return self._before.request.workspace / name

    def _unfinished(self) -> tuple[Path, str, int] | None:
        """Session that a live process of this config's alpha left unfinished: folder, id, start."""
        alpha_id = self._before.alpha_id()
        recorded = self._before.request.recorded
        for path in sorted(self._base().glob(f"*/{LIVE_FILE}")):
            if (path.parent / SUMMARY_FILE).exists():
                continue
            content = _live_file(path)
            if content["alpha_id"] != alpha_id:
                continue
            if recorded is None or content["session_id"] == recorded.session_id:
                return path.parent, str(content["session_id"]), int(content["start_ns"])
        return None

    def _new_folder(self) -> _Folder:
        before = self._before
        config = build_engine_config(
            [AlphaSpec.from_promoted(before.config, before.instrument.symbol)],
            instruments=[before.instrument],
            session=before.session,
            account_limits=before.settings.account_limits(),
            storm_guard=before.settings.storm_guard(),
        )
        kernels_of(config)
        path = self._free_path()
        try:
            copy = path / "config.yaml"
            atomic_write(copy, before.request.config_path.read_bytes())
            signed = read_signed(copy, trusted_keys=before.ring.trusted())
            if signed.content_sha256 != before.config.content_sha256:
                raise PlatformError(
                    ReasonCode.CONFIG_REPLAYED,
                    f"{before.request.config_path} was replaced while the session was opened",
                    next_step="run again",
                )
            atomic_write(path / "engine.json", canonical_json(config) + b"\n")
            # Last: a folder without it is no session that could be continued.
            atomic_write(path / LIVE_FILE, canonical_json(self._live_content()) + b"\n")
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return _Folder(path, config, before.session, is_new=True)

    def _free_path(self) -> Path:
        before = self._before
        stem = (
            f"{before.session.session_id.replace('/', '_')}-{before.instrument.symbol}"
            f"-{before.config.alpha_id}-{before.config.stage}"
        )
        self._base().mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 1_000):
            path = self._base() / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
        raise PlatformError(ReasonCode.CAPACITY_REACHED, f"{stem}: a thousand runs of one session")

    def _live_content(self) -> dict[str, Any]:
        before = self._before
        return {
            "alpha_id": before.config.alpha_id,
            "symbol": before.instrument.symbol,
            "session_id": before.session.session_id,
            "start_ns": before.session.start_ns,
            "end_ns": before.session.end_ns,
            "mode": self._mode,
        }

    def _old_folder(self, path: Path) -> _Folder:
        """Continue under the engine config of the beginning, whatever the settings say by now."""
        return _Folder(path, engine_config_of(path), self._before.session, is_new=False)

    # Parts

    def _session(self, folder: _Folder, epoch: int) -> Any:  # Any: the core's LiveSession
        instrument = self._before.instrument
        options = {
            "wal_id": int(records.tape_sha256(folder.path.name.encode())[:7], 16) + 1,
            "epoch": epoch,
            "process_id": self._pid,
            "opened_ns": self._before.opened_ns(),
            "durable": "record",
            "segment_bytes": self._before.settings.disk_pressure.segment_bytes,
            "group_commit_ms": GROUP_COMMIT_MS,
            "seal_after_s": SEAL_AFTER_S,
            "contracts": {
                str(instrument.instrument_id): {
                    "product_root": instrument.product_root,
                    "last_trading_day": instrument.last_trading_day,
                }
            },
        }
        with typed_errors(f"session {folder.path.name}"):
            return _core.LiveSession(
                canonical_json(folder.engine_config).decode(),
                str(folder.path),
                canonical_json(options).decode(),
                kernels_of(folder.engine_config),
            )

    def _assemble(self, folder: _Folder, session: Any) -> HFTSystem:  # Any: LiveSession
        before = self._before
        settings, instrument = before.settings, before.instrument
        instruments = {instrument.instrument_id: instrument}
        order_ids = OrderIds.from_session(session)
        venue = self._make_venue(
            VenueRequest(
                settings=settings,
                config=before.config,
                instruments=instruments,
                traded=folder.traded,
                workspace=before.request.workspace,
                session_dir=folder.path,
                last_time_ns=int(session.recovered()["last_time_ns"]),
            )
        )
        clock_ns = venue.clock_ns
        probe = ProbedBroker(venue.broker, clock_ns)
        gateway = ExecutionGateway(session, order_ids, instruments, clock_ns)
        governor = SessionGovernor([instrument])
        fence = LatchFence(before.request.workspace)
        budget, breaker = call_budget(settings.broker), call_breaker(settings.broker)
        control = LiveControl(
            session,
            before.config,
            governor,
            ControlledBy(
                workspace=before.request.workspace,
                session_dir=folder.path,
                load=before.load_config,
                disk=DiskPressureMonitor(settings.disk_pressure, folder.path),
                requests=lambda now_ns: _obey(folder.path, session, now_ns),
            ),
            instrument_id=instrument.instrument_id,
        )
        parts = SystemParts(
            session=session,
            broker=probe,
            listener=SystemListener(gateway, probe, control, clock_ns=clock_ns),
            dispatcher=OrderAdapter(
                session,
                probe,
                instruments=instruments,
                order_ids=order_ids,
                budget=budget,
                breaker=breaker,
                fence=fence,
                clock_ns=clock_ns,
                daily_limits=lambda number: _daily_limits(probe, instruments.get(number)),
            ),
            reconciler=ReconciliationService(
                session,
                probe,
                order_ids,
                gateway,
                settings=settings.reconciliation,
                instruments=instruments,
                budget=budget,
                fence=fence,
                clock_ns=clock_ns,
                call_timeout_ns=settings.broker.call_timeout_ms * 1_000_000,
                folder=folder.path,
            ),
            control=control,
            governor=governor,
            traded=folder.traded,
            instruments=instruments,
            ids_of=order_ids.ids_of,
            clock_ns=clock_ns,
            session_dir=folder.path,
            mode=self._mode,
            stop_wait_s=float(settings.governor.stop_wait_s),
            external_qty=lambda number: int(session.adopted().get(number, 0)),
            reports_step=gateway.step,
        )
        return HFTSystem(parts, venue.pace, flatten_on_stop=before.request.flatten_on_stop)


def _daily_limits(probe: ProbedBroker, instrument: Instrument | None) -> tuple[int, int] | None:
    return None if instrument is None else probe.daily_limits(instrument.symbol)


def _obey(session_dir: Path, session: Any, now_ns: int) -> None:  # Any: LiveSession
    operator_requests.obey(
        session_dir, lambda request: int(session.push(request.as_record(now_ns)))
    )


def _live_file(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        if not isinstance(content["alpha_id"], str) or not isinstance(content["end_ns"], int):
            raise TypeError("alpha_id or end_ns")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlatformError(
            ReasonCode.FILE_DAMAGED,
            f"{path}: cannot be read: {error}",
            next_step="restore it from a copy; the session beside it cannot be continued without",
        ) from error
    return content
