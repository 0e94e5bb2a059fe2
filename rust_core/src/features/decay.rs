//! How sums and means fade with time.
//!
//! Why: one call of `exp` an event gives the decay of every time constant.
//!
//! Invariants:
//! 1. A decay depends on the elapsed time only, never on how often it was asked for.
//! 2. Every factor is a product of one exponential in a fixed order: the same bits everywhere.
//!
//! Operator's page: `docs/feature-set.md`.

/// Nanoseconds in a second.
pub(super) const SECOND: i64 = 1_000_000_000;
/// 1 / (60 s), in 1/ns.
const PER_MINUTE_NS: f64 = 1.0 / 60e9;
/// What a sum has faded to when it counts as nothing. Far above the numbers that make
/// arithmetic slow, so that a silent hour does not.
const NOTHING: f64 = 1e-250;

#[allow(
    clippy::cast_precision_loss,
    reason = "features are floating point; money never is"
)]
pub(super) fn float(value: i64) -> f64 {
    value as f64
}

/// `exp(-dt / tau)` for the time constants in use, named by tau.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decay {
    /// 0.625 s, one over the Hawkes decay of 1.6 a second.
    pub(super) ms625: f64,
    pub(super) s1: f64,
    pub(super) s2: f64,
    pub(super) s5: f64,
    pub(super) s10: f64,
    pub(super) s30: f64,
    pub(super) s60: f64,
}

impl Decay {
    /// No time has passed.
    pub(super) const NONE: Self = Self {
        ms625: 1.0,
        s1: 1.0,
        s2: 1.0,
        s5: 1.0,
        s10: 1.0,
        s30: 1.0,
        s60: 1.0,
    };

    /// Decay over `dt_ns` > 0, from one exponential.
    #[inline]
    pub(super) fn over(dt_ns: i64) -> Self {
        let s60 = crate::math::exp(float(dt_ns) * -PER_MINUTE_NS);
        let s30 = s60 * s60;
        let s10 = s30 * s30 * s30;
        let s5 = s10 * s10;
        let s2_5 = s5 * s5;
        let s2 = s2_5 * s10;
        let s1 = s2 * s2;
        let s1_25 = s2_5 * s2_5;
        Self {
            ms625: s1_25 * s1_25,
            s1,
            s2,
            s5,
            s10,
            s30,
            s60,
        }
    }
}

/// Zero for a sum that has faded to nothing.
pub(super) fn settle(sum: &mut f64) {
    if sum.abs() < NOTHING {
        *sum = 0.0;
    }
}

/// Time-weighted exponential mean of a value that holds until it changes.
///
/// Kept as the distance of the mean from the value, which fades like a sum.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HeldMean {
    pub(super) value: f64,
    pub(super) behind: f64,
}

impl HeldMean {
    /// The mean starts at its first value.
    pub(super) fn start(&mut self, value: f64) {
        *self = Self { value, behind: 0.0 };
    }

    /// The value changes; the mean does not until time passes.
    pub(super) fn hold(&mut self, value: f64) {
        self.behind += self.value - value;
        self.value = value;
    }

    pub(super) fn mean(&self) -> f64 {
        self.value + self.behind
    }
}

/// Time that decayed counts were collected over: `tau * (1 - exp(-age / tau))`, s.
///
/// A count divided by it is a rate from the first second on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exposure {
    tau_s: f64,
    pub(super) missing: f64,
}

impl Exposure {
    /// Nothing was seen yet.
    pub(super) fn new(tau_s: f64) -> Self {
        Self {
            tau_s,
            missing: -tau_s,
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.tau_s + self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_factor_is_the_exponential_of_its_time_constant() {
        for dt_ns in [
            1,
            1_000,
            125_000_000,
            999_999_937,
            60 * SECOND,
            600 * SECOND,
        ] {
            let decay = Decay::over(dt_ns);
            for (tau_s, factor) in [
                (0.625, decay.ms625),
                (1.0, decay.s1),
                (2.0, decay.s2),
                (5.0, decay.s5),
                (10.0, decay.s10),
                (30.0, decay.s30),
                (60.0, decay.s60),
            ] {
                let exact = crate::math::exp(-float(dt_ns) / (tau_s * 1e9));
                assert!(
                    (factor - exact).abs() <= 1e-12 * exact + f64::MIN_POSITIVE,
                    "tau {tau_s}, dt {dt_ns}: {factor} is not {exact}"
                );
            }
        }
    }

    #[test]
    fn a_held_mean_moves_only_with_time() {
        let mut mean = HeldMean::default();
        mean.start(3.0);
        mean.hold(5.0);
        assert!((mean.mean() - 3.0).abs() < 1e-15);
        mean.behind *= 0.5;
        assert!((mean.mean() - 4.0).abs() < 1e-15);
    }
}
