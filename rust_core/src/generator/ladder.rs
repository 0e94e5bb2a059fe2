//! One side of the displayed book: five levels of price and quantity.
//!
//! Why: the path says where the best price is; this decides what stands there and behind it.
//!
//! Invariants:
//! 1. Levels go strictly outward in price and every quantity is at least one lot.
//! 2. Level 0 is at the path's best price.
//!
//! It never moves the best price. Operator's page: `docs/generator.md`.

use super::params::MarketModel;
use super::rng::Rng;
use crate::record::LEVEL_COUNT;

/// Most empty ticks in a row.
const GAP_RUN_MAX: u32 = 8;

/// Quantities by rank: the inverse of a discrete distribution on 1, 2, 3 ... lots.
#[derive(Debug, Clone)]
pub(super) struct Quantities {
    cumulative: Vec<f64>,
}

impl Quantities {
    /// From weights of 1, 2, 3 ... lots.
    pub(super) fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let cumulative = weights
            .iter()
            .map(|weight| {
                sum += weight / total;
                sum
            })
            .collect();
        Self { cumulative }
    }

    /// The quantity at a rank in [0, 1).
    pub(super) fn at(&self, rank: f64) -> i64 {
        let below = self.cumulative.iter().filter(|edge| **edge <= rank).count();
        i64::try_from(below.min(self.cumulative.len() - 1)).unwrap_or(0) + 1
    }
}

/// The three laws of quantities.
#[derive(Debug, Clone)]
pub(super) struct QueueLaws {
    best: Quantities,
    second: Quantities,
    deep: Quantities,
}

impl QueueLaws {
    /// From the model's weights.
    pub(super) fn new(model: &MarketModel) -> Self {
        Self {
            best: Quantities::new(&model.queue_best_weights),
            second: Quantities::new(&model.queue_second_weights),
            deep: Quantities::new(&model.queue_deep_weights),
        }
    }
}

/// One price with the orders on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Level {
    /// Ticks.
    pub(super) price: i64,
    /// Lots shown.
    pub(super) qty: i64,
    /// Lots it tends back to.
    usual: i64,
}

/// Five levels of one side.
#[derive(Debug, Clone)]
pub(super) struct Ladder {
    /// Best first.
    pub(super) levels: [Level; LEVEL_COUNT],
    outward: i64,
}

impl Ladder {
    /// A side whose prices go by `outward` (-1 bid, +1 ask) from the best.
    pub(super) fn new(
        best: i64,
        outward: i64,
        laws: &QueueLaws,
        model: &MarketModel,
        rng: &mut Rng,
    ) -> Self {
        let mut ladder = Self {
            levels: [Level::default(); LEVEL_COUNT],
            outward,
        };
        ladder.rebuild(best, &[], laws, model, rng);
        ladder
    }

    /// Puts the best price at `best`, keeps what stands on known prices, fills the rest.
    pub(super) fn move_best(
        &mut self,
        best: i64,
        laws: &QueueLaws,
        model: &MarketModel,
        rng: &mut Rng,
    ) {
        let known = self.levels;
        self.rebuild(best, &known, laws, model, rng);
    }

    /// Draws the best queue anew from its rank.
    pub(super) fn set_best(&mut self, rank: f64, laws: &QueueLaws) {
        let qty = laws.best.at(rank);
        self.levels[0].qty = qty;
        self.levels[0].usual = qty;
    }

    /// Takes traded lots off the best queue; one lot stays, since the price did not move.
    pub(super) fn consume(&mut self, lots: i64) {
        self.levels[0].qty = (self.levels[0].qty - lots).max(1);
    }

    /// Prices and quantities, best first.
    pub(super) fn shown(&self) -> [(i64, i64); LEVEL_COUNT] {
        self.levels.map(|level| (level.price, level.qty))
    }

    /// Small comings and goings; `best_too` when the best queue was not drawn anew.
    pub(super) fn stir(&mut self, best_too: bool, model: &MarketModel, rng: &mut Rng) {
        for (index, level) in self.levels.iter_mut().enumerate() {
            let probability = match index {
                0 if best_too => model.queue_step,
                0 => 0.0,
                _ => model.queue_deep_step,
            };
            if rng.chance(probability) {
                level.nudge(rng);
            }
        }
    }

    /// Adds a lot to one deep level, so that a snapshot says something new.
    pub(super) fn touch(&mut self, rng: &mut Rng) {
        let index = 1 + usize::try_from(rng.below(LEVEL_COUNT as u64 - 1)).unwrap_or(0);
        self.levels[index].qty += 1;
    }

    fn rebuild(
        &mut self,
        best: i64,
        known: &[Level],
        laws: &QueueLaws,
        model: &MarketModel,
        rng: &mut Rng,
    ) {
        let distance = |price: i64| (price - best) * self.outward;
        let known_range = known
            .first()
            .zip(known.last())
            .map(|(first, last)| (distance(first.price), distance(last.price)));
        let mut levels = [Level::default(); LEVEL_COUNT];
        let (mut filled, mut offset, mut gaps) = (0, 0, 0);
        while filled < LEVEL_COUNT {
            let price = best + offset * self.outward;
            let standing = known.iter().find(|level| level.price == price);
            let is_known_gap = standing.is_none()
                && known_range.is_some_and(|(near, far)| near < offset && offset < far);
            let gap_probability = if filled == 1 {
                model.level_gap
            } else {
                model.level_gap / 3.0
            };
            let is_gap = offset > 0
                && (is_known_gap
                    || (standing.is_none() && gaps < GAP_RUN_MAX && rng.chance(gap_probability)));
            offset += 1;
            if is_gap {
                gaps += 1;
                continue;
            }
            gaps = 0;
            levels[filled] = standing.copied().unwrap_or_else(|| {
                let law = match filled {
                    0 => &laws.best,
                    1 => &laws.second,
                    _ => &laws.deep,
                };
                let qty = law.at(rng.uniform());
                Level {
                    price,
                    qty,
                    usual: qty,
                }
            });
            filled += 1;
        }
        self.levels = levels;
    }
}

impl Level {
    /// One lot more or less, tending back to the usual quantity.
    fn nudge(&mut self, rng: &mut Rng) {
        let up = match self.qty.cmp(&self.usual) {
            std::cmp::Ordering::Less => 0.75,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater => 0.25,
        };
        self.qty = (self.qty + rng.sign(up)).max(1);
    }
}
