-- What was loaded, from which bytes. The working ledger is the file ledger/ingest.jsonl; these
-- tables are written when a segment is complete and verified, and say the same in SQL.

CREATE TABLE IF NOT EXISTS hft.store_identity
(
    store_id UUID,
    created_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY store_id;

CREATE TABLE IF NOT EXISTS hft.ingest_segments
(
    run_id String,
    log_kind Enum8('market' = 1, 'orders' = 2),
    segment_id UInt32,
    wal_id UInt32,
    segment_sha256 String,
    record_count UInt64,
    first_seq UInt64,
    last_seq UInt64,
    loaded_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (run_id, log_kind, segment_id, segment_sha256)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS hft.ingest_chunks
(
    run_id String,
    log_kind Enum8('market' = 1, 'orders' = 2),
    segment_id UInt32,
    chunk UInt32,
    table_name String,
    trading_day UInt32,
    row_count UInt64,
    min_seq UInt64,
    max_seq UInt64,
    token String
)
ENGINE = ReplacingMergeTree
ORDER BY (run_id, log_kind, segment_id, chunk, table_name, trading_day)
SETTINGS non_replicated_deduplication_window = 10000;
