"""Deduplication windows: may this part be sent (again), or is it there for good?

Why: the store drops a second insert under one token only while fewer than a window of other inserts
came between. Counting rows settles what is in the table, but not what is in the views behind it: an
insert that was cut short can leave its rows in the table and nothing in a view.

Invariants:
1. A part with no row in its table is sent; one with all its rows is never sent beyond half a
   window of inserts since them, by whomever those were.
2. Within half a window a part that is there, and feeds a view that lacks some of it, is sent again
   under its token: that adds nothing to the table, and to a view only what is missing.
3. Beyond it the views are counted, and what cannot be shown to be whole is refused.

Distances are upper bounds: every part of a table carries the numbers of the inserts in it. It sends
nothing. Operator's page: `docs/store.md`.
"""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hft_platform.errors import PlatformError, ReasonCode
from hft_platform.recorder import columns
from hft_platform.recorder.segments import Digest, Part
from hft_platform.recorder.view_counts import VIEW_COUNTS

if TYPE_CHECKING:
    from hft_platform.recorder.store import Store

VIEW_LOOKS = 20
VIEW_LOOK_SECONDS = 0.25
"""A view is looked at so often before it counts as wrong: another loader may be between a table
and its view."""

_MINUTE_NS = 60_000_000_000


class Step(enum.Enum):
    """What to do with a part."""

    SEND = "send"
    SEND_AGAIN = "send again"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class _Table:
    window: int
    views: tuple[str, ...]
    expires: bool


