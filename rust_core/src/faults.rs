//! Faults of the paper exchange: what goes wrong, how often, decided by a seed.
//!
//! Why: an engine that has only met an exchange that fills in full, answers always, once and in
//! order has not been tested; and what it met must be there again at the next run.
//!
//! Invariants:
//! 1. Whether a fault hits is a function of seed, order id, fault and its number within the order:
//!    no state, no clock, no random source.
//! 2. A fault is off when its field is null; a profile with all of them off changes nothing but the
//!    numbering of reports.
//! 3. A lost request or reply needs a timeout: nothing stays unanswered without the engine's
//!    knowledge.
//!
//! It acts on nothing (see `simulation::faulty`). Operator's page: `docs/backtest.md`.

use serde::{Deserialize, Serialize};

use crate::latency::{DELAY_NS_MAX, mix};
use crate::reason::ReasonCode;

/// Parts of a rate: one million is always.
pub const RATE_PPM_MAX: u32 = 1_000_000;
/// Reject reasons of one profile.
pub const REJECT_COUNT_MAX: usize = 16;
/// Widest daily limit or price band: the whole price.
pub const BPS_MAX: u32 = 10_000;

/// What can hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Fault {
    /// A fill comes in parts.
    PartialFill = 16,
    /// How much the first part is.
    PartSize = 17,
    /// A new order is refused.
    Reject = 18,
    /// A new order never arrives.
    LostPlace = 19,
    /// A cancel never arrives.
    LostCancel = 20,
    /// A new order acts, its answer is lost.
    LostPlaceReply = 21,
    /// A cancel acts, its answer is lost.
    LostCancelReply = 22,
    /// A report comes twice.
    Duplicate = 23,
    /// A report comes late, so others overtake it.
    Late = 24,
    /// The first fill overtakes the acknowledgement.
    FillBeforeAck = 25,
    /// The call that a lost reply belongs to comes back without an answer.
    LostCall = 26,
    /// A question to the broker, or its answer, is lost.
    LostQuery = 27,
}

/// How often, and how long it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delayed {
    /// Parts per million of what can be hit.
    pub rate_ppm: u32,
    /// How long, ns.
    pub delay_ns: i64,
}

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Parts per million of what can be hit.
    pub rate_ppm: u32,
}

/// One reason of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reject {
    /// Number of the `ReasonCode` that the refusal carries.
    pub reason_code: u16,
    /// Parts per million of new orders.
    pub rate_ppm: u32,
}

/// Limit-up and limit-down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceLimit {
    /// What the limits are counted from, scaled; null is the mid of the first two-sided book.
    pub reference_price: Option<i64>,
    /// Distance in hundredths of a percent; limits are rounded inward to the tick.
    pub bps: u32,
}

/// Dynamic price band.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceBand {
    /// Distance from the last trade, in hundredths of a percent.
    pub bps: u32,
}

/// When an unanswered request is given up, and when the broker is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeout {
    /// From the decision to the timeout record, ns.
    pub after_ns: i64,
    /// From the timeout record to the broker's answer to the question what became of it, ns; null
    /// is never: the order stays unknown.
    pub resolve_ns: Option<i64>,
}

/// A fault profile; every fault is stated, null is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultProfile {
    /// Name of the profile.
    pub profile_id: String,
    /// Seed of the draws.
    pub seed: u64,
    /// Orders of two lots or more whose fill comes in parts, and the time between the parts.
    pub partial_fill: Option<Delayed>,
    /// Refusals by reason.
    pub rejects: Option<Vec<Reject>>,
    /// Orders beyond limit-up or limit-down are refused.
    pub price_limit: Option<PriceLimit>,
    /// Orders whose possible fill leaves the band are refused.
    pub price_band: Option<PriceBand>,
    /// Exchange time at which the session ends: what rests expires, what comes later is refused.
    pub session_end_ns: Option<i64>,
    /// Requests that never arrive.
    pub lost_request: Option<Rate>,
    /// Requests that act, but whose answer is lost.
    pub lost_reply: Option<Rate>,
    /// What becomes of unanswered requests.
    pub timeout: Option<Timeout>,
    /// Reports that come a second time.
    pub duplicate: Option<Delayed>,
    /// Reports that come later than others of the same order.
    pub late: Option<Delayed>,
    /// Acknowledgements that wait for the first fill, and how long at most.
    pub fill_before_ack: Option<Delayed>,
}

