-- Who held a live session, and how the broker calls its orders and fills (docs/formats.md).
-- route_kind: 1 sent, 2 more ids, 3 a fill's number (argument), 4 an order that is none of ours,
-- 5 an unknown outcome resolved (argument 1 adopted, 2 abandoned). Ids are ASCII, zero-padded.

CREATE TABLE IF NOT EXISTS hft.epochs
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
    epoch UInt64,
    process_id UInt64,
    sequence_time DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(sequence_time_ns, 'UTC')
)
ENGINE = MergeTree
PARTITION BY trading_day
ORDER BY (run_id, wal_id, seq)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS hft.order_routes
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
    route_kind UInt32,
    epoch UInt32,
    order_id UInt64 CODEC(Delta, ZSTD(1)),
    argument UInt64,
    tag FixedString(8),
    broker_id FixedString(16),
    seqno FixedString(16),
    ordno FixedString(16),
    fill_id FixedString(32),
    sequence_time DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(sequence_time_ns, 'UTC')
)
ENGINE = MergeTree
PARTITION BY trading_day
ORDER BY (run_id, wal_id, seq)
SETTINGS non_replicated_deduplication_window = 10000;
