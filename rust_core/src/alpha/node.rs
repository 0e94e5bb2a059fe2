//! The canonical tree: one form for all spellings of the same computation.
//!
//! Why: equal programs must hash equal, and what is hashed must be what is evaluated.
//!
//! Invariants:
//! 1. Sums and products are flat, their operands sorted; they are evaluated from left to right in
//!    that order, literals first, so folding literals changes no bit.
//! 2. A minus sign lives in a sum only: a product or quotient holds no negative literal and no sum
//!    that starts with a minus; this changes no bit either, because rounding is symmetric.
//! 3. Writing a tree and parsing it again gives the same tree.
//!
//! It resolves no name and checks no unit. Operator's page: `docs/alpha-language.md`.

use std::cmp::Ordering;
use std::fmt::Write;

use super::program::{binary, clip, unary};
use crate::features::FEATURES;

/// What is computed from values of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// `a / b`
    Divide,
    /// `abs(x)`
    Abs,
    /// `sign(x)`
    Sign,
    /// `sqrt(x)`
    Sqrt,
    /// `exp(x)`
    Exp,
    /// `log(x)`
    Log,
    /// `tanh(x)`
    Tanh,
    /// `pow(x, y)`
    Power,
    /// `clip(x, low, high)`
    Clip,
    /// `where(c, a, b)`
    Where,
    /// `min(a, b, ...)`
    Minimum,
    /// `max(a, b, ...)`
    Maximum,
    /// `a < b`
    Less,
    /// `a <= b`
    LessOrEqual,
    /// `a == b`
    Equal,
    /// `a != b`
    NotEqual,
    /// `a and b`
    And,
    /// `a or b`
    Or,
    /// `not a`
    Not,
}

/// What is computed over a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rolling {
    /// `lag(x, w)`
    Lag,
    /// `delta(x, w)`
    Delta,
    /// `ema(x, w)`
    Ema,
    /// `decay(x, w)`
    Decay,
    /// `mean(x, w)`
    Mean,
    /// `std(x, w)`
    Std,
    /// `zscore(x, w)`
    Zscore,
    /// `min(x, w)`
    Lowest,
    /// `max(x, w)`
    Highest,
    /// `corr(x, y, w)`
    Corr,
}

/// How far a window reaches back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Window {
    /// In time, ns.
    Time(i64),
    /// In records at which the operand was a number.
    Events(u32),
}

/// A tree in canonical form; made by its functions only.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A literal.
    Number(f64),
    /// A parameter by its place in the sorted list of names.
    Parameter(u16),
    /// A feature by id.
    Feature(u16),
    /// Terms, each with true when it is subtracted.
    Sum(Vec<(bool, Node)>),
    /// Factors.
    Product(Vec<Node>),
    /// An operation on values of now.
    Apply(Operator, Vec<Node>),
    /// An operation over a window.
    Roll(Rolling, Vec<Node>, Window),
}

impl Node {
    /// The sum of `parts`, each subtracted where true.
    pub(super) fn sum(parts: Vec<(bool, Self)>) -> Self {
        let mut numbers = Vec::new();
        let mut terms = Vec::with_capacity(parts.len());
        let mut take = |is_negative: bool, node: Self| match node {
            Self::Number(value) => numbers.push(if is_negative { -value } else { value }),
            other => terms.push((is_negative, other)),
        };
        for (is_negative, node) in parts {
            match node {
                Self::Sum(inner) => inner
                    .into_iter()
                    .for_each(|(negative, node)| take(is_negative ^ negative, node)),
                other => take(is_negative, other),
            }
        }
        numbers.sort_by(f64::total_cmp);
        fold(&mut numbers, |a, b| a + b);
        terms.sort_by(|a, b| a.1.order(&b.1).then(a.0.cmp(&b.0)));
        let mut all: Vec<(bool, Self)> = numbers
            .into_iter()
            .map(|value| (false, Self::Number(value)))
            .chain(terms)
            .collect();
        match all.pop() {
            Some((false, only)) if all.is_empty() => only,
            Some(last) => {
                all.push(last);
                Self::Sum(all)
            }
            None => Self::Number(0.0),
        }
    }

    /// The opposite number.
    pub(super) fn negated(self) -> Self {
        Self::sum(vec![(true, self)])
    }

