-- Market log: one table for each record type, columns named as the record's fields.
-- Prices and quantities are the record's int64 at 1e-8; times are ns UTC. A row is found again in
-- its log by (run_id, log_kind, segment_id, seq). Partitions are the exchange's trading day, which
-- the night session shares with the day that follows it.

CREATE TABLE IF NOT EXISTS hft.market_books
(
    run_id LowCardinality(String),
    wal_id UInt32 CODEC(ZSTD(1)),
    log_kind Enum8('market' = 1, 'orders' = 2),
    segment_id UInt32 CODEC(ZSTD(1)),
    seq UInt64 CODEC(Delta, ZSTD(1)),
    schema_version UInt8,
    instrument_id UInt32 CODEC(ZSTD(1)),
    input_seq UInt64 CODEC(Delta, ZSTD(1)),
    source_seq UInt64 CODEC(Delta, ZSTD(1)),
    exchange_time_ns Int64 CODEC(Delta, ZSTD(1)),
    receive_time_ns Int64 CODEC(Delta, ZSTD(1)),
    sequence_time_ns Int64 CODEC(Delta, ZSTD(1)),
    flags UInt32 CODEC(ZSTD(1)),
    source_id UInt16,
    trading_day UInt32 CODEC(ZSTD(1)),
    bid_price_1 Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    bid_price_2 Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    bid_price_3 Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    bid_price_4 Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    bid_price_5 Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    bid_qty_1 Decimal(18, 8) CODEC(ZSTD(1)),
    bid_qty_2 Decimal(18, 8) CODEC(ZSTD(1)),
    bid_qty_3 Decimal(18, 8) CODEC(ZSTD(1)),
    bid_qty_4 Decimal(18, 8) CODEC(ZSTD(1)),
    bid_qty_5 Decimal(18, 8) CODEC(ZSTD(1)),
    ask_price_1 Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    ask_price_2 Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    ask_price_3 Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    ask_price_4 Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    ask_price_5 Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    ask_qty_1 Decimal(18, 8) CODEC(ZSTD(1)),
    ask_qty_2 Decimal(18, 8) CODEC(ZSTD(1)),
    ask_qty_3 Decimal(18, 8) CODEC(ZSTD(1)),
    ask_qty_4 Decimal(18, 8) CODEC(ZSTD(1)),
    ask_qty_5 Decimal(18, 8) CODEC(ZSTD(1)),
    sequence_time DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(sequence_time_ns, 'UTC')
)
ENGINE = MergeTree
PARTITION BY trading_day
ORDER BY (instrument_id, sequence_time_ns, wal_id, seq)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS hft.market_trades
(
    run_id LowCardinality(String),
    wal_id UInt32 CODEC(ZSTD(1)),
    log_kind Enum8('market' = 1, 'orders' = 2),
    segment_id UInt32 CODEC(ZSTD(1)),
    seq UInt64 CODEC(Delta, ZSTD(1)),
    schema_version UInt8,
    instrument_id UInt32 CODEC(ZSTD(1)),
    input_seq UInt64 CODEC(Delta, ZSTD(1)),
    source_seq UInt64 CODEC(Delta, ZSTD(1)),
    exchange_time_ns Int64 CODEC(Delta, ZSTD(1)),
    receive_time_ns Int64 CODEC(Delta, ZSTD(1)),
    sequence_time_ns Int64 CODEC(Delta, ZSTD(1)),
    flags UInt32 CODEC(ZSTD(1)),
    source_id UInt16,
    trading_day UInt32 CODEC(ZSTD(1)),
    price Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    qty Decimal(18, 8) CODEC(ZSTD(1)),
    trade_id UInt64 CODEC(Delta, ZSTD(1)),
    aggressor_side Int64 CODEC(ZSTD(1)),
    sequence_time DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(sequence_time_ns, 'UTC')
)
ENGINE = MergeTree
PARTITION BY trading_day
ORDER BY (instrument_id, sequence_time_ns, wal_id, seq)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS hft.timers
(
    run_id LowCardinality(String),
    wal_id UInt32 CODEC(ZSTD(1)),
    log_kind Enum8('market' = 1, 'orders' = 2),
    segment_id UInt32 CODEC(ZSTD(1)),
    seq UInt64 CODEC(Delta, ZSTD(1)),
    schema_version UInt8,
    instrument_id UInt32 CODEC(ZSTD(1)),
    input_seq UInt64 CODEC(Delta, ZSTD(1)),
    source_seq UInt64 CODEC(Delta, ZSTD(1)),
    exchange_time_ns Int64 CODEC(Delta, ZSTD(1)),
    receive_time_ns Int64 CODEC(Delta, ZSTD(1)),
    sequence_time_ns Int64 CODEC(Delta, ZSTD(1)),
    flags UInt32 CODEC(ZSTD(1)),
    source_id UInt16,
    trading_day UInt32 CODEC(ZSTD(1)),
    timer_kind UInt64 CODEC(ZSTD(1)),
    argument Int64 CODEC(ZSTD(1)),
    sequence_time DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(sequence_time_ns, 'UTC')
)
ENGINE = MergeTree
PARTITION BY trading_day
ORDER BY (run_id, wal_id, seq)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS hft.instruments
(
    run_id LowCardinality(String),
    wal_id UInt32 CODEC(ZSTD(1)),
    log_kind Enum8('market' = 1, 'orders' = 2),
    segment_id UInt32 CODEC(ZSTD(1)),
    seq UInt64 CODEC(Delta, ZSTD(1)),
    schema_version UInt8,
    instrument_id UInt32 CODEC(ZSTD(1)),
    input_seq UInt64 CODEC(Delta, ZSTD(1)),
    source_seq UInt64 CODEC(Delta, ZSTD(1)),
    exchange_time_ns Int64 CODEC(Delta, ZSTD(1)),
    receive_time_ns Int64 CODEC(Delta, ZSTD(1)),
    sequence_time_ns Int64 CODEC(Delta, ZSTD(1)),
    flags UInt32 CODEC(ZSTD(1)),
    source_id UInt16,
    trading_day UInt32 CODEC(ZSTD(1)),
    symbol FixedString(24),
    product_root FixedString(16),
    last_trading_day UInt64,
    tick_size Decimal(18, 8) CODEC(ZSTD(1)),
    multiplier Decimal(18, 8) CODEC(ZSTD(1)),
    sequence_time DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(sequence_time_ns, 'UTC')
)
ENGINE = MergeTree
PARTITION BY trading_day
ORDER BY (run_id, wal_id, seq)
SETTINGS non_replicated_deduplication_window = 10000;
