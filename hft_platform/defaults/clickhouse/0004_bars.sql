-- One-minute bars of each run's prints, kept by a materialized view. States, not values: several
-- inserts of one minute add up, and a replayed insert adds nothing because the target has its own
-- deduplication window. Trial matches before the open (flag 1) are no prints.

CREATE TABLE IF NOT EXISTS hft.bars_1m_state
(
    run_id LowCardinality(String),
    trading_day UInt32,
    instrument_id UInt32,
    minute_ns Int64,
    open AggregateFunction(argMin, Decimal(18, 8), UInt64),
    high SimpleAggregateFunction(max, Decimal(18, 8)),
    low SimpleAggregateFunction(min, Decimal(18, 8)),
    close AggregateFunction(argMax, Decimal(18, 8), UInt64),
    volume SimpleAggregateFunction(sum, Decimal(38, 8)),
    trade_count SimpleAggregateFunction(sum, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY trading_day
ORDER BY (instrument_id, minute_ns, run_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS hft.bars_1m_fill TO hft.bars_1m_state AS
SELECT
    run_id,
    trading_day,
    instrument_id,
    exchange_time_ns - exchange_time_ns % 60000000000 AS minute_ns,
    argMinState(price, seq) AS open,
    max(price) AS high,
    min(price) AS low,
    argMaxState(price, seq) AS close,
    sum(CAST(qty AS Decimal(38, 8))) AS volume,
    count() AS trade_count
FROM hft.market_trades
WHERE bitAnd(flags, 1) = 0
GROUP BY run_id, trading_day, instrument_id, minute_ns;

CREATE VIEW IF NOT EXISTS hft.bars_1m AS
SELECT
    run_id,
    trading_day,
    instrument_id,
    minute_ns,
    argMinMerge(bar.open) AS open,
    max(bar.high) AS high,
    min(bar.low) AS low,
    argMaxMerge(bar.close) AS close,
    sum(bar.volume) AS volume,
    sum(bar.trade_count) AS trade_count
FROM hft.bars_1m_state AS bar
GROUP BY run_id, trading_day, instrument_id, minute_ns;
