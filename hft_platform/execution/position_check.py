"""What follows from the broker's positions, for each instrument: a pure judgment.

Why: a difference may be a fill on its way, a lost fill, a manual order or a wrong answer. Only what
stands in two answers while nothing of ours moves is a drift.

Invariants:
1. A difference that orders of uncertain state can explain is not judged; neither is one while an
   order changed within the guard. Not judged is not "agrees".
2. A drift stands in two answers a gap apart, with the same quantity.
3. A question that failed says nothing about any position.

It asks nobody and changes nothing. Operator's page: `docs/reconciliation.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from hft_platform.config.settings import ReconciliationSettings
from hft_platform.execution.order_check import NS_PER_MS, Sighting
from hft_platform.execution.reconciliation_report import Finding, FindingKind, units


class Agreement(StrEnum):
    """How our position stands to the broker's."""

    AGREES = "agrees"
    WAITS = "waits"
    SUSPECTED = "suspected"
    DRIFTS = "drifts"


@dataclass(frozen=True, slots=True)
class Held:
    """A position as we hold it.

    Attributes
    ----------
    qty : int
        Signed, with what was adopted.
    unverified_buy, unverified_sell : int
        What may have been filled without our knowing.
    changed_ns : int
        When something of the instrument last changed.
    """

    instrument_id: int
    symbol: str
    qty: int
    unverified_buy: int = 0
    unverified_sell: int = 0
    changed_ns: int = 0


@dataclass(slots=True)
class _Watched:
    held: Held
    broker_qty: int
    agreement: Agreement
    asked_ns: int
    sighting: Sighting = field(default_factory=Sighting)


class PositionCheck:
    """Judges our positions against the broker's.

    Parameters
    ----------
    settings : ReconciliationSettings
        Times.
    """

    def __init__(self, settings: ReconciliationSettings) -> None:
        self._gap_ns = settings.not_found_gap_ms * NS_PER_MS
        self._guard_ns = settings.guard_ms * NS_PER_MS
        self._rows: dict[int, _Watched] = {}

    def judge(self, held: Held, broker_qty: int, asked_ns: int, answered_ns: int) -> Agreement:
        """Judge one position by an answer; ours did not change while the broker was asked.

        Parameters
        ----------
        held : Held
            Ours.
        broker_qty : int
            The broker's, 0 where its answer does not name the contract.
        asked_ns, answered_ns : int
            When the question left, and when its answer was there.
        """
        row = self._rows.get(held.instrument_id)
        if row is None:
            row = _Watched(held, broker_qty, Agreement.WAITS, asked_ns)
            self._rows[held.instrument_id] = row
        row.held, row.broker_qty, row.asked_ns = held, broker_qty, asked_ns
        row.agreement = self._judge(row, broker_qty - held.qty, asked_ns, answered_ns)
        return row.agreement

    def _judge(self, row: _Watched, drift: int, asked_ns: int, answered_ns: int) -> Agreement:
        held = row.held
        if drift == 0:
            row.sighting.clear()
            return Agreement.AGREES
        is_explained = -held.unverified_sell <= drift <= held.unverified_buy
        if is_explained or asked_ns - held.changed_ns < self._guard_ns:
            row.sighting.clear()
            return Agreement.WAITS
        is_drift = row.sighting.see(drift, asked_ns, answered_ns, gap_ns=self._gap_ns)
        return Agreement.DRIFTS if is_drift else Agreement.SUSPECTED

    def disagreeing(self, instrument_ids: Iterable[int]) -> list[int]:
        """Instruments that were not judged to agree at the last answer.

        Parameters
        ----------
        instrument_ids : iterable of int
            All that are looked at.
        """
        return [
            instrument_id
            for instrument_id in instrument_ids
            if instrument_id not in self._rows
            or self._rows[instrument_id].agreement != Agreement.AGREES
        ]

    def findings(self) -> list[Finding]:
        """Drifts, suspected ones included, as they stand."""
        found = []
        for row in self._rows.values():
            if row.agreement not in (Agreement.DRIFTS, Agreement.SUSPECTED):
                continue
            held, drift = row.held, row.broker_qty - row.held.qty
            word = "" if row.agreement == Agreement.DRIFTS else " (one answer so far)"
            found.append(
                Finding(
                    kind=FindingKind.POSITION_DRIFT,
                    subject=held.symbol,
                    since_ns=row.sighting.first_ns,
                    text=f"broker {units(row.broker_qty)}, ours {units(held.qty)},"
                    f" difference {units(drift)}{word}",
                    asked=row.sighting.seen,
                    asked_ns=row.asked_ns,
                    next_step="find the cause and correct it at the broker, or: hft-live adopt"
                    f" --symbol {held.symbol} --qty={units(drift)} --why ...",
                    symbol=held.symbol,
                    qty=drift,
                )
            )
        return found
