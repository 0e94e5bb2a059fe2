"""Run one session of one promoted config: verify, trade, log, seal, replay, sum up, sign.

Why: the only place where a signed config meets a market; research can reach the runtime through
the config and the logs, by nothing else.

Invariants:
1. Nothing is opened before the config, its permit for this mode, the roll rule and the halt latch
   have been checked; a refused session leaves no folder.
2. Between two steps of at most a fifth of a second the latch, withdrawals and lowered weights are
   read and become command records: they are in the log, so a replay obeys them too. A latch that
   was lifted becomes the two records of a resume. So do an operator's requests to this session.
3. A session that ends for another reason than its last record seals its logs and has no summary.
4. A failure of the log halts the workspace; so does a halt of the engine, at the next step.
5. Space on the disk is looked at once a second (`disk_guard`); a session for which there is none is
   refused. A halt whose latch cannot be written keeps the session without a summary, so that its
   order log halts the workspace.
6. A session with faults is a drill: it lies apart, has no summary, and is no evidence.

`sim` runs in virtual time at full speed, `paper` at the pace of the recording (or `speed` times
it). It places no order at a broker. Operator's page: `docs/runbook.md`.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from hft_platform import _core, records
from hft_platform.config.canonical import atomic_write, canonical_json
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.engine_config import AlphaSpec, build_engine_config
from hft_platform.config.keys import KeyRing
from hft_platform.config.promoted import PromotedConfig, read_signed
from hft_platform.config.settings import DiskPressure, Settings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.execution.faults import FaultProfile
from hft_platform.execution.venue_options import venue_options
from hft_platform.feed.recording import RecordedSession, load_tape
from hft_platform.input_records import ALL_ALPHAS, CommandKind
from hft_platform.kernels import kernels_of
from hft_platform.market.instruments import Instrument, InstrumentTable, roll_day
from hft_platform.market.latency import load_latency_profile
from hft_platform.services import latch, operator_requests, session_summary
from hft_platform.services.disk_guard import DiskGuard, require_space
from hft_platform.services.parity import (
    ParityReport,
    parity_of,
    read_session,
    write_report,
)
from hft_platform.services.session_facts import SessionFacts, evidence_of
from hft_platform.services.session_register import register_begin

STEP_RECORDS = 20_000
"""Records between two looks at the latch when running unpaced: some 50 ms."""
PACED_STEP_RECORDS = 500
"""The same when paced, where an order waits for the disk."""
SEAL_AFTER_S = 60
"""Age at which a paced session's segments are sealed, so that a loader is a minute behind."""
STEP_SECONDS = 0.2
"""Time between two looks when paced: a fifth of the second in which a halt must act."""

log = structlog.get_logger()

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Clock:
    """How a paced session tells and passes time.

    Attributes
    ----------
    monotonic : callable
        Seconds since some moment.
    sleep : callable
        Waits that many seconds.
    """

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to run.

    Attributes
    ----------
    workspace : Path
        Folder with keys, promotions, datasets and sessions.
    config_path : Path
        The promoted config's YAML.
    session : RecordedSession
        The recording that plays the market.
    mode : str
        ``sim`` or ``paper``.
    speed : float or None
        Times real time; None runs as fast as the machine can.
    faults : FaultProfile or None
        What goes wrong at the paper exchange; a session with faults is a drill.
    """

    workspace: Path
    config_path: Path
    session: RecordedSession
    mode: str
    speed: float | None = None
    faults: FaultProfile | None = None


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """Where the session lies and what came of it.

    `summary` is signed, unless it was a drill: then it is the content of ``drill.json``.
    """

    session_dir: Path
    summary: dict[str, Any]
    parity: ParityReport


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Everything a session needs, verified."""

    config: PromotedConfig
    instrument: Instrument
    start_ns: int
    end_ns: int
    engine_config: dict[str, Any]
    latency: dict[str, Any]
    latency_sha256: str
    tape: bytes
    kernels: list[_core.KernelHandle]


