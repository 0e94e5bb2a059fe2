//! Decimal text to an integer at 1e-8: exact, or a reason why not.
//!
//! Why: a price that went through a float is another price. `str()` of the SDK's `Decimal` is both
//! the exact value and the cheapest way to it (see docs/normaliser.md for what was measured).
//!
//! Invariants:
//! 1. The result times 1e-8 is the value written, to the last digit.
//! 2. What has no such integer (NaN, infinity, a ninth decimal, 1e10 and above) is refused.
//!
//! It reads what `decimal.Decimal.__str__` writes and nothing more lenient: no spaces, no leading
//! plus. Operator's page: `docs/normaliser.md`.

use crate::book::VALUE_MAX;
use crate::reason::ReasonCode;

/// Decimal places of the project scale.
const SCALE_PLACES: i64 = 8;
/// Mantissas stay below ten times this, so that one more digit cannot overflow a `u64`.
const MANTISSA_MAX: u64 = 1_000_000_000_000_000_000;
/// Largest power of ten of a `u64`.
const POWER_MAX: usize = 19;
const POWERS: [u64; POWER_MAX + 1] = {
    let mut powers = [1_u64; POWER_MAX + 1];
    let mut power = 1;
    while power <= POWER_MAX {
        powers[power] = powers[power - 1] * 10;
        power += 1;
    }
    powers
};

/// The value of decimal text, scaled by 1e8.
///
/// # Errors
/// `PriceNotExact` when it is no finite number of at most eight decimals, `ValueOutOfRange` when it
/// does not fit `Decimal(18, 8)`.
pub fn scaled(text: &str) -> Result<i64, ReasonCode> {
    let (is_negative, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let number = read_number(digits)?;
    let magnitude = number.scaled()?;
    Ok(if is_negative { -magnitude } else { magnitude })
}

/// `mantissa * 10^exponent`, and whether digits that count were left out behind it.
struct Number {
    mantissa: u64,
    exponent: i64,
    is_cut: bool,
}

impl Number {
    /// Range first, then exactness: what is too large is so whatever its decimals.
    fn scaled(&self) -> Result<i64, ReasonCode> {
        if self.mantissa == 0 {
            return Ok(0);
        }
        let shift = self.exponent.saturating_add(SCALE_PLACES);
        let power = usize::try_from(shift.unsigned_abs())
            .ok()
            .and_then(|places| POWERS.get(places));
        let (value, is_exact) = match (shift >= 0, power) {
            (true, Some(power)) => (self.mantissa.checked_mul(*power), !self.is_cut),
            (true, None) => (None, true),
            (false, Some(power)) => {
                let is_whole = self.mantissa.is_multiple_of(*power);
                (Some(self.mantissa / power), is_whole && !self.is_cut)
            }
            (false, None) => (Some(0), false),
        };
        let value = value
            .and_then(|value| i64::try_from(value).ok())
            .filter(|value| *value <= VALUE_MAX)
            .ok_or(ReasonCode::ValueOutOfRange)?;
        is_exact.then_some(value).ok_or(ReasonCode::PriceNotExact)
    }
}

/// Digits with at most one point, then perhaps `E` and a signed exponent.
fn read_number(bytes: &[u8]) -> Result<Number, ReasonCode> {
    let mut number = Number {
        mantissa: 0,
        exponent: 0,
        is_cut: false,
    };
    let mut has_point = false;
    let mut has_digit = false;
    for (index, byte) in bytes.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            has_digit = true;
            if number.mantissa < MANTISSA_MAX {
                number.mantissa = number.mantissa * 10 + u64::from(digit);
                number.exponent -= i64::from(has_point);
            } else {
                number.is_cut |= digit != 0;
                number.exponent += i64::from(!has_point);
            }
        } else if *byte == b'.' && !has_point {
            has_point = true;
        } else if *byte == b'E' && has_digit {
            let exponent = read_exponent(&bytes[index + 1..])?;
            number.exponent = number.exponent.saturating_add(exponent);
            return Ok(number);
        } else {
            return Err(ReasonCode::PriceNotExact);
        }
    }
    if has_digit {
        Ok(number)
    } else {
        Err(ReasonCode::PriceNotExact)
    }
}

