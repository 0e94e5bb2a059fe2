"""The real engine behind the few calls that a session's control makes; time is the records'."""

from __future__ import annotations

import struct
from typing import Any

from hft_platform import _core, records
from hft_platform.config.canonical import canonical_json

_HEAD = struct.Struct("<HB")
_FIELDS = records.DTYPES["Timer"].fields or {}
NAMES = {code: name for name, code in records.TYPE_CODES.items()}


class ControlSession:
    """Sequences records into an engine and keeps what came."""

    def __init__(self, engine_config: dict[str, Any]) -> None:
        self.engine = _core.Engine(canonical_json(engine_config).decode())
        self.came: list[tuple[str, Any]] = []
        self.decisions: list[Any] = []
        self._seq = 0
        self._time_ns = 0

    def push(self, tape: bytes) -> int:
        """Take records."""
        at = 0
        while at < len(tape):
            size, code = _HEAD.unpack_from(tape, at)
            record = bytearray(tape[at : at + size])
            at += size
            self._seq += 1
            receive_ns = int.from_bytes(_part(record, "receive_time_ns"), "little")
            self._time_ns = max(self._time_ns + 1, receive_ns)
            _put(record, "input_seq", self._seq)
            _put(record, "sequence_time_ns", self._time_ns)
            out = self.engine.on_tape(bytes(record))
            self.decisions += list(records.split(out)["Decision"])
            name = NAMES[code]
            self.came.append((name, records.split(bytes(record))[name][0]))
        return self._seq

    def state(self) -> dict[str, Any]:
        """Counters and latches."""
        return self.engine.counters()

    def halted_by(self) -> int:
        """Code of the engine's halt."""
        return int(self.engine.counters()["halted_by"])

    def named(self, name: str) -> list[Any]:
        """Records of one type that came, in order."""
        return [row for kind, row in self.came if kind == name]


def _part(record: bytearray, field: str) -> bytes:
    at = _FIELDS[field][1]
    return bytes(record[at : at + 8])


def _put(record: bytearray, field: str, value: int) -> None:
    at = _FIELDS[field][1]
    record[at : at + 8] = value.to_bytes(8, "little")