def run_session(
    request: RunRequest,
    *,
    instruments: InstrumentTable,
    settings: Settings,
    progress: Progress | None = None,
    clock: Clock | None = None,
    bus: _core.Bus | None = None,
    opened: Callable[[Path], None] | None = None,
) -> SessionOutcome:
    """Run one session to its end.

    Parameters
    ----------
    request : RunRequest
        What to run.
    instruments : InstrumentTable
        Resolves the session's symbol.
    settings : Settings
        Account limits and pinned keys.
    progress : callable, optional
        Called after every step with the core's counters.
    clock : Clock, optional
        Of a paced session; the machine's by default.
    bus : Bus, optional
        Carries what the logs take, for monitors; they change nothing (docs/bus.md).
    opened : callable, optional
        Told the session's folder when its logs are open, before the first record.

    Returns
    -------
    SessionOutcome
        With the signed summary.

    Raises
    ------
    PlatformError
        A typed refusal when the config may not trade this session, KILL_SWITCH_ON while halted,
        WAL_WRITE_FAILED when the log could not be written (nothing was sent after that).
    """
    clock = clock or Clock()
    started = clock.monotonic()
    ring = KeyRing.open(request.workspace, pinned_file=settings.pinned_keys_path)
    ready = _prepare(request, instruments, settings, ring)
    require_space(settings.disk_pressure, request.workspace)
    session_dir = _new_session_dir(request, ready.config)
    try:
        paper = _open(session_dir, request, ready, ring, settings.disk_pressure, bus=bus)
        if request.faults is None:
            register_begin(request.workspace, session_dir.name, ready.config, ring.session_key())
    except BaseException:
        # Nothing was traded: a refused session leaves nothing behind.
        shutil.rmtree(session_dir, ignore_errors=True)
        raise
    if opened is not None:
        opened(session_dir)
    guard = DiskGuard(
        paper,
        settings.disk_pressure,
        session_dir,
        run_id=session_dir.name,
        monotonic=clock.monotonic,
        is_paced=request.speed is not None,
    )
    driver = _Driver(paper, request, ready.config, clock, guard, session_dir=session_dir)
    try:
        driver.run(ready.start_ns, progress)
    except BaseException:
        with contextlib.suppress(PlatformError):
            paper.finish()
        raise
    finished = paper.finish()
    halted_by = int(finished["halted_by"])
    # What the engine halts for in a drill is the drill's; a failing log is everybody's.
    is_drill = request.faults is not None and not finished["message"]
    if halted_by and not driver.is_halted and not is_drill:
        driver.latch(finished["message"] or "the engine halted", halted_by)
    if finished["message"]:
        raise PlatformError(halted_by, f"session {session_dir.name}: {finished['message']}")
    driver.require_latched()
    try:
        return _conclude(request, ready, session_dir, finished, driver, ring, (started, clock))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise PlatformError(
            ReasonCode.DISK_SPACE_HALT,
            f"session {session_dir.name}: its logs are sealed, there is no room for its summary",
            next_step=f"free space; the session is no evidence, run it again ({error})",
        ) from error


