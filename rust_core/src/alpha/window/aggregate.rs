//! What a window knows of the values in it: sum, extremes, moments, pairs.
//!
//! Why: a window merges, it never subtracts (invariant 3 of `window`).
//!
//! It knows no time.

/// What is known of a set of weighted values; later ones are merged behind earlier ones.
pub(in crate::alpha) trait Aggregate: Copy {
    /// What goes in.
    type Value: Copy;
    /// Of no value.
    const EMPTY: Self;
    /// Stands for "no value".
    const NOTHING: Self::Value;
    /// Of one value, which is a number.
    fn of(value: Self::Value, weight: f64) -> Self;
    /// Of both.
    fn merged(self, later: Self) -> Self;
    /// False for a value that leaves no trace.
    fn is_number(value: Self::Value) -> bool;
}

/// Sum and total weight.
#[derive(Debug, Clone, Copy)]
pub(in crate::alpha) struct Sum {
    sum: f64,
    weight: f64,
}

impl Aggregate for Sum {
    type Value = f64;
    const EMPTY: Self = Self {
        sum: 0.0,
        weight: 0.0,
    };
    const NOTHING: f64 = f64::NAN;

    fn of(value: f64, weight: f64) -> Self {
        Self {
            sum: value * weight,
            weight,
        }
    }

    fn merged(self, later: Self) -> Self {
        Self {
            sum: self.sum + later.sum,
            weight: self.weight + later.weight,
        }
    }

    fn is_number(value: f64) -> bool {
        !value.is_nan()
    }
}

impl Sum {
    pub(in crate::alpha) fn mean(self) -> f64 {
        if self.weight > 0.0 {
            self.sum / self.weight
        } else {
            f64::NAN
        }
    }
}

/// The smallest value, whatever its weight.
#[derive(Debug, Clone, Copy)]
pub(in crate::alpha) struct Lowest(pub(in crate::alpha) f64);

impl Aggregate for Lowest {
    type Value = f64;
    const EMPTY: Self = Self(f64::INFINITY);
    const NOTHING: f64 = f64::NAN;

    fn of(value: f64, _weight: f64) -> Self {
        Self(value)
    }

    fn merged(self, later: Self) -> Self {
        if later.0 < self.0 { later } else { self }
    }

    fn is_number(value: f64) -> bool {
        !value.is_nan()
    }
}

/// The largest value, whatever its weight.
#[derive(Debug, Clone, Copy)]
pub(in crate::alpha) struct Highest(pub(in crate::alpha) f64);

impl Aggregate for Highest {
    type Value = f64;
    const EMPTY: Self = Self(f64::NEG_INFINITY);
    const NOTHING: f64 = f64::NAN;

    fn of(value: f64, _weight: f64) -> Self {
        Self(value)
    }

    fn merged(self, later: Self) -> Self {
        if later.0 > self.0 { later } else { self }
    }

    fn is_number(value: f64) -> bool {
        !value.is_nan()
    }
}

/// Weight, mean and sum of squared deviations: Chan, Golub and LeVeque's pairwise formula, which
/// cancels nothing, so a constant has deviation 0 exactly.
#[derive(Debug, Clone, Copy)]
pub(in crate::alpha) struct Moments {
    weight: f64,
    mean: f64,
    squares: f64,
}

impl Aggregate for Moments {
    type Value = f64;
    const EMPTY: Self = Self {
        weight: 0.0,
        mean: 0.0,
        squares: 0.0,
    };
    const NOTHING: f64 = f64::NAN;

    fn of(value: f64, weight: f64) -> Self {
        Self {
            weight,
            mean: value,
            squares: 0.0,
        }
    }

    fn merged(self, later: Self) -> Self {
        if later.weight == 0.0 {
            return self;
        }
        if self.weight == 0.0 {
            return later;
        }
        let weight = self.weight + later.weight;
        let (apart, share) = (later.mean - self.mean, later.weight / weight);
        Self {
            weight,
            mean: self.mean + apart * share,
            squares: self.squares + later.squares + apart * apart * (self.weight * share),
        }
    }

    fn is_number(value: f64) -> bool {
        !value.is_nan()
    }
}

impl Moments {
    /// `(std, mean)`, both NaN without weight.
    pub(in crate::alpha) fn std_and_mean(self) -> (f64, f64) {
        if self.weight > 0.0 {
            ((self.squares / self.weight).sqrt(), self.mean)
        } else {
            (f64::NAN, f64::NAN)
        }
    }
}

/// The same for pairs.
#[derive(Debug, Clone, Copy)]
pub(in crate::alpha) struct Pairs {
    weight: f64,
    mean: (f64, f64),
    squares: (f64, f64),
    products: f64,
}

impl Aggregate for Pairs {
    type Value = (f64, f64);
    const EMPTY: Self = Self {
        weight: 0.0,
        mean: (0.0, 0.0),
        squares: (0.0, 0.0),
        products: 0.0,
    };
    const NOTHING: (f64, f64) = (f64::NAN, f64::NAN);

    fn of(value: (f64, f64), weight: f64) -> Self {
        Self {
            weight,
            mean: value,
            ..Self::EMPTY
        }
    }

    fn merged(self, later: Self) -> Self {
        if later.weight == 0.0 {
            return self;
        }
        if self.weight == 0.0 {
            return later;
        }
        let weight = self.weight + later.weight;
        let share = later.weight / weight;
        let (x, y) = (later.mean.0 - self.mean.0, later.mean.1 - self.mean.1);
        let scale = self.weight * share;
        Self {
            weight,
            mean: (self.mean.0 + x * share, self.mean.1 + y * share),
            squares: (
                self.squares.0 + later.squares.0 + x * x * scale,
                self.squares.1 + later.squares.1 + y * y * scale,
            ),
            products: self.products + later.products + x * y * scale,
        }
    }

    fn is_number(value: (f64, f64)) -> bool {
        !value.0.is_nan() && !value.1.is_nan()
    }
}

impl Pairs {
    pub(in crate::alpha) fn correlation(self) -> f64 {
        let scale = self.squares.0.sqrt() * self.squares.1.sqrt();
        if scale > 0.0 {
            (self.products / scale).clamp(-1.0, 1.0)
        } else {
            f64::NAN
        }
    }
}
