"""Pre-market checks: everything that can refuse a live session before a broker is called.

Why: what is wrong at 08:44 must be found at 07:50, by one command that opens nothing.

Invariants:
1. A check refuses with a code of its own, or says in one line what it saw; nothing in between.
2. The start of a session runs the same checks in the same order and stops at the first that
   refuses; `--check` runs all that still make sense and prints a row each.
3. Nothing is written but the highest time and the highest sequence seen, as every start does.

It calls no broker: contract and certificate at the broker are compared when it is connected
(docs/shioaji.md). Operator's page: `docs/live.md`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from hft_platform import _core
from hft_platform.config.code_hash import code_sha256
from hft_platform.config.keys import KeyRing
from hft_platform.config.promoted import PromotedConfig, read_signed
from hft_platform.config.promotion_folder import promotions_root, reduced_weight
from hft_platform.config.settings import Settings
from hft_platform.config.wall_clock import checked_time_ns
from hft_platform.errors import PlatformError, ReasonCode, code_name
from hft_platform.feed.recording import RecordedSession
from hft_platform.market.instruments import Instrument, InstrumentTable
from hft_platform.market.latency import load_latency_profile
from hft_platform.market.sessions import (
    Session,
    date_of,
    sessions_for,
    third_wednesday,
    yyyymmdd,
)
from hft_platform.order.shioaji_credentials import read_credentials
from hft_platform.services import latch
from hft_platform.services.disk_guard import require_space
from hft_platform.services.session_governor import session_to_run
from hft_platform.services.session_runner import require_before_roll
from hft_platform.services.workspace_lock import WorkspaceLock

_T = TypeVar("_T")
FULL_WEIGHT_PPM = 1_000_000
ENVIRONMENT_LIVE = "HFT_LIVE_ENABLED"


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """What to run.

    Attributes
    ----------
    workspace : Path
        Folder with keys, promotions and sessions.
    config_path : Path
        The promoted config's YAML.
    symbol : str or None
        Which of its instruments; the first by default.
    broker : str
        ``shioaji``, or ``paper``: a rehearsal over a recorded session.
    recorded : RecordedSession or None
        Of a rehearsal.
    speed : float or None
        Of a rehearsal: times real time; None runs as fast as the machine can.
    flatten_on_stop : bool
        Whether a stop before the session's end closes the position first.
    """

    workspace: Path
    config_path: Path
    symbol: str | None = None
    broker: str = "shioaji"
    recorded: RecordedSession | None = None
    speed: float | None = 1.0
    flatten_on_stop: bool = False

    @property
    def is_rehearsal(self) -> bool:
        """No broker, no money: the paper exchange over a recording."""
        return self.broker == "paper"


@dataclass(frozen=True, slots=True)
class CheckRow:
    """Outcome of one check; `code` is 0 when it passed."""

    name: str
    code: int
    text: str
    next_step: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "check": self.name,
            "passed": self.code == 0,
            "code": self.code,
            "reason": code_name(self.code) if self.code else None,
            "text": self.text,
            "next": self.next_step,
        }


class PreMarket:
    """Runs the checks for one request, and keeps what they found.

    Parameters
    ----------
    request : LiveRequest
        What to run.
    settings : Settings
        The installation's.
    instruments : InstrumentTable
        All known contracts.
    clock_ns : callable
        Wall clock.
    environment : mapping of str to str
        Holds the opt-in and the names of secret files.
    pid : int
        Of this process.
    """

    def __init__(
        self,
        request: LiveRequest,
        *,
        settings: Settings,
        instruments: InstrumentTable,
        clock_ns: Callable[[], int],
        environment: Mapping[str, str],
        pid: int,
    ) -> None:
        self.request = request
        self.settings = settings
        self.ring = KeyRing.open(request.workspace, pinned_file=settings.pinned_keys_path)
        self._instruments = instruments
        self._environment = environment
        self._clock_now_ns = clock_ns
        self._continued: tuple[str, int] | None = None
        self._pid = pid
        self._symbols: list[str] = []
        self._roots: dict[str, str] = {}
        self._instrument: Instrument | None = None
        self._session: Session | None = None
        self._config: PromotedConfig | None = None
        self.clock_ns = clock_ns()

    def continue_session(self, folder: Path, session_id: str, start_ns: int) -> None:
        """Check for a session that began before, under the config in its folder.

        What ended since then (a permit, an expiry, a weight) is no refusal here: what is held must
        be brought to its end, and the engine takes it from there.

        Parameters
        ----------
        folder : Path
            Of the session.
        session_id : str
            Which one it is.
        start_ns : int
            When it began.
        """
        self._continued = (session_id, start_ns)
        self.request = replace(self.request, config_path=folder / "config.yaml")

    def runner(self) -> str | None:
        """The alpha, when its orders go through the workspace's gateway; None when they do not."""
        is_runner = self.settings.gateway.enabled and not self.request.is_rehearsal
        return self.alpha_id() if is_runner else None

    def alpha_id(self) -> str:
        """Alpha of the config, proven by its signature."""
        issue = read_signed(self.request.config_path, trusted_keys=self.ring.trusted())
        return issue.content.alpha_id

    def load_config(self, path: Path) -> PromotedConfig:
        """Verify a config for this session as it was verified at the start, now."""
        return PromotedConfig.load_verified(
            path,
            workspace=self.request.workspace,
            trusted_keys=self.ring.trusted(),
            mode="paper" if self.request.is_rehearsal else "live",
            now_ns=self._judged_ns(),
            symbol=self.instrument.symbol,
            code_sha256=code_sha256(),
        )

    def opened_ns(self) -> int:
        """Time at which the session's logs are opened: the wall clock's, or the recording's."""
        return self.session.start_ns if self.request.is_rehearsal else self._clock_now_ns()

    def _judged_ns(self) -> int:
        """A permit is judged when it would trade: a start before the open is no earlier."""
        start_ns = self.session.start_ns
        if self.request.is_rehearsal:
            return start_ns
        return max(checked_time_ns(self.request.workspace, self._clock_now_ns()), start_ns)

    @property
    def instrument(self) -> Instrument:
        """The contract by the rules of the session's day."""
        return _known(self._instrument)

    @property
    def session(self) -> Session:
        """The session to trade."""
        return _known(self._session)

    @property
    def config(self) -> PromotedConfig:
        """The verified config."""
        return _known(self._config)

    def checks(self) -> list[tuple[str, Callable[[], str]]]:
        """Every check, in order."""
        rows: list[tuple[str, Callable[[], str]]] = [
            ("enabled", self._enabled),
            ("latch", self._latch),
            ("build", self._build),
            ("clock", self._clock),
            ("disk", self._disk),
            ("signature", self._signature),
            ("contract", self._contract),
            ("session", self._calendar),
            ("config", self._permit),
            ("roll", self._roll),
            ("weight", self._weight),
            ("latency", self._latency),
            ("credentials", self._credentials),
            ("certificate", self._certificate),
            ("lock", self._lock),
        ]
        if self.request.is_rehearsal:
            not_rehearsed = ("enabled", "build", "clock", "credentials", "certificate")
            rows = [row for row in rows if row[0] not in not_rehearsed]
        return rows

    def require_all(self) -> None:
        """Run the checks up to the first that refuses.

        Raises
        ------
        PlatformError
            Its refusal.
        """
        for name, check in self.checks():
            # The start takes the lock itself, and holds it.
            if name != "lock":
                check()

    def report(self) -> list[CheckRow]:
        """Run every check; one that needs what another did not find is left out.

        Returns
        -------
        list of CheckRow
            In order.
        """
        rows = []
        for name, check in self.checks():
            try:
                rows.append(CheckRow(name, 0, check()))
            except _NotFoundYet:
                continue
            except PlatformError as error:
                rows.append(CheckRow(name, error.code, error.message, error.next_step))
        return rows

    def _enabled(self) -> str:
        require_live_enabled(self._environment)
        kind = "its test environment" if self.settings.broker.is_simulation else "the market"
        return f"{ENVIRONMENT_LIVE} is 1; orders go to {kind}"

    def _latch(self) -> str:
        latch.require_clear(self.request.workspace)
        return "not halted"

    def _build(self) -> str:
        require_release_build()
        return f"release, code {code_sha256()[:12]}"

    def _clock(self) -> str:
        self.clock_ns = checked_time_ns(self.request.workspace, self._clock_now_ns())
        return "the clock is not behind the highest time seen"

    def _disk(self) -> str:
        require_space(self.settings.disk_pressure, self.request.workspace)
        status = os.statvfs(self.request.workspace)
        return f"{status.f_bavail * status.f_frsize / 2**30:.1f} GiB free"

    def _signature(self) -> str:
        issue = read_signed(self.request.config_path, trusted_keys=self.ring.trusted())
        self._symbols = [row.symbol for row in issue.content.instruments]
        self._roots = {row.symbol: row.product_root for row in issue.content.instruments}
        kind = "automatic" if issue.key.automatic else "pinned"
        return f"signed by {kind} key {issue.key.key_id}"

    def _contract(self) -> str:
        if not self._symbols:
            raise _NotFoundYet
        symbol = self.request.symbol or self._symbols[0]
        if symbol not in self._symbols:
            raise PlatformError(
                ReasonCode.CONFIG_WRONG_INSTRUMENT,
                f"--symbol was {symbol}; the config is for {', '.join(self._symbols)}",
            )
        found = self._instruments.by_symbol(symbol)
        if found.product_root != self._roots[symbol]:
            raise PlatformError(
                ReasonCode.CONTRACT_MISMATCH,
                f"{symbol} is of product {found.product_root}, the config was signed for"
                f" {self._roots[symbol]}",
            )
        self._instrument = found
        last = found.last_trading_day
        if not last:
            return f"{symbol} of {found.product_root}, no last trading day"
        day = date_of(last)
        usual = yyyymmdd(third_wednesday(day.year, day.month))
        note = "" if usual == last else f" (third Wednesday is {usual}: compare with the contract)"
        return f"{symbol} of {found.product_root}, last trading day {last}{note}"

    def _calendar(self) -> str:
        instrument = self._instrument
        if instrument is None:
            raise _NotFoundYet
        recorded = self.request.recorded
        if self._continued is not None:
            session = _session_again(instrument, *self._continued)
        elif recorded is None:
            before_s = self.settings.governor.start_before_s
            session = session_to_run(instrument, self.clock_ns, start_before_s=before_s)
        else:
            if recorded.symbol != instrument.symbol:
                raise PlatformError(
                    ReasonCode.CONFIG_WRONG_INSTRUMENT,
                    f"the recording is of {recorded.symbol}, the session trades"
                    f" {instrument.symbol}",
                )
            session = recorded.session_of(instrument)
        self._session = session
        self._instrument = today = instrument.on(session.trading_day)
        if today.eligibility == "closed":
            raise PlatformError(
                ReasonCode.SESSION_NOT_OPEN,
                f"{today.symbol} is closed for trading on {session.trading_day}",
            )
        return f"{session.session_id}, trading day {session.trading_day}"

    def _permit(self) -> str:
        if self._session is None or self._instrument is None:
            raise _NotFoundYet
        if self._continued is None:
            self._config = config = self.load_config(self.request.config_path)
        else:
            self._config = config = self._permit_again()
        return f"{config.alpha_id}, stage {config.stage}, sequence {config.promotion_seq}"

    def _permit_again(self) -> PromotedConfig:
        """The config that a session began with; its signature must hold, its time need not."""
        trusted = self.ring.trusted()
        issue = read_signed(self.request.config_path, trusted_keys=trusted)
        root, content = promotions_root(self.request.workspace), issue.content
        weight_ppm = reduced_weight(
            root, content.alpha_id, content.promotion_seq, signed_ppm=content.weight_ppm
        )
        return PromotedConfig.model_validate(
            issue.raw
            | {
                "weight_ppm": weight_ppm,
                "signed_weight_ppm": content.weight_ppm,
                "content_sha256": issue.content_sha256,
                "key_id": issue.key.key_id,
            }
        )

    def _roll(self) -> str:
        if self._config is None:
            raise _NotFoundYet
        require_before_roll(self._config, self.instrument, self.session.trading_day)
        return f"rule {self._config.roll_rule.kind}"

    def _weight(self) -> str:
        if self._config is None:
            raise _NotFoundYet
        if self._continued is not None:
            return f"{self._config.weight_ppm / 1e4:g} % in force"
        config, lot = self._config, self.instrument.lot_size
        qty = config.order_qty * config.weight_ppm // FULL_WEIGHT_PPM // lot * lot
        if qty < lot:
            raise PlatformError(
                ReasonCode.WEIGHT_BELOW_ONE_LOT,
                f"weight {config.weight_ppm / 1e4:g} % of {config.order_qty / 1e8:g} is less than"
                f" one lot of {lot / 1e8:g}: nothing could be traded",
            )
        return f"{config.weight_ppm / 1e4:g} % in force, orders of {qty / 1e8:g}"

    def _latency(self) -> str:
        if self._config is None:
            raise _NotFoundYet
        name, signed = self._config.latency_profile, self._config.latency_profile_sha256
        found = load_latency_profile(name)[1]
        if found != signed:
            raise PlatformError(
                ReasonCode.CONFIG_EVIDENCE_MISMATCH,
                f"latency profile {name} has hash {found[:12]}, the config was signed for"
                f" {signed[:12]}",
            )
        return f"profile {name} is the one it was judged with"

    def _credentials(self) -> str:
        read_credentials(self._environment, needs_certificate=False)
        return "both files are there, for this user only"

    def _certificate(self) -> str:
        if self.settings.broker.is_simulation:
            return "not needed in the broker's test environment"
        read_credentials(self._environment, needs_certificate=True)
        return "file and password file are there; its date is read at the login"

    def _lock(self) -> str:
        runner = self.runner()
        with WorkspaceLock(self.request.workspace, pid=self._pid, is_trial=True, runner=runner):
            what = "workspace" if runner is None else f"alpha {runner} through the gateway"
            return f"no other live process trades this {what}"


