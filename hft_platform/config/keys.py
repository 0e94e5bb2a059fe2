"""Ed25519 keys by role: who may sign what, and which signatures count.

Why: the runtime opens its door to signed configs only, so a key is the authority to trade.

Invariants:
1. A private key file is readable by its owner only; anything wider is refused, not repaired.
2. A key made on first use is *automatic*: it never authorizes `live`, also when pinned.
3. A pinned key lives outside every tracked tree, and a trusted key has exactly one role.
4. A key appears complete or not at all, whichever process makes it first.

It does not decide which stage fits which mode (see `promoted`). Operator's page: `docs/keys.md`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from hft_platform.config.canonical import atomic_write, write_once
from hft_platform.config.file_lock import locked
from hft_platform.errors import PlatformError, ReasonCode

Role = Literal["promotion", "approval", "session", "audit"]
ROLES: tuple[Role, ...] = get_args(Role)
PINNED_ROLES: tuple[Role, ...] = ("promotion", "approval")
"""Roles whose keys are made by hand and pinned; an approval key is the second person's."""
_KEY_FILE_BYTES_MAX = 256
_PIN_FILE_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key whose signatures count.

    Attributes
    ----------
    key_id : str
        First 16 hex digits of the SHA-256 of the public key.
    public_hex : str
        Raw public key, 64 hex digits.
    role : str
        `promotion`, `approval`, `session` or `audit`.
    automatic : bool
        Made by the program on first use, so never an authority for `live`.
    """

    key_id: str
    public_hex: str
    role: Role
    automatic: bool

    def is_signature_of(self, message: bytes, signature_hex: str) -> bool:
        """Tell whether `signature_hex` is this key's signature of `message`."""
        if len(signature_hex) != 128 or signature_hex != signature_hex.lower():
            return False
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_hex))
            key.verify(bytes.fromhex(signature_hex), message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and the trust its signatures carry; the secret is never shown.

    Attributes
    ----------
    trusted : TrustedKey
        The public half.
    """

    trusted: TrustedKey
    _private: Ed25519PrivateKey = field(repr=False)

    @property
    def key_id(self) -> str:
        """Identifier that a signature carries."""
        return self.trusted.key_id

    def sign(self, message: bytes) -> str:
        """Sign bytes.

        Parameters
        ----------
        message : bytes
            What is signed, canonical JSON in this project.

        Returns
        -------
        str
            Ed25519 signature, 128 hex digits.
        """
        return self._private.sign(message).hex()


def key_id_of(public: bytes) -> str:
    """Identifier of a raw public key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def key_folder(ws: Path) -> Path:
    """Folder of a workspace's automatic keys."""
    return ws / "keys"


def signing_key(ws: Path, role: Role) -> SigningKey:
    """Load a workspace's automatic key of a role; make it on first use.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    role : str
        `promotion`, `session` or `audit`.

    Returns
    -------
    SigningKey
        With `trusted.automatic` true.

    Raises
    ------
    PlatformError
        KEY_PERMISSIONS when others can read the file, KEY_MISSING when it is damaged or when
        only its public half is left.
    """
    folder = key_folder(ws)
    path = folder / f"{role}.key"
    with locked(folder, is_private=True):
        if not path.exists():
            if path.with_suffix(".pub").exists():
                raise PlatformError(
                    ReasonCode.KEY_MISSING,
                    f"private {role} key {path} is gone, its public half is still there",
                    next_step=f"restore {path.name}, or remove {role}.pub to start a new key "
                    "(signatures of the old one will no longer be trusted)",
                )
            _create(path)
        key = load_signing_key(path, role=role, automatic=True)
        public_path = path.with_suffix(".pub")
        if not public_path.exists():
            atomic_write(public_path, key.trusted.public_hex + "\n")
        elif _read_hex(public_path, "public key") != key.trusted.public_hex:
            raise PlatformError(
                ReasonCode.KEY_MISSING,
                f"{public_path} is not the public half of {path}",
                next_step=f"find out who changed it; remove {public_path.name} to write it again",
            )
    return key


def make_key(path: Path, *, role: Role = "promotion") -> TrustedKey:
    """Make a promotion or approval key by hand, to be pinned.

    Parameters
    ----------
    path : Path
        New private key file, outside every tracked tree. The public half is written beside it
        with the suffix ``.pub``.
    role : str, optional
        `promotion`, or `approval` for the second person's key.

    Returns
    -------
    TrustedKey
        The public half; not trusted for anything until it is pinned.

    Raises
    ------
    PlatformError
        KEY_ROLE_FORBIDDEN inside a tracked tree, when a file is already there, or for a role
        whose keys are never made by hand.
    """
    if role not in PINNED_ROLES:
        raise PlatformError(
            ReasonCode.KEY_ROLE_FORBIDDEN,
            f"role was {role}; keys made by hand are for {' and '.join(PINNED_ROLES)}",
        )
    refuse_tracked_tree(path, what=f"a {role} key")
    if path.exists() or path.with_suffix(".pub").exists():
        raise PlatformError(
            ReasonCode.KEY_ROLE_FORBIDDEN,
            f"{path} (or its .pub) exists; a key is never overwritten",
            next_step="choose another file name with --out",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    _create(path)
    key = load_signing_key(path, role=role, automatic=False)
    write_once(path.with_suffix(".pub"), key.trusted.public_hex + "\n", mode=0o644)
    return key.trusted


def load_signing_key(path: Path, *, role: Role, automatic: bool) -> SigningKey:
    """Read a private key file.

    Parameters
    ----------
    path : Path
        File with 64 hex digits, owned by this user, mode 0600 or narrower.
    role : str
        Role the key is used in.
    automatic : bool
        Whether the program made it on first use.

    Returns
    -------
    SigningKey
        Ready to sign.

    Raises
    ------
    PlatformError
        KEY_MISSING when there is no such file or it is no key, KEY_PERMISSIONS when others
        can read it.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise PlatformError(
            ReasonCode.KEY_MISSING,
            f"{role} key {path} cannot be read: {error.strerror}",
            next_step=f"hft-research keys make --role {role} --out FILE, or correct the path",
        ) from error
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 or status.st_uid != os.geteuid():
        raise PlatformError(
            ReasonCode.KEY_PERMISSIONS,
            f"{role} key {path} has mode {mode:04o} and owner {status.st_uid}; "
            f"allowed is 0600 and owner {os.geteuid()}",
            next_step=f"chmod 600 {path}; if others could read it, make a new key",
        )
    secret = _read_hex(path, f"{role} key")
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    public = private.public_key().public_bytes_raw()
    trusted = TrustedKey(key_id_of(public), public.hex(), role, automatic)
    return SigningKey(trusted, private)


def public_key(ws: Path, role: Role) -> TrustedKey:
    """Read the public half of a workspace's automatic key.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    role : str
        `promotion`, `session` or `audit`.

    Returns
    -------
    TrustedKey
        With `automatic` true.

    Raises
    ------
    PlatformError
        KEY_MISSING when nothing was signed in this workspace yet.
    """
    return _trusted(_read_hex(key_folder(ws) / f"{role}.pub", f"{role} public key"), role, True)


def trusted_keys(ws: Path, *, pinned_file: Path | None = None) -> Mapping[str, TrustedKey]:
    """Collect the promotion and approval keys whose signatures this installation accepts.

    Parameters
    ----------
    ws : Path
        Workspace whose automatic key signs shadow, and canary on sim or paper.
    pinned_file : Path, optional
        Lines ``promotion <64 hex digits>`` of keys made by hand, outside every tracked tree. A
        line ``approval <64 hex digits>`` pins a second person's key, and so requires one: canary
        and live then need an approval (see `approval`).

    Returns
    -------
    mapping of str to TrustedKey
        By key id. A key that is both automatic and pinned stays automatic.

    Raises
    ------
    PlatformError
        KEY_MISSING or KEY_PERMISSIONS when the pin file is missing, damaged or writable by
        others, KEY_ROLE_FORBIDDEN when it lies in a tracked tree or pins one key for two roles.
    """
    keys: dict[str, TrustedKey] = {}
    for key in _read_pins(pinned_file) if pinned_file is not None else ():
        if keys.setdefault(key.key_id, key).role != key.role:
            raise PlatformError(
                ReasonCode.KEY_ROLE_FORBIDDEN,
                f"{pinned_file} pins key {key.key_id} as {keys[key.key_id].role} and {key.role}",
                next_step="hft-research keys make --role approval --out FILE makes another key",
            )
    if (key_folder(ws) / "promotion.pub").exists():
        automatic = public_key(ws, "promotion")
        if automatic.key_id in keys and keys[automatic.key_id].role != "promotion":
            raise PlatformError(
                ReasonCode.KEY_ROLE_FORBIDDEN,
                f"{pinned_file} pins the workspace's promotion key {automatic.key_id} as "
                f"{keys[automatic.key_id].role}; nobody approves what they sign",
            )
        keys[automatic.key_id] = automatic
    return keys


def refuse_tracked_tree(path: Path, *, what: str) -> None:
    """Refuse a place inside a version-controlled tree, where a key would be shared by accident.

    Parameters
    ----------
    path : Path
        File about to be made or trusted.
    what : str
        Name of the thing for the message.
    """
    for folder in path.resolve().parents:
        if (folder / ".git").exists():
            raise PlatformError(
                ReasonCode.KEY_ROLE_FORBIDDEN,
                f"{what} at {path} lies inside the tracked tree {folder}",
                next_step="keep it outside every checkout, for example in ~/.config/hft-platform/",
            )


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of a workspace as the runtime uses them.

    Attributes
    ----------
    workspace : Path
        Folder whose automatic keys are used.
    pinned_file : Path or None
        File of promotion and approval keys made by hand.
    """

    workspace: Path
    pinned_file: Path | None

    @classmethod
    def open(cls, workspace: Path, *, pinned_file: Path | None = None) -> KeyRing:
        """Name the keys; nothing is read or made before it is needed."""
        return cls(workspace, pinned_file)

    def trusted(self) -> Mapping[str, TrustedKey]:
        """Promotion keys whose signatures count, by key id."""
        return trusted_keys(self.workspace, pinned_file=self.pinned_file)

    def session_key(self) -> SigningKey:
        """The key that signs session summaries, made on first use."""
        return signing_key(self.workspace, "session")


def _read_pins(path: Path) -> Iterator[TrustedKey]:
    refuse_tracked_tree(path, what="the file of pinned keys")
    text = _read_text(path, "file of pinned keys", _PIN_FILE_BYTES_MAX)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o022:
        raise PlatformError(
            ReasonCode.KEY_PERMISSIONS,
            f"file of pinned keys {path} has mode {mode:04o}; others may change it",
            next_step=f"chmod 644 {path} and check every line of it",
        )
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        roles = [role for role in PINNED_ROLES if role == words[0]]
        if len(words) != 2 or not roles or not _is_hex64(words[1]):
            raise PlatformError(
                ReasonCode.KEY_MISSING,
                f"line {number} of {path} is not 'promotion' or 'approval' and 64 hex digits",
                next_step="copy the line that hft-research keys make printed",
            )
        yield _trusted(words[1], roles[0], False)


def _trusted(public_hex: str, role: Role, automatic: bool) -> TrustedKey:
    return TrustedKey(key_id_of(bytes.fromhex(public_hex)), public_hex, role, automatic)


def _create(path: Path) -> None:
    secret = Ed25519PrivateKey.generate().private_bytes_raw().hex()
    write_once(path, secret + "\n", mode=0o600)


def _read_hex(path: Path, what: str) -> str:
    text = _read_text(path, what, _KEY_FILE_BYTES_MAX).strip()
    if not _is_hex64(text):
        raise PlatformError(
            ReasonCode.KEY_MISSING,
            f"{what} {path} does not hold 64 hex digits",
            next_step="restore the file from a copy; do not edit keys by hand",
        )
    return text


def _read_text(path: Path, what: str, bytes_max: int) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(bytes_max + 1)
    except OSError as error:
        raise PlatformError(
            ReasonCode.KEY_MISSING, f"{what} {path} cannot be read: {error.strerror}"
        ) from error
    if len(raw) > bytes_max or not raw.isascii():
        raise PlatformError(
            ReasonCode.KEY_MISSING, f"{what} {path} is not a text of up to {bytes_max} bytes"
        )
    return raw.decode("ascii")


def _is_hex64(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)
