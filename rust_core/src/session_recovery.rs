//! How far a session can be decided again when one of its two logs lost its tail.
//!
//! Why: both logs carry one global input sequence, but they become durable each for itself. After a
//! power cut the order log may hold decisions whose cause the market log no longer has; they are
//! real (a request may have left) and cannot be decided again.
//!
//! Invariants:
//! 1. Every input from 1 up to `ends_at` is in exactly one log; `ends_at + 1` is in neither.
//! 2. A decision is replayable when its cause is at or below `ends_at`; all others are listed.
//! 3. Only a lost tail is accepted, or records that were left out by the rules of `shed`: when both
//!    logs go on behind any other missing input, or an input is there twice, or a log's order is
//!    broken, that is an error and no extent.
//! 4. A session that several processes held one after the other has an extent for each: an `Epoch`
//!    record begins it, and what was lost before that is the tail of the one before.
//! 5. What was left out ends the extent like what was lost, whether a SHED record names it or the
//!    process died before it could.
//!
//! It reads and changes no file (see `wal::recover_log`). Operator's page: `docs/wal-format.md`.

use crate::engine::ALL_ALPHAS;
use crate::record::{
    CommandKind, CommandRecord, EpochRecord, Record, RecordType, ShedRecord, Tape, TapeError,
};

/// Which log lost its tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostTail {
    /// The market log ends before the order log does.
    Market,
    /// The order log ends before the market log does, and the next input was its.
    Orders,
    /// Neither: market records were left out while an instrument was reduce-only, and the process
    /// died before SHED records named them all.
    Shed,
}

impl LostTail {
    /// `market`, `orders` or `shed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Market => "market",
            Self::Orders => "orders",
            Self::Shed => "shed",
        }
    }
}

/// What two logs hold together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionExtent {
    /// Highest input up to which nothing is missing.
    pub ends_at: u64,
    /// The log whose tail is missing behind it; `None` when nothing is, or all of it is named by
    /// SHED records.
    pub lost_tail: Option<LostTail>,
    /// `input_seq` of the market log's last record, 0 without one.
    pub market_last_seq: u64,
    /// `input_seq` of the order log's last record, 0 without one. Decisions of this input and of
    /// later ones may have been lost with the log's tail.
    pub orders_last_seq: u64,
    /// Inputs up to `ends_at`, in order.
    pub inputs: Vec<u8>,
    /// Decisions that they caused, in order.
    pub decisions: Vec<u8>,
    /// Inputs behind `ends_at`, in order.
    pub inputs_past: Vec<u8>,
    /// Decisions whose cause is behind `ends_at`, in order.
    pub decisions_past: Vec<u8>,
}

/// Why two logs are not those of one session that lost a tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExtentError {
    /// A log's bytes are no records.
    #[error(transparent)]
    Tape(#[from] TapeError),
    /// An input stands twice, or behind a later one.
    #[error("input_seq {input_seq} of the {log} log is doubled or out of order")]
    Disordered {
        /// Which log.
        log: &'static str,
        /// Where.
        input_seq: u64,
    },
    /// An input is missing though both logs go on behind it.
    #[error("input_seq {input_seq} is missing, and both logs go on behind it: no lost tail")]
    Hole {
        /// Which input.
        input_seq: u64,
    },
    /// Neither log holds an input.
    #[error("the logs hold no input")]
    Empty,
}

/// One record of a log: its sequence, whether the engine made it, its bytes.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    input_seq: u64,
    is_decision: bool,
    bytes: &'a [u8],
}