/// Why a fault profile is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault profile {profile_id}: {field} was {value}, allowed is {allowed}")]
pub struct FaultError {
    /// Which profile.
    pub profile_id: String,
    /// Which field.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub allowed: &'static str,
}

impl FaultError {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        ReasonCode::SettingsInvalid
    }
}

impl FaultProfile {
    /// Nothing goes wrong.
    #[must_use]
    pub fn off(profile_id: &str, seed: u64) -> Self {
        Self {
            profile_id: profile_id.to_owned(),
            seed,
            partial_fill: None,
            rejects: None,
            price_limit: None,
            price_band: None,
            session_end_ns: None,
            lost_request: None,
            lost_reply: None,
            timeout: None,
            duplicate: None,
            late: None,
            fill_before_ack: None,
        }
    }

    /// Whether the values are allowed.
    ///
    /// # Errors
    /// [`FaultError`] naming the first field that is not.
    pub fn check(&self) -> Result<(), FaultError> {
        self.check_rates()?;
        self.check_delays()?;
        self.check_prices()?;
        let can_lose = self.lost_request.is_some() || self.lost_reply.is_some();
        if can_lose && self.timeout.is_none() {
            return self.refuse(
                "timeout",
                "null",
                "a value when requests or replies are lost",
            );
        }
        Ok(())
    }

    fn refuse<T>(
        &self,
        field: &'static str,
        value: impl ToString,
        allowed: &'static str,
    ) -> Result<T, FaultError> {
        Err(FaultError {
            profile_id: self.profile_id.clone(),
            field,
            value: value.to_string(),
            allowed,
        })
    }

    fn check_rates(&self) -> Result<(), FaultError> {
        let delayed = |fault: Option<Delayed>| fault.map(|fault| fault.rate_ppm);
        let rated = |fault: Option<Rate>| fault.map(|fault| fault.rate_ppm);
        for (field, rate_ppm) in [
            ("partial_fill.rate_ppm", delayed(self.partial_fill)),
            ("duplicate.rate_ppm", delayed(self.duplicate)),
            ("late.rate_ppm", delayed(self.late)),
            ("fill_before_ack.rate_ppm", delayed(self.fill_before_ack)),
            ("lost_request.rate_ppm", rated(self.lost_request)),
            ("lost_reply.rate_ppm", rated(self.lost_reply)),
        ] {
            if let Some(rate_ppm) = rate_ppm.filter(|rate_ppm| *rate_ppm > RATE_PPM_MAX) {
                return self.refuse(field, rate_ppm, "0 to 1,000,000");
            }
        }
        let rejects = self.rejects.as_deref().unwrap_or_default();
        if rejects.len() > REJECT_COUNT_MAX {
            return self.refuse("rejects", rejects.len(), "at most 16 reasons");
        }
        for reject in rejects {
            let code = ReasonCode::from_code(reject.reason_code);
            if code.is_none_or(|code| code == ReasonCode::Unset) {
                return self.refuse(
                    "rejects.reason_code",
                    reject.reason_code,
                    "the number of a reason code",
                );
            }
        }
        let total: u64 = rejects
            .iter()
            .map(|reject| u64::from(reject.rate_ppm))
            .sum();
        if total > u64::from(RATE_PPM_MAX) {
            return self.refuse("rejects.rate_ppm", total, "1,000,000 over all reasons");
        }
        Ok(())
    }

