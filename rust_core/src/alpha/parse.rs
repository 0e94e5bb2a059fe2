//! Parser: text to a canonical tree, with the position of what is wrong and a suggestion.
//!
//! Why: what can be wrong is found where it stands: names, arity, windows, conditions and units.
//!
//! Invariants:
//! 1. Any text gives an expression or an error inside the text, in bounded time and memory.
//! 2. A window reaches back: a negative one, or one of length 0, is refused.
//! 3. Numbers of two different units are never added, compared or chosen between.
//!
//! It evaluates nothing. Operator's page: `docs/alpha-language.md`.

mod calls;
mod words;

use super::error::ExpressionError;
use super::language::{RESERVED, function};
use super::node::{Node, Operator, Window};
use super::unit::Unit;
use super::{NESTING_MAX, NODE_COUNT_MAX, PARAMETER_COUNT_MAX, PARSE_NESTING_MAX, TEXT_BYTES_MAX};
use crate::features::feature_id;
use calls::rolling_names;

/// Parses `text` with these parameters into a checked tree and its unit.
///
/// # Errors
/// [`ExpressionError`] with the position of the first thing that is wrong.
pub(super) fn parse_text(text: &str, names: &[String]) -> Result<(Node, Unit), ExpressionError> {
    check_names(names)?;
    if text.len() > TEXT_BYTES_MAX {
        let message = format!(
            "expression is {} bytes long, allowed are {TEXT_BYTES_MAX}",
            text.len()
        );
        let mut position = TEXT_BYTES_MAX;
        while !text.is_char_boundary(position) {
            position -= 1;
        }
        return Err(ExpressionError::invalid(message, position));
    }
    let mut parser = Parser {
        text,
        position: 0,
        nesting: 0,
        names,
    };
    let root = parser.expression()?;
    parser.skip_spaces();
    if let Some(found) = parser.peek() {
        let meant = parser.meant_sign().map(str::to_owned);
        return Err(parser
            .fail(format!("expected an operator or the end, found '{found}'"))
            .with_suggestion(meant));
    }
    let unit = parser.number_of(&root, "an expression is")?;
    let dimension = match &unit {
        Unit::Of(dimension) if !dimension.is_ratio() => dimension.to_string(),
        _ => String::new(),
    };
    if !matches!(dimension.as_str(), "" | "ticks") {
        return Err(ExpressionError::invalid(
            format!(
                "the expression is in {dimension}, its value must be ticks: multiply it with a \
                 coefficient, divide by something in {dimension}, or take its zscore"
            ),
            root.start,
        ));
    }
    Ok((root.node, unit))
}

/// Parameter names must be words of their own.
fn check_names(names: &[String]) -> Result<(), ExpressionError> {
    let fail = |message| Err(ExpressionError::invalid(message, 0));
    if names.len() > PARAMETER_COUNT_MAX {
        return fail(format!(
            "{} parameters, allowed are {PARAMETER_COUNT_MAX}",
            names.len()
        ));
    }
    for name in names {
        let starts_well = name
            .chars()
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        if !starts_well || !name.chars().all(is_word) {
            return fail(format!("parameter name '{name}' is not a word"));
        }
        let is_taken = feature_id(name).is_some()
            || function(name).is_some()
            || RESERVED.contains(&name.as_str());
        if is_taken {
            return fail(format!(
                "parameter name '{name}' is already a feature or function"
            ));
        }
    }
    Ok(())
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// What an operand is.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Condition,
    Number(Unit),
}

/// A part of the text that was understood.
#[derive(Debug, Clone)]
struct Operand {
    node: Node,
    kind: Kind,
    start: usize,
    end: usize,
}

/// An argument of a call.
enum Argument {
    Value(Operand),
    Window(Window, usize),
}

/// Recursive descent; nesting is bounded.
struct Parser<'a> {
    text: &'a str,
    position: usize,
    nesting: usize,
    names: &'a [String],
}

