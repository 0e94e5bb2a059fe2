//! Parser: text to a typed tree, with the position of what is wrong and a suggestion.

use sha2::{Digest, Sha256};

use super::{NESTING_MAX, PARAMETER_COUNT_MAX, TEXT_BYTES_MAX};
use crate::features::{FEATURES, feature_id};
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

/// Functions and signs of the language, by name and number of arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `-x`
    Negate,
    /// `a + b`
    Add,
    /// `a - b`
    Subtract,
    /// `a * b`
    Multiply,
    /// `a / b`, NaN when `b` is zero.
    Divide,
    /// `abs(x)`
    Abs,
    /// `sign(x)`: -1, 0 or 1.
    Sign,
    /// `clip(x, low, high)`, NaN when `low` is above `high`.
    Clip,
}

/// Callable names.
const FUNCTIONS: [(&str, Operator, usize); 3] = [
    ("abs", Operator::Abs, 1),
    ("sign", Operator::Sign, 1),
    ("clip", Operator::Clip, 3),
];

/// A typed tree: every name is resolved.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A literal.
    Number(f64),
    /// A feature by id.
    Feature(u16),
    /// A parameter by its place in the sorted list of names.
    Parameter(u16),
    /// An operation on one to three operands.
    Apply(Operator, Vec<Node>),
}

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    /// The tree.
    pub root: Node,
    /// Names of the parameters it may use, sorted.
    pub parameter_names: Vec<String>,
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
            return Err(invalid(message, TEXT_BYTES_MAX));
        }
        let mut parser = Parser {
            text,
            position: 0,
            nesting: 0,
            names: &names,
        };
        let root = parser.sum()?;
        parser.skip_spaces();
        if let Some(found) = parser.peek() {
            return Err(invalid(
                format!("expected an operator or the end, found '{found}'"),
                parser.position,
            ));
        }
        Ok(Self {
            root,
            parameter_names: names,
        })
    }

    /// Names of the features it reads, in id order.
    #[must_use]
    pub fn features(&self) -> Vec<&'static str> {
        let mut used = [false; FEATURES.len()];
        mark_features(&self.root, &mut used);
        FEATURES
            .iter()
            .zip(used)
            .filter(|(_, is_used)| *is_used)
            .map(|(row, _)| row.name)
            .collect()
    }

    /// One text for all spellings of the same tree.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        write_node(&self.root, &self.parameter_names, &mut text);
        text
    }

    /// SHA-256 of the canonical text.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.canonical().as_bytes()).into()
    }
}

fn invalid(message: String, position: usize) -> ExpressionError {
    ExpressionError {
        code: ReasonCode::ExpressionInvalid,
        message,
        position,
        suggestion: None,
    }
}

