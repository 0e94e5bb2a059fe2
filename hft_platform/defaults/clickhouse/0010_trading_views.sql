-- What people ask about trading, in one place: orders, fills, risk decisions, and how long things
-- took. Views widen to Decimal(38, 8) before they multiply; a plain product of two Decimal(18, 8)
-- overflows from 922 on.

-- When a row came into the store: what retention counts from (docs/store.md). Never sent, never
-- part of a record.
ALTER TABLE hft.market_books
    ADD COLUMN IF NOT EXISTS loaded_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(Delta, ZSTD(1));
ALTER TABLE hft.market_trades
    ADD COLUMN IF NOT EXISTS loaded_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(Delta, ZSTD(1));
ALTER TABLE hft.timers
    ADD COLUMN IF NOT EXISTS loaded_at DateTime('UTC') MATERIALIZED now('UTC') CODEC(Delta, ZSTD(1));

-- The record's integers are amounts at 1e-8; these show them as what they are.
ALTER TABLE hft.account_answers
    ADD COLUMN IF NOT EXISTS equity_amount Decimal(38, 8) ALIAS toDecimal128(equity, 8) / 100000000;
ALTER TABLE hft.account_answers
    ADD COLUMN IF NOT EXISTS free_margin_amount Decimal(38, 8)
    ALIAS toDecimal128(free_margin, 8) / 100000000;
ALTER TABLE hft.account_answers
    ADD COLUMN IF NOT EXISTS margin_per_lot_amount Decimal(38, 8)
    ALIAS toDecimal128(margin_per_lot, 8) / 100000000;

-- Our executions, each once however often the broker reported it: the first of equal order_id and
-- broker_seq counts, as in the accounting. `notional` is price times quantity.
CREATE OR REPLACE VIEW hft.fills AS
SELECT
    run_id, trading_day, instrument_id, order_id, side, price, qty, remaining_qty,
    is_maker = 1 AS is_passive,
    exchange_time_ns, sequence_time_ns, input_seq, wal_id, segment_id, seq,
    broker_seq,
    CAST(CAST(price AS Decimal(38, 8)) * qty AS Decimal(38, 8)) AS notional
FROM hft.broker_events
WHERE event_kind = 3
ORDER BY seq
LIMIT 1 BY run_id, order_id, broker_seq;

-- The same in money: notional times the contract's multiplier, NULL when the log names no contract.
-- 256 bits on the way, for three values at their bounds fill 128 in the end.
CREATE OR REPLACE VIEW hft.fill_amounts AS
SELECT
    fill.run_id AS run_id, fill.trading_day AS trading_day, fill.instrument_id AS instrument_id,
    fill.order_id AS order_id, fill.side AS side, fill.price AS price, fill.qty AS qty,
    fill.is_passive AS is_passive, fill.sequence_time_ns AS sequence_time_ns, fill.seq AS seq,
    contract.multiplier AS multiplier,
    CAST(
        CAST(fill.price AS Decimal(76, 8)) * fill.qty * contract.multiplier
        AS Nullable(Decimal(38, 8))
    ) AS amount
FROM hft.fills AS fill
LEFT JOIN
(
    SELECT run_id, instrument_id, toNullable(argMax(multiplier, seq)) AS multiplier
    FROM hft.instruments
    GROUP BY run_id, instrument_id
) AS contract
ON fill.run_id = contract.run_id AND fill.instrument_id = contract.instrument_id;

-- Orders that were sent, with what became of them. Events: 1 working, 2 rejected, 3 fill,
-- 4 canceled, 5 cancel rejected, 6 expired, 7 unknown; NULL while there was no answer.
CREATE OR REPLACE VIEW hft.orders AS
SELECT
    placed.run_id AS run_id, placed.trading_day AS trading_day,
    placed.instrument_id AS instrument_id, placed.order_id AS order_id,
    placed.alpha_index AS alpha_index, placed.intent_id AS intent_id,
    placed.intent_reason AS intent_reason, placed.time_in_force AS time_in_force,
    placed.side AS side, placed.price AS price, placed.qty AS qty,
    placed.signal AS signal, placed.reference_price AS reference_price,
    placed.input_seq AS input_seq, placed.sequence_time_ns AS placed_ns,
    answer.first_answer_ns AS first_answer_ns,
    answer.last_event_kind AS last_event_kind,
    answer.last_reason_code AS last_reason_code,
    coalesce(executed.fill_count, 0) AS fill_count,
    coalesce(executed.filled_qty, CAST(0 AS Decimal(38, 8))) AS filled_qty,
    coalesce(executed.filled_notional, CAST(0 AS Decimal(38, 8))) AS filled_notional
