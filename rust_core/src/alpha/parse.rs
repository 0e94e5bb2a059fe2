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

use sha2::{Digest, Sha256};

use super::error::{ExpressionError, nearest};
use super::language::{FUNCTIONS, FunctionRow, RESERVED, function};
use super::node::{Node, Operator, Rolling, Window};
use super::unit::{Dimension, Unit};
use super::{
    NESTING_MAX, NODE_COUNT_MAX, PARAMETER_COUNT_MAX, PARSE_NESTING_MAX, TEXT_BYTES_MAX,
    WINDOW_EVENTS_MAX, WINDOW_NS_MAX, WINDOW_NS_STEP,
};
use crate::features::{FEATURES, feature_id};
use crate::reason::ReasonCode;

/// A parsed and checked expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    root: Node,
    parameter_names: Vec<String>,
    unit: Unit,
}

/// How far back an expression looks before its first value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Need {
    /// Time until its features and the windows over them are filled, added along the longest path.
    pub warm_up_ns: i64,
    /// The same for windows in events, in records.
    pub warm_up_events: u32,
    /// Longest single window in time.
    pub window_ns_max: i64,
    /// Longest single window in events.
    pub window_events_max: u32,
}

impl Expression {
    /// Parses `text`; a name is a feature, a function or one of `parameter_names`.
    ///
    /// # Errors
    /// [`ExpressionError`] with the position of the first thing that is wrong.
    pub fn parse(text: &str, parameter_names: &[&str]) -> Result<Self, ExpressionError> {
        let mut names: Vec<String> = parameter_names
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        names.sort();
        names.dedup();
        check_names(&names)?;
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
            names: &names,
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
        Ok(Self {
            root: root.node,
            parameter_names: names,
            unit,
        })
    }

    /// The tree.
    #[must_use]
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Names of the parameters it may use, sorted.
    #[must_use]
    pub fn parameter_names(&self) -> &[String] {
        &self.parameter_names
    }

    /// Unit of its value: ticks, a ratio, or free.
    #[must_use]
    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    /// Names of the features it reads, in id order.
    #[must_use]
    pub fn features(&self) -> Vec<&'static str> {
        let mut used = [false; FEATURES.len()];
        self.root
            .each_feature(&mut |id| used[usize::from(id)] = true);
        FEATURES
            .iter()
            .zip(used)
            .filter(|(_, is_used)| *is_used)
            .map(|(row, _)| row.name)
            .collect()
    }

    /// One text for all spellings of the same computation.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.root.text(&self.parameter_names)
    }

    /// SHA-256 of the canonical text.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.canonical().as_bytes()).into()
    }

    /// How far back it looks.
    #[must_use]
    pub fn need(&self) -> Need {
        need_of(&self.root)
    }

    /// Number of nodes of the tree, before common parts are joined.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.root.size().0
    }
}

