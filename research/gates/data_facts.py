"""DataFacts: what is wrong with the data an alpha is judged by, by kind of fault.

Found by `data_audit`, judged by `gate_a`. Operator's page: `docs/look-ahead.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hft_platform.errors import ReasonCode

FAULTS: Mapping[str, tuple[int, str]] = {
    "data_schema": (ReasonCode.SCHEMA_MISMATCH, "the dataset is of another form"),
    "data_provenance": (ReasonCode.SCHEMA_MISMATCH, "what a session was read from is not known"),
    "tape_hashes": (ReasonCode.FILE_DAMAGED, "the tape does not match its hash"),
    "foreign_records": (
        ReasonCode.SCHEMA_MISMATCH,
        "the tape holds records of another instrument or trading day",
    ),
    "simulated_matches": (
        ReasonCode.SIMULATED_MATCH,
        "the tape holds trial matches, at which nobody traded",
    ),
    "outside_session": (
        ReasonCode.OUTSIDE_SESSION,
        "the tape holds records from outside the session's hours",
    ),
    "receive_times": (
        ReasonCode.RECEIVE_TIME_INVALID,
        "records are dated as received before they happened, or out of order",
    ),
    "filled_in_later": (
        ReasonCode.RECEIVE_TIME_INVALID,
        "records came so long after they happened that nobody could have acted on them",
    ),
    "sessions_missing": (
        ReasonCode.SESSIONS_MISSING,
        "the calendar held it and the dataset does not have it",
    ),
    "restated": (
        ReasonCode.DATA_RESTATED,
        "it was ingested before with other records, or is not in the book of ingestions",
    ),
    "front_contract": (
        ReasonCode.NOT_FRONT_CONTRACT,
        "the roll rule trades another contract on that day",
    ),
}
"""Kinds of fault in the order of the checks: reason code, and what is said of the sessions."""


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What was found in the data.

    Attributes
    ----------
    faults : mapping of str to tuple of str
        Sessions by kind of fault; every kind of `FAULTS` is there, empty where all is well.
    excused : tuple of dict
        The operator's exceptions for these instruments.
    """

    faults: Mapping[str, tuple[str, ...]]
    excused: tuple[dict[str, str], ...] = ()


NO_FAULTS = DataFacts(dict.fromkeys(FAULTS, ()))