impl Parser<'_> {
    fn fail(&self, message: String) -> ExpressionError {
        ExpressionError::invalid(message, self.position)
    }

    fn rest(&self) -> &str {
        self.text.get(self.position..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn found(&self) -> String {
        self.peek()
            .map_or_else(|| "the end".to_owned(), |letter| format!("'{letter}'"))
    }

    fn skip_spaces(&mut self) {
        while self
            .peek()
            .is_some_and(|letter| letter.is_ascii_whitespace())
        {
            self.position += 1;
        }
    }

    /// Takes `wanted` if it comes next; a word must end there.
    fn take(&mut self, wanted: &str) -> bool {
        self.skip_spaces();
        let Some(behind) = self.rest().strip_prefix(wanted) else {
            return false;
        };
        let is_name = wanted.chars().all(is_word);
        if is_name && behind.chars().next().is_some_and(is_word) {
            return false;
        }
        self.position += wanted.len();
        true
    }

    fn expect(&mut self, wanted: &str, after: &str) -> Result<(), ExpressionError> {
        if self.take(wanted) {
            return Ok(());
        }
        let message = format!("expected '{wanted}' after {after}, found {}", self.found());
        Err(self.fail(message))
    }

    /// What a sign of another language probably means here.
    fn meant_sign(&self) -> Option<&'static str> {
        match self.peek()? {
            '=' => Some("=="),
            '&' => Some("and"),
            '|' => Some("or"),
            '!' => Some("!="),
            _ => None,
        }
    }

    /// The text of an operand, shortened.
    fn quoted(&self, operand: &Operand) -> String {
        let text = self
            .text
            .get(operand.start..operand.end)
            .unwrap_or_default()
            .trim();
        let short: String = text.chars().take(40).collect();
        if short.len() < text.len() {
            format!("'{short}...'")
        } else {
            format!("'{short}'")
        }
    }

    /// `node` from the operand that starts at `start` to here, within the bounds.
    fn operand(&self, node: Node, kind: Kind, start: usize) -> Result<Operand, ExpressionError> {
        // What was folded is a literal, as its canonical text says.
        let kind = match node {
            Node::Number(_) => Kind::Number(Unit::Free),
            _ => kind,
        };
        if node.has_overflow() {
            let message = "the literals overflow: the result is larger than a number can be";
            return Err(ExpressionError::invalid(message.to_owned(), start));
        }
        let (count, depth) = node.size();
        if depth > NESTING_MAX {
            return Err(ExpressionError::invalid(
                format!("nested deeper than {NESTING_MAX}"),
                start,
            ));
        }
        if count > NODE_COUNT_MAX {
            return Err(ExpressionError::invalid(
                format!("{count} parts, allowed are {NODE_COUNT_MAX}"),
                start,
            ));
        }
        Ok(Operand {
            node,
            kind,
            start,
            end: self.position,
        })
    }

    /// The unit of a number; `whose` says what needs one.
    fn number_of(&self, operand: &Operand, whose: &str) -> Result<Unit, ExpressionError> {
        match &operand.kind {
            Kind::Number(unit) => Ok(unit.clone()),
            Kind::Condition => Err(ExpressionError::invalid(
                format!(
                    "{whose} a number, {} is a condition; write where({}, 1, 0)",
                    self.quoted(operand),
                    self.quoted(operand).trim_matches('\'')
                ),
                operand.start,
            )),
        }
    }

    fn condition_of(&self, operand: &Operand, whose: &str) -> Result<(), ExpressionError> {
        match &operand.kind {
            Kind::Condition => Ok(()),
            Kind::Number(_) => Err(ExpressionError::invalid(
                format!(
                    "{whose} a condition, {} is a number; compare it with something",
                    self.quoted(operand)
                ),
                operand.start,
            )),
        }
    }

    /// The one unit of two numbers; `what` says what is done with them.
    fn joined(
        &self,
        (left, a): (&Operand, &Unit),
        (right, b): (&Operand, &Unit),
        what: &str,
    ) -> Result<Unit, ExpressionError> {
        a.joined(b).ok_or_else(|| {
            let message = format!(
                "{} is in {a}, {} is in {b}: they cannot be {what}; multiply one with a coefficient",
                self.quoted(left),
                self.quoted(right)
            )
            .replace("is in ratio", "is a ratio");
            ExpressionError::invalid(message, right.start)
        })
    }

    fn expression(&mut self) -> Result<Operand, ExpressionError> {
        self.logic(Operator::Or, ["or", "||"], Self::conjunction)
    }

    fn conjunction(&mut self) -> Result<Operand, ExpressionError> {
        self.logic(Operator::And, ["and", "&&"], Self::negation)
    }

    fn logic(
        &mut self,
        operator: Operator,
        signs: [&str; 2],
        operand: fn(&mut Self) -> Result<Operand, ExpressionError>,
    ) -> Result<Operand, ExpressionError> {
        let mut left = operand(self)?;
        while signs.iter().any(|sign| self.take(sign)) {
            let right = operand(self)?;
            let whose = format!("'{}' joins", signs[0]);
            self.condition_of(&left, &whose)?;
            self.condition_of(&right, &whose)?;
            let start = left.start;
            let node = Node::apply(operator, vec![left.node, right.node]);
            left = self.operand(node, Kind::Condition, start)?;
        }
        Ok(left)
    }

    fn negation(&mut self) -> Result<Operand, ExpressionError> {
        self.skip_spaces();
        let start = self.position;
        let is_sign = self.rest().starts_with('!') && !self.rest().starts_with("!=");
        if !(is_sign && self.take("!") || self.take("not")) {
            return self.comparison();
        }
        self.deeper()?;
        let inner = self.negation()?;
        self.nesting -= 1;
        self.condition_of(&inner, "'not' needs")?;
        let node = Node::apply(Operator::Not, vec![inner.node]);
        self.operand(node, Kind::Condition, start)
    }

    fn compared(&mut self) -> Option<(Operator, bool)> {
        // The longer sign first; `true` swaps the sides.
        let signs = [
            ("<=", Operator::LessOrEqual, false),
            (">=", Operator::LessOrEqual, true),
            ("==", Operator::Equal, false),
            ("!=", Operator::NotEqual, false),
            ("<", Operator::Less, false),
            (">", Operator::Less, true),
        ];
        let found = signs.into_iter().find(|(sign, ..)| self.take(sign))?;
        Some((found.1, found.2))
    }

    fn comparison(&mut self) -> Result<Operand, ExpressionError> {
        let left = self.sum()?;
        let Some((operator, is_swapped)) = self.compared() else {
            return Ok(left);
        };
        let right = self.sum()?;
        let a = self.number_of(&left, "a comparison needs")?;
        let b = self.number_of(&right, "a comparison needs")?;
        self.joined((&left, &a), (&right, &b), "compared")?;
        let behind = self.position;
        if self.compared().is_some() {
            let message = "a comparison has two sides; join two comparisons with 'and'".to_owned();
            return Err(ExpressionError::invalid(message, behind));
        }
        let start = left.start;
        let mut sides = vec![left.node, right.node];
        if is_swapped {
            sides.reverse();
        }
        self.operand(Node::apply(operator, sides), Kind::Condition, start)
    }

    fn sum(&mut self) -> Result<Operand, ExpressionError> {
        let mut left = self.product()?;
        loop {
            let is_negative = match self.peek_sign() {
                Some('+') => false,
                Some('-') => true,
                _ => return Ok(left),
            };
            self.position += 1;
            let right = self.product()?;
            let a = self.number_of(&left, "a sum needs")?;
            let b = self.number_of(&right, "a sum needs")?;
            let what = if is_negative { "subtracted" } else { "added" };
            let unit = self.joined((&left, &a), (&right, &b), what)?;
            let start = left.start;
            let node = Node::sum(vec![(false, left.node), (is_negative, right.node)]);
            left = self.operand(node, Kind::Number(unit), start)?;
        }
    }

    fn peek_sign(&mut self) -> Option<char> {
        self.skip_spaces();
        self.peek()
    }

    fn product(&mut self) -> Result<Operand, ExpressionError> {
        let mut left = self.signed()?;
        loop {
            let is_quotient = match self.peek_sign() {
                Some('*') => false,
                Some('/') => true,
                _ => return Ok(left),
            };
            self.position += 1;
            if !is_quotient && self.peek() == Some('*') {
                let error = self.fail("expected a number, a name or '(', found '*'".to_owned());
                return Err(error.with_suggestion(Some("^".to_owned())));
            }
            let right = self.signed()?;
            let a = self.number_of(&left, "a product needs")?;
            let b = self.number_of(&right, "a product needs")?;
            let start = left.start;
            let (node, unit) = if is_quotient {
                let unit = b.to_the(-2).map(|inverse| a.times(&inverse));
                let node = Node::apply(Operator::Divide, vec![left.node, right.node]);
                (node, unit.unwrap_or(Unit::Free))
            } else {
                let node = Node::product(vec![left.node, right.node]);
                (node, a.times(&b))
            };
            left = self.operand(node, Kind::Number(unit), start)?;
        }
    }

    fn deeper(&mut self) -> Result<(), ExpressionError> {
        self.nesting += 1;
        if self.nesting > PARSE_NESTING_MAX {
            return Err(self.fail(format!("nested deeper than {PARSE_NESTING_MAX}")));
        }
        Ok(())
    }

    fn signed(&mut self) -> Result<Operand, ExpressionError> {
        self.deeper()?;
        self.skip_spaces();
        let start = self.position;
        let operand = if self.take("-") {
            let inner = self.signed()?;
            let unit = self.number_of(&inner, "a minus sign needs")?;
            self.operand(inner.node.negated(), Kind::Number(unit), start)?
        } else {
            self.power()?
        };
        self.nesting -= 1;
        Ok(operand)
    }

    fn power(&mut self) -> Result<Operand, ExpressionError> {
        let base = self.atom()?;
        if !self.take("^") {
            return Ok(base);
        }
        let exponent = self.signed()?;
        let start = base.start;
        self.raised(base, exponent, start)
    }

    fn raised(
        &self,
        base: Operand,
        exponent: Operand,
        start: usize,
    ) -> Result<Operand, ExpressionError> {
        let unit = self.number_of(&base, "a power needs")?;
        let exponent_unit = self.number_of(&exponent, "a power needs")?;
        self.ratio_of(&exponent, &exponent_unit, "an exponent")?;
        let halves = match exponent.node {
            Node::Number(value) if (value * 2.0).fract() == 0.0 && value.abs() <= 16.0 => {
                Some((value * 2.0) as i32)
            }
            _ => None,
        };
        let raised = match (&unit, halves) {
            (Unit::Free, _) => Some(Unit::Free),
            (unit, _) if unit.fits_ratio() => Some(Unit::ratio()),
            (unit, Some(halves)) => unit.to_the(halves),
            (_, None) => None,
        };
        let Some(raised) = raised else {
            return Err(ExpressionError::invalid(
                format!(
                    "{} is in {unit}: its exponent must be a literal multiple of 0.5, at most 16; \
                     or divide it by something in {unit} first",
                    self.quoted(&base)
                ),
                base.start,
            ));
        };
        let node = Node::apply(Operator::Power, vec![base.node, exponent.node]);
        self.operand(node, Kind::Number(raised), start)
    }

    fn ratio_of(&self, operand: &Operand, unit: &Unit, whose: &str) -> Result<(), ExpressionError> {
        if unit.fits_ratio() {
            return Ok(());
        }
        Err(ExpressionError::invalid(
            format!(
                "{whose} must be a ratio, {} is in {unit}; divide it by something in {unit}, or \
                 multiply it with a coefficient",
                self.quoted(operand)
            ),
            operand.start,
        ))
    }

    fn atom(&mut self) -> Result<Operand, ExpressionError> {
        self.skip_spaces();
        let start = self.position;
        match self.peek() {
            Some('(') => {
                self.position += 1;
                let inner = self.expression()?;
                self.expect(")", "the expression in parentheses")?;
                Ok(Operand {
                    start,
                    end: self.position,
                    ..inner
                })
            }
            Some(first) if first.is_ascii_digit() || first == '.' => {
                if let Some(word) = self.window_word() {
                    let message = format!(
                        "'{word}' is a window, and only the last argument of {} is one",
                        rolling_names()
                    );
                    return Err(self.fail(message));
                }
                let value = self.number()?;
                self.operand(Node::Number(value), Kind::Number(Unit::Free), start)
            }
            Some(first) if first.is_ascii_alphabetic() || first == '_' => self.name(),
            _ => {
                let message = format!("expected a number, a name or '(', found {}", self.found());
                Err(self.fail(message))
            }
        }
    }
}