    /// Splits a minus sign off.
    fn unsigned(self) -> (bool, Self) {
        match self {
            Self::Number(value) if value.is_sign_negative() => (true, Self::Number(-value)),
            Self::Sum(mut terms) if terms.len() == 1 => match terms.pop() {
                Some((is_negative, node)) => (is_negative, node),
                None => (false, Self::Sum(terms)),
            },
            Self::Sum(terms) if terms.first().is_some_and(is_negative) => {
                let opposite = terms.into_iter().map(|(sign, node)| (!sign, node));
                (true, Self::sum(opposite.collect()))
            }
            other => (false, other),
        }
    }

    fn with_sign(self, is_negative: bool) -> Self {
        if is_negative { self.negated() } else { self }
    }

    /// The product of `factors`.
    pub(super) fn product(factors: Vec<Self>) -> Self {
        let mut is_negative = false;
        let (mut numbers, mut rest) = (Vec::new(), Vec::with_capacity(factors.len()));
        for factor in factors {
            let (negative, factor) = factor.unsigned();
            is_negative ^= negative;
            let inner = match factor {
                Self::Product(inner) => inner,
                other => vec![other],
            };
            for node in inner {
                match node {
                    Self::Number(value) => numbers.push(value),
                    other => rest.push(other),
                }
            }
        }
        numbers.sort_by(f64::total_cmp);
        fold(&mut numbers, |a, b| a * b);
        rest.sort_by(Self::order);
        let mut all: Vec<Self> = numbers.into_iter().map(Self::Number).chain(rest).collect();
        let product = match all.pop() {
            Some(only) if all.is_empty() => only,
            Some(last) => {
                all.push(last);
                Self::Product(all)
            }
            None => Self::Number(1.0),
        };
        product.with_sign(is_negative)
    }

    /// An operation on values of now.
    pub(super) fn apply(operator: Operator, mut operands: Vec<Self>) -> Self {
        match operator {
            Operator::Divide => {
                let mut is_negative = false;
                let unsigned = operands.into_iter().map(|operand| {
                    let (negative, node) = operand.unsigned();
                    is_negative ^= negative;
                    node
                });
                let operands: Vec<Self> = unsigned.collect();
                Self::folded(operator, operands).with_sign(is_negative)
            }
            Operator::Not => match operands.pop() {
                Some(Self::Apply(Operator::Not, inner)) if inner.len() == 1 => {
                    inner.into_iter().next().unwrap_or(Self::Number(f64::NAN))
                }
                Some(other) => Self::Apply(operator, vec![other]),
                None => Self::Apply(operator, operands),
            },
            Operator::And | Operator::Or => {
                let mut flat = Vec::with_capacity(operands.len());
                for operand in operands {
                    match operand {
                        Self::Apply(same, inner) if same == operator => flat.extend(inner),
                        other => flat.push(other),
                    }
                }
                flat.sort_by(Self::order);
                Self::Apply(operator, flat)
            }
            Operator::Equal | Operator::NotEqual => {
                operands.sort_by(Self::order);
                Self::Apply(operator, operands)
            }
            Operator::Minimum | Operator::Maximum => {
                operands.sort_by(Self::order);
                Self::folded(operator, operands)
            }
            _ => Self::folded(operator, operands),
        }
    }

    /// The result itself, when all operands are literals and the result is one: the same code
    /// computes it that would compute it later.
    fn folded(operator: Operator, operands: Vec<Self>) -> Self {
        let mut values = Vec::with_capacity(operands.len());
        for operand in &operands {
            if let Self::Number(value) = operand {
                values.push(*value);
            }
        }
        let value = match (operator, values.as_slice()) {
            (Operator::Less | Operator::LessOrEqual | Operator::Where, _) => f64::NAN,
            (_, all) if all.len() < operands.len() => f64::NAN,
            (Operator::Clip, [x, low, high]) => clip(*x, *low, *high),
            (_, [x]) => unary(operator, *x),
            (_, [first, rest @ ..]) => rest
                .iter()
                .fold(*first, |value, next| binary(operator, value, *next)),
            _ => f64::NAN,
        };
        if value.is_finite() {
            Self::Number(value)
        } else {
            Self::Apply(operator, operands)
        }
    }

