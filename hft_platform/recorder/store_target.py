"""Where a store is: a DSN taken apart, and how patiently it is asked.

Why: one text says embedded or server; everything that could make two installations behave
differently (timeouts, TLS, options) is explicit and checked before anything is opened.

Invariants:
1. The text shown in messages holds no password.
2. An option that would replace a timeout, a retry or a check of certificates is refused.
3. A password is in an environment variable's DSN or in a file that only its owner can read.

It opens nothing. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from hft_platform.errors import PlatformError, ReasonCode

if TYPE_CHECKING:
    from hft_platform.config.settings import StoreSettings

EMBEDDED = "chdb"
# Scheme: whether it is encrypted, and the port when none is given.
_SERVERS = {"clickhouse": (False, 8123), "http": (False, 8123), "clickhouses": (True, 8443),
            "https": (True, 8443)}  # fmt: skip
_OPTIONS = frozenset({"ca_cert", "client_cert", "client_cert_key"})
_PASSWORD_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class StoreTarget:
    """A store's place.

    Attributes
    ----------
    shown : str
        DSN without a password.
    path : Path or None
        Folder of an embedded store.
    connection : dict
        Arguments of the client for a server.
    """

    shown: str
    path: Path | None
    connection: dict[str, Any] = field(repr=False)

    @property
    def is_embedded(self) -> bool:
        """True for a store inside this process."""
        return self.path is not None


@dataclass(frozen=True, slots=True)
class StorePolicy:
    """How patiently a store is asked; times in seconds.

    Attributes
    ----------
    connect_timeout_s, request_timeout_s : float
        Longest wait for a connection, and for bytes of an answer.
    attempts_max : int
        How often a statement is sent in all, where that is safe.
    backoff_first_s, backoff_max_s : float
        First and longest pause between two attempts; it doubles in between.
    breaker_failures_max : int
        Failures in a row after which the store is left alone.
    breaker_open_s : float
        For how long.
    seed : int
        Decides the jitter; processes of different seeds do not retry in step.
    """

    connect_timeout_s: float
    request_timeout_s: float
    attempts_max: int
    breaker_failures_max: int
    breaker_open_s: float
    backoff_first_s: float = 0.1
    backoff_max_s: float = 5.0
    seed: int = 0

    @staticmethod
    def of(settings: StoreSettings, *, seed: int = 0) -> StorePolicy:
        """Make it of the settings.

        Parameters
        ----------
        settings : StoreSettings
            Section `store`.
        seed : int, optional
            Decides the jitter.

        Returns
        -------
        StorePolicy
        """
        return StorePolicy(
            connect_timeout_s=settings.connect_timeout_ms / 1e3,
            request_timeout_s=settings.request_timeout_ms / 1e3,
            attempts_max=settings.attempts_max,
            breaker_failures_max=settings.breaker_failures_max,
            breaker_open_s=settings.breaker_open_ms / 1e3,
            seed=seed,
        )

    def pause_s(self, attempt: int, what: str) -> float:
        """Pause after a failed attempt: exponential, with a jitter that is a function of its names.

        Parameters
        ----------
        attempt : int
            Number of the attempt that failed, from 1.
        what : str
            The statement or its token.

        Returns
        -------
        float
            Between half and all of the exponential pause, which is at most `backoff_max_s`.
        """
        whole = min(self.backoff_max_s, self.backoff_first_s * 2.0 ** min(attempt - 1, 32))
        digest = hashlib.sha256(f"{self.seed}:{attempt}:{what}".encode()).digest()
        share = int.from_bytes(digest[:4], "little") / float(1 << 32)
        return whole * (0.5 + 0.5 * share)


def parse_dsn(dsn: str, *, password: str | None = None) -> StoreTarget:
    """Take a DSN apart.

    Parameters
    ----------
    dsn : str
        ``chdb:///absolute/path``, ``clickhouse://user@host:8123/database`` or ``clickhouses://``
        with TLS.
    password : str, optional
        From a file; not beside one in the DSN.

    Returns
    -------
    StoreTarget

    Raises
    ------
    PlatformError
        SETTINGS_INVALID; the message holds no password.
    """
    try:
        parts = urlsplit(dsn)
        port = parts.port
    except ValueError:
        # Its own message may quote the password.
        raise _wrong("it is no address with a port of 1 to 65535") from None
    if parts.scheme == EMBEDDED:
        if parts.netloc or not parts.path.startswith("/") or parts.query:
            raise _wrong("an embedded store is chdb:///absolute/path")
        return StoreTarget(dsn, Path(parts.path), {})
    if parts.scheme not in _SERVERS or not parts.hostname:
        raise _wrong(f"scheme was {parts.scheme!r}; allowed: chdb, {', '.join(_SERVERS)}")
    is_encrypted, default_port = _SERVERS[parts.scheme]
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(options) - _OPTIONS)
    if unknown or (options and not is_encrypted):
        raise _wrong(f"option {', '.join(unknown or options)}; allowed with TLS: "
                     f"{', '.join(sorted(_OPTIONS))}")  # fmt: skip
    if password is not None and parts.password is not None:
        raise _wrong("the password is in store.dsn and in store.password_file; one is enough")
    secret = unquote(parts.password) if parts.password is not None else (password or "")
    port = port or default_port
    user = unquote(parts.username or "default")
    place = f"{parts.hostname}:{port}{parts.path if parts.path != '/' else ''}"
    connection = {
        "interface": "https" if is_encrypted else "http",
        "host": parts.hostname,
        "port": port,
        "username": user,
        "password": secret,
        "database": unquote(parts.path.strip("/")) or None,
        **options,
    }
    return StoreTarget(
        f"{parts.scheme}://{user}{':***' if secret else ''}@{place}", None, connection
    )


def read_password(path: Path) -> str:
    """Read the password's file: mode 0600 or less, ours, one line.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        Without the newline at its end.

    Raises
    ------
    PlatformError
        KEY_MISSING, KEY_PERMISSIONS.
    """
    try:
        status = path.stat()
        if status.st_size > _PASSWORD_BYTES_MAX:
            raise OSError(f"it has {status.st_size} bytes, at most {_PASSWORD_BYTES_MAX} are read")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077 or status.st_uid != os.geteuid():
            raise PlatformError(
                ReasonCode.KEY_PERMISSIONS,
                f"password file {path} has mode {mode:04o} and owner {status.st_uid}; "
                f"allowed is 0600 and owner {os.geteuid()}",
                next_step=f"chmod 600 {path}; if others could read it, change the password",
            )
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PlatformError(
            ReasonCode.KEY_MISSING,
            f"password file {path} cannot be read: {type(error).__name__}: "
            f"{getattr(error, 'strerror', None) or 'not a short UTF-8 text'}",
            next_step="write the store's password into it, chmod 600, or correct"
            " store.password_file",
        ) from None
    return text


def _wrong(text: str) -> PlatformError:
    return PlatformError(
        ReasonCode.SETTINGS_INVALID,
        f"store.dsn: {text}",
        next_step="e.g. clickhouse://hft@127.0.0.1:8123, or null for the embedded store",
    )
