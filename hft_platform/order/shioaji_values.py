"""Reads what the broker's SDK hands over: exact integers out of floats, known words, bounded texts.

Why: the SDK's events hold floats, `Decimal`, enums or plain text for the same thing, and mappings
that are no `dict`. A check by `isinstance` once cost a system every fill for months.

Invariants:
1. A value is read exactly as it must be, or `UnreadableError` says which field and why.
2. No float is rounded: a price that is no whole number of 1e-8 is refused.
3. A word that is not on its list is refused; nothing falls back to a default.

It imports no SDK. Operator's page: `docs/shioaji.md`.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeVar

import structlog

from hft_platform.errors import ReasonCode
from hft_platform.order.shioaji_errors import attempt, describe, short
from hft_platform.records import SCALE

T = TypeVar("T")
log = structlog.get_logger()

VALUE_MAX = 10_000_000_000
"""Decimal(18, 8): every price and quantity is below this in size."""
LOTS_MAX = 1_000_000
"""No order of this platform comes near; more is damage."""
DIGITS_MAX = 28
"""Beyond them `Decimal` rounds."""
DEPTH_MAX = 3
FIELD_COUNT_MAX = 64
TAIPEI = dt.timezone(dt.timedelta(hours=8))
_FIRST_S, _LAST_S = 1_420_070_400, 4_102_444_800
"""Years 2015 to 2099: a time outside is no time of an order."""
_MISSING = object()


class UnreadableError(Exception):
    """A value of the broker's that is not what it must be.

    Parameters
    ----------
    code : int
        Member of `ReasonCode`.
    message : str
        Field, value and what is allowed.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = int(code)
        self.message = message


class Counts:
    """How often something happened, by reason code; any thread may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[int, int] = {}

    def add(self, code: int, event: str, **facts: Any) -> None:  # Any: keys of a log line
        """Count once; the first, second, fourth, eighth ... of a code is logged as well."""
        with self._lock:
            count = self._counts.get(int(code), 0) + 1
            self._counts[int(code)] = count
        if count & (count - 1) == 0:
            log.warning(event, reason_code=int(code), count=count, **facts)

    def as_dict(self) -> dict[int, int]:
        """Counts by code, in the order of the codes."""
        with self._lock:
            return dict(sorted(self._counts.items()))


def plain(value: Any, *, depth: int = 0) -> dict[str, Any]:  # Any: an SDK object, and its values
    """A mapping of the SDK, whatever its class, as a dict; mappings inside it as well."""
    if depth > DEPTH_MAX:
        raise UnreadableError(ReasonCode.VALUE_OUT_OF_RANGE, f"nested deeper than {DEPTH_MAX}")
    done = attempt(lambda: [(key, value[key]) for key in list(value.keys())[: FIELD_COUNT_MAX + 1]])
    if done.value is None:
        raise UnreadableError(
            ReasonCode.FIELD_UNREADABLE,
            f"no mapping: {describe(done.error) if done.error else 'nothing'}",
        )
    if len(done.value) > FIELD_COUNT_MAX:
        raise UnreadableError(ReasonCode.VALUE_OUT_OF_RANGE, f"more than {FIELD_COUNT_MAX} fields")
    return {
        str(key): plain(inner, depth=depth + 1) if _is_mapping(inner) else inner
        for key, inner in done.value
    }


def _is_mapping(value: object) -> bool:
    kind = type(value)
    # SDK objects that are structs have `keys` as well; their enums and texts have not.
    return all(callable(getattr(kind, name, None)) for name in ("keys", "__getitem__"))


def field(content: Mapping[str, Any], name: str) -> Any:  # Any: checked by whoever asked
    """A field that must be there."""
    value = content.get(name, _MISSING)
    if value is _MISSING:
        raise UnreadableError(ReasonCode.FIELD_UNREADABLE, f"{name} is missing")
    return value


def section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A mapping inside a mapping."""
    value = field(content, name)
    if not isinstance(value, dict):
        raise UnreadableError(ReasonCode.FIELD_TYPE_WRONG, f"{name} is no mapping")
    return value


def attribute(holder: Any, name: str) -> Any:  # Any: an SDK object, and its attribute
    """An attribute of an SDK object, whose reading may panic."""
    done = attempt(lambda: getattr(holder, name))
    if done.error is not None:
        raise UnreadableError(ReasonCode.FIELD_UNREADABLE, f"{name}: {describe(done.error)}")
    return done.value