FROM
(
    SELECT * FROM hft.decisions WHERE action = 1 AND verdict = 1
) AS placed
LEFT JOIN
(
    SELECT
        run_id, order_id,
        toNullable(min(sequence_time_ns)) AS first_answer_ns,
        toNullable(argMax(event_kind, seq)) AS last_event_kind,
        toNullable(argMax(reason_code, seq)) AS last_reason_code
    FROM hft.broker_events
    GROUP BY run_id, order_id
) AS answer
ON placed.run_id = answer.run_id AND placed.order_id = answer.order_id
LEFT JOIN
(
    SELECT
        run_id, order_id,
        toNullable(count()) AS fill_count,
        toNullable(sum(CAST(qty AS Decimal(38, 8)))) AS filled_qty,
        toNullable(sum(notional)) AS filled_notional
    FROM hft.fills
    GROUP BY run_id, order_id
) AS executed
ON placed.run_id = executed.run_id AND placed.order_id = executed.order_id;

-- What the checks said to every order and cancel: the code that refused (0: none), with the value
-- that was observed and the limit, both in the unit of the check (docs/reason-codes.md).
CREATE OR REPLACE VIEW hft.risk_decisions AS
SELECT
    run_id, trading_day, instrument_id, alpha_index, decision_seq, input_seq, sequence_time_ns,
    intent_id, order_id,
    if(action = 1, 'place', 'cancel') AS request,
    verdict = 1 AS is_approved,
    reason_code AS check_code,
    observed, limit,
    intent_reason, side, price, qty, position_qty, open_buy_qty, open_sell_qty,
    wal_id, segment_id, seq
FROM hft.decisions
WHERE action IN (1, 2);