def _conclude(
    request: RunRequest,
    ready: _Prepared,
    session_dir: Path,
    finished: dict[str, Any],
    driver: _Driver,
    ring: KeyRing,
    time_spent: tuple[float, Clock],
) -> SessionOutcome:
    """Replay a session that ended as it should, sum it up and sign."""
    started, clock = time_spent
    halted_by = int(finished["halted_by"])
    traded = clock.monotonic()
    logs = read_session(session_dir)
    parity = parity_of(logs, ready.engine_config)
    write_report(session_dir, parity)
    facts = SessionFacts(
        run_id=session_dir.name,
        config=ready.config,
        session=request.session,
        instrument=ready.instrument,
        mode=request.mode,
        weight_ppm=ready.engine_config["alphas"][0]["weight_ppm"],
        latency_sha256=ready.latency_sha256,
        logs=logs,
        parity=parity,
        halted_by=halted_by,
        is_withdrawn=driver.is_withdrawn,
    )
    timings = {
        "run_seconds": traded - started,
        "replay_seconds": clock.monotonic() - traded,
        "decide_ns": finished["decide_ns"],
        # Frames say how far the disk lagged, so a segment's hash differs from run to run; what the
        # log holds is in the evidence as inputs_sha256 and decisions_sha256.
        "segments": [row["sha256"] for row in logs.segments],
    }
    if request.faults is not None:
        drill = {"evidence": evidence_of(facts), "faults": finished["faults"]}
        atomic_write(session_dir / "drill.json", canonical_json(_json_keys(drill)) + b"\n")
        return SessionOutcome(session_dir, drill, parity)
    summary = session_summary.sign_summary(evidence_of(facts), timings, ring.session_key())
    session_summary.write_summary(session_dir / "summary.json", summary)
    return SessionOutcome(session_dir, summary, parity)


def _json_keys(content: dict[str, Any]) -> dict[str, Any]:
    """Numbers that are keys (reason codes, instruments) as text, as JSON has them."""
    return {
        str(key): _json_keys(value) if isinstance(value, dict) else value
        for key, value in content.items()
    }


def _prepare(
    request: RunRequest, instruments: InstrumentTable, settings: Settings, ring: KeyRing
) -> _Prepared:
    """Check everything that can refuse the session; nothing is written but the sequence seen."""
    if request.mode not in ("sim", "paper"):
        raise PlatformError(
            ReasonCode.NO_BROKER_CREDENTIALS,
            f"mode was {request.mode!r}; a recording is traded in sim or paper only",
        )
    latch.require_clear(request.workspace)
    instrument = instruments.by_symbol(request.session.symbol)
    session = request.session.session_of(instrument)
    instrument = instrument.on(session.trading_day)
    config = PromotedConfig.load_verified(
        request.config_path,
        workspace=request.workspace,
        trusted_keys=ring.trusted(),
        mode=request.mode,  # type: ignore[arg-type]  # narrowed above
        now_ns=session.start_ns,
        symbol=instrument.symbol,
        code_sha256=code_sha256(),
    )
    require_before_roll(config, instrument, session.trading_day)
    latency, latency_sha = load_latency_profile(config.latency_profile)
    if latency_sha != config.latency_profile_sha256:
        raise PlatformError(
            ReasonCode.CONFIG_EVIDENCE_MISMATCH,
            f"latency profile {config.latency_profile} has hash {latency_sha[:12]},"
            f" the config was signed for {config.latency_profile_sha256[:12]}",
        )
    engine_config = build_engine_config(
        [AlphaSpec.from_promoted(config, instrument.symbol)],
        instruments=[instrument],
        session=session,
        account_limits=settings.account_limits(),
        storm_guard=settings.storm_guard(),
    )
    return _Prepared(
        config=config,
        instrument=instrument,
        start_ns=session.start_ns,
        end_ns=session.end_ns,
        engine_config=engine_config,
        latency=latency,
        latency_sha256=latency_sha,
        tape=load_tape(request.session),
        kernels=kernels_of(engine_config),
    )


def require_before_roll(config: PromotedConfig, instrument: Instrument, trading_day: int) -> None:
    """Refuse a session that the signed roll rule forbids.

    Parameters
    ----------
    config : PromotedConfig
        With its roll rule.
    instrument : Instrument
        The contract that the product root resolved to.
    trading_day : int
        Of the session, yyyymmdd.

    Raises
    ------
    PlatformError
        ROLL_NOT_PERMITTED when the contract is in its last days: it is to be flat by then, and
        every session ends flat, so nothing may be opened any more.
    """
    rule, last = config.roll_rule, instrument.last_trading_day
    if rule.kind == "none" or not last:
        return
    if trading_day > roll_day(instrument, rule):
        raise PlatformError(
            ReasonCode.ROLL_NOT_PERMITTED,
            f"{instrument.symbol} ends on {last}; {config.alpha_id} is to be flat"
            f" {rule.trading_days_before} trading days before, the session is {trading_day}",
            next_step="run the next contract, or sign another roll rule",
        )


