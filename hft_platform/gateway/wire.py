"""Messages of the intent channel: a small head, a fixed body, records as they are.

Why: what crosses the process boundary must be the records of the logs, not a second form of them.

Invariants:
1. A message is one packet of a Unix SOCK_SEQPACKET socket: it arrives whole or not at all.
2. Its head names protocol version and record schema; another one of either is CHANNEL_PROTOCOL.
3. Every body has a fixed length, and every record in it the length and type of its layout. What
   is longer, shorter or unknown is CHANNEL_PROTOCOL, never guessed at.

It opens no socket. Operator's page: `docs/gateway.md`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from hft_platform import _core, records
from hft_platform.errors import PlatformError, ReasonCode

VERSION = 1
MESSAGE_BYTES_MAX = 64 * 1024
INSTRUMENTS_MAX = 64
FILLS_PER_ANSWER = 256
"""Fills in one packet of an answer; an order with more takes several."""
TEXT_BYTES = 160
ALPHA_ID_BYTES = 64
TAG_CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TAG_LENGTH = 6
_MAGIC = b"HFTG"
_SCHEMA = int(_core.SCHEMA_HASH[:16], 16)
_HEAD = struct.Struct("<4sHHQ")
_RECORD_HEAD = struct.Struct("<HBB")
INTENT_BYTES = records.DTYPES["Intent"].itemsize
BROKER_BYTES = records.DTYPES["Broker"].itemsize


class Kind(IntEnum):
    """Kinds of messages: below 16 from a runner, from 16 on from the gateway."""

    HELLO = 1
    INTENT = 2
    TAKEN = 3
    ASK = 4
    SUBSCRIBE = 5
    BYE = 6
    WELCOME = 16
    REFUSED = 17
    ACK = 18
    NACK = 19
    EVENT = 20
    ORDER = 21
    POSITION = 22
    ACCOUNT = 23
    ANSWERED = 24
    MARKET = 25


class Question(IntEnum):
    """What a runner may ask."""

    ORDERS = 1
    POSITIONS = 2
    ACCOUNT = 3


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a runner is.

    Attributes
    ----------
    alpha_id : str
        Of its permit.
    config_sha256 : bytes
        Content hash of its permit, 32 bytes.
    promotion_seq : int
        Number of that promotion.
    session_key : int
        The gateway's session that the cursor is of, 0 when it knows none.
    cursor : int
        Last event it has taken; 0 for all of the session.
    """

    alpha_id: str
    config_sha256: bytes
    promotion_seq: int
    session_key: int
    cursor: int


@dataclass(frozen=True, slots=True)
class Intent:
    """An intent on its way.

    Attributes
    ----------
    number : int
        Of the request; its answer repeats it.
    sent_ns : int
        When the runner sent it, wall clock; its time to live counts from here.
    record : bytes
        An `Intent` record. Its `source_seq` is the number that the runner's tag spells.
    """

    number: int
    sent_ns: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Welcome:
    """The gateway takes intents of this alpha.

    Attributes
    ----------
    alpha_index : int
        Of the alpha in the gateway's engine.
    epoch : int
        That the gateway leads.
    session_key : int
        Of the gateway's session.
    cursor : int
        Newest event of the alpha.
    last_external_id : int
        Highest number of an order decided for it; a runner's next is above.
    """

    alpha_index: int
    epoch: int
    session_key: int
    cursor: int
    last_external_id: int


@dataclass(frozen=True, slots=True)
class Ack:
    """The intent was approved and is durable; `order_id` is the gateway's."""

    number: int
    order_id: int
    decision_seq: int


