"""Where the broker's keys and certificate are read from.

Why: a key in YAML, on a command line or in a log is a key that others have.

Invariants:
1. The environment names files; a secret itself is in no variable.
2. A file that others can read, or that lies in a checkout, is refused, not repaired.
3. No text of this program shows a secret.

It logs in nowhere. Operator's page: `docs/shioaji.md`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hft_platform.config.keys import refuse_tracked_tree
from hft_platform.errors import PlatformError, ReasonCode

API_KEY_VARIABLE = "SHIOAJI_API_KEY_FILE"
SECRET_KEY_VARIABLE = "SHIOAJI_SECRET_KEY_FILE"  # noqa: S105  # its name
CA_VARIABLE = "SHIOAJI_CA_FILE"
CA_PASSWORD_VARIABLE = "SHIOAJI_CA_PASSWORD_FILE"  # noqa: S105  # its name
_SECRET_BYTES_MAX = 4_096


@dataclass(frozen=True, slots=True)
class Certificate:
    """The certificate that signs orders.

    Attributes
    ----------
    path : Path
        Its file.
    """

    path: Path
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a login needs; nothing of it is shown.

    Attributes
    ----------
    certificate : Certificate or None
        None where no orders are signed: the broker's test environment.
    """

    api_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    certificate: Certificate | None

    def redact(self, text: str) -> str:
        """A foreign text without any of the secrets."""
        password = self.certificate.password if self.certificate is not None else ""
        for secret in (self.api_key, self.secret_key, password):
            if secret:
                text = text.replace(secret, "[secret]")
        return text


def read_credentials(environment: Mapping[str, str], *, needs_certificate: bool) -> Credentials:
    """Read keys and certificate from the files that the environment names.

    Parameters
    ----------
    environment : mapping of str to str
        Variables of the process.
    needs_certificate : bool
        Whether orders will be signed.

    Returns
    -------
    Credentials
        Complete.

    Raises
    ------
    PlatformError
        NO_BROKER_CREDENTIALS or CERTIFICATE_MISSING naming the variable or file;
        KEY_PERMISSIONS when others can read it; KEY_ROLE_FORBIDDEN inside a checkout.
    """
    api_key = _secret(environment, API_KEY_VARIABLE, ReasonCode.NO_BROKER_CREDENTIALS)
    secret_key = _secret(environment, SECRET_KEY_VARIABLE, ReasonCode.NO_BROKER_CREDENTIALS)
    certificate = None
    if needs_certificate:
        path = _checked(environment, CA_VARIABLE, ReasonCode.CERTIFICATE_MISSING)
        password = _secret(environment, CA_PASSWORD_VARIABLE, ReasonCode.CERTIFICATE_MISSING)
        certificate = Certificate(path, password)
    return Credentials(api_key, secret_key, certificate)


def _checked(environment: Mapping[str, str], variable: str, code: int) -> Path:
    """Path of a variable's file, when only its owner can read it."""
    name = environment.get(variable, "")
    if not name:
        raise PlatformError(code, f"the variable {variable} names no file")
    path = Path(name).expanduser()
    try:
        status = path.stat()
    except OSError as error:
        raise PlatformError(code, f"{variable}: {path}: {error.strerror}") from error
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise PlatformError(code, f"{variable}: {path} is no file")
    if mode & 0o077 or status.st_uid != os.geteuid():
        raise PlatformError(
            ReasonCode.KEY_PERMISSIONS,
            f"{variable}: {path} has mode {mode:04o} and owner {status.st_uid}; allowed is 0600 and"
            f" owner {os.geteuid()}",
            next_step=f"chmod 600 {path}; if others could read it, make a new key at the broker",
        )
    refuse_tracked_tree(path, what=f"the file of {variable}")
    return path


def _secret(environment: Mapping[str, str], variable: str, code: int) -> str:
    path = _checked(environment, variable, code)
    try:
        raw = path.read_bytes()
        text = raw.decode().strip() if len(raw) <= _SECRET_BYTES_MAX else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text or not text.isprintable():
        # Not `from error`: a decoding error would show part of the content.
        raise PlatformError(code, f"{variable}: {path} holds no single line of text")
    return text
