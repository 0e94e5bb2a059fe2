"""Logs in at the broker: the only file that names the SDK's session class.

Why: the class opens network connections when it is made. So one function makes it, only the
explicit live command reaches that function, and a test holds the names to this file.

Invariants:
1. Nothing is made or called before live trading was enabled by the operator, credentials were read
   and the login budget wrote the attempt down.
2. Only accounts of the allow-list come out; without one for a market that is traded there is no
   session. Outside the test environment they are signed and the certificate is active.
3. A login that failed leaves no session open.
4. The SDK is imported here and nowhere else, after its log was given a place in the workspace.

No successful login lies behind this file: see "What is unverified" in `docs/shioaji.md`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import structlog

from hft_platform.config.settings import BrokerSettings
from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.order.shioaji_api import ShioajiApi
from hft_platform.order.shioaji_credentials import Credentials
from hft_platform.order.shioaji_errors import attempt, describe, meaning_of
from hft_platform.order.shioaji_events import account_key
from hft_platform.order.shioaji_logins import DAY_NS, LoginBudget
from hft_platform.order.shioaji_values import (
    UnreadableError,
    attribute,
    moment_ns,
    text,
    word,
)

log = structlog.get_logger()

ACCOUNT_TYPES = {"F": "futures", "S": "stock", "H": "foreign"}
"""The SDK's types of accounts, and the side of the market they trade."""
RECEIVE_WINDOW_MS = 30_000
PRELOAD_TIMEOUT_MS = 30_000
LOG_VARIABLE = "SJ_LOG_PATH"


@dataclass(frozen=True, slots=True)
class Login:
    """An open session.

    Attributes
    ----------
    api : ShioajiApi
        The SDK's session.
    accounts : mapping of str to object
        ``futures`` or ``stock`` to the SDK's account.
    keys : tuple of str
        The same accounts as the settings name them.
    certificate_end_ns : int or None
        UTC; None in the test environment.
    """

    api: ShioajiApi
    accounts: Mapping[str, Any]  # Any: accounts of the SDK
    keys: tuple[str, ...]
    certificate_end_ns: int | None


def load_sdk(workspace: Path) -> ModuleType:
    """Import the SDK, whose log goes into the workspace; this opens no connection."""
    folder = workspace / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault(LOG_VARIABLE, str(folder / "shioaji.log"))
    return importlib.import_module("shioaji")