/// A signed integer; one too long for 64 bits saturates, which no value survives.
fn read_exponent(bytes: &[u8]) -> Result<i64, ReasonCode> {
    let (is_negative, digits) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return Err(ReasonCode::PriceNotExact);
    }
    let mut value = 0_i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(ReasonCode::PriceNotExact);
        }
        value = value.saturating_mul(10).saturating_add(i64::from(digit));
    }
    Ok(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOT_EXACT: Result<i64, ReasonCode> = Err(ReasonCode::PriceNotExact);
    const TOO_LARGE: Result<i64, ReasonCode> = Err(ReasonCode::ValueOutOfRange);

    #[test]
    fn what_decimal_writes_is_read_to_the_last_digit() {
        let cases = [
            ("20001", Ok(2_000_100_000_000)),
            ("20001.5", Ok(2_000_150_000_000)),
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("0.00", Ok(0)),
            ("0E-20", Ok(0)),
            ("0E+9999999999999999999", Ok(0)),
            ("1E-8", Ok(1)),
            ("-1E-8", Ok(-1)),
            ("1.5E-7", Ok(15)),
            ("1E+3", Ok(100_000_000_000)),
            ("2.50E+2", Ok(25_000_000_000)),
            ("0.00000001", Ok(1)),
            ("1.000000000000000000000000", Ok(100_000_000)),
            ("9999999999.99999999", Ok(VALUE_MAX)),
            ("-9999999999.99999999", Ok(-VALUE_MAX)),
            ("00000000000000000000000000012", Ok(1_200_000_000)),
            ("1E-9", NOT_EXACT),
            ("0.123456789", NOT_EXACT),
            ("1234567890.1234567890000000001", NOT_EXACT),
            ("9999999999.99999999000000000001", NOT_EXACT),
            ("1.0000000000000000000000000001E-3", NOT_EXACT),
            ("1E-9999999999999999999999", NOT_EXACT),
            ("10000000000", TOO_LARGE),
            ("1E+10", TOO_LARGE),
            ("99999999999999999999.123456789", TOO_LARGE),
            ("1.000000000000000000000000001E+30", TOO_LARGE),
            ("1E+9999999999999999999999", TOO_LARGE),
            ("99999999999999999999999999", TOO_LARGE),
        ];
        for (text, expected) in cases {
            assert_eq!(scaled(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_finite_number_is_refused() {
        for text in [
            "",
            "-",
            ".",
            "NaN",
            "sNaN",
            "-NaN123",
            "Infinity",
            "-Infinity",
            "abc",
            "1 ",
            " 1",
            "+1",
            "1.2.3",
            "1E",
            "1E+",
            "1Ex",
            "E5",
            "--1",
            "1_000",
            "\u{664}",
        ] {
            assert_eq!(scaled(text), NOT_EXACT, "{text}");
        }
    }

    proptest! {
        /// Invariant 1.
        #[test]
        fn every_scaled_value_comes_back(value in -VALUE_MAX..=VALUE_MAX, drop in 0_u32..9) {
            let (sign, magnitude) = (if value < 0 { "-" } else { "" }, value.unsigned_abs());
            let text = format!("{sign}{}.{:08}", magnitude / 100_000_000, magnitude % 100_000_000);
            prop_assert_eq!(scaled(&text), Ok(value));
            let coarse = magnitude / 10_u64.pow(drop) * 10_u64.pow(drop);
            let exponent = i64::from(drop) - 8;
            let written = format!("{sign}{}E{exponent:+}", coarse / 10_u64.pow(drop));
            let expected = i64::try_from(coarse).unwrap_or(0) * if value < 0 { -1 } else { 1 };
            prop_assert_eq!(scaled(&written), Ok(expected));
        }

        /// Invariant 2: whatever the text, an answer and no panic.
        #[test]
        fn any_text_is_answered(text in "[-+0-9.EeNaInfty ]{0,40}") {
            if let Ok(value) = scaled(&text) {
                prop_assert!(value.abs() <= VALUE_MAX);
            }
        }
    }
}