    fn check_delays(&self) -> Result<(), FaultError> {
        let delayed = |fault: Option<Delayed>| fault.map(|fault| fault.delay_ns);
        let timeout = self.timeout;
        for (field, delay_ns) in [
            ("partial_fill.delay_ns", delayed(self.partial_fill)),
            ("duplicate.delay_ns", delayed(self.duplicate)),
            ("late.delay_ns", delayed(self.late)),
            ("fill_before_ack.delay_ns", delayed(self.fill_before_ack)),
            ("timeout.after_ns", timeout.map(|timeout| timeout.after_ns)),
            (
                "timeout.resolve_ns",
                timeout.and_then(|timeout| timeout.resolve_ns),
            ),
        ] {
            if let Some(delay_ns) = delay_ns.filter(|ns| !(1..=DELAY_NS_MAX).contains(ns)) {
                return self.refuse(field, delay_ns, "1 ns to one minute");
            }
        }
        Ok(())
    }

    fn check_prices(&self) -> Result<(), FaultError> {
        let limit_bps = self.price_limit.map(|limit| limit.bps);
        let band_bps = self.price_band.map(|band| band.bps);
        for (field, bps) in [("price_limit.bps", limit_bps), ("price_band.bps", band_bps)] {
            if let Some(bps) = bps.filter(|bps| !(1..=BPS_MAX).contains(bps)) {
                return self.refuse(field, bps, "1 to 10,000");
            }
        }
        let reference = self.price_limit.and_then(|limit| limit.reference_price);
        if let Some(price) = reference.filter(|price| *price <= 0) {
            return self.refuse("price_limit.reference_price", price, "above 0, or null");
        }
        if let Some(end_ns) = self.session_end_ns.filter(|end_ns| *end_ns <= 0) {
            return self.refuse("session_end_ns", end_ns, "above 0, or null");
        }
        Ok(())
    }

    /// A number below one million for the `nth` time that `fault` can hit this order.
    #[must_use]
    pub fn draw_ppm(&self, order_id: u64, fault: Fault, nth: u32) -> u32 {
        let what = (u64::from(fault as u8) << 32) | u64::from(nth);
        let hash = mix(mix(mix(self.seed) ^ order_id) ^ what);
        // The upper 32 bits times a million, over 2^32: below a million.
        let scaled = ((hash >> 32) * u64::from(RATE_PPM_MAX)) >> 32;
        u32::try_from(scaled).unwrap_or(RATE_PPM_MAX)
    }

    /// Whether `fault` hits, at a rate.
    #[must_use]
    pub fn hits(&self, order_id: u64, fault: Fault, nth: u32, rate_ppm: u32) -> bool {
        self.draw_ppm(order_id, fault, nth) < rate_ppm
    }

    /// Whether the `nth` question of `topic` to the broker fails: it, or its answer, is lost as often
    /// as other requests and replies are.
    #[must_use]
    pub fn is_query_lost(&self, topic: u64, nth: u32) -> bool {
        let rate_ppm = |rate: Option<Rate>| rate.map_or(0, |rate| rate.rate_ppm);
        let total = rate_ppm(self.lost_request).saturating_add(rate_ppm(self.lost_reply));
        self.hits(topic, Fault::LostQuery, nth, total.min(RATE_PPM_MAX))
    }