class Windows:
    """What the store's tables remember, and for how long.

    Parameters
    ----------
    store : Store
        Open store; its tables are looked at once.

    Raises
    ------
    PlatformError
        DEDUPLICATION_OFF when a table or view target would not notice a second insert.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tables = _tables(store)
        for name in columns.TABLES.values():
            if name in self._tables and self._tables[name].window < 2:
                raise PlatformError(
                    ReasonCode.DEDUPLICATION_OFF,
                    f"{name} or a view behind it remembers {self._tables[name].window} inserts;"
                    " at least 2 are needed",
                    next_step=f"ALTER TABLE {name} MODIFY SETTING"
                    " non_replicated_deduplication_window = 10000, the same on the view's target",
                )

    @property
    def lasting_views(self) -> list[str]:
        """Materialized views behind tables whose rows stay."""
        return sorted(
            view for table in self._tables.values() if not table.expires for view in table.views
        )

    @property
    def expiring(self) -> frozenset[str]:
        """Tables whose rows go by themselves some time after they came (a TTL)."""
        records = columns.TABLES.values()
        return frozenset(
            name for name, table in self._tables.items() if table.expires and name in records
        )

    def positions(self) -> dict[str, int]:
        """How many inserts each table has had, in the store's own numbers.

        A difference of two is at least the number of inserts between them; merges and mutations
        count too.
        """
        rows = self._store.rows(
            "SELECT name, if(startsWith(any(engine), 'Replicated'), sum(last), max(last)) FROM"
            " (SELECT database || '.' || table AS name, any(engine) AS engine, partition_id,"
            " max(max_block_number) AS last FROM system.parts WHERE database = 'hft'"
            " GROUP BY name, partition_id) GROUP BY name"
        )
        found = {str(name): int(last) for name, last in rows}
        return {name: found.get(name, 0) for name in columns.TABLES.values()}

    def resolve(
        self,
        part: Part,
        stored: Digest | None,
        *,
        run_id: str,
        begun_at: int | None,
        was_loaded: bool = False,
    ) -> Step:
        """Decide what to do with a part that may have been sent before.

        Parameters
        ----------
        part : Part
            Rows of one insert.
        stored : Digest or None
            What its table holds of it; None or empty when nothing.
        run_id : str
            The part's run.
        begun_at : int or None
            Position of the table when the part was first begun; None when nobody knows.
        was_loaded : bool, optional
            The store itself says that the whole segment was loaded and verified.

        Returns
        -------
        Step

        Raises
        ------
        PlatformError
            LOAD_COUNT_MISMATCH when the table holds some of it, VIEW_MISMATCH when a view cannot be
            shown to hold the same.
        """
        expected = Digest.of(part.seqs)
        if stored is not None and stored.count not in (0, expected.count):
            raise mismatch(f"{part.table}, chunk {part.chunk}", stored, expected)
        if stored is None or stored.count == 0:
            if was_loaded and self._tables[part.table].expires:
                # Gone by the table's own rule; the views keep what it was, so it is not sent again.
                return Step.NOTHING
            # A view can be ahead of its table only where something was begun.
            if begun_at is not None and not self._is_within(part, begun_at):
                self._require_views(part, run_id)
            return Step.SEND
        if stored != expected:
            raise mismatch(f"{part.table}, chunk {part.chunk}", stored, expected)
        if was_loaded or not self._tables[part.table].views:
            return Step.NOTHING
        if self._is_within(part, begun_at) or self._is_within(part, self._arrived_at(part, run_id)):
            # Sent again it would be dropped only under the token that it came with, and who sent it
            # may have cut it otherwise: where the views have it, nothing is sent.
            whole = all(self._holds(view, part, run_id) for view in self._views(part))
            return Step.NOTHING if whole else Step.SEND_AGAIN
        self._require_views(part, run_id)
        return Step.NOTHING

    def _is_within(self, part: Part, since: int | None) -> bool:
        if since is None:
            return False
        table = self._tables[part.table]
        passed = self.positions()[part.table] - since
        # A number that went back means that the newest rows were removed: nothing is known.
        return 0 <= passed <= table.window // 2

    def _arrived_at(self, part: Part, run_id: str) -> int | None:
        """A number that the insert of these rows was not below."""
        rows = self._store.rows(
            "SELECT min(min_block_number) FROM system.parts WHERE active"  # noqa: S608  # ours
            " AND database || '.' || table = {table:String}"
            f" AND name IN (SELECT _part FROM {part.table}"
            " WHERE trading_day = {day:UInt32} AND run_id = {run:String}"
            " AND seq BETWEEN {low:UInt64} AND {high:UInt64})",
            {
                "table": part.table, "day": part.trading_day, "run": run_id,
                "low": int(part.seqs[0]), "high": int(part.seqs[-1]),
            },
        )  # fmt: skip
        return int(rows[0][0]) if rows else None

    def _views(self, part: Part) -> tuple[str, ...]:
        return self._tables[part.table].views

    def _counts(self, view: str, part: Part, run_id: str) -> tuple[int, int]:
        """What the table calls for and what the view holds, around a part."""
        times = part.rows["exchange_time_ns"]
        low = int(times.min()) // _MINUTE_NS * _MINUTE_NS
        high = (int(times.max()) // _MINUTE_NS + 1) * _MINUTE_NS
        facts = {"day": part.trading_day, "run": run_id, "low": low, "high": high}
        in_table, in_view = map(int, self._store.rows(VIEW_COUNTS[view], facts)[0])
        return in_table, in_view

    def _holds(self, view: str, part: Part, run_id: str) -> bool:
        if view not in VIEW_COUNTS:
            return False
        in_table, in_view = self._counts(view, part, run_id)
        return in_table == in_view

    def _require_views(self, part: Part, run_id: str) -> None:
        for view in self._views(part):
            if view not in VIEW_COUNTS:
                raise _view_wrong(view, part, "nothing counts it")
            for look in range(VIEW_LOOKS):
                in_table, in_view = self._counts(view, part, run_id)
                if in_table == in_view:
                    break
                if look == VIEW_LOOKS - 1:
                    raise _view_wrong(view, part, f"it holds {in_view}, the table {in_table}")
                time.sleep(VIEW_LOOK_SECONDS)


def _tables(store: Store) -> dict[str, _Table]:
    rows = store.rows(
        "SELECT database || '.' || name, engine,"
        " extract(engine_full, 'deduplication_window = ([0-9]+)'),"
        " arrayStringConcat(arrayMap((d, t) -> d || '.' || t, dependencies_database,"
        " dependencies_table), ','), extract(create_table_query, ' TO ([^ (]+)'),"
        " position(engine_full, ' TTL ') > 0"
        " FROM system.tables WHERE database = 'hft'"
    )
    windows: dict[str, int] = {}
    targets: dict[str, str] = {}
    views: dict[str, tuple[str, ...]] = {}
    expiring: set[str] = set()
    for name, engine, window, dependencies, target, expires in rows:
        if expires:
            expiring.add(str(name))
        default = 1000 if str(engine).startswith("Replicated") else 0
        windows[str(name)] = int(window) if window else default
        views[str(name)] = tuple(view for view in str(dependencies).split(",") if view)
        if engine == "MaterializedView":
            targets[str(name)] = str(target)
    return {
        name: _Table(
            min([window, *(windows[targets[view]] for view in views[name])]), views[name],
            name in expiring,
        )
        for name, window in windows.items()
        if all(view in targets for view in views[name])
    }  # fmt: skip


def mismatch(where: str, stored: Digest, expected: Digest) -> PlatformError:
    """What a table holding other rows than the segment is called."""
    return PlatformError(
        ReasonCode.LOAD_COUNT_MISMATCH,
        f"{where} holds {stored.count} rows (sequence {stored.min_seq} to {stored.max_seq}),"
        f" the segment {expected.count} ({expected.min_seq} to {expected.max_seq})",
        next_step="hft-live wal verify the segment; remove its rows from the store by run_id and"
        " segment_id, then load again",
    )


def _view_wrong(view: str, part: Part, what: str) -> PlatformError:
    facts: dict[str, Any] = {"view": view, "table": part.table, "chunk": part.chunk}
    return PlatformError(
        ReasonCode.VIEW_MISMATCH,
        f"{view} behind {part.table}, trading day {part.trading_day}, chunk {part.chunk}: {what},"
        " and the insert is too long ago to be repeated",
        facts=facts,
    )
