"""DataExceptions: what an operator states about data that a gate would refuse, with the reason.

Why: a recorder is off for a night, a vendor replaces a broken file. Such days may be judged with,
but only when somebody said so and why, where every verdict shows it.

Invariants:
1. Without an entry nothing is excused; an entry excuses one fault of one session, nothing else.
2. Every entry has a reason in words.

It judges nothing (see research/gates/data_audit.py). Operator's page: `docs/look-ahead.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hft_platform.config.yaml_files import load_yaml

EXCEPTIONS_FILE = "data_exceptions.yaml"

ExceptionKind = Literal["not_recorded", "restated", "back_month"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class DataException(_Strict):
    """One fault of one session, excused.

    Attributes
    ----------
    kind : str
        ``not_recorded``: the session was held and there is no recording of it; ``restated``: the
        recording was replaced by another; ``back_month``: the contract was not yet, or no longer,
        the one to trade.
    symbol, session_id : str
        ``TXFD6``, ``2026-04-10/night``.
    reason : str
        Why; it is shown in the verdict.
    """

    kind: ExceptionKind
    symbol: Annotated[str, Field(min_length=1, max_length=24)]
    session_id: Annotated[str, Field(min_length=1, max_length=64)]
    reason: Annotated[str, Field(min_length=10, max_length=500)]


class DataExceptions(_Strict):
    """All exceptions of an installation, as one file holds them."""

    schema_: Literal[1] = Field(alias="schema")
    exceptions: Annotated[tuple[DataException, ...], Field(strict=False)]

    def excuses(self, kind: ExceptionKind, symbol: str, session_id: str) -> bool:
        """Whether a fault of a session is excused."""
        return any(
            (row.kind, row.symbol, row.session_id) == (kind, symbol, session_id)
            for row in self.exceptions
        )

    def of(self, symbols: frozenset[str]) -> list[dict[str, str]]:
        """Entries for some symbols, as a verdict shows them."""
        return [row.model_dump() for row in self.exceptions if row.symbol in symbols]


NO_EXCEPTIONS = DataExceptions(schema=1, exceptions=())


def load_exceptions(config_dir: Path | None = None) -> DataExceptions:
    """Load what an operator excused.

    Parameters
    ----------
    config_dir : Path, optional
        Folder with an optional `data_exceptions.yaml`; by default `config` in the working folder.

    Returns
    -------
    DataExceptions
        Nothing where there is no such file.

    Raises
    ------
    PlatformError
        SETTINGS_INVALID naming the field.
    """
    path = (config_dir if config_dir is not None else Path("config")) / EXCEPTIONS_FILE
    if not path.exists():
        return NO_EXCEPTIONS
    return load_yaml(path, DataExceptions)
