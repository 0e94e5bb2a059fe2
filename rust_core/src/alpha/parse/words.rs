//! Numbers and windows as they are written.
//!
//! Why: `30s`, `3e1` and `30` begin alike, and each is refused where it does not belong.
//!
//! It knows no function (see `calls`).

use super::super::{WINDOW_EVENTS_MAX, WINDOW_NS_MAX, WINDOW_NS_STEP};
use super::{Parser, is_word};
use crate::alpha::error::ExpressionError;
use crate::alpha::node::Window;

impl Parser<'_> {
    /// The literal that comes next, up to where it ends.
    pub(super) fn number_word(&self) -> &str {
        let text = self.rest();
        let mut end = 0;
        let mut letters = text.char_indices().peekable();
        let mut has_exponent = false;
        while let Some((place, letter)) = letters.next() {
            let next = letters.peek().map(|(_, next)| *next);
            let is_exponent = !has_exponent
                && matches!(letter, 'e' | 'E')
                && next.is_some_and(|next| next.is_ascii_digit() || matches!(next, '+' | '-'));
            if is_exponent && matches!(next, Some('+' | '-')) {
                letters.next();
                end = place + 2;
            } else if is_exponent || letter.is_ascii_digit() || letter == '.' {
                end = place + 1;
            } else {
                break;
            }
            has_exponent |= is_exponent;
        }
        text.get(..end).unwrap_or_default()
    }

    pub(super) fn number(&mut self) -> Result<f64, ExpressionError> {
        let word = self.number_word();
        let tail: String = self.rest()[word.len()..]
            .chars()
            .take_while(|letter| is_word(*letter))
            .take(20)
            .collect();
        if !tail.is_empty() {
            let message = format!(
                "'{word}{tail}' is no number and no window; a window is written 250ms, 30s, 5m, 1h \
                 or 100ev"
            );
            return Err(self.fail(message));
        }
        match word.parse::<f64>() {
            Ok(value) if value.is_finite() => {
                self.position += word.len();
                Ok(value)
            }
            _ => Err(self.fail(format!("'{word}' is not a finite number"))),
        }
    }

    /// The window that comes next, if one does; nothing is taken.
    pub(super) fn window_word(&self) -> Option<&str> {
        let text = self.rest();
        let word = self.number_word();
        let unit: &str = text.get(word.len()..)?;
        let unit_bytes = unit
            .find(|letter: char| !is_word(letter))
            .unwrap_or(unit.len());
        let is_window =
            !word.is_empty() && matches!(unit.get(..unit_bytes)?, "ms" | "s" | "m" | "h" | "ev");
        is_window.then(|| &text[..word.len() + unit_bytes])
    }

    /// Takes a window.
    pub(super) fn window(&mut self) -> Result<Window, ExpressionError> {
        let word = self.window_word().unwrap_or_default().to_owned();
        let digits = word.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let unit = &word[digits.len()..];
        let Ok(value) = digits.parse::<f64>() else {
            return Err(self.fail(format!("'{digits}' is not a finite number")));
        };
        let ns = match unit {
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            _ => {
                if value.fract() != 0.0 || value < 1.0 || value > f64::from(WINDOW_EVENTS_MAX) {
                    return Err(self.fail(format!(
                        "'{word}' must be a whole number of events, 1 to {WINDOW_EVENTS_MAX}"
                    )));
                }
                self.position += word.len();
                return Ok(Window::Events(value as u32));
            }
        };
        // Decimal fractions are not exact in binary: the nearest nanosecond is meant.
        let total = (value * ns).round();
        if !(total >= WINDOW_NS_STEP as f64 && total <= WINDOW_NS_MAX as f64) {
            let message = format!("'{word}' is out of range, a window is 1ms to 4h long");
            return Err(self.fail(message));
        }
        let total = total as i64;
        if total % WINDOW_NS_STEP != 0 {
            return Err(self.fail(format!("'{word}' is not a whole number of milliseconds")));
        }
        self.position += word.len();
        Ok(Window::Time(total))
    }
}
