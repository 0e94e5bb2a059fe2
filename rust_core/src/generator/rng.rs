//! Seeded random numbers of the generator: splitmix64 for seeding, xoshiro256++ for drawing.
//!
//! Why: the same seed must give the same bytes on every machine and for ever, so the algorithm is
//! written here and no library's choice can change it.
//!
//! Invariants:
//! 1. A stream is a pure function of (seed, session index, purpose).
//! 2. Only integer operations, exact float operations and `libm` are used.
//!
//! It is not for secrets. Operator's page: `docs/generator.md`.

/// 2^-53, the spacing of the uniform draws.
const UNIT: f64 = 1.0 / 9_007_199_254_740_992.0;

/// What a stream is for; streams of one session are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Prices: times of updates, activity, moves, spread, hidden state.
    Path,
    /// Everything that hangs on the path: queues, prints, delays.
    Flow,
}

/// One stream (xoshiro256++, Blackman and Vigna 2019, public domain).
#[derive(Debug, Clone)]
pub(super) struct Rng {
    words: [u64; 4],
}

/// One step of splitmix64 (Steele, Lea, Flood 2014).
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Rng {
    /// The stream of a purpose in a session.
    pub(super) fn new(seed: u64, session_index: u64, purpose: Purpose) -> Self {
        let mut state = seed;
        let mut mixed = splitmix64(&mut state) ^ session_index;
        mixed = splitmix64(&mut mixed)
            ^ match purpose {
                Purpose::Path => 0x7061_7468,
                Purpose::Flow => 0x666c_6f77,
            };
        Self {
            words: std::array::from_fn(|_| splitmix64(&mut mixed)),
        }
    }

    /// 64 uniform bits.
    pub(super) fn bits(&mut self) -> u64 {
        let words = &mut self.words;
        let result = words[0]
            .wrapping_add(words[3])
            .rotate_left(23)
            .wrapping_add(words[0]);
        let shifted = words[1] << 17;
        words[2] ^= words[0];
        words[3] ^= words[1];
        words[1] ^= words[2];
        words[0] ^= words[3];
        words[2] ^= shifted;
        words[3] = words[3].rotate_left(45);
        result
    }

    /// Uniform in [0, 1).
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    pub(super) fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * UNIT
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// +1 or -1, +1 with this probability.
    pub(super) fn sign(&mut self, up_probability: f64) -> i64 {
        if self.chance(up_probability) { 1 } else { -1 }
    }

    /// Uniform integer in `0..bound`; bound at least 1 (bias below 2^-50 for the bounds used here).
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(bound.max(1));
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// Exponential with mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        -libm::log(1.0 - self.uniform())
    }

    /// Standard normal (Box and Muller, one of the pair).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// Number of successes before the first failure, at most `limit`.
    pub(super) fn geometric(&mut self, success: f64, limit: i64) -> i64 {
        let mut count = 0;
        while count < limit && self.chance(success) {
            count += 1;
        }
        count
    }

    /// An integer whose mean is `value` exactly: the floor or the next integer.
    pub(super) fn round_fairly(&mut self, value: f64) -> i64 {
        let floor = value.floor();
        let up = i64::from(self.chance(value - floor));
        #[allow(
            clippy::cast_possible_truncation,
            reason = "values are a few ticks; the cast saturates"
        )]
        let whole = floor as i64;
        whole + up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_gives_the_published_first_values_of_seed_zero() {
        let mut state = 0;
        assert_eq!(splitmix64(&mut state), 0xe220_a839_7b1d_cdaf);
        assert_eq!(splitmix64(&mut state), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn xoshiro_gives_the_reference_values_of_state_one_two_three_four() {
        let mut rng = Rng {
            words: [1, 2, 3, 4],
        };
        let first: Vec<u64> = (0..3).map(|_| rng.bits()).collect();
        assert_eq!(first, [41_943_041, 58_720_359, 3_588_806_011_781_223]);
    }

    #[test]
    fn draws_have_the_moments_of_their_laws() {
        let mut rng = Rng::new(5, 0, Purpose::Flow);
        let count = 200_000;
        let (mut normal, mut square, mut wait, mut whole) = (0.0, 0.0, 0.0, 0);
        for _ in 0..count {
            let value = rng.normal();
            normal += value;
            square += value * value;
            wait += rng.exponential();
            whole += rng.round_fairly(-0.3);
        }
        let n = f64::from(count);
        assert!((normal / n).abs() < 0.01, "{}", normal / n);
        assert!((square / n - 1.0).abs() < 0.015);
        assert!((wait / n - 1.0).abs() < 0.01);
        #[allow(clippy::cast_precision_loss, reason = "small")]
        let mean = whole as f64 / n;
        assert!((mean + 0.3).abs() < 0.005, "{mean}");
    }

    #[test]
    fn streams_differ_by_seed_session_and_purpose() {
        let first = |seed, index, purpose| Rng::new(seed, index, purpose).bits();
        let base = first(1, 0, Purpose::Path);
        assert_ne!(base, first(2, 0, Purpose::Path));
        assert_ne!(base, first(1, 1, Purpose::Path));
        assert_ne!(base, first(1, 0, Purpose::Flow));
    }
}
