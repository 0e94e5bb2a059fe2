-- Order log: what the engine decided, what the broker answered, what the operator did.
-- `observed`, `limit` and `argument` are in the unit of the check or command (see
-- docs/reason-codes.md), so they stay integers; `signal` is in ticks.

CREATE TABLE IF NOT EXISTS hft.decisions
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
    decision_seq UInt64 CODEC(Delta, ZSTD(1)),
    intent_id UInt64,
    order_id UInt64 CODEC(Delta, ZSTD(1)),
    alpha_index UInt32,
    action UInt32,
    verdict UInt32,
    reason_code UInt32,
    intent_reason UInt32,
    time_in_force UInt32,
    side Int64 CODEC(ZSTD(1)),
    price Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    qty Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    ttl_ns Int64 CODEC(ZSTD(1)),
    signal Float64 CODEC(ZSTD(1)),
    reference_price Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    position_qty Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    open_buy_qty Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    open_sell_qty Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    observed Int64 CODEC(ZSTD(1)),
    limit Int64 CODEC(ZSTD(1)),
    sequence_time DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(sequence_time_ns, 'UTC')
)
ENGINE = MergeTree
PARTITION BY trading_day
ORDER BY (run_id, wal_id, seq)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS hft.broker_events
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
    event_kind UInt32,
    reason_code UInt32,
    order_id UInt64 CODEC(Delta, ZSTD(1)),
    side Int64 CODEC(ZSTD(1)),
    price Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    qty Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    remaining_qty Decimal(18, 8) CODEC(Delta, ZSTD(1)),
    broker_seq UInt64 CODEC(Delta, ZSTD(1)),
    is_maker UInt64 CODEC(ZSTD(1)),
    sequence_time DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(sequence_time_ns, 'UTC')
)
ENGINE = MergeTree
PARTITION BY trading_day
ORDER BY (run_id, wal_id, seq)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS hft.commands
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
    command_kind UInt32,
    alpha_index UInt32,
    argument Int64,
    reason_code UInt64,
    sequence_time DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(sequence_time_ns, 'UTC')
)
ENGINE = MergeTree
PARTITION BY trading_day
ORDER BY (run_id, wal_id, seq)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS hft.config_switches
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
    stage UInt32,
    weight_ppm UInt64,
    promotion_seq UInt64,
    expires_ns Int64,
    config_sha256 FixedString(32),
    config_sha256_hex String ALIAS lower(hex(config_sha256)),
    sequence_time DateTime64(9, 'UTC') ALIAS fromUnixTimestamp64Nano(sequence_time_ns, 'UTC')
)
ENGINE = MergeTree
PARTITION BY trading_day
ORDER BY (run_id, wal_id, seq)
SETTINGS non_replicated_deduplication_window = 10000;

-- Our executions: broker events of kind 3.
CREATE VIEW IF NOT EXISTS hft.fills AS
SELECT
    run_id, trading_day, instrument_id, order_id, side, price, qty, remaining_qty,
    is_maker = 1 AS is_passive,
    exchange_time_ns, sequence_time_ns, input_seq, wal_id, segment_id, seq
FROM hft.broker_events
WHERE event_kind = 3;
