"""Typed errors: one class, one reason code, what happened, why, and what to do next."""

from __future__ import annotations

from typing import Any

from hft_platform import _core
from hft_platform.generated.reason_codes import ReasonCode

__all__ = ["PlatformError", "ReasonCode", "code_line", "code_name"]

_ROWS = {row[0]: row for row in _core.reason_codes()}
_NAMES = {int(member): member.name for member in ReasonCode}


def code_name(code: int) -> str:
    """Return the constant name of a reason code, or ``CODE_<n>`` when this version lacks it."""
    return _NAMES.get(code, f"CODE_{code}")


def code_line(code: int, text: str) -> str:
    """One line of a list of problems: name and number of a code, and what it is about."""
    return f"{code_name(code)} ({int(code)}): {text}"


class PlatformError(Exception):
    """An expected failure that a person or a script must act on.

    Parameters
    ----------
    code : int
        Member of `ReasonCode`.
    message : str
        What is wrong, with the file, field, value and what is allowed.
    next_step : str, optional
        The next command; by default what the reason table says the operator does.
    why : str, optional
        Why it was refused, where the code's meaning in the reason table is too narrow.
    facts : dict, optional
        The same facts for scripts.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        next_step: str | None = None,
        why: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = int(code)
        self.message = message
        self.next_step = next_step or (_ROWS[self.code][4] if self.code in _ROWS else "")
        self.why = why or (_ROWS[self.code][2] if self.code in _ROWS else "")
        self.facts = facts or {}

    def render(self) -> str:
        """Three lines for a terminal: what, why, next; behind the first the place in a text."""
        excerpt = "".join(
            f"    {line}\n" for line in str(self.facts.get("excerpt", "")).split("\n")
        )
        return (
            f"error {code_line(self.code, self.message)}\n"
            f"{excerpt if self.facts.get('excerpt') else ''}"
            f"  why:  {self.why}\n"
            f"  next: {self.next_step}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The same facts for ``--json``."""
        return {
            "error": code_name(self.code),
            "code": self.code,
            "message": self.message,
            "why": self.why,
            "next": self.next_step,
            "facts": self.facts,
        }
