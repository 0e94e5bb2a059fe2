//! The checks, a file for each question: may we, at what price, how much, how often, at what loss.
//!
//! Every one is pure: facts in, refusal or nothing out. They are inlined into `evaluate`, so that facts
//! of the usual order are compared where they stand and never collected in memory. Order and meaning stand in the table of
//! the folder above.

pub(super) mod loss;
pub(super) mod permission;
pub(super) mod price;
pub(super) mod rate;
pub(super) mod size;

use super::Refusal;
use crate::gateway::Money;
use crate::reason::ReasonCode;

/// Parts of a whole in basis points.
pub(super) const BPS_64: i64 = 10_000;
pub(super) const BPS: i128 = BPS_64 as i128;

#[allow(clippy::unnecessary_wraps, reason = "the shape of a check's answer")]
#[inline(always)]
fn refuse(code: ReasonCode, observed: i64, limit: i64) -> Option<Refusal> {
    Some(Refusal {
        code,
        observed,
        limit,
    })
}

#[inline(always)]
fn refuse_if(is_refused: bool, code: ReasonCode, observed: i64, limit: i64) -> Option<Refusal> {
    is_refused.then_some(Refusal {
        code,
        observed,
        limit,
    })
}

/// Money for a record: the nearest value that fits.
#[inline(always)]
fn narrow(value: Money) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// An unsigned count for a record.
#[inline(always)]
fn narrow_count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