def require_live_enabled(environment: Mapping[str, str]) -> None:
    """Refuse unless the operator opted in to real orders.

    Parameters
    ----------
    environment : mapping of str to str
        Of the process.

    Raises
    ------
    PlatformError
        LIVE_NOT_ENABLED.
    """
    if environment.get(ENVIRONMENT_LIVE) != "1":
        raise PlatformError(
            ReasonCode.LIVE_NOT_ENABLED, f"{ENVIRONMENT_LIVE} is not 1; no session was opened"
        )


def require_release_build() -> None:
    """Refuse a core that was not built for live.

    Raises
    ------
    PlatformError
        LIVE_NOT_ENABLED.
    """
    if _core.BUILD_PROFILE != "release":
        raise PlatformError(
            ReasonCode.LIVE_NOT_ENABLED,
            f"the core was built with profile {_core.BUILD_PROFILE!r}; live needs release",
            next_step="make build",
        )


def _session_again(instrument: Instrument, session_id: str, start_ns: int) -> Session:
    """The session that a folder was opened for, by the calendar of today."""
    for session in sessions_for(instrument, start_ns, start_ns):
        if (session.session_id, session.start_ns) == (session_id, start_ns):
            return session
    raise PlatformError(
        ReasonCode.VERDICT_STALE,
        f"calendar {instrument.calendar} has no session {session_id} from {start_ns} any more; an"
        " unfinished session began in it",
        next_step="put the calendar back, and bring the session to its end",
    )


class _NotFoundYet(Exception):  # noqa: N818  # not an error: an earlier check refused
    """What this check looks at was refused before."""


def _known(value: _T | None) -> _T:
    if value is None:
        raise PlatformError(ReasonCode.INVARIANT_BROKEN, "the pre-market checks have not run")
    return value
