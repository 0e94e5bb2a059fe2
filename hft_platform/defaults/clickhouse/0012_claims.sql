-- Which host is loading a segment that several hosts can read: about efficiency only, see
-- hft_platform/recorder/host_claims.py. The server's clock decides when a claim ends.

CREATE TABLE IF NOT EXISTS hft.ingest_claims
(
    run_id String,
    log_kind Enum8('market' = 1, 'orders' = 2),
    segment_id UInt32,
    owner String,
    epoch UInt64,
    ttl_s UInt32,
    claimed_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    expires_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') + toIntervalSecond(ttl_s)
)
ENGINE = MergeTree
ORDER BY (run_id, log_kind, segment_id, epoch, owner)
TTL toDateTime(expires_at) + INTERVAL 7 DAY
SETTINGS non_replicated_deduplication_window = 10000;