/// A log's records, held to its own order.
fn entries<'a>(log: &'static str, tape: &'a [u8]) -> Result<Vec<Entry<'a>>, ExtentError> {
    let mut found: Vec<Entry<'a>> = Vec::new();
    let (mut last_input, mut last_any) = (0, 0);
    for item in Tape::new(tape) {
        let (header, bytes) = item?;
        let input_seq = header.input_seq;
        let is_decision = header.record_type == RecordType::Decision as u8;
        if input_seq < last_any || input_seq == 0 || (!is_decision && input_seq <= last_input) {
            return Err(ExtentError::Disordered { log, input_seq });
        }
        if !is_decision {
            last_input = input_seq;
        }
        last_any = input_seq;
        found.push(Entry {
            input_seq,
            is_decision,
            bytes,
        });
    }
    Ok(found)
}

/// Inputs that are missing between those that are there, by first and last.
type Gaps = Vec<(u64, u64)>;

/// What the order log says of records that were left out of the market log.
#[derive(Debug, Default)]
struct LeftOut {
    /// What SHED records span, by first and last; in order, and apart from each other.
    spans: Vec<(u64, u64)>,
    /// Records that they name.
    named_count: u64,
    /// Inputs that made an instrument reduce-only, or lifted that.
    changes: Vec<(u64, bool)>,
}