@dataclass(frozen=True, slots=True)
class Nack:
    """The intent was refused for good: nothing of it was or will be sent.

    Attributes
    ----------
    number : int
        Of the request.
    code : int
        Why.
    observed, limit : int
        What the refusing check saw, where one did.
    """

    number: int
    code: int
    observed: int = 0
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """The broker said something about an order of the alpha.

    Attributes
    ----------
    cursor : int
        `input_seq` of the record in the gateway's order log.
    external_id : int
        The runner's number of the order, 0 when the gateway placed it on its own (an exit).
    tag_number : int
        The number that the runner's tag spells, 0 likewise.
    record : bytes
        A `Broker` record.
    """

    cursor: int
    external_id: int
    tag_number: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Order:
    """One order of an answer, with (some of) its fills as `Broker` records.

    Attributes
    ----------
    status : int
        A `Status` of `order_views`.
    code : int
        Why it was refused, or ORDER_OUTCOME_UNKNOWN.
    """

    number: int
    order_id: int
    external_id: int
    tag_number: int
    instrument_id: int
    side: int
    price: int
    qty: int
    filled_qty: int
    status: int
    code: int
    fills: bytes


@dataclass(frozen=True, slots=True)
class Position:
    """Net position of the alpha in an instrument."""

    number: int
    instrument_id: int
    net_qty: int


@dataclass(frozen=True, slots=True)
class Account:
    """Money of the account; bit 0 of `fields` says that equity and free margin are answers."""

    number: int
    answer_time_ns: int
    fields: int
    equity: int
    free_margin: int


@dataclass(frozen=True, slots=True)
class Answered:
    """End of an answer: how many rows it had, or with which code it failed."""

    number: int
    row_count: int
    code: int = 0


Body = (
    Hello | Intent | Welcome | Ack | Nack | Event | Order | Position | Account | Answered
    | int | tuple[int, Question] | tuple[int, ...] | tuple[int, str] | bytes | None
)  # fmt: skip

_HELLO = struct.Struct(f"<{ALPHA_ID_BYTES}s32sQQQ")
_INTENT = struct.Struct("<Qq")
_TAKEN = struct.Struct("<Q")
_ASK = struct.Struct("<QH6x")
_WELCOME = struct.Struct("<I4xQQQQ")
_REFUSED = struct.Struct(f"<I4x{TEXT_BYTES}s")
_ACK = struct.Struct("<QQQ")
_NACK = struct.Struct("<QI4xqq")
_EVENT = struct.Struct("<QQQ")
_ORDER = struct.Struct("<QQQQIIqqqqI4x")
_POSITION = struct.Struct("<QI4xq")
_ACCOUNT = struct.Struct("<QqQqq")
_ANSWERED = struct.Struct("<QII")
_INSTRUMENT = struct.Struct("<I")


def malformed(text: str) -> PlatformError:
    """Error for a message that cannot be taken.

    Parameters
    ----------
    text : str
        What is wrong with it.
    """
    return PlatformError(ReasonCode.CHANNEL_PROTOCOL, text)


def pack(kind: Kind, body: bytes = b"") -> bytes:
    """One message.

    Parameters
    ----------
    kind : Kind
        Its kind.
    body : bytes, optional
        Behind the head.
    """
    return _HEAD.pack(_MAGIC, VERSION, kind, _SCHEMA) + body


def hello(message: Hello) -> bytes:
    """Pack a hello."""
    alpha = message.alpha_id.encode("ascii")
    if not 0 < len(alpha) <= ALPHA_ID_BYTES or len(message.config_sha256) != 32:
        raise malformed(f"alpha id {message.alpha_id!r} or its config's hash is too long or empty")
    body = _HELLO.pack(
        alpha, message.config_sha256, message.promotion_seq, message.session_key, message.cursor
    )
    return pack(Kind.HELLO, body)


def intent(message: Intent) -> bytes:
    """Pack an intent."""
    return pack(Kind.INTENT, _INTENT.pack(message.number, message.sent_ns) + message.record)


def taken(cursor: int) -> bytes:
    """Pack what a runner has taken."""
    return pack(Kind.TAKEN, _TAKEN.pack(cursor))


def ask(number: int, question: Question) -> bytes:
    """Pack a question."""
    return pack(Kind.ASK, _ASK.pack(number, question))