-- Order round trips. A decision and its answer come in different inserts, in either order, so each
-- leaves its time and the smaller one stays: adding them again, however late, changes nothing.
CREATE TABLE IF NOT EXISTS hft.order_round_trip_state
(
    run_id LowCardinality(String),
    order_id UInt64,
    trading_day SimpleAggregateFunction(min, UInt32),
    instrument_id SimpleAggregateFunction(min, UInt32),
    requested_ns SimpleAggregateFunction(min, Nullable(Int64)),
    answered_ns SimpleAggregateFunction(min, Nullable(Int64))
)
ENGINE = AggregatingMergeTree
ORDER BY (run_id, order_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS hft.order_round_trip_requests TO hft.order_round_trip_state AS
SELECT
    run_id, order_id,
    min(trading_day) AS trading_day,
    min(instrument_id) AS instrument_id,
    min(toNullable(sequence_time_ns)) AS requested_ns,
    CAST(NULL AS Nullable(Int64)) AS answered_ns
FROM hft.decisions
WHERE action = 1 AND verdict = 1
GROUP BY run_id, order_id;

CREATE MATERIALIZED VIEW IF NOT EXISTS hft.order_round_trip_answers TO hft.order_round_trip_state AS
SELECT
    run_id, order_id,
    min(trading_day) AS trading_day,
    min(instrument_id) AS instrument_id,
    CAST(NULL AS Nullable(Int64)) AS requested_ns,
    min(toNullable(sequence_time_ns)) AS answered_ns
FROM hft.broker_events
GROUP BY run_id, order_id;

-- Rows that were there before the two views; harmless when some of them come twice.
INSERT INTO hft.order_round_trip_state
SELECT
    run_id, order_id, min(trading_day), min(instrument_id),
    min(toNullable(sequence_time_ns)), CAST(NULL AS Nullable(Int64))
FROM hft.decisions
WHERE action = 1 AND verdict = 1
GROUP BY run_id, order_id;

INSERT INTO hft.order_round_trip_state
SELECT
    run_id, order_id, min(trading_day), min(instrument_id),
    CAST(NULL AS Nullable(Int64)), min(toNullable(sequence_time_ns))
FROM hft.broker_events
GROUP BY run_id, order_id;

CREATE OR REPLACE VIEW hft.order_latency AS
SELECT
    run_id, order_id,
    min(trip.trading_day) AS trading_day,
    min(trip.instrument_id) AS instrument_id,
    min(trip.requested_ns) AS requested_ns,
    min(trip.answered_ns) AS answered_ns,
    answered_ns - requested_ns AS round_trip_ns
FROM hft.order_round_trip_state AS trip
GROUP BY run_id, order_id
HAVING requested_ns IS NOT NULL;

-- Latency by step and minute, as sketches: states merge, percentiles do not. Every percentile lies
-- within 1 % of the exact one, in whatever order the states were merged.
--   feed_book, feed_trade  exchange to receipt          sequence  receipt of a print to its turn
--   report    exchange to receipt of a broker event     loop      lag of the runtime's loop
--   order     request to first answer, as the runtime measured it
-- Times that were made up or are missing (flags 2 and 4) are left out. Minutes are the exchange's, of
-- `loop` and `order` the engine's. Each step comes from one table, so it can be counted against it.
CREATE TABLE IF NOT EXISTS hft.latency_1m_state
(
    run_id LowCardinality(String),
    trading_day UInt32,
    step LowCardinality(String),
    instrument_id UInt32,
    minute_ns Int64,
    sample_count SimpleAggregateFunction(sum, UInt64),
    min_ns SimpleAggregateFunction(min, Int64),
    max_ns SimpleAggregateFunction(max, Int64),
    quantiles_ns AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.99, 0.999), Int64)
)
ENGINE = AggregatingMergeTree
PARTITION BY intDiv(trading_day, 100)
ORDER BY (step, instrument_id, minute_ns, run_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS hft.latency_1m_books TO hft.latency_1m_state AS
SELECT
    run_id, trading_day, 'feed_book' AS step, instrument_id,
    exchange_time_ns - exchange_time_ns % 60000000000 AS minute_ns,
    count() AS sample_count,
    min(receive_time_ns - exchange_time_ns) AS min_ns,
    max(receive_time_ns - exchange_time_ns) AS max_ns,
    quantilesDDState(0.01, 0.5, 0.9, 0.99, 0.999)(receive_time_ns - exchange_time_ns) AS quantiles_ns
FROM hft.market_books
WHERE bitAnd(flags, 6) = 0
GROUP BY run_id, trading_day, step, instrument_id, minute_ns;

CREATE MATERIALIZED VIEW IF NOT EXISTS hft.latency_1m_trades TO hft.latency_1m_state AS
SELECT
    run_id, trading_day, sample.1 AS step, instrument_id,
    exchange_time_ns - exchange_time_ns % 60000000000 AS minute_ns,
    count() AS sample_count,
    min(sample.2) AS min_ns,
    max(sample.2) AS max_ns,
    quantilesDDState(0.01, 0.5, 0.9, 0.99, 0.999)(sample.2) AS quantiles_ns
FROM hft.market_trades
ARRAY JOIN [
    ('feed_trade', receive_time_ns - exchange_time_ns), ('sequence', sequence_time_ns - receive_time_ns)
] AS sample
WHERE bitAnd(flags, 6) = 0
GROUP BY run_id, trading_day, step, instrument_id, minute_ns;

CREATE MATERIALIZED VIEW IF NOT EXISTS hft.latency_1m_reports TO hft.latency_1m_state AS
SELECT
    run_id, trading_day, 'report' AS step, instrument_id,
    exchange_time_ns - exchange_time_ns % 60000000000 AS minute_ns,
    count() AS sample_count,
    min(receive_time_ns - exchange_time_ns) AS min_ns,
    max(receive_time_ns - exchange_time_ns) AS max_ns,
    quantilesDDState(0.01, 0.5, 0.9, 0.99, 0.999)(receive_time_ns - exchange_time_ns) AS quantiles_ns
FROM hft.broker_events
WHERE bitAnd(flags, 6) = 0
GROUP BY run_id, trading_day, step, instrument_id, minute_ns;

CREATE MATERIALIZED VIEW IF NOT EXISTS hft.latency_1m_health TO hft.latency_1m_state AS
SELECT
    run_id, trading_day, if(health_kind = 1, 'loop', 'order') AS step, instrument_id,
    sequence_time_ns - sequence_time_ns % 60000000000 AS minute_ns,
    count() AS sample_count,
    min(value) AS min_ns,
    max(value) AS max_ns,
    quantilesDDState(0.01, 0.5, 0.9, 0.99, 0.999)(value) AS quantiles_ns
FROM hft.health_reports
WHERE health_kind IN (1, 2)
GROUP BY run_id, trading_day, step, instrument_id, minute_ns;

-- Rows that were there before the views. What a broken run of this file left is taken away first, so
-- running it again adds nothing twice; no loader may run beside it.
TRUNCATE TABLE IF EXISTS hft.latency_1m_state;

INSERT INTO hft.latency_1m_state
SELECT
    run_id, trading_day, 'feed_book' AS step, instrument_id,
    exchange_time_ns - exchange_time_ns % 60000000000 AS minute_ns,
    count() AS sample_count,
    min(receive_time_ns - exchange_time_ns) AS min_ns,
    max(receive_time_ns - exchange_time_ns) AS max_ns,
    quantilesDDState(0.01, 0.5, 0.9, 0.99, 0.999)(receive_time_ns - exchange_time_ns) AS quantiles_ns
FROM hft.market_books
WHERE bitAnd(flags, 6) = 0
GROUP BY run_id, trading_day, step, instrument_id, minute_ns;

INSERT INTO hft.latency_1m_state
SELECT
    run_id, trading_day, sample.1 AS step, instrument_id,
    exchange_time_ns - exchange_time_ns % 60000000000 AS minute_ns,
    count() AS sample_count,
    min(sample.2) AS min_ns,
    max(sample.2) AS max_ns,
    quantilesDDState(0.01, 0.5, 0.9, 0.99, 0.999)(sample.2) AS quantiles_ns
FROM hft.market_trades
ARRAY JOIN [
    ('feed_trade', receive_time_ns - exchange_time_ns), ('sequence', sequence_time_ns - receive_time_ns)
] AS sample
WHERE bitAnd(flags, 6) = 0
GROUP BY run_id, trading_day, step, instrument_id, minute_ns;

INSERT INTO hft.latency_1m_state
SELECT
    run_id, trading_day, 'report' AS step, instrument_id,
    exchange_time_ns - exchange_time_ns % 60000000000 AS minute_ns,
    count() AS sample_count,
    min(receive_time_ns - exchange_time_ns) AS min_ns,
    max(receive_time_ns - exchange_time_ns) AS max_ns,
    quantilesDDState(0.01, 0.5, 0.9, 0.99, 0.999)(receive_time_ns - exchange_time_ns) AS quantiles_ns
FROM hft.broker_events
WHERE bitAnd(flags, 6) = 0
GROUP BY run_id, trading_day, step, instrument_id, minute_ns;

INSERT INTO hft.latency_1m_state
SELECT
    run_id, trading_day, if(health_kind = 1, 'loop', 'order') AS step, instrument_id,
    sequence_time_ns - sequence_time_ns % 60000000000 AS minute_ns,
    count() AS sample_count,
    min(value) AS min_ns,
    max(value) AS max_ns,
    quantilesDDState(0.01, 0.5, 0.9, 0.99, 0.999)(value) AS quantiles_ns
FROM hft.health_reports
WHERE health_kind IN (1, 2)
GROUP BY run_id, trading_day, step, instrument_id, minute_ns;

-- Merge states over whatever is asked for, then finish: never average or add percentiles.
CREATE OR REPLACE VIEW hft.latency_1m AS
SELECT
    run_id, trading_day, step, instrument_id, minute_ns,
    sum(part.sample_count) AS sample_count,
    min(part.min_ns) AS min_ns,
    max(part.max_ns) AS max_ns,
    quantilesDDMerge(0.01, 0.5, 0.9, 0.99, 0.999)(part.quantiles_ns) AS quantiles,
    quantiles[1] AS p50_ns, quantiles[2] AS p90_ns,
    quantiles[3] AS p99_ns, quantiles[4] AS p999_ns
FROM hft.latency_1m_state AS part
GROUP BY run_id, trading_day, step, instrument_id, minute_ns;

CREATE OR REPLACE VIEW hft.latency_by_session AS
SELECT
    run_id, trading_day, step,
    sum(part.sample_count) AS sample_count,
    min(part.min_ns) AS min_ns,
    max(part.max_ns) AS max_ns,
    quantilesDDMerge(0.01, 0.5, 0.9, 0.99, 0.999)(part.quantiles_ns) AS quantiles,
    quantiles[1] AS p50_ns, quantiles[2] AS p90_ns,
    quantiles[3] AS p99_ns, quantiles[4] AS p999_ns
FROM hft.latency_1m_state AS part
GROUP BY run_id, trading_day, step;
