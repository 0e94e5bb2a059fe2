"""The core's own exceptions as the platform's one kind of error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hft_platform import _core
from hft_platform.errors import PlatformError


@contextlib.contextmanager
def typed_errors(place: str) -> Iterator[None]:
    """Turn what logs, tapes and engine configs raise into a `PlatformError` that names a place."""
    try:
        yield
    except (_core.WalError, _core.TapeError, _core.ConfigError) as error:
        raise PlatformError(error.args[0], f"{place}: {error.args[1]}") from error