def _open(
    session_dir: Path,
    request: RunRequest,
    ready: _Prepared,
    ring: KeyRing,
    disk: DiskPressure,
    *,
    bus: _core.Bus | None,
) -> Any:
    atomic_write(session_dir / "engine.json", canonical_json(ready.engine_config) + b"\n")
    atomic_write(session_dir / "latency.json", canonical_json(ready.latency) + b"\n")
    if request.faults is not None:
        content = request.faults.model_dump(mode="json")
        atomic_write(session_dir / "faults.json", canonical_json(content) + b"\n")
    copy = session_dir / "config.yaml"
    atomic_write(copy, request.config_path.read_bytes())
    if read_signed(copy, trusted_keys=ring.trusted()).content_sha256 != ready.config.content_sha256:
        raise PlatformError(
            ReasonCode.CONFIG_REPLAYED,
            f"{request.config_path} was replaced while the session was opened",
            next_step="run again",
        )
    venue = venue_options(
        ready.instrument,
        queue_model=ready.config.queue_model,
        faults=None if request.faults is None else request.faults.core(ready.end_ns),
    )
    paper = _core.PaperSession(
        canonical_json(ready.engine_config).decode(),
        canonical_json(ready.latency).decode(),
        canonical_json(venue).decode(),
        str(session_dir),
        canonical_json(_log_options(session_dir.name, request, disk)).decode(),
        ready.kernels,
    )
    if bus is not None:
        paper.publish_to(bus)
    paper.feed(ready.tape)
    return paper


def _log_options(run_id: str, request: RunRequest, disk: DiskPressure) -> dict[str, Any]:
    """Paced sessions sync every decision before its request leaves, as live does.

    In virtual time there is no broker to be ahead of: the log is synced in groups, and a crash
    loses at most a session that can be run again. Nor does the wall clock cut segments there:
    only a paced session has readers that wait for a sealed one.
    """
    options = {
        "wal_id": _wal_id(run_id),
        "durable": "group",
        "segment_bytes": disk.segment_bytes,
    }
    if request.speed is not None:
        options |= {"durable": "record", "seal_after_s": SEAL_AFTER_S}
    return options


def _wal_id(run_id: str) -> int:
    """A stable, non-zero 28-bit id of the session's logs."""
    return int(records.tape_sha256(run_id.encode())[:7], 16) + 1


def _new_session_dir(request: RunRequest, config: PromotedConfig) -> Path:
    base = request.workspace / ("sessions" if request.faults is None else "drills")
    session = request.session.session_id.replace("/", "_")
    stem = f"{session}-{request.session.symbol}-{config.alpha_id}-{config.stage}"
    base.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, 1000):
        path = base / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise PlatformError(ReasonCode.CAPACITY_REACHED, f"{stem}: a thousand runs of one session")


