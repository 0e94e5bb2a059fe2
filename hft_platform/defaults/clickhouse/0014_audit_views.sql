-- What the audit chain holds about gates, thresholds and people's own decisions, one view each.
-- Read out of the chain: no fact is kept twice.

CREATE VIEW IF NOT EXISTS audit.alpha_gate_runs AS
SELECT
    seq,
    arrayElement(splitByChar('@', subject), 1) AS alpha_id,
    JSONExtractString(facts, 'gate') AS gate,
    JSONExtractString(facts, 'verdict') AS verdict,
    JSONExtractString(facts, 'verdict_sha256') AS verdict_sha256,
    JSONExtractUInt(facts, 'ledger', 'count') AS trial_count,
    who, why, subject, facts, logged_at_ns, hash
FROM audit.chain FINAL
WHERE kind = 'verdict';

CREATE VIEW IF NOT EXISTS audit.alpha_thresholds AS
SELECT
    seq,
    subject AS file,
    JSONExtractString(facts, 'sha256') AS sha256,
    JSONExtractString(facts, 'sha256_before') AS sha256_before,
    who, why, logged_at_ns, hash
FROM audit.chain FINAL
WHERE kind = 'thresholds';

CREATE VIEW IF NOT EXISTS audit.alpha_decisions AS
SELECT seq, kind, who, why, subject, facts, logged_at_ns, hash
FROM audit.chain FINAL
WHERE kind IN ('approved', 'retired', 'override');