def subscribe(instrument_ids: list[int]) -> bytes:
    """Pack the instruments whose market records are wanted."""
    return pack(Kind.SUBSCRIBE, b"".join(map(_INSTRUMENT.pack, instrument_ids)))


def welcome(message: Welcome) -> bytes:
    """Pack a welcome."""
    return pack(
        Kind.WELCOME,
        _WELCOME.pack(
            message.alpha_index, message.epoch, message.session_key, message.cursor,
            message.last_external_id,
        ),
    )  # fmt: skip


def refused(code: int, text: str) -> bytes:
    """Pack the refusal of a runner."""
    return pack(Kind.REFUSED, _REFUSED.pack(code, text.encode()[:TEXT_BYTES]))


def ack(message: Ack) -> bytes:
    """Pack an approval."""
    return pack(Kind.ACK, _ACK.pack(message.number, message.order_id, message.decision_seq))


def nack(message: Nack) -> bytes:
    """Pack a refusal."""
    return pack(
        Kind.NACK, _NACK.pack(message.number, message.code, message.observed, message.limit)
    )


def event(message: Event) -> bytes:
    """Pack an event."""
    head = _EVENT.pack(message.cursor, message.external_id, message.tag_number)
    return pack(Kind.EVENT, head + message.record)


def order(row: Order) -> list[bytes]:
    """Pack an order of an answer; more than one message when it has many fills."""
    head = _ORDER.pack(
        row.number, row.order_id, row.external_id, row.tag_number, row.instrument_id, row.status,
        row.side, row.price, row.qty, row.filled_qty, row.code,
    )  # fmt: skip
    step = FILLS_PER_ANSWER * BROKER_BYTES
    parts = [row.fills[at : at + step] for at in range(0, len(row.fills), step)] or [b""]
    return [pack(Kind.ORDER, head + part) for part in parts]


def position(row: Position) -> bytes:
    """Pack a position of an answer."""
    return pack(Kind.POSITION, _POSITION.pack(row.number, row.instrument_id, row.net_qty))


def account(row: Account) -> bytes:
    """Pack the account of an answer."""
    body = _ACCOUNT.pack(row.number, row.answer_time_ns, row.fields, row.equity, row.free_margin)
    return pack(Kind.ACCOUNT, body)


def answered(row: Answered) -> bytes:
    """Pack the end of an answer."""
    return pack(Kind.ANSWERED, _ANSWERED.pack(row.number, row.row_count, row.code))


def unpack(message: bytes) -> tuple[Kind, Body]:
    """Read one message.

    Parameters
    ----------
    message : bytes
        As it came.

    Returns
    -------
    kind : Kind
    body
        The dataclass of the kind; an int for TAKEN, instrument ids for SUBSCRIBE, number and
        question for ASK, code and text for REFUSED, a tape for MARKET, None for BYE.

    Raises
    ------
    PlatformError
        CHANNEL_PROTOCOL with what is wrong.
    """
    if len(message) < _HEAD.size or len(message) > MESSAGE_BYTES_MAX:
        raise malformed(f"message has {len(message)} bytes")
    magic, version, number, schema = _HEAD.unpack_from(message)
    if magic != _MAGIC or version != VERSION:
        raise malformed(f"message is of protocol {magic!r} {version}, this is {VERSION}")
    if schema != _SCHEMA:
        raise malformed(f"message is of record schema {schema:016x}, this is {_SCHEMA:016x}")
    try:
        kind = Kind(number)
    except ValueError as error:
        raise malformed(f"kind of message was {number}") from error
    body = message[_HEAD.size :]
    try:
        return kind, _READ[kind](body)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise malformed(f"{kind.name} of {len(body)} bytes cannot be read: {error}") from error