    /// The reason for which a new order is refused, if it is.
    #[must_use]
    pub fn reject_reason(&self, order_id: u64) -> Option<ReasonCode> {
        let mut drawn = self.draw_ppm(order_id, Fault::Reject, 0);
        for reject in self.rejects.as_deref().unwrap_or_default() {
            match drawn.checked_sub(reject.rate_ppm) {
                Some(rest) => drawn = rest,
                None => return ReasonCode::from_code(reject.reason_code),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_on() -> FaultProfile {
        let delayed = Some(Delayed {
            rate_ppm: 100_000,
            delay_ns: 1_000_000,
        });
        FaultProfile {
            partial_fill: delayed,
            rejects: Some(vec![
                Reject {
                    reason_code: ReasonCode::BrokerRejected.code(),
                    rate_ppm: 30_000,
                },
                Reject {
                    reason_code: ReasonCode::OrderRateAboveLimit.code(),
                    rate_ppm: 20_000,
                },
            ]),
            price_limit: Some(PriceLimit {
                reference_price: None,
                bps: 1_000,
            }),
            price_band: Some(PriceBand { bps: 100 }),
            session_end_ns: Some(1),
            lost_request: Some(Rate { rate_ppm: 10_000 }),
            lost_reply: Some(Rate { rate_ppm: 10_000 }),
            timeout: Some(Timeout {
                after_ns: 1,
                resolve_ns: None,
            }),
            duplicate: delayed,
            late: delayed,
            fill_before_ack: delayed,
            ..FaultProfile::off("all_on", 7)
        }
    }

    #[test]
    fn draws_follow_the_rate_and_depend_on_seed_order_fault_and_number() {
        let profile = all_on();
        let hits = (0..100_000)
            .filter(|id| profile.hits(*id, Fault::Late, 0, 100_000))
            .count();
        // Standard error of a tenth over 100,000 draws is 95: a band of 4.
        assert!((9_620..=10_380).contains(&hits), "{hits} of 100,000");
        let other = FaultProfile {
            seed: 8,
            ..profile.clone()
        };
        let draw = profile.draw_ppm(5, Fault::Late, 0);
        assert_eq!(draw, profile.draw_ppm(5, Fault::Late, 0));
        for changed in [
            other.draw_ppm(5, Fault::Late, 0),
            profile.draw_ppm(6, Fault::Late, 0),
            profile.draw_ppm(5, Fault::Duplicate, 0),
            profile.draw_ppm(5, Fault::Late, 1),
        ] {
            assert_ne!(draw, changed);
        }
    }

    #[test]
    fn reject_reasons_come_at_their_own_rates() {
        let profile = all_on();
        let mut counts = [0; 2];
        for id in 0..100_000 {
            match profile.reject_reason(id) {
                Some(ReasonCode::BrokerRejected) => counts[0] += 1,
                Some(ReasonCode::OrderRateAboveLimit) => counts[1] += 1,
                other => assert_eq!(other, None),
            }
        }
        assert!((2_780..=3_220).contains(&counts[0]), "{counts:?}");
        assert!((1_820..=2_180).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn a_value_out_of_range_is_refused_by_its_field() {
        assert_eq!(all_on().check(), Ok(()));
        assert_eq!(FaultProfile::off("off", 0).check(), Ok(()));
        let delayed = |rate_ppm, delay_ns| Some(Delayed { rate_ppm, delay_ns });
        let reject = |reason_code, rate_ppm| {
            Some(vec![Reject {
                reason_code,
                rate_ppm,
            }])
        };
        let limit = |reference_price, bps| {
            Some(PriceLimit {
                reference_price,
                bps,
            })
        };
        type Change<'a> = &'a dyn Fn(&mut FaultProfile);
        let cases: [(&str, Change<'_>); 11] = [
            ("late.rate_ppm", &|p| p.late = delayed(1_000_001, 1)),
            ("duplicate.delay_ns", &|p| p.duplicate = delayed(1, 0)),
            ("late.delay_ns", &|p| {
                p.late = delayed(1, DELAY_NS_MAX + 1);
            }),
            ("rejects.reason_code", &|p| p.rejects = reject(7, 1)),
            ("rejects.reason_code", &|p| p.rejects = reject(0, 1)),
            ("rejects.rate_ppm", &|p| {
                p.rejects = reject(ReasonCode::BrokerRejected.code(), 1_000_001);
            }),
            ("price_limit.bps", &|p| p.price_limit = limit(None, 0)),
            ("price_limit.reference_price", &|p| {
                p.price_limit = limit(Some(0), 1);
            }),
            ("price_band.bps", &|p| {
                p.price_band = Some(PriceBand { bps: 10_001 });
            }),
            ("session_end_ns", &|p| p.session_end_ns = Some(0)),
            ("timeout", &|p| p.timeout = None),
        ];
        for (field, change) in cases {
            let mut profile = all_on();
            change(&mut profile);
            let refused = profile.check().err().map(|error| error.field);
            assert_eq!(refused, Some(field));
        }
    }
}
