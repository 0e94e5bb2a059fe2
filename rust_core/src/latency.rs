//! Order latency: measured quantiles in, one delay for each request or response out.
//!
//! Why: latency decides the sign of a maker's result, and a cancel is not as slow as a place, so
//! both are drawn apart from measured quantiles and never from one constant.
//!
//! Invariants:
//! 1. The delay is a function of profile, order id and kind alone: no state, no clock, no random
//!    source; two runs and two processes draw the same delays.
//! 2. A delay is never negative and grows with the quantile.
//! 3. A set `corner` gives every order the delay of that one quantile.
//!
//! It schedules nothing (see `simulation`). Operator's page: `docs/latency.md`.

use serde::{Deserialize, Serialize};

use crate::reason::ReasonCode;

/// What is delayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LatencyKind {
    /// From the decision to the new order being active at the exchange.
    Place = 1,
    /// From the decision to the cancel acting at the exchange.
    Cancel = 2,
    /// From the exchange's event to our engine; one draw an order, so its reports keep their order.
    Response = 3,
    /// From the broker's taking of a new order to its being active at the exchange; a part of the
    /// place delay where a profile states it apart.
    Activation = 4,
}

impl LatencyKind {
    /// The kind of a number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Place,
            2 => Self::Cancel,
            3 => Self::Response,
            4 => Self::Activation,
            _ => return None,
        })
    }
}

/// Why a latency profile is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LatencyError {
    /// The JSON is not a profile.
    #[error("latency profile is malformed: {0}")]
    Malformed(String),
    /// A field's value is not allowed.
    #[error("latency profile {profile_id}: {field} was {value}, allowed is {allowed}")]
    OutOfRange {
        /// Which profile.
        profile_id: String,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl LatencyError {
    /// Its number.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        ReasonCode::SettingsInvalid
    }
}

/// Longest delay a profile may state: one minute.
pub const DELAY_NS_MAX: i64 = 60_000_000_000;

/// A latency profile: points `(quantile, ns)` of three distributions, or four.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyProfile {
    /// Name of the profile.
    pub profile_id: String,
    /// Seed of the draws.
    pub seed: u64,
    /// Local cost between decision and wire, added to every request, ns.
    pub pipeline_ns: i64,
    /// Points of the place delay: until the order is active at the exchange, or, with
    /// `activation`, until the broker has it.
    pub place: Vec<(f64, i64)>,
    /// Points of the cancel delay.
    pub cancel: Vec<(f64, i64)>,
    /// Points of the response delay.
    pub response: Vec<(f64, i64)>,
    /// Points of the way from the broker to being active, drawn apart from `place`; a profile
    /// without it is the same as before it could be stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Vec<(f64, i64)>>,
    /// Use this quantile for every order instead of drawing.
    pub corner: Option<f64>,
}

impl LatencyProfile {
    /// Reads and checks a profile.
    ///
    /// # Errors
    /// [`LatencyError`] when the text is no profile or a point is not allowed.
    pub fn from_json(text: &str) -> Result<Self, LatencyError> {
        let profile: Self = serde_json::from_str(text)
            .map_err(|error| LatencyError::Malformed(error.to_string()))?;
        profile.check()?;
        Ok(profile)
    }

    /// The same delays for every order; for tests and stress cells.
    #[must_use]
    pub fn constant(place_ns: i64, cancel_ns: i64, response_ns: i64) -> Self {
        Self {
            profile_id: "constant".to_owned(),
            seed: 0,
            pipeline_ns: 0,
            place: vec![(0.5, place_ns)],
            cancel: vec![(0.5, cancel_ns)],
            response: vec![(0.5, response_ns)],
            activation: None,
            corner: None,
        }
    }

