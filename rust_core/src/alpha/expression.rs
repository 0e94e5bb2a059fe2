//! An expression that was understood: its tree, unit, features and how far back it looks.
//!
//! Why: what compiles, hashes and is shown of an alpha is this, whatever its text looked like.
//!
//! Invariants:
//! 1. Two spellings of one computation have one canonical text and one hash.
//!
//! It reads no text (see `parse`) and evaluates nothing. Operator's page: `docs/alpha-language.md`.

use sha2::{Digest, Sha256};

use super::error::ExpressionError;
use super::node::{Node, Window};
use super::parse::parse_text;
use super::unit::Unit;
use crate::features::FEATURES;

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
        let (root, unit) = parse_text(text, &names)?;
        Ok(Self {
            root,
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