def tag_number(tag: str) -> int:
    """The number that a tag spells.

    Raises
    ------
    PlatformError
        CHANNEL_PROTOCOL for a text that is no tag.
    """
    number = 0
    for character in tag:
        place = TAG_CHARACTERS.find(character)
        if place < 0:
            raise malformed(f"tag was {tag!r}")
        number = number * len(TAG_CHARACTERS) + place
    if len(tag) != TAG_LENGTH:
        raise malformed(f"tag was {tag!r}")
    return number


def tag_text(number: int) -> str:
    """The tag that spells a number; empty for 0, which no order has."""
    text = ""
    while number:
        number, place = divmod(number, len(TAG_CHARACTERS))
        text = TAG_CHARACTERS[place] + text
    return text.rjust(TAG_LENGTH, "0") if text else ""


def _exactly(record: bytes, name: str) -> bytes:
    size, code, version = _RECORD_HEAD.unpack_from(record)
    expected = records.DTYPES[name].itemsize
    is_it = (size, code, version) == (expected, records.TYPE_CODES[name], _core.SCHEMA_VERSION)
    if len(record) != expected or not is_it:
        raise ValueError(f"it holds no {name} record")
    return record


def _read_hello(body: bytes) -> Hello:
    alpha, *rest = _HELLO.unpack(body)
    return Hello(alpha.rstrip(b"\0").decode("ascii"), *rest)


def _read_intent(body: bytes) -> Intent:
    number, sent_ns = _INTENT.unpack_from(body)
    return Intent(number, sent_ns, _exactly(body[_INTENT.size :], "Intent"))


def _read_ask(body: bytes) -> tuple[int, Question]:
    number, question = _ASK.unpack(body)
    return number, Question(question)


def _read_subscribe(body: bytes) -> tuple[int, ...]:
    if len(body) > INSTRUMENTS_MAX * _INSTRUMENT.size:
        raise ValueError(f"more than {INSTRUMENTS_MAX} instruments")
    return tuple(found[0] for found in _INSTRUMENT.iter_unpack(body))


def _read_refused(body: bytes) -> tuple[int, str]:
    code, text = _REFUSED.unpack(body)
    return code, text.rstrip(b"\0").decode(errors="replace")


def _read_event(body: bytes) -> Event:
    cursor, external_id, tag = _EVENT.unpack_from(body)
    return Event(cursor, external_id, tag, _exactly(body[_EVENT.size :], "Broker"))


def _read_order(body: bytes) -> Order:
    (number, order_id, external_id, tag, instrument_id, status, side, price, qty, filled_qty,
     code) = _ORDER.unpack_from(body)  # fmt: skip
    fills = body[_ORDER.size :]
    for at in range(0, len(fills), BROKER_BYTES):
        _exactly(fills[at : at + BROKER_BYTES], "Broker")
    return Order(
        number, order_id, external_id, tag, instrument_id, side, price, qty, filled_qty, status,
        code, fills,
    )  # fmt: skip


def _read_bye(body: bytes) -> None:
    if body:
        raise ValueError("it has no body")


_READ: dict[Kind, Callable[[bytes], Body]] = {
    Kind.HELLO: _read_hello,
    Kind.INTENT: _read_intent,
    Kind.TAKEN: lambda body: _TAKEN.unpack(body)[0],
    Kind.ASK: _read_ask,
    Kind.SUBSCRIBE: _read_subscribe,
    Kind.BYE: _read_bye,
    Kind.WELCOME: lambda body: Welcome(*_WELCOME.unpack(body)),
    Kind.REFUSED: _read_refused,
    Kind.ACK: lambda body: Ack(*_ACK.unpack(body)),
    Kind.NACK: lambda body: Nack(*_NACK.unpack(body)),
    Kind.EVENT: _read_event,
    Kind.ORDER: _read_order,
    Kind.POSITION: lambda body: Position(*_POSITION.unpack(body)),
    Kind.ACCOUNT: lambda body: Account(*_ACCOUNT.unpack(body)),
    Kind.ANSWERED: lambda body: Answered(*_ANSWERED.unpack(body)),
    Kind.MARKET: lambda body: body,
}
