//! What is wrong with an expression, and where.
//!
//! Why: a typo must cost seconds: position, the nearest known word, and the place in the text.
//!
//! Invariants:
//! 1. A position is a byte offset on a character boundary inside the text or at its end.
//!
//! It decides nothing. Operator's page: `docs/alpha-language.md`.

use crate::reason::ReasonCode;

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} at position {position}{}", .suggestion.as_ref().map(|word| format!("; did you mean {word}?")).unwrap_or_default())]
pub struct ExpressionError {
    /// [`ReasonCode::UnknownFeature`] or [`ReasonCode::ExpressionInvalid`].
    pub code: ReasonCode,
    /// What is wrong.
    pub message: String,
    /// Byte offset in the text.
    pub position: usize,
    /// The nearest known word.
    pub suggestion: Option<String>,
}

impl ExpressionError {
    /// An [`ReasonCode::ExpressionInvalid`] without suggestion.
    pub(super) fn invalid(message: String, position: usize) -> Self {
        Self {
            code: ReasonCode::ExpressionInvalid,
            message,
            position,
            suggestion: None,
        }
    }

    /// The same with the word that was probably meant.
    pub(super) fn with_suggestion(self, suggestion: Option<String>) -> Self {
        Self { suggestion, ..self }
    }
}

/// The line of `text` around byte `position`, and below it a caret that points there.
#[must_use]
pub fn excerpt(text: &str, position: usize) -> String {
    let mut position = position.min(text.len());
    while !text.is_char_boundary(position) {
        position -= 1;
    }
    let start = text[..position].rfind('\n').map_or(0, |found| found + 1);
    let end = text[position..]
        .find('\n')
        .map_or(text.len(), |found| position + found);
    // A control character would move the caret; a tab is shown as one space.
    let shown: String = text[start..end]
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    let column = text[start..position].chars().count();
    format!("{}\n{}^", shown.trim_end(), " ".repeat(column))
}

/// The known word with the fewest edits, if it is near enough to be a typo.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    // Nobody mistypes a word of a hundred letters, and the distance costs their product.
    if word.len() > 64 {
        return None;
    }
    let allowed = (word.len() / 3).clamp(1, 4);
    known
        .map(|candidate| {
            (
                edit_distance(word.as_bytes(), candidate.as_bytes()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= allowed || candidate.starts_with(word))
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_letter_whatever_comes_before() {
        assert_eq!(excerpt("2 * x", 4), "2 * x\n    ^");
        assert_eq!(excerpt("1 +", 3), "1 +\n   ^");
        assert_eq!(excerpt("a\nb + c\nd", 6), "b + c\n    ^");
        assert_eq!(excerpt("\u{e9} + x", 5), "\u{e9} + x\n    ^");
        assert_eq!(excerpt("\tx", 1), " x\n ^");
        assert_eq!(excerpt("\u{e9}", 1), "\u{e9}\n^");
        assert_eq!(excerpt("", 99), "\n^");
    }

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let known = ["ema", "mean", "imbalance_l1"];
        assert_eq!(
            nearest("imbalance_11", known.into_iter()).as_deref(),
            Some("imbalance_l1")
        );
        assert_eq!(nearest("emma", known.into_iter()).as_deref(), Some("ema"));
        assert_eq!(nearest("zzzzzz", known.into_iter()), None);
        assert_eq!(nearest(&"e".repeat(4_000), known.into_iter()), None);
    }
}
