//! Units: what may be added to, compared with, or put into an exponential.
//!
//! Why: a ratio added to ticks is a number without meaning, and nobody sees it in the result.
//!
//! Invariants:
//! 1. Features carry units; literals and parameters are coefficients that take any unit.
//! 2. What is multiplied with a coefficient is free again: the coefficient carries what is missing.
//! 3. Sums, branches and comparisons of two different units are refused.
//!
//! It knows no feature by name: a unit is read from its text (`ticks`, `ratio`, `1/s`, `ticks^2`).
//! Operator's page: `docs/alpha-language.md`.

use std::fmt;

/// Largest power of a base unit, in halves.
const HALVES_MAX: i32 = 64;

/// Base units with their powers in halves (a square root halves), sorted; none is a ratio.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dimension(Vec<(String, i32)>);

impl Dimension {
    /// Reads `ticks`, `ratio`, `1/s`, `ticks/lot`, `ticks^2`.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut total = Self::default();
        for (place, part) in text.split('/').enumerate() {
            for factor in part.split('*') {
                let (base, power) = match factor.trim().split_once('^') {
                    Some((base, power)) => (base.trim(), power.trim().parse().unwrap_or(1)),
                    None => (factor.trim(), 1),
                };
                if !matches!(base, "" | "1" | "ratio") {
                    let halves = if place == 0 { 2 * power } else { -2 * power };
                    total = total.times(&Self(vec![(base.to_owned(), halves)]));
                }
            }
        }
        total
    }

    /// True without any base unit.
    #[must_use]
    pub fn is_ratio(&self) -> bool {
        self.0.is_empty()
    }

    /// Of a product.
    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        let mut bases = self.0.clone();
        for (base, halves) in &other.0 {
            match bases.iter_mut().find(|(known, _)| known == base) {
                Some((_, power)) => *power = power.saturating_add(*halves),
                None => bases.push((base.clone(), *halves)),
            }
        }
        bases.retain(|(_, halves)| *halves != 0);
        bases.sort();
        Self(bases)
    }

    /// Of a power given in halves; `None` beyond what makes sense.
    #[must_use]
    pub fn to_the(&self, halves: i32) -> Option<Self> {
        let mut bases = Vec::with_capacity(self.0.len());
        for (base, power) in &self.0 {
            let scaled = power.checked_mul(halves)?;
            if scaled % 2 != 0 || (scaled / 2).abs() > HALVES_MAX {
                return None;
            }
            bases.push((base.clone(), scaled / 2));
        }
        bases.retain(|(_, power)| *power != 0);
        Some(Self(bases))
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return out.write_str("ratio");
        }
        let write = |sign: i32, out: &mut fmt::Formatter<'_>| -> fmt::Result {
            let mut between = "";
            for (base, halves) in self.0.iter().filter(|(_, halves)| halves * sign > 0) {
                write!(out, "{between}{base}")?;
                match halves.abs() {
                    2 => {}
                    even if even % 2 == 0 => write!(out, "^{}", even / 2)?,
                    odd => write!(out, "^{}", f64::from(odd) / 2.0)?,
                }
                between = "*";
            }
            Ok(())
        };
        if self.0.iter().any(|(_, halves)| *halves > 0) {
            write(1, out)?;
        } else {
            out.write_str("1")?;
        }
        if self.0.iter().any(|(_, halves)| *halves < 0) {
            out.write_str("/")?;
            write(-1, out)?;
        }
        Ok(())
    }
}

/// Unit of a number in an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// Takes any unit: it holds a coefficient.
    Free,
    /// Has this one.
    Of(Dimension),
}

impl Unit {
    /// A ratio.
    #[must_use]
    pub fn ratio() -> Self {
        Self::Of(Dimension::default())
    }

    /// True when it can stand where a ratio is asked for.
    #[must_use]
    pub fn fits_ratio(&self) -> bool {
        match self {
            Self::Free => true,
            Self::Of(dimension) => dimension.is_ratio(),
        }
    }

    /// The unit of a sum of both; `None` when they differ.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Free, unit) | (unit, Self::Free) => Some(unit.clone()),
            (Self::Of(a), Self::Of(b)) => (a == b).then(|| self.clone()),
        }
    }

    /// The unit of a product.
    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Of(a), Self::Of(b)) => Self::Of(a.times(b)),
            _ => Self::Free,
        }
    }

    /// The unit of a power given in halves; `None` beyond what makes sense.
    #[must_use]
    pub fn to_the(&self, halves: i32) -> Option<Self> {
        match self {
            Self::Free => Some(Self::Free),
            Self::Of(dimension) => dimension.to_the(halves).map(Self::Of),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => out.write_str("free"),
            Self::Of(dimension) => dimension.fmt(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_written_the_same() {
        for text in [
            "ratio",
            "ticks",
            "ms",
            "1/s",
            "ticks/lot",
            "ticks^2",
            "1/ms^2",
        ] {
            assert_eq!(Dimension::read(text).to_string(), text);
        }
        assert_eq!(Dimension::read("ticks/ticks").to_string(), "ratio");
        let ticks = Dimension::read("ticks");
        assert_eq!(ticks.times(&ticks).to_string(), "ticks^2");
        assert_eq!(
            ticks.to_the(1).map(|unit| unit.to_string()).as_deref(),
            Some("ticks^0.5")
        );
        assert_eq!(Dimension::read("ticks^2").to_the(1), Some(ticks.clone()));
        assert_eq!(ticks.to_the(i32::MAX), None);
        assert_eq!(
            Dimension::default().to_the(i32::MAX),
            Some(Dimension::default())
        );
    }

    /// Invariants 1 to 3.
    #[test]
    fn a_coefficient_takes_any_unit_and_two_units_do_not_mix() {
        let (ticks, ratio) = (Unit::Of(Dimension::read("ticks")), Unit::ratio());
        assert_eq!(ticks.joined(&ratio), None);
        assert_eq!(ticks.joined(&Unit::Free), Some(ticks.clone()));
        assert_eq!(Unit::Free.times(&ratio), Unit::Free);
        assert_eq!(ratio.times(&ticks), ticks);
    }
}
