"""The trial ledger through DuckDB: what was tried, and what came of it, by SQL.

Why: a researcher asks questions of the ledger; the files stay the only truth.

Invariants:
1. Reading changes nothing: the files are verified, then read.
2. No trial is left out: one without an outcome is a row with nulls.

Views: ``trials`` (one row a declared trial), ``outcomes`` (one row an evaluation of a trial),
``results`` (one row a trial with its newest outcome). Operator's page: `docs/formats.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from research.experiments.facts import TrialFacts, trial_facts
from research.experiments.ledger import LEDGER_FILE, TrialLedger
from research.experiments.outcomes import OUTCOMES_FILE, OutcomeLog

BY_ALPHA = """
SELECT alpha_id, count(*) AS trials, count(days) AS evaluated,
       count(*) FILTER (failure IS NOT NULL) AS failed,
       max(sharpe) AS best_daily_sharpe, max(days) AS days
FROM results GROUP BY alpha_id ORDER BY alpha_id
"""
"""What `hft-research trials` shows."""

_TRIALS = {
    "key": "VARCHAR",
    "alpha_id": "VARCHAR",
    "program": "VARCHAR",
    "parameters": "MAP(VARCHAR, DOUBLE)",
    "data": "VARCHAR",
    "costs": "VARCHAR",
    "window": "VARCHAR",
}
_OUTCOMES = {
    "key": "VARCHAR",
    "alpha_id": "VARCHAR",
    "source": "VARCHAR",
    "batch": "VARCHAR",
    "declared": "BIGINT",
    "daily": "MAP(VARCHAR, HUGEINT)",
    "failure": "VARCHAR",
    "previous": "VARCHAR",
}
_RESULTS = """
CREATE VIEW results AS
WITH newest AS (
    SELECT * FROM outcomes QUALIFY row_number() OVER (PARTITION BY key ORDER BY row_id DESC) = 1
), days AS (
    SELECT key, unnest(map_values(daily))::DOUBLE AS net FROM newest WHERE daily IS NOT NULL
), shape AS (
    SELECT key, count(*) AS days, sum(net) AS net,
           CASE WHEN count(*) > 2 AND stddev_samp(net) > 0
                THEN avg(net) / stddev_samp(net) END AS sharpe
    FROM days GROUP BY key
)
SELECT t.*, n.source, n.failure, s.days, s.net, s.sharpe
FROM trials t LEFT JOIN newest n USING (key) LEFT JOIN shape s USING (key)
ORDER BY t.row_id
"""


def query(ws: Path, sql: str = BY_ALPHA) -> list[dict[str, Any]]:
    """Run one SQL statement over the ledger of a workspace.

    Parameters
    ----------
    ws : Path
        Workspace folder.
    sql : str, optional
        Reads views ``trials``, ``outcomes`` and ``results``; by default one row an alpha.

    Returns
    -------
    list of dict
        Rows by column name.

    Raises
    ------
    PlatformError
        LEDGER_BEHIND_AUDIT when a file was edited.
    ValueError
        When the statement is refused, with DuckDB's own words.
    """
    import duckdb  # on first use

    TrialLedger(ws).keys()
    OutcomeLog(ws).rows()
    with duckdb.connect(":memory:") as connection:
        for name, file, columns in (
            ("trials", LEDGER_FILE, _TRIALS),
            ("outcomes", OUTCOMES_FILE, _OUTCOMES),
        ):
            _load(connection, name, ws / "ledger" / file, columns)
        connection.execute(_RESULTS)
        # The statement sees these tables and nothing of the machine.
        connection.execute("SET enable_external_access = false")
        try:
            cursor = connection.execute(sql)
        except duckdb.Error as error:
            raise ValueError(f"the statement was refused: {error}") from error
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def ledger_facts(ws: Path) -> TrialFacts:
    """What all trials of a workspace amount to now."""
    return trial_facts(OutcomeLog(ws).newest().values(), declared=TrialLedger(ws).head().count)


def _load(connection: Any, name: str, path: Path, columns: dict[str, str]) -> None:
    typed = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
    connection.execute(f"CREATE TABLE {name} (row_id BIGINT, {typed})")
    if not path.exists() or path.stat().st_size == 0:
        return
    struct = ", ".join(f"'{column}': '{kind}'" for column, kind in columns.items())
    listed = ", ".join(f'"{column}"' for column in columns)
    connection.execute(
        f"INSERT INTO {name} SELECT row_number() OVER () AS row_id, {listed} "  # noqa: S608  # ours
        f"FROM read_json(?, columns = {{{struct}}}, format = 'newline_delimited', "
        "maximum_object_size = 67108864)",
        [str(path)],
    )