    fn check(&self) -> Result<(), LatencyError> {
        let refuse = |field, value: String, allowed| {
            Err(LatencyError::OutOfRange {
                profile_id: self.profile_id.clone(),
                field,
                value,
                allowed,
            })
        };
        if !(0..=DELAY_NS_MAX).contains(&self.pipeline_ns) {
            return refuse(
                "pipeline_ns",
                self.pipeline_ns.to_string(),
                "0 to one minute",
            );
        }
        if let Some(corner) = self.corner.filter(|corner| !(0.0..=1.0).contains(corner)) {
            return refuse("corner", corner.to_string(), "0 to 1");
        }
        let mut stated = vec![
            ("place", &self.place),
            ("cancel", &self.cancel),
            ("response", &self.response),
        ];
        stated.extend(
            self.activation
                .as_ref()
                .map(|points| ("activation", points)),
        );
        for (field, points) in stated {
            if points.is_empty() {
                return refuse(field, "empty".to_owned(), "at least one point");
            }
            for point in points {
                if !(0.0..=1.0).contains(&point.0) || !(0..=DELAY_NS_MAX).contains(&point.1) {
                    return refuse(
                        field,
                        format!("{point:?}"),
                        "quantile 0 to 1, delay 0 to one minute",
                    );
                }
            }
            for pair in points.windows(2) {
                if let [low, high] = pair
                    && (low.0 >= high.0 || low.1 > high.1)
                {
                    return refuse(
                        field,
                        format!("{pair:?}"),
                        "growing quantiles, delays that do not fall",
                    );
                }
            }
        }
        Ok(())
    }

    /// Delay of one request or response, ns; requests include the pipeline.
    #[must_use]
    pub fn delay_ns(&self, order_id: u64, kind: LatencyKind) -> i64 {
        let drawn = |points: &[(f64, i64)], kind| {
            let quantile = self
                .corner
                .unwrap_or_else(|| draw(self.seed, order_id, kind));
            at_quantile(points, quantile)
        };
        let activation = || {
            let points = self.activation.as_deref();
            points.map_or(0, |points| drawn(points, LatencyKind::Activation))
        };
        match kind {
            LatencyKind::Place => self.pipeline_ns + drawn(&self.place, kind) + activation(),
            LatencyKind::Cancel => self.pipeline_ns + drawn(&self.cancel, kind),
            LatencyKind::Response => drawn(&self.response, kind),
            LatencyKind::Activation => activation(),
        }
    }
}

