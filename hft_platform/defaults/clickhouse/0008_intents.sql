-- Order log: what strategies outside the engine wanted; the decision names the intent's input_seq.

CREATE TABLE IF NOT EXISTS hft.intents
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
    alpha_index UInt32,
    action UInt32,
    intent_reason UInt32,
    time_in_force UInt32,
    external_id UInt64 CODEC(Delta, ZSTD(1)),
    order_id UInt64 CODEC(Delta, ZSTD(1)),
    side Int64 CODEC(ZSTD(1)),
    price Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    qty Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    cause_seq UInt64 CODEC(Delta, ZSTD(1)),
    cause_time_ns Int64 CODEC(Delta, ZSTD(1)),
    ttl_ns Int64 CODEC(ZSTD(1)),
    signal Float64 CODEC(ZSTD(1)),
    sequence_time DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(sequence_time_ns, 'UTC')
)
ENGINE = MergeTree
PARTITION BY trading_day
ORDER BY (run_id, wal_id, seq)
SETTINGS non_replicated_deduplication_window = 10000;