class _Driver:
    """Steps a session; between steps it passes on what operator, signer and canary wrote."""

    def __init__(
        self,
        paper: Any,
        request: RunRequest,
        config: PromotedConfig,
        clock: Clock,
        guard: DiskGuard,
        *,
        session_dir: Path,
    ) -> None:
        self._guard = guard
        self._session_dir = session_dir
        self._owed_latch: tuple[str, int] | None = None
        self._is_drill_halted = False
        self._run_id = session_dir.name
        self._is_drill = request.faults is not None
        self._paper = paper
        self._workspace = request.workspace
        self._speed = request.speed
        self._config = config
        self._clock = clock
        self._weight_ppm = config.weight_ppm
        self.is_halted = False
        self.is_withdrawn = False

    def run(self, start_ns: int, progress: Progress | None) -> None:
        """Step to the end of the recording."""
        step_records = STEP_RECORDS if self._speed is None else PACED_STEP_RECORDS
        started, inputs = self._clock.monotonic(), 0
        while True:
            self._obey()
            until_ns = None
            if self._speed is not None:
                elapsed = self._clock.monotonic() - started
                until_ns = start_ns + int(elapsed * self._speed * 1e9)
            state = self._paper.run(until_ns, step_records)
            is_news = state["halted_by"] and not state["done"] and not self.is_halted
            if is_news and not self._is_drill:
                # The engine halted by itself; its log has it, now the workspace has it too. At the
                # end the session's result says more.
                self.latch("the engine halted", int(state["halted_by"]))
                self.is_halted = True
            if progress is not None:
                progress(state)
            if state["done"]:
                return
            is_behind = state["inputs"] - inputs >= step_records
            inputs = state["inputs"]
            if self._speed is not None and not is_behind:
                self._clock.sleep(STEP_SECONDS)

    def latch(self, why: str, code: int) -> None:
        """Latch the workspace; on a full disk that is tried again at every look."""
        try:
            latch.halt(self._workspace, who=self._run_id, why=why, code=code)
        except OSError as error:
            if self._owed_latch is None:
                facts = {"run_id": self._run_id, "reason_code": code, "error": str(error)}
                log.error("halt_not_latched", **facts)
            self._owed_latch = (why, code)
            return
        self._owed_latch = None

    def require_latched(self) -> None:
        """Refuse to go on to a summary while a halt stands in the order log only.

        Raises
        ------
        PlatformError
            The halt's code.
        """
        if self._owed_latch is None:
            return
        self.latch(*self._owed_latch)
        if self._owed_latch is not None:
            raise PlatformError(
                self._owed_latch[1],
                f"session {self._run_id}: {self._owed_latch[0]}; its order log has the halt, the"
                " workspace has no room for it",
                next_step="free space, then hft-live resume",
            )

    def _obey(self) -> None:
        is_halted = self.is_halted or self._is_drill_halted
        if self._guard.look(is_halted=is_halted):
            self._is_drill_halted = self._is_drill
            self.is_halted = not self._is_drill
        if self.is_halted and not is_halted:
            self.latch("no space is left for the log", int(ReasonCode.DISK_SPACE_HALT))
        if self._owed_latch is not None:
            self.latch(*self._owed_latch)
        content = latch.read(self._workspace)
        if self._owed_latch is not None:
            pass  # Halted; that the workspace has no latch yet is no resume.
        elif content is not None and not self.is_halted:
            self._paper.command(CommandKind.HALT, ALL_ALPHAS, 0, content["code"])
            self.is_halted = True
        elif content is None and self.is_halted:
            self._resume()
        operator_requests.obey(self._session_dir, self._put)
        if not self.is_withdrawn and self._config.is_withdrawn(self._workspace):
            self._paper.command(CommandKind.WITHDRAW, 0, 0, int(ReasonCode.CONFIG_WITHDRAWN))
            self.is_withdrawn = True
        if (weight_ppm := self._config.weight_in_force(self._workspace)) < self._weight_ppm:
            self._paper.command(CommandKind.SET_WEIGHT, 0, weight_ppm, 0)
            self._weight_ppm = weight_ppm

    def _put(self, request: operator_requests.OperatorRequest) -> int:
        return int(
            self._paper.command(
                int(request.kind),
                ALL_ALPHAS,
                request.argument,
                request.reason_code,
                instrument_id=request.instrument_id,
            )
        )

    def _resume(self) -> None:
        """Pass an operator's resume on, in the engine's own two steps; it may refuse."""
        armed_seq = self._paper.command(CommandKind.RESUME_ARM, ALL_ALPHAS, 0, 0)
        self._paper.command(CommandKind.RESUME_CONFIRM, ALL_ALPHAS, armed_seq, 0)
        halted_by = int(self._paper.counters()["halted_by"])
        if halted_by:
            why = "the session refused the resume: what halted it is still there"
            self.latch(why, halted_by)
            return
        self.is_halted = False