/// Parameter names must be words of their own.
fn check_names(names: &[String]) -> Result<(), ExpressionError> {
    if names.len() > PARAMETER_COUNT_MAX {
        return Err(invalid(
            format!(
                "{} parameters, allowed are {PARAMETER_COUNT_MAX}",
                names.len()
            ),
            0,
        ));
    }
    for name in names {
        let starts_well = name
            .chars()
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        if !starts_well || !name.chars().all(is_word) {
            return Err(invalid(format!("parameter name '{name}' is not a word"), 0));
        }
        if feature_id(name).is_some() || FUNCTIONS.iter().any(|(function, ..)| function == name) {
            return Err(invalid(
                format!("parameter name '{name}' is already a feature or function"),
                0,
            ));
        }
    }
    Ok(())
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

fn mark_features(node: &Node, used: &mut [bool]) {
    match node {
        Node::Feature(id) => {
            if let Some(slot) = used.get_mut(usize::from(*id)) {
                *slot = true;
            }
        }
        Node::Apply(_, operands) => operands
            .iter()
            .for_each(|operand| mark_features(operand, used)),
        Node::Number(_) | Node::Parameter(_) => {}
    }
}

fn write_node(node: &Node, names: &[String], text: &mut String) {
    match node {
        Node::Number(value) => text.push_str(&format!("{value:?}")),
        Node::Feature(id) => {
            text.push_str(FEATURES.get(usize::from(*id)).map_or("?", |row| row.name))
        }
        Node::Parameter(place) => {
            text.push_str(names.get(usize::from(*place)).map_or("?", String::as_str))
        }
        Node::Apply(operator, operands) => {
            let (open, between, close) = match operator {
                Operator::Negate => ("(-", "", ")"),
                Operator::Add => ("(", " + ", ")"),
                Operator::Subtract => ("(", " - ", ")"),
                Operator::Multiply => ("(", " * ", ")"),
                Operator::Divide => ("(", " / ", ")"),
                Operator::Abs => ("abs(", "", ")"),
                Operator::Sign => ("sign(", "", ")"),
                Operator::Clip => ("clip(", ", ", ")"),
            };
            text.push_str(open);
            for (place, operand) in operands.iter().enumerate() {
                if place > 0 {
                    text.push_str(between);
                }
                write_node(operand, names, text);
            }
            text.push_str(close);
        }
    }
}

/// Recursive descent over ASCII text; nesting is bounded.
struct Parser<'a> {
    text: &'a str,
    position: usize,
    nesting: usize,
    names: &'a [String],
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.text
            .get(self.position..)
            .and_then(|rest| rest.chars().next())
    }

    fn skip_spaces(&mut self) {
        while self
            .peek()
            .is_some_and(|letter| letter.is_ascii_whitespace())
        {
            self.position += 1;
        }
    }

    /// Takes `wanted` if it comes next.
    fn take(&mut self, wanted: char) -> bool {
        self.skip_spaces();
        let is_next = self.peek() == Some(wanted);
        if is_next {
            self.position += wanted.len_utf8();
        }
        is_next
    }

    fn expect(&mut self, wanted: char, after: &str) -> Result<(), ExpressionError> {
        if self.take(wanted) {
            return Ok(());
        }
        let found = self
            .peek()
            .map_or_else(|| "the end".to_owned(), |letter| format!("'{letter}'"));
        Err(invalid(
            format!("expected '{wanted}' after {after}, found {found}"),
            self.position,
        ))
    }

    fn sum(&mut self) -> Result<Node, ExpressionError> {
        self.chain(
            &[('+', Operator::Add), ('-', Operator::Subtract)],
            Self::product,
        )
    }

    fn product(&mut self) -> Result<Node, ExpressionError> {
        self.chain(
            &[('*', Operator::Multiply), ('/', Operator::Divide)],
            Self::signed,
        )
    }

    /// Operands joined from the left by any of `signs`.
    fn chain(
        &mut self,
        signs: &[(char, Operator)],
        operand: fn(&mut Self) -> Result<Node, ExpressionError>,
    ) -> Result<Node, ExpressionError> {
        let mut left = operand(self)?;
        while let Some((_, operator)) = signs.iter().find(|(sign, _)| self.take(*sign)) {
            let right = operand(self)?;
            left = Node::Apply(*operator, vec![left, right]);
        }
        Ok(left)
    }

    fn signed(&mut self) -> Result<Node, ExpressionError> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(invalid(
                format!("nested deeper than {NESTING_MAX}"),
                self.position,
            ));
        }
        let node = if self.take('-') {
            Node::Apply(Operator::Negate, vec![self.signed()?])
        } else {
            self.atom()?
        };
        self.nesting -= 1;
        Ok(node)
    }

    fn atom(&mut self) -> Result<Node, ExpressionError> {
        self.skip_spaces();
        match self.peek() {
            Some('(') => {
                self.position += 1;
                let inner = self.sum()?;
                self.expect(')', "the expression in parentheses")?;
                Ok(inner)
            }
            Some(first) if first.is_ascii_digit() || first == '.' => self.number(),
            Some(first) if first.is_ascii_alphabetic() || first == '_' => self.name(),
            Some(other) => Err(invalid(
                format!("expected a number, a name or '(', found '{other}'"),
                self.position,
            )),
            None => Err(invalid(
                "expected a number, a name or '(', found the end".to_owned(),
                self.position,
            )),
        }
    }

    fn number(&mut self) -> Result<Node, ExpressionError> {
        let start = self.position;
        let mut previous = ' ';
        while let Some(letter) = self.peek() {
            let is_exponent_sign = matches!(letter, '+' | '-') && matches!(previous, 'e' | 'E');
            if !(letter.is_ascii_digit() || matches!(letter, '.' | 'e' | 'E') || is_exponent_sign) {
                break;
            }
            previous = letter;
            self.position += 1;
        }
        let word = self.text.get(start..self.position).unwrap_or_default();
        match word.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Node::Number(value)),
            _ => Err(invalid(format!("'{word}' is not a finite number"), start)),
        }
    }

    fn name(&mut self) -> Result<Node, ExpressionError> {
        let start = self.position;
        while self.peek().is_some_and(is_word) {
            self.position += 1;
        }
        let word = self
            .text
            .get(start..self.position)
            .unwrap_or_default()
            .to_owned();
        self.skip_spaces();
        if self.peek() == Some('(') {
            return self.call(&word, start);
        }
        if let Some(id) = feature_id(&word) {
            return Ok(Node::Feature(id));
        }
        if let Ok(place) = self.names.binary_search(&word) {
            let place = u16::try_from(place).unwrap_or(u16::MAX);
            return Ok(Node::Parameter(place));
        }
        let known = FEATURES
            .iter()
            .map(|row| row.name)
            .chain(self.names.iter().map(String::as_str));
        Err(ExpressionError {
            code: ReasonCode::UnknownFeature,
            suggestion: nearest(&word, known),
            message: format!("'{word}' is no feature and no parameter of this alpha"),
            position: start,
        })
    }

    fn call(&mut self, word: &str, start: usize) -> Result<Node, ExpressionError> {
        let Some((_, operator, argument_count)) = FUNCTIONS.iter().find(|(name, ..)| *name == word)
        else {
            return Err(ExpressionError {
                code: ReasonCode::ExpressionInvalid,
                suggestion: nearest(word, FUNCTIONS.iter().map(|(name, ..)| *name)),
                message: format!("'{word}' is no function"),
                position: start,
            });
        };
        self.position += 1;
        let mut operands = vec![self.sum()?];
        while self.take(',') {
            operands.push(self.sum()?);
        }
        self.expect(')', "the arguments")?;
        if operands.len() != *argument_count {
            let message = format!(
                "{word} was given {} arguments, takes {argument_count}",
                operands.len()
            );
            return Err(invalid(message, start));
        }
        Ok(Node::Apply(*operator, operands))
    }
}

/// The known word with the fewest edits, if it is near enough to be a typo.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
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