    /// An operation over a window.
    pub(super) fn roll(rolling: Rolling, mut operands: Vec<Self>, window: Window) -> Self {
        if rolling == Rolling::Corr {
            operands.sort_by(Self::order);
        }
        Self::Roll(rolling, operands, window)
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Number(_) => 0,
            Self::Parameter(_) => 1,
            Self::Feature(_) => 2,
            Self::Product(_) => 3,
            Self::Sum(_) => 4,
            Self::Apply(..) => 5,
            Self::Roll(..) => 6,
        }
    }

    /// One order of all trees, by their form and never by where they stand.
    fn order(&self, other: &Self) -> Ordering {
        let lists = |a: &[Self], b: &[Self]| {
            let first = a.iter().zip(b).map(|(x, y)| x.order(y));
            let first = first.into_iter().find(|found| found.is_ne());
            first.unwrap_or_else(|| a.len().cmp(&b.len()))
        };
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Parameter(a), Self::Parameter(b)) => a.cmp(b),
            (Self::Feature(a), Self::Feature(b)) => feature_name(*a).cmp(feature_name(*b)),
            (Self::Product(a), Self::Product(b)) => lists(a, b),
            (Self::Sum(a), Self::Sum(b)) => {
                let first = a
                    .iter()
                    .zip(b)
                    .map(|(x, y)| x.1.order(&y.1).then(x.0.cmp(&y.0)));
                let first = first.into_iter().find(|found| found.is_ne());
                first.unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Self::Apply(a, x), Self::Apply(b, y)) => a.cmp(b).then_with(|| lists(x, y)),
            (Self::Roll(a, x, v), Self::Roll(b, y, w)) => {
                a.cmp(b).then_with(|| lists(x, y)).then_with(|| v.cmp(w))
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }

    /// True when literals add up or multiply to more than a number can hold.
    pub(super) fn has_overflow(&self) -> bool {
        let is_number = |node: &Self| matches!(node, Self::Number(_));
        let count = match self {
            Self::Sum(terms) => terms.iter().filter(|(_, node)| is_number(node)).count(),
            Self::Product(factors) => factors.iter().filter(|node| is_number(node)).count(),
            _ => 0,
        };
        count > 1
    }

    /// Nodes under and including this one, and how deep they lie.
    pub(super) fn size(&self) -> (usize, usize) {
        let children: Box<dyn Iterator<Item = &Self>> = match self {
            Self::Number(_) | Self::Parameter(_) | Self::Feature(_) => return (1, 1),
            Self::Sum(terms) => Box::new(terms.iter().map(|(_, node)| node)),
            Self::Product(nodes) | Self::Apply(_, nodes) | Self::Roll(_, nodes, _) => {
                Box::new(nodes.iter())
            }
        };
        let (mut count, mut depth) = (1, 0);
        for child in children {
            let (nodes, levels) = child.size();
            count += nodes;
            depth = depth.max(levels);
        }
        (count, depth + 1)
    }

    /// Calls `visit` with the id of every feature below, in the order they stand.
    pub(super) fn each_feature(&self, visit: &mut impl FnMut(u16)) {
        match self {
            Self::Number(_) | Self::Parameter(_) => {}
            Self::Feature(id) => visit(*id),
            Self::Sum(terms) => terms.iter().for_each(|(_, node)| node.each_feature(visit)),
            Self::Product(nodes) | Self::Apply(_, nodes) | Self::Roll(_, nodes, _) => {
                nodes.iter().for_each(|node| node.each_feature(visit));
            }
        }
    }

    /// The terms that a sum adds up; anything else is one term.
    pub(super) fn terms(&self) -> Vec<Self> {
        match self {
            Self::Sum(terms) => terms
                .iter()
                .map(|(is_negative, node)| node.clone().with_sign(*is_negative))
                .collect(),
            other => vec![other.clone()],
        }
    }

    /// The text of this tree; `names` are the parameters.
    pub(super) fn text(&self, names: &[String]) -> String {
        let mut text = String::new();
        write(self, names, Place::Free, &mut text);
        text
    }
}

fn is_negative(term: &(bool, Node)) -> bool {
    match term {
        (_, Node::Number(value)) => value.is_sign_negative(),
        (sign, _) => *sign,
    }
}

/// Joins literals from the left as long as the result is a literal.
fn fold(numbers: &mut Vec<f64>, join: fn(f64, f64) -> f64) {
    let joined = numbers.iter().copied().reduce(join);
    if let Some(value) = joined.filter(|value| value.is_finite()) {
        numbers.clear();
        numbers.push(value);
    }
}

