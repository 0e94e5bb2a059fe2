-- The broker's answers about the account (record type 8), columns named as the record's fields.

CREATE TABLE IF NOT EXISTS hft.account_answers
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
    answer_time_ns Int64 CODEC(Delta, ZSTD(1)),
    fields UInt64,
    equity Int64,
    free_margin Int64,
    margin_per_lot Int64,
    net_position_qty Decimal(18, 8) CODEC(ZSTD(1)),
    sequence_time DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(sequence_time_ns, 'UTC')
)
ENGINE = MergeTree
PARTITION BY trading_day
ORDER BY (run_id, wal_id, seq)
SETTINGS non_replicated_deduplication_window = 10000;