def text(value: object, name: str, *, length_max: int, is_required: bool = False) -> str:
    """An ASCII text of bounded length."""
    if value is None:
        value = ""
    if type(value) is not str:
        raise UnreadableError(
            ReasonCode.FIELD_TYPE_WRONG, f"{name} was {type(value).__name__}, allowed is text"
        )
    if len(value) > length_max or not value.isascii() or not (value == "" or value.isprintable()):
        raise UnreadableError(
            ReasonCode.VALUE_OUT_OF_RANGE,
            f"{name} was {short(repr(value))}, allowed are {length_max} ASCII characters",
        )
    if is_required and not value:
        raise UnreadableError(ReasonCode.VALUE_OUT_OF_RANGE, f"{name} is empty")
    return value


def message(value: object) -> str:
    """What the broker says in words, in whatever script; anything that is no text is left out."""
    return short(value) if type(value) is str else ""


def word(value: object, name: str, allowed: Mapping[str, T]) -> T:
    """One of a list of words, as text or as a member of an SDK enum."""
    if type(value) is not str:
        value = attribute(value, "value") if value is not None else None
    found = allowed.get(value, None) if type(value) is str else None
    if found is None:
        raise UnreadableError(
            ReasonCode.BROKER_ANSWER_UNREADABLE,
            f"{name} was {short(repr(value))}, known are {', '.join(allowed)}",
        )
    return found


def scaled(value: object, name: str, *, is_zero_allowed: bool = False) -> int:
    """A price or an amount at 1e-8, exactly; `is_zero_allowed` also lets None be 0."""
    if value is None and is_zero_allowed:
        return 0
    number = _number(value, name) * SCALE
    if number % 1:
        raise UnreadableError(
            ReasonCode.PRICE_NOT_EXACT, f"{name} was {value!r}, allowed are 8 decimals"
        )
    lowest = 0 if is_zero_allowed else 1
    if not lowest <= number < VALUE_MAX * SCALE:
        raise UnreadableError(ReasonCode.VALUE_OUT_OF_RANGE, f"{name} was {value!r}")
    return int(number)


def money(value: object, name: str) -> int:
    """An amount of money at 1e-8, signed, cut toward zero at the ninth decimal."""
    number = _number(value, name) * SCALE
    if abs(number) >= VALUE_MAX * SCALE:
        raise UnreadableError(ReasonCode.VALUE_OUT_OF_RANGE, f"{name} was {value!r}")
    return int(number)


def _number(value: object, name: str) -> Decimal:
    if type(value) is float:
        # The shortest decimal that gives this float: what the broker wrote.
        number = Decimal(repr(value))
    elif type(value) is int or type(value) is Decimal:
        number = Decimal(value)
    else:
        raise UnreadableError(
            ReasonCode.FIELD_TYPE_WRONG, f"{name} was {type(value).__name__}, allowed is a number"
        )
    if not number.is_finite() or number.adjusted() > 18:
        raise UnreadableError(ReasonCode.VALUE_OUT_OF_RANGE, f"{name} was {value!r:.40}")
    if number and (number.adjusted() < -18 or len(number.as_tuple().digits) > DIGITS_MAX):
        raise UnreadableError(ReasonCode.PRICE_NOT_EXACT, f"{name} was {value!r:.40}")
    return number


def lots(value: object, name: str, *, is_zero_allowed: bool = False) -> int:
    """A number of lots."""
    if type(value) is not int:
        raise UnreadableError(
            ReasonCode.FIELD_TYPE_WRONG, f"{name} was {type(value).__name__}, allowed is a count"
        )
    if not (0 if is_zero_allowed else 1) <= value <= LOTS_MAX:
        raise UnreadableError(ReasonCode.VALUE_OUT_OF_RANGE, f"{name} was {value!r:.40}")
    return value


def time_ns(value: object, name: str, *, otherwise_ns: int | None = None) -> int:
    """Seconds since 1970 as ns UTC; None and 0 are `otherwise_ns` where there is one."""
    if otherwise_ns is not None and (value is None or (type(value) in (int, float) and not value)):
        return otherwise_ns
    number = _number(value, name)
    if not _FIRST_S <= number < _LAST_S:
        raise UnreadableError(ReasonCode.EXCHANGE_TIME_INVALID, f"{name} was {value!r}")
    return int(number * 1_000_000_000)


def moment_ns(value: object, name: str) -> int:
    """A `datetime` as ns UTC; a naive one is Taipei's time."""
    if not isinstance(value, dt.datetime):
        raise UnreadableError(
            ReasonCode.FIELD_TYPE_WRONG, f"{name} was {type(value).__name__}, allowed is a datetime"
        )
    moment = value if value.tzinfo is not None else value.replace(tzinfo=TAIPEI)
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