fn need_of(node: &Node) -> Need {
    let join = |a: Need, b: Need| Need {
        warm_up_ns: a.warm_up_ns.max(b.warm_up_ns),
        warm_up_events: a.warm_up_events.max(b.warm_up_events),
        window_ns_max: a.window_ns_max.max(b.window_ns_max),
        window_events_max: a.window_events_max.max(b.window_events_max),
    };
    match node {
        Node::Number(_) | Node::Parameter(_) => Need::default(),
        Node::Feature(id) => Need {
            warm_up_ns: FEATURES
                .get(usize::from(*id))
                .map_or(0, |row| row.warm_up_ns),
            ..Need::default()
        },
        Node::Sum(terms) => terms
            .iter()
            .map(|(_, node)| need_of(node))
            .fold(Need::default(), join),
        Node::Product(nodes) | Node::Apply(_, nodes) => {
            nodes.iter().map(need_of).fold(Need::default(), join)
        }
        Node::Roll(_, nodes, window) => {
            let mut need = nodes.iter().map(need_of).fold(Need::default(), join);
            match *window {
                Window::Time(ns) => {
                    need.warm_up_ns = need.warm_up_ns.saturating_add(ns);
                    need.window_ns_max = need.window_ns_max.max(ns);
                }
                Window::Events(count) => {
                    need.warm_up_events = need.warm_up_events.saturating_add(count);
                    need.window_events_max = need.window_events_max.max(count);
                }
            }
            need
        }
    }
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

    /// The literal that comes next, up to where it ends.
    fn number_word(&self) -> &str {
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

    fn number(&mut self) -> Result<f64, ExpressionError> {
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
    fn window_word(&self) -> Option<&str> {
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
    fn window(&mut self) -> Result<Window, ExpressionError> {
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

    fn name(&mut self) -> Result<Operand, ExpressionError> {
        let start = self.position;
        let rest = self.rest();
        let word_bytes = rest
            .find(|letter: char| !is_word(letter))
            .unwrap_or(rest.len());
        let word = rest.get(..word_bytes).unwrap_or_default().to_owned();
        let fail = |message: String| ExpressionError::invalid(message, start);
        if RESERVED.contains(&word.as_str()) {
            return Err(fail(format!(
                "expected a number, a name or '(', found '{word}'"
            )));
        }
        self.position += word_bytes;
        self.skip_spaces();
        if self.peek() == Some('(') {
            return self.call(&word, start);
        }
        if let Some(id) = feature_id(&word) {
            let unit = FEATURES
                .get(usize::from(id))
                .map_or_else(Unit::ratio, |row| Unit::Of(Dimension::read(row.unit)));
            return self.operand(Node::Feature(id), Kind::Number(unit), start);
        }
        if let Ok(place) = self.names.binary_search(&word) {
            let place = u16::try_from(place).unwrap_or(u16::MAX);
            return self.operand(Node::Parameter(place), Kind::Number(Unit::Free), start);
        }
        if let Some(row) = function(&word) {
            return Err(fail(format!("{word} is a function, write {}", row.form)));
        }
        let known = FEATURES
            .iter()
            .map(|row| row.name)
            .chain(self.names.iter().map(String::as_str));
        let shown: String = word.chars().take(64).collect();
        Err(ExpressionError {
            code: ReasonCode::UnknownFeature,
            suggestion: nearest(&word, known),
            message: format!("'{shown}' is no feature and no parameter of this alpha"),
            position: start,
        })
    }

    fn call(&mut self, word: &str, start: usize) -> Result<Operand, ExpressionError> {
        let Some(row) = function(word) else {
            let shown: String = word.chars().take(64).collect();
            let is_value = feature_id(word).is_some() || self.names.iter().any(|name| name == word);
            let message = if is_value {
                format!("'{shown}' is a value and takes no arguments")
            } else {
                format!("'{shown}' is no function")
            };
            let suggestion = nearest(word, FUNCTIONS.iter().map(|row| row.name));
            return Err(ExpressionError::invalid(message, start)
                .with_suggestion(suggestion.filter(|_| !is_value)));
        };
        self.position += 1;
        let mut values = Vec::new();
        let mut window = None;
        loop {
            match self.argument(row)? {
                Argument::Value(operand) => values.push(operand),
                Argument::Window(found, position) => window = Some((found, position)),
            }
            if !self.take(",") {
                break;
            }
            if let Some((_, position)) = window {
                return Err(ExpressionError::invalid(
                    format!("the window is the last argument: {}", row.form),
                    position,
                ));
            }
        }
        self.expect(")", "the arguments")?;
        match window {
            Some((window, position)) => self.roll(row, values, window, position, start),
            None => self.apply(row, values, start),
        }
    }

    fn argument(&mut self, row: &FunctionRow) -> Result<Argument, ExpressionError> {
        self.skip_spaces();
        let position = self.position;
        if self.take("-") {
            self.skip_spaces();
            if self.window_word().is_some() {
                return Err(ExpressionError::invalid(
                    format!(
                        "a window reaches back and is never negative: {} cannot look ahead",
                        row.name
                    ),
                    position,
                ));
            }
            self.position = position;
        }
        if self.window_word().is_none() {
            return self.expression().map(Argument::Value);
        }
        if row.rolling.is_none() {
            let message = format!("{} takes no window: {}", row.name, row.form);
            return Err(self.fail(message));
        }
        Ok(Argument::Window(self.window()?, position))
    }

    fn roll(
        &self,
        row: &FunctionRow,
        values: Vec<Operand>,
        window: Window,
        position: usize,
        start: usize,
    ) -> Result<Operand, ExpressionError> {
        let Some((rolling, count)) = row.rolling else {
            let message = format!("{} takes no window: {}", row.name, row.form);
            return Err(ExpressionError::invalid(message, position));
        };
        if values.len() != count {
            return Err(ExpressionError::invalid(
                format!(
                    "{} was given {} arguments before its window, takes {count}: {}",
                    row.name,
                    values.len(),
                    row.form
                ),
                start,
            ));
        }
        let mut unit = Unit::Free;
        for value in &values {
            unit = self.number_of(value, &format!("{} takes", row.name))?;
        }
        if matches!(rolling, Rolling::Zscore | Rolling::Corr) {
            unit = Unit::ratio();
        }
        let nodes = values.into_iter().map(|value| value.node).collect();
        self.operand(
            Node::roll(rolling, nodes, window),
            Kind::Number(unit),
            start,
        )
    }

    fn apply(
        &self,
        row: &FunctionRow,
        mut values: Vec<Operand>,
        start: usize,
    ) -> Result<Operand, ExpressionError> {
        let Some((operator, fewest, most)) = row.plain else {
            let message = format!(
                "{} needs a window such as 30s or 100ev as its last argument: {}",
                row.name, row.form
            );
            return Err(ExpressionError::invalid(message, start));
        };
        if values.len() < fewest || values.len() > most {
            let allowed = if fewest == most {
                fewest.to_string()
            } else {
                format!("{fewest} to {most}")
            };
            return Err(ExpressionError::invalid(
                format!(
                    "{} was given {} arguments, takes {allowed}: {}",
                    row.name,
                    values.len(),
                    row.form
                ),
                start,
            ));
        }
        if operator == Operator::Power
            && let (Some(exponent), Some(base)) = (values.pop(), values.pop())
        {
            return self.raised(base, exponent, start);
        }
        let unit = self.applied_unit(row, operator, &values)?;
        let nodes = values.into_iter().map(|value| value.node).collect();
        self.operand(Node::apply(operator, nodes), Kind::Number(unit), start)
    }

    fn applied_unit(
        &self,
        row: &FunctionRow,
        operator: Operator,
        values: &[Operand],
    ) -> Result<Unit, ExpressionError> {
        let mut numbers = values;
        if operator == Operator::Where
            && let Some((condition, rest)) = values.split_first()
        {
            self.condition_of(condition, "the first argument of where is")?;
            numbers = rest;
        }
        let mut known: Option<(&Operand, Unit)> = None;
        for value in numbers {
            let unit = self.number_of(value, &format!("{} takes", row.name))?;
            known = match known {
                None => Some((value, unit)),
                Some((first, joined)) => {
                    let what = format!("arguments of one {}", row.name);
                    let both = self.joined((first, &joined), (value, &unit), &what)?;
                    // The side that has a unit is the one to name in a message.
                    let named = if joined == Unit::Free { value } else { first };
                    Some((named, both))
                }
            };
        }
        let (first, unit) = known.map_or((None, Unit::Free), |(first, unit)| (Some(first), unit));
        match operator {
            Operator::Sign => Ok(Unit::ratio()),
            Operator::Exp | Operator::Log | Operator::Tanh => {
                if let Some(operand) = first {
                    self.ratio_of(operand, &unit, &format!("the argument of {}", row.name))?;
                }
                Ok(Unit::ratio())
            }
            Operator::Sqrt => unit.to_the(1).ok_or_else(|| {
                let message = format!("{unit} has no square root");
                ExpressionError::invalid(message, first.map_or(0, |operand| operand.start))
            }),
            _ => Ok(unit),
        }
    }
}

fn rolling_names() -> String {
    let names: Vec<&str> = FUNCTIONS
        .iter()
        .filter(|row| row.rolling.is_some())
        .map(|row| row.name)
        .collect();
    names.join(", ")
}