impl LeftOut {
    fn of(orders: &[Entry<'_>]) -> Self {
        let mut left_out = Self::default();
        for entry in orders {
            if let Some(shed) = ShedRecord::read(entry.bytes) {
                left_out.spans.push((shed.first_seq, shed.last_seq));
                left_out.named_count = left_out.named_count.saturating_add(shed.count);
            } else if let Some(command) = CommandRecord::read(entry.bytes) {
                // Shedding restricts every instrument for itself: one for all is an operator's own.
                let is_one = command.header.instrument_id != 0 && command.alpha_index == ALL_ALPHAS;
                if command.command_kind == CommandKind::ReduceOnly as u32 && is_one {
                    left_out.changes.push((entry.input_seq, true));
                } else if command.command_kind == CommandKind::ResumeConfirm as u32 {
                    left_out.changes.push((entry.input_seq, false));
                }
            }
        }
        left_out.spans = joined(left_out.spans);
        left_out
    }

    fn is_in_span(&self, first_seq: u64, last_seq: u64) -> bool {
        let behind = self.spans.partition_point(|(first, _)| *first <= first_seq);
        let span = behind.checked_sub(1).and_then(|at| self.spans.get(at));
        span.is_some_and(|(_, last)| *last >= last_seq)
    }

    /// Whether SHED records account for every missing input.
    fn names_all(&self, gaps: &Gaps) -> bool {
        let missing_count: u64 = gaps.iter().map(|(first, last)| last - first + 1).sum();
        missing_count == self.named_count
            && gaps
                .iter()
                .all(|(first, last)| self.is_in_span(*first, *last))
    }

    /// Whether an input may have been left out: a SHED record says so, or an instrument was
    /// reduce-only and the SHED record may have been lost with the process.
    fn may_hold(&self, input_seq: u64) -> bool {
        let last_change = self
            .changes
            .iter()
            .take_while(|(seq, _)| *seq < input_seq)
            .last();
        self.is_in_span(input_seq, input_seq)
            || last_change.is_some_and(|(_, is_restricted)| *is_restricted)
    }
}

/// Spans that overlap or touch, made one.
fn joined(mut spans: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    spans.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (first, last) in spans {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// Takes two logs as one session and finds how far it can be decided again.
///
/// # Errors
/// [`ExtentError`] when what is missing is not the tail of one log.
pub fn session_extent(market: &[u8], orders: &[u8]) -> Result<SessionExtent, ExtentError> {
    let (market, orders) = (entries("market", market)?, entries("orders", orders)?);
    extent_from(1, &market, &orders)
}

/// What one process of a session left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Its epoch.
    pub epoch: u64,
    /// `input_seq` of its Epoch record.
    pub first_seq: u64,
    /// Bytes of the order log before that: what its engine recovered from.
    pub order_log_bytes: usize,
    /// How far it can be decided again from there.
    pub extent: SessionExtent,
}

/// Takes two logs as a live session, one life a process; none for a session without Epoch records.
///
/// # Errors
/// As [`session_extent`], of every life.
pub fn session_lives(market: &[u8], orders: &[u8]) -> Result<Vec<Life>, ExtentError> {
    let (market, order_entries) = (entries("market", market)?, entries("orders", orders)?);
    let mut starts = Vec::new();
    let mut order_log_bytes = 0;
    for (place, entry) in order_entries.iter().enumerate() {
        if let Some(record) = EpochRecord::read(entry.bytes) {
            starts.push((record.epoch, entry.input_seq, place, order_log_bytes));
        }
        order_log_bytes += entry.bytes.len();
    }
    let mut lives = Vec::new();
    for (number, (epoch, first_seq, place, before_bytes)) in starts.iter().copied().enumerate() {
        let next = starts.get(number + 1);
        let (end_seq, end_place) =
            next.map_or((u64::MAX, order_entries.len()), |next| (next.1, next.2));
        let from = market.partition_point(|entry| entry.input_seq < first_seq);
        let to = market.partition_point(|entry| entry.input_seq < end_seq);
        lives.push(Life {
            epoch,
            first_seq,
            order_log_bytes: before_bytes,
            extent: extent_from(
                first_seq,
                &market[from..to],
                &order_entries[place..end_place],
            )?,
        });
    }
    Ok(lives)
}

/// The extent of logs whose first input is `first_seq`.
fn extent_from(
    first_seq: u64,
    market: &[Entry<'_>],
    orders: &[Entry<'_>],
) -> Result<SessionExtent, ExtentError> {
    let last = |log: &[Entry<'_>]| log.last().map_or(0, |entry| entry.input_seq);
    let mut extent = SessionExtent {
        ends_at: first_seq - 1,
        market_last_seq: last(market),
        orders_last_seq: last(orders),
        ..SessionExtent::default()
    };
    let inputs = |log: &[Entry<'_>]| log.iter().filter(|entry| !entry.is_decision).count();
    if inputs(market) + inputs(orders) == 0 {
        return Err(ExtentError::Empty);
    }
    let left_out = LeftOut::of(orders);
    let (mut gaps, mut last_seen) = (Gaps::new(), first_seq - 1);
    let (mut left, mut right) = (market.iter(), orders.iter());
    while let Some(entry) = next_of(&mut left, &mut right)? {
        // A decision's cause was an input, so it is missing where it is not there.
        if entry.input_seq > last_seen {
            let end = entry.input_seq - u64::from(!entry.is_decision);
            if end > last_seen {
                gaps.push((last_seen + 1, end));
            }
            last_seen = entry.input_seq;
        }
        if !entry.is_decision && entry.input_seq == extent.ends_at + 1 {
            extent.ends_at += 1;
        }
        let home = match (entry.is_decision, entry.input_seq <= extent.ends_at) {
            (false, true) => &mut extent.inputs,
            (false, false) => &mut extent.inputs_past,
            (true, true) => &mut extent.decisions,
            (true, false) => &mut extent.decisions_past,
        };
        home.extend_from_slice(entry.bytes);
    }
    let missing = extent.ends_at + 1;
    extent.lost_tail = match (
        extent.market_last_seq > missing,
        extent.orders_last_seq >= missing,
    ) {
        (false, false) => None,
        _ if left_out.names_all(&gaps) => None,
        (false, true) => Some(LostTail::Market),
        (true, false) => Some(LostTail::Orders),
        (true, true) if left_out.may_hold(missing) => Some(LostTail::Shed),
        (true, true) => return Err(ExtentError::Hole { input_seq: missing }),
    };
    Ok(extent)
}

/// The next record of both logs: by sequence, an input before the decisions it caused.
fn next_of<'log, 'a>(
    market: &mut std::slice::Iter<'log, Entry<'a>>,
    orders: &mut std::slice::Iter<'log, Entry<'a>>,
) -> Result<Option<Entry<'a>>, ExtentError> {
    let is_market = match (market.as_slice().first(), orders.as_slice().first()) {
        (Some(left), Some(right)) if left.input_seq == right.input_seq && !right.is_decision => {
            return Err(ExtentError::Disordered {
                log: "orders",
                input_seq: right.input_seq,
            });
        }
        (Some(left), Some(right)) => left.input_seq <= right.input_seq,
        (left, _) => left.is_some(),
    };
    let from = if is_market { market } else { orders };
    Ok(from.next().copied())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
    use super::*;
    use crate::record::{BrokerRecord, DecisionRecord, Record, TradeRecord};

    fn of<R: Record>(input_seq: u64) -> Vec<u8> {
        let mut record = R::empty();
        record.header_mut().input_seq = input_seq;
        record.as_bytes().to_vec()
    }

    fn trades(seqs: &[u64]) -> Vec<u8> {
        seqs.iter()
            .flat_map(|seq| of::<TradeRecord>(*seq))
            .collect()
    }

    /// `b7` is a broker input, `d7` a decision caused by input 7.
    fn orders(words: &str) -> Vec<u8> {
        words
            .split_whitespace()
            .flat_map(|word| {
                let seq = word[1..].parse().unwrap();
                if word.starts_with('b') {
                    of::<BrokerRecord>(seq)
                } else {
                    of::<DecisionRecord>(seq)
                }
            })
            .collect()
    }

    fn seqs(tape: &[u8]) -> Vec<u64> {
        Tape::new(tape)
            .map(|item| item.unwrap().0.input_seq)
            .collect()
    }

    /// (ends at, lost tail, inputs past, decisions, decisions past)
    type Found = (u64, Option<LostTail>, Vec<u64>, Vec<u64>, Vec<u64>);

    fn found(market: &[u64], order_words: &str) -> Result<Found, ExtentError> {
        let extent = session_extent(&trades(market), &orders(order_words))?;
        let expected: Vec<u64> = (1..=extent.ends_at).collect();
        assert_eq!(seqs(&extent.inputs), expected);
        Ok((
            extent.ends_at,
            extent.lost_tail,
            seqs(&extent.inputs_past),
            seqs(&extent.decisions),
            seqs(&extent.decisions_past),
        ))
    }

    #[test]
    fn a_whole_session_ends_at_its_last_input_and_lists_nothing() {
        let whole = found(&[1, 2, 4, 6], "d2 b3 d3 d4 b5");
        assert_eq!(whole, Ok((6, None, vec![], vec![2, 3, 4], vec![])));
        assert_eq!(found(&[1, 2], ""), Ok((2, None, vec![], vec![], vec![])));
    }

    #[test]
    fn what_was_decided_on_a_lost_market_tail_is_listed() {
        let lost = Some(LostTail::Market);
        assert_eq!(
            found(&[1, 2], "d2 b3 d3 d4 b5 d5 d6 d6"),
            Ok((3, lost, vec![5], vec![2, 3], vec![4, 5, 6, 6]))
        );
        // Not one order input behind the cut: only the decision tells.
        assert_eq!(
            found(&[1, 2], "d2 d9"),
            Ok((2, lost, vec![], vec![2], vec![9]))
        );
        assert_eq!(found(&[], "b3 d3"), Ok((0, lost, vec![3], vec![], vec![3])));
    }

    #[test]
    fn a_lost_order_tail_ends_the_session_where_its_next_input_was() {
        assert_eq!(
            found(&[1, 2, 4, 6, 7], "d2 b3 d3"),
            Ok((4, Some(LostTail::Orders), vec![6, 7], vec![2, 3], vec![]))
        );
    }

    #[test]
    fn every_process_has_its_own_extent_and_a_tail_lost_between_two_is_the_first_ones() {
        let epoch = |seq: u64, number: u64| {
            let mut record = EpochRecord::empty();
            record.header.input_seq = seq;
            record.epoch = number;
            record.as_bytes().to_vec()
        };
        // Inputs 5 and 6 were lost with the market log; a decision on 6 was not.
        let first = [epoch(1, 3), orders("d2 b3 d6")].concat();
        let log = [first.clone(), epoch(7, 9), orders("b9 d10")].concat();
        let lives = session_lives(&trades(&[2, 4, 8, 10]), &log).unwrap();
        let told: Vec<_> = lives
            .iter()
            .map(|life| {
                (
                    life.epoch,
                    life.first_seq,
                    life.extent.ends_at,
                    life.extent.lost_tail,
                )
            })
            .collect();
        assert_eq!(told, [(3, 1, 4, Some(LostTail::Market)), (9, 7, 10, None)]);
        assert_eq!(lives[0].order_log_bytes, 0);
        assert_eq!(lives[1].order_log_bytes, first.len());
        assert_eq!(seqs(&lives[0].extent.decisions_past), [6]);
        assert_eq!(seqs(&lives[1].extent.inputs), [7, 8, 9, 10]);
        assert_eq!(seqs(&lives[1].extent.decisions), [10]);
        // What is missing inside a life is no tail.
        let hole = session_lives(&trades(&[2, 4, 5, 6, 8, 11]), &log);
        assert_eq!(hole, Err(ExtentError::Hole { input_seq: 10 }));
        let hole = [epoch(1, 1), orders("b4")].concat();
        assert_eq!(
            session_lives(&trades(&[2, 5]), &hole),
            Err(ExtentError::Hole { input_seq: 3 })
        );
        assert_eq!(session_lives(&trades(&[1]), &orders("b2")), Ok(vec![]));
    }

    /// Words as in `orders`; `r2` makes an instrument reduce-only at input 2, `f2` lifts that, `a2`
    /// is an operator's for all instruments, `s7:3-5=2` is a SHED record at 7 for two of 3 to 5.
    fn thinned(market: &[u64], words: &str) -> Result<Found, ExtentError> {
        let number = |word: &str| word.parse::<u64>().unwrap();
        let tape: Vec<u8> = words
            .split_whitespace()
            .flat_map(|word| match &word[..1] {
                "s" => {
                    let (seq, rest) = word[1..].split_once(':').unwrap();
                    let (first, rest) = rest.split_once('-').unwrap();
                    let (last, count) = rest.split_once('=').unwrap();
                    let mut record = ShedRecord::empty();
                    record.header.input_seq = number(seq);
                    record.first_seq = number(first);
                    record.last_seq = number(last);
                    record.count = number(count);
                    record.as_bytes().to_vec()
                }
                kind @ ("r" | "f" | "a") => {
                    let mut record = CommandRecord::empty();
                    record.header.input_seq = number(&word[1..]);
                    record.header.instrument_id = u32::from(kind == "r");
                    record.alpha_index = ALL_ALPHAS;
                    record.command_kind = match kind {
                        "f" => CommandKind::ResumeConfirm as u32,
                        _ => CommandKind::ReduceOnly as u32,
                    };
                    record.as_bytes().to_vec()
                }
                _ => orders(word),
            })
            .collect();
        let extent = session_extent(&trades(market), &tape)?;
        Ok((
            extent.ends_at,
            extent.lost_tail,
            seqs(&extent.inputs_past),
            seqs(&extent.decisions),
            seqs(&extent.decisions_past),
        ))
    }

    #[test]
    fn what_shed_records_name_ends_the_extent_and_is_no_lost_tail() {
        assert_eq!(
            thinned(&[1, 4, 6, 8], "r2 d2 d3 d5 s7:3-5=2 d8"),
            Ok((2, None, vec![4, 6, 7, 8], vec![2], vec![3, 5, 8]))
        );
        // Two topics, whose ranges touch, overlap or stand apart.
        let words = "r2 s9:3-4=2 s10:5-7=2 s11:6-8=1 s14:12-13=1 d14";
        let found = thinned(&[1, 8, 12], words).unwrap();
        assert_eq!((found.0, found.1), (2, None));
    }

    #[test]
    fn what_a_crash_left_unnamed_ends_the_extent_and_says_so() {
        let shed = Some(LostTail::Shed);
        // Nothing named yet; one range named and one more record; a range that names too few.
        for (market, words) in [
            (vec![1, 4, 6], "r2 d2 d5 d6"),
            (vec![1, 4, 6, 9], "r2 d2 s7:3-5=2 d9"),
            (vec![1, 4, 6, 8], "r2 d2 s7:3-5=1 d8"),
        ] {
            let found = thinned(&market, words).unwrap();
            assert_eq!((found.0, found.1), (2, shed), "{words}");
        }
        // A tail that is lost as well: a decision whose cause is nowhere.
        let found = thinned(&[1, 4, 6], "r2 d2 s7:3-5=2 d9").unwrap();
        assert_eq!((found.0, found.1, found.4), (2, shed, vec![9]));
    }

    #[test]
    fn a_hole_where_nothing_may_be_left_out_stays_a_hole() {
        for words in ["a2 d5 d6", "r2 f3 d6", "b2 d5 r7", "b2 s7:5-5=1"] {
            let market: &[u64] = match words {
                "r2 f3 d6" => &[1, 5, 6],
                _ => &[1, 4, 6],
            };
            let missing = if market.contains(&5) { 4 } else { 3 };
            assert_eq!(
                thinned(market, words),
                Err(ExtentError::Hole { input_seq: missing }),
                "{words}"
            );
        }
    }

    #[test]
    fn a_hole_a_double_and_a_broken_order_are_no_lost_tail() {
        assert_eq!(
            found(&[1, 2, 5], "b6"),
            Err(ExtentError::Hole { input_seq: 3 })
        );
        assert_eq!(
            found(&[2, 3], "d3"),
            Err(ExtentError::Hole { input_seq: 1 })
        );
        let disordered = |log, input_seq| Err(ExtentError::Disordered { log, input_seq });
        assert_eq!(found(&[1, 2, 2], ""), disordered("market", 2));
        assert_eq!(found(&[1, 3, 2], ""), disordered("market", 2));
        assert_eq!(found(&[1, 2], "b2"), disordered("orders", 2));
        assert_eq!(found(&[1, 2, 3], "d3 d2"), disordered("orders", 2));
        assert_eq!(found(&[0], ""), disordered("market", 0));
        assert_eq!(found(&[], "d3"), Err(ExtentError::Empty));
        assert!(matches!(
            session_extent(&[1, 2], &[]),
            Err(ExtentError::Tape(_))
        ));
    }

    /// Every pair of cuts of one session: the rules above, against a count that knows the truth.
    #[test]
    fn every_pair_of_cuts_gives_the_extent_that_the_whole_session_implies() {
        let market = [1_u64, 2, 4, 6, 7, 10, 11];
        let order_log = [
            "d2", "b3", "d3", "d4", "b5", "d7", "b8", "b9", "d9", "d11", "d11",
        ];
        for kept_market in 0..=market.len() {
            for kept_orders in 0..=order_log.len() {
                let (left, right) = (&market[..kept_market], &order_log[..kept_orders]);
                let seq = |word: &&str| word[1..].parse::<u64>().unwrap();
                let there =
                    |n: u64| left.contains(&n) || right.iter().any(|w| *w == format!("b{n}"));
                let ends = (1..).take_while(|n| there(*n)).count() as u64;
                let past = right
                    .iter()
                    .filter(|w| w.starts_with('d') && seq(w) > ends)
                    .count();
                match found(left, &right.join(" ")) {
                    Ok(found) => {
                        assert_eq!((found.0, found.4.len()), (ends, past));
                    }
                    Err(error) => {
                        let has_input =
                            !left.is_empty() || right.iter().any(|w| w.starts_with('b'));
                        assert!(!has_input, "{kept_market} {kept_orders}: {error}");
                    }
                }
            }
        }
    }
}
