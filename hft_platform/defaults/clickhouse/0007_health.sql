-- What the runtime measured and the engine cannot see (docs/storm-guard.md). `value` and `argument`
-- are in the unit of the kind: 1 loop lag ns, 2 order round trip ns, 3 position drift at 1e-8,
-- 4 unreadable payloads.

CREATE TABLE IF NOT EXISTS hft.health_reports
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
    health_kind UInt64,
    value Int64,
    argument Int64,
    sequence_time DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(sequence_time_ns, 'UTC')
)
ENGINE = MergeTree
PARTITION BY trading_day
ORDER BY (run_id, wal_id, seq)
SETTINGS non_replicated_deduplication_window = 10000;