class ShioajiSession:
    """Opens and closes the broker's session.

    Parameters
    ----------
    settings : BrokerSettings
        Accounts, simulation, warning days.
    credentials : Credentials
        Read from files.
    budget : LoginBudget
        Counts the attempts.
    markets : iterable of str
        ``futures`` and ``stock``: what is traded needs an account.
    is_live_enabled : bool
        Whether the operator enabled live trading for this process.
    sdk : module
        From `load_sdk`.
    make_api : callable, optional
        Makes the SDK's session object. Tests pass a stand-in; by default it is the real one, which
        opens network connections.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        credentials: Credentials,
        budget: LoginBudget,
        markets: Iterable[str],
        is_live_enabled: bool,
        sdk: ModuleType,
        make_api: Callable[[ModuleType, bool], Any] | None = None,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._budget = budget
        self._markets = tuple(sorted(set(markets)))
        self._is_live_enabled = is_live_enabled
        self._sdk = sdk
        self._make_api = make_api if make_api is not None else _make_api

    @property
    def sdk(self) -> ModuleType:
        """The imported SDK."""
        return self._sdk

    def wait_ns(self, now_ns: int) -> int:
        """How long until a login may be tried."""
        return self._budget.wait_ns(now_ns)

    def open(self, now_ns: int) -> Login:
        """Log in, choose the accounts and activate the certificate.

        Parameters
        ----------
        now_ns : int
            The wall clock.

        Returns
        -------
        Login
            Ready for orders; no callback is set and nothing is subscribed yet.

        Raises
        ------
        PlatformError
            LIVE_NOT_ENABLED, BROKER_LOGIN_FAILED, BROKER_LOGIN_SPENT, BROKER_UNREACHABLE,
            ACCOUNT_NOT_ALLOWED, CERTIFICATE_MISSING, CERTIFICATE_EXPIRED.
        """
        if not self._is_live_enabled:
            raise PlatformError(
                ReasonCode.LIVE_NOT_ENABLED,
                "the broker's session is opened by the live command only",
            )
        if not self._settings.accounts:
            raise PlatformError(
                ReasonCode.ACCOUNT_NOT_ALLOWED, "broker.accounts is empty: no account may be traded"
            )
        if not self._settings.is_simulation and self._credentials.certificate is None:
            raise PlatformError(
                ReasonCode.CERTIFICATE_MISSING, "orders are signed, and no certificate was read"
            )
        self._budget.take(now_ns)
        api = self._guarded(
            "start of the SDK", lambda: self._make_api(self._sdk, self._settings.is_simulation)
        )
        try:
            login = self._logged_in(api, now_ns)
        except BaseException:
            self.close(api)
            raise
        self._budget.succeeded()
        log.info("broker_logged_in", accounts=len(login.keys), markets=",".join(login.accounts))
        return login

    def close(self, api: ShioajiApi) -> None:
        """Log out; a failure is logged, because there is nothing left to do about it."""
        done = attempt(api.logout)
        if done.error is not None:
            log.warning("broker_logout_failed", why=self._credentials.redact(describe(done.error)))

    def _logged_in(self, api: Any, now_ns: int) -> Login:  # Any: the SDK's session object
        answer = self._guarded(
            "login",
            lambda: api.login(
                api_key=self._credentials.api_key,
                secret_key=self._credentials.secret_key,
                # Order events are asked for once somebody listens.
                subscribe_trade=False,
                receive_window=RECEIVE_WINDOW_MS,
            ),
        )
        chosen = self._choose(answer)
        end_ns = None
        if not self._settings.is_simulation:
            end_ns = self._activate(api, chosen, now_ns)
        return Login(
            api,
            {market: account for market, (_, account) in chosen.items()},
            tuple(key for key, _ in chosen.values()),
            end_ns,
        )

    def _choose(self, answer: object) -> dict[str, tuple[str, Any]]:  # Any: accounts of the SDK
        """The account of each market that is traded."""
        if not isinstance(answer, list | tuple):
            raise PlatformError(
                ReasonCode.BROKER_LOGIN_FAILED, "the login was answered without a list of accounts"
            )
        found: dict[str, list[tuple[str, Any]]] = {}
        for account in answer:
            try:
                key = account_key(
                    text(attribute(account, "broker_id"), "broker_id", length_max=12),
                    text(attribute(account, "account_id"), "account_id", length_max=16),
                )
                market = word(attribute(account, "account_type"), "account_type", ACCOUNT_TYPES)
            except UnreadableError as error:
                raise PlatformError(
                    ReasonCode.BROKER_LOGIN_FAILED, f"an account cannot be read: {error.message}"
                ) from error
            if key in self._settings.accounts:
                found.setdefault(market, []).append((key, account))
        for market in self._markets:
            count = len(found.get(market, []))
            if count != 1:
                raise PlatformError(
                    ReasonCode.ACCOUNT_NOT_ALLOWED,
                    f"{count} {market} accounts of this login are in broker.accounts, needed is 1",
                )
            key, account = found[market][0]
            if not self._settings.is_simulation and attribute(account, "signed") is not True:
                raise PlatformError(
                    ReasonCode.BROKER_LOGIN_FAILED,
                    f"account {key} is not signed for orders by program",
                    next_step="sign the broker's agreement and pass its test, then try again",
                )
        return {market: found[market][0] for market in self._markets}

    def _activate(
        self, api: Any, chosen: Mapping[str, tuple[str, Any]], now_ns: int
    ) -> int:  # Any: objects of the SDK
        certificate = self._credentials.certificate
        if certificate is None:
            raise PlatformError(ReasonCode.CERTIFICATE_MISSING, "no certificate was read")
        ends = []
        people = {str(attribute(account, "person_id")) for _, account in chosen.values()}
        for person_id in sorted(people):
            activate = partial(
                api.activate_ca,
                ca_path=str(certificate.path),
                ca_passwd=certificate.password,
                person_id=person_id,
            )
            is_active = self._guarded("activation of the certificate", activate)
            if is_active is not True:
                raise PlatformError(
                    ReasonCode.CERTIFICATE_MISSING, "the broker did not activate the certificate"
                )
            end = self._guarded(
                "question when the certificate ends",
                partial(api.get_ca_expiretime, person_id),
            )
            try:
                ends.append(moment_ns(end, "end of the certificate"))
            except UnreadableError as error:
                raise PlatformError(ReasonCode.CERTIFICATE_MISSING, error.message) from error
        check_certificate(min(ends), now_ns, warning_days=self._settings.certificate_warning_days)
        return min(ends)

    def _guarded(self, what: str, call: Callable[[], Any]) -> Any:  # Any: answers of the SDK
        done = attempt(call)
        if done.error is not None:
            # The cause may show what was passed, so it is not chained.
            raise PlatformError(
                meaning_of(done.error).login_code,
                f"{what} failed: {self._credentials.redact(describe(done.error))}",
            ) from None
        return done.value


def check_certificate(end_ns: int, now_ns: int, *, warning_days: int) -> bool:
    """Refuse an expired certificate; tell (and log) whether it ends soon.

    Raises
    ------
    PlatformError
        CERTIFICATE_EXPIRED.
    """
    left_ns = end_ns - now_ns
    if left_ns <= 0:
        raise PlatformError(
            ReasonCode.CERTIFICATE_EXPIRED,
            f"the certificate ended {-left_ns // DAY_NS} days ago",
        )
    is_soon = left_ns < warning_days * DAY_NS
    if is_soon:
        log.warning(
            "certificate_expiring",
            reason_code=int(ReasonCode.CERTIFICATE_EXPIRING),
            days_left=left_ns // DAY_NS,
        )
    return is_soon


def _make_api(sdk: Any, is_simulation: bool) -> Any:  # Any: the SDK's module and session object
    """The real session object: from here on there is a network."""
    return sdk.Shioaji(simulation=is_simulation)