/// One step of the splitmix64 generator's output function (Steele, Lea, Flood 2014).
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in [0, 1) that depends on nothing but its arguments.
fn draw(seed: u64, order_id: u64, kind: LatencyKind) -> f64 {
    let hash = mix(mix(mix(seed) ^ order_id) ^ u64::from(kind as u8));
    // 53 bits: every value is exact in an f64.
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// Piecewise linear inverse distribution; below the first and above the last point it is flat.
fn at_quantile(points: &[(f64, i64)], quantile: f64) -> i64 {
    let Some(high) = points.iter().position(|point| point.0 >= quantile) else {
        return points.last().map_or(0, |point| point.1);
    };
    let upper = points[high];
    let Some(lower) = high.checked_sub(1).map(|low| points[low]) else {
        return upper.1;
    };
    let share = (quantile - lower.0) / (upper.0 - lower.0);
    #[allow(
        clippy::cast_possible_truncation,
        reason = "between two delays of at most a minute"
    )]
    let step = ((upper.1 - lower.1) as f64 * share).round() as i64;
    lower.1 + step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> LatencyProfile {
        LatencyProfile {
            profile_id: "test".to_owned(),
            seed: 7,
            pipeline_ns: 250_000,
            place: vec![(0.5, 201_800_000), (0.95, 394_500_000), (0.99, 694_300_000)],
            cancel: vec![(0.5, 40_600_000), (0.95, 117_400_000), (0.99, 167_600_000)],
            response: vec![(0.5, 1_000_000)],
            activation: None,
            corner: None,
        }
    }

    #[test]
    fn a_corner_gives_every_order_the_measured_quantile() {
        let profile = LatencyProfile {
            corner: Some(0.95),
            ..live()
        };
        for order_id in [1, 2, u64::MAX] {
            assert_eq!(profile.delay_ns(order_id, LatencyKind::Place), 394_750_000);
            assert_eq!(profile.delay_ns(order_id, LatencyKind::Cancel), 117_650_000);
            assert_eq!(profile.delay_ns(order_id, LatencyKind::Response), 1_000_000);
        }
    }

    #[test]
    fn between_two_points_the_delay_is_linear_and_outside_it_is_flat() {
        let points = [(0.5, 100), (0.9, 500)];
        assert_eq!(at_quantile(&points, 0.0), 100);
        assert_eq!(at_quantile(&points, 0.5), 100);
        assert_eq!(at_quantile(&points, 0.7), 300);
        assert_eq!(at_quantile(&points, 1.0), 500);
    }

    #[test]
    fn draws_reproduce_the_stated_quantiles_and_differ_by_kind() {
        let profile = live();
        let mut delays: Vec<i64> = (0..20_000)
            .map(|id| profile.delay_ns(id, LatencyKind::Place))
            .collect();
        delays.sort_unstable();
        // Standard error of a 95 % quantile's rank over 20,000 draws is 0.15 %: a band of 4.
        let share = delays.iter().filter(|delay| **delay <= 394_750_000).count() as f64 / 20_000.0;
        assert!(
            (share - 0.95).abs() < 0.006,
            "share below the 95 % point was {share}"
        );
        let same = (0..1_000)
            .filter(|id| draw(7, *id, LatencyKind::Place) == draw(7, *id, LatencyKind::Cancel))
            .count();
        assert_eq!(same, 0);
        assert_ne!(
            draw(7, 1, LatencyKind::Place),
            draw(8, 1, LatencyKind::Place)
        );
    }

    #[test]
    fn an_activation_is_drawn_apart_and_added_to_the_place_alone() {
        let parted = LatencyProfile {
            activation: Some(vec![(0.0, 1_000), (1.0, 2_000)]),
            ..live()
        };
        let mut sums = std::collections::BTreeSet::new();
        for id in 0..1_000 {
            let activation = parted.delay_ns(id, LatencyKind::Activation);
            assert!((1_000..=2_000).contains(&activation));
            let place = live().delay_ns(id, LatencyKind::Place);
            assert_eq!(parted.delay_ns(id, LatencyKind::Place), place + activation);
            for kind in [LatencyKind::Cancel, LatencyKind::Response] {
                assert_eq!(parted.delay_ns(id, kind), live().delay_ns(id, kind));
            }
            sums.insert(activation);
        }
        assert!(sums.len() > 500, "one draw an order");
        assert_eq!(live().delay_ns(1, LatencyKind::Activation), 0);
        let text = serde_json::to_string(&live()).unwrap_or_default();
        assert!(
            !text.contains("activation"),
            "its text, and so its hash, stays"
        );
        let broken = LatencyProfile {
            activation: Some(vec![]),
            ..live()
        };
        assert!(matches!(
            broken.check(),
            Err(LatencyError::OutOfRange {
                field: "activation",
                ..
            })
        ));
    }

    #[test]
    fn a_profile_with_falling_delays_or_an_unknown_field_is_refused() {
        let mut profile = live();
        profile.place = vec![(0.5, 2), (0.9, 1)];
        assert!(matches!(
            profile.check(),
            Err(LatencyError::OutOfRange { field: "place", .. })
        ));
        let mut text = serde_json::to_value(live()).unwrap_or_default();
        assert!(LatencyProfile::from_json(&text.to_string()).is_ok());
        text["modify"] = 1.into();
        assert!(matches!(
            LatencyProfile::from_json(&text.to_string()),
            Err(LatencyError::Malformed(_))
        ));
    }
}
