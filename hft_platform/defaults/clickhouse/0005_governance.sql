-- Governance beside the data it judged: verdicts, the audit chain, and what sessions earned.
-- Rows are copies of content-addressed files; the files stay the evidence.

CREATE DATABASE IF NOT EXISTS audit;

CREATE TABLE IF NOT EXISTS audit.chain
(
    seq UInt64,
    prev String,
    hash String,
    kind String,
    who String,
    why String,
    subject String,
    facts String,
    logged_at_ns Int64,
    signature String
)
ENGINE = ReplacingMergeTree
ORDER BY (seq, hash)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS audit.alpha_verdicts
(
    alpha_id String,
    alpha_hash String,
    gate String,
    verdict String,
    reasons String,
    verdict_sha256 String,
    content String
)
ENGINE = ReplacingMergeTree
ORDER BY (alpha_id, alpha_hash, gate, verdict_sha256)
SETTINGS non_replicated_deduplication_window = 10000;

-- Promotions, withdrawals and weight reductions, read out of the chain: no fact is kept twice.
CREATE VIEW IF NOT EXISTS audit.alpha_promotions AS
SELECT
    seq,
    kind,
    arrayElement(splitByChar('@', subject), 1) AS alpha_id,
    JSONExtractString(facts, 'stage') AS stage,
    JSONExtractUInt(facts, 'weight_ppm') AS weight_ppm,
    JSONExtractUInt(facts, 'promotion_seq') AS promotion_seq,
    who, why, subject, facts, logged_at_ns, hash
FROM audit.chain FINAL
WHERE startsWith(kind, 'issued_') OR kind IN ('withdrawn', 'weight_reduced');

-- What the canary did: steps up, and withdrawals it made by itself.
CREATE VIEW IF NOT EXISTS audit.alpha_canary AS
SELECT
    seq,
    kind,
    arrayElement(splitByChar('@', subject), 1) AS alpha_id,
    if(kind = 'withdrawn', 'roll_back', JSONExtractString(facts, 'action')) AS action,
    JSONExtractUInt(facts, 'weight_ppm') AS weight_ppm,
    who, why, subject, facts, logged_at_ns, hash
FROM audit.chain FINAL
WHERE startsWith(kind, 'canary') OR (kind = 'withdrawn' AND JSONExtractBool(facts, 'is_rolled_back'));

CREATE TABLE IF NOT EXISTS hft.session_pnl
(
    run_id String,
    evidence_sha256 String,
    alpha_id String,
    alpha_hash String,
    stage String,
    mode String,
    symbol String,
    session_id String,
    trading_day UInt32,
    weight_ppm UInt64,
    gross Decimal(38, 8),
    fees Decimal(38, 8),
    net Decimal(38, 8),
    max_drawdown Decimal(38, 8),
    fill_count UInt64,
    round_trip_count UInt64,
    halted_by UInt32
)
ENGINE = ReplacingMergeTree
ORDER BY (trading_day, alpha_id, run_id, evidence_sha256)
SETTINGS non_replicated_deduplication_window = 10000;
