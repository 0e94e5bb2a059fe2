-- Facts of finished sessions, copied from their summaries (docs/formats.md): the profit of each
-- instrument taken apart, and how long the engine took to decide.

-- One row a session and instrument, at the session's end. gross = realized + unrealized, fees hold
-- the tax, net = gross - fees; an open position is marked to the last mid.
CREATE TABLE IF NOT EXISTS hft.pnl_snapshots
(
    run_id String,
    evidence_sha256 String,
    alpha_id String,
    mode String,
    trading_day UInt32,
    instrument_id UInt32,
    symbol String,
    snapshot_time_ns Int64,
    position_qty Decimal(38, 8),
    realized Decimal(38, 8),
    unrealized Decimal(38, 8),
    fees Decimal(38, 8),
    tax Decimal(38, 8),
    net Decimal(38, 8)
)
ENGINE = ReplacingMergeTree
ORDER BY (trading_day, run_id, instrument_id, evidence_sha256)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE OR REPLACE VIEW hft.pnl_by_day AS
SELECT
    trading_day, mode, symbol,
    count() AS session_count,
    sum(snapshot.realized) AS realized,
    sum(snapshot.unrealized) AS unrealized,
    sum(snapshot.fees) AS fees,
    sum(snapshot.tax) AS tax,
    sum(snapshot.net) AS net
FROM hft.pnl_snapshots AS snapshot FINAL
GROUP BY trading_day, mode, symbol;

-- What the process measured of itself with its own clock: outside the signed evidence, for people.
CREATE TABLE IF NOT EXISTS hft.session_latency
(
    run_id String,
    evidence_sha256 String,
    trading_day UInt32,
    step String,
    sample_count UInt64,
    p50_ns Int64,
    p99_ns Int64,
    p999_ns Int64,
    max_ns Int64
)
ENGINE = ReplacingMergeTree
ORDER BY (trading_day, run_id, step, evidence_sha256)
SETTINGS non_replicated_deduplication_window = 10000;