fn feature_name(id: u16) -> &'static str {
    FEATURES.get(usize::from(id)).map_or("?", |row| row.name)
}

/// Where a node stands, which decides whether it needs parentheses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Alone or an argument.
    Free,
    /// A term of a sum: products and quotients need none.
    Term,
    /// Any other operand.
    Tight,
}

fn write(node: &Node, names: &[String], place: Place, text: &mut String) {
    let is_product = match node {
        Node::Product(_) | Node::Apply(Operator::Divide, _) => true,
        Node::Sum(_) => false,
        Node::Apply(operator, _) if infix(*operator).is_some() || *operator == Operator::Not => {
            false
        }
        _ => return write_plain(node, names, text),
    };
    let is_bare = place == Place::Free || (place == Place::Term && is_product);
    if !is_bare {
        text.push('(');
    }
    match node {
        Node::Sum(terms) => {
            for (index, (is_negative, term)) in terms.iter().enumerate() {
                text.push_str(match (index, is_negative) {
                    (0, false) => "",
                    (0, true) => "-",
                    (_, false) => " + ",
                    (_, true) => " - ",
                });
                write(term, names, Place::Term, text);
            }
        }
        Node::Product(factors) => list(factors, " * ", names, Place::Tight, text),
        Node::Apply(Operator::Not, operands) => {
            text.push_str("not ");
            list(operands, "", names, Place::Tight, text);
        }
        Node::Apply(operator, operands) => {
            let sign = infix(*operator).unwrap_or(", ");
            list(operands, sign, names, Place::Tight, text);
        }
        _ => {}
    }
    if !is_bare {
        text.push(')');
    }
}

fn list(nodes: &[Node], between: &str, names: &[String], place: Place, text: &mut String) {
    for (index, node) in nodes.iter().enumerate() {
        if index > 0 {
            text.push_str(between);
        }
        write(node, names, place, text);
    }
}

fn infix(operator: Operator) -> Option<&'static str> {
    match operator {
        Operator::Divide => Some(" / "),
        Operator::Less => Some(" < "),
        Operator::LessOrEqual => Some(" <= "),
        Operator::Equal => Some(" == "),
        Operator::NotEqual => Some(" != "),
        Operator::And => Some(" and "),
        Operator::Or => Some(" or "),
        _ => None,
    }
}

fn write_plain(node: &Node, names: &[String], text: &mut String) {
    match node {
        Node::Number(value) => text.push_str(&format!("{value:?}")),
        Node::Feature(id) => text.push_str(feature_name(*id)),
        Node::Parameter(place) => {
            text.push_str(names.get(usize::from(*place)).map_or("?", String::as_str));
        }
        Node::Apply(operator, operands) => {
            text.push_str(match operator {
                Operator::Abs => "abs(",
                Operator::Sign => "sign(",
                Operator::Sqrt => "sqrt(",
                Operator::Exp => "exp(",
                Operator::Log => "log(",
                Operator::Tanh => "tanh(",
                Operator::Power => "pow(",
                Operator::Clip => "clip(",
                Operator::Where => "where(",
                Operator::Minimum => "min(",
                Operator::Maximum => "max(",
                _ => "(",
            });
            list(operands, ", ", names, Place::Free, text);
            text.push(')');
        }
        Node::Roll(rolling, operands, window) => {
            text.push_str(match rolling {
                Rolling::Lag => "lag(",
                Rolling::Delta => "delta(",
                Rolling::Ema => "ema(",
                Rolling::Decay => "decay(",
                Rolling::Mean => "mean(",
                Rolling::Std => "std(",
                Rolling::Zscore => "zscore(",
                Rolling::Lowest => "min(",
                Rolling::Highest => "max(",
                Rolling::Corr => "corr(",
            });
            list(operands, ", ", names, Place::Free, text);
            // Writing to a string cannot fail.
            let _always_ok = match window {
                Window::Time(ns) if ns % 1_000_000_000 == 0 => {
                    write!(text, ", {}s)", ns / 1_000_000_000)
                }
                Window::Time(ns) => write!(text, ", {}ms)", ns / 1_000_000),
                Window::Events(count) => write!(text, ", {count}ev)"),
            };
        }
        Node::Sum(_) | Node::Product(_) => {}
    }
}
