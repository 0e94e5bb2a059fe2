//! Names and calls: features, parameters, functions with their arguments and windows.
//!
//! Why: arity, windows and units are checked against the one table of functions.
//!
//! What an argument is made of is `parse`'s.

use super::{Argument, Kind, Operand, Parser, is_word};
use crate::alpha::error::{ExpressionError, nearest};
use crate::alpha::language::{FUNCTIONS, FunctionRow, RESERVED, function};
use crate::alpha::node::{Node, Operator, Rolling, Window};
use crate::alpha::unit::{Dimension, Unit};
use crate::features::{FEATURES, feature_id};
use crate::reason::ReasonCode;

impl Parser<'_> {
    pub(super) fn name(&mut self) -> Result<Operand, ExpressionError> {
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

pub(super) fn rolling_names() -> String {
    let names: Vec<&str> = FUNCTIONS
        .iter()
        .filter(|row| row.rolling.is_some())
        .map(|row| row.name)
        .collect();
    names.join(", ")
}
