//! What a template's rule comes to before it looks at its orders, for people.
//!
//! Why: "the quote stood at 100, wanted was 101" explains a cancel; the wish alone does not.
//!
//! Invariants:
//! 1. The numbers come from the functions that the template itself uses.
//! 2. It has no memory and changes nothing.
//!
//! It wishes nothing. Operator's page: `docs/live.md`.

use super::maker::wanted_prices;
use super::target::wanted_position_qty;
use super::{Template, View, round_trip_ticks};

/// What a rule asks for; what it does not speak of is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Wanted {
    /// Price of a maker's bid.
    pub bid: Option<i64>,
    /// Price of a maker's ask.
    pub ask: Option<i64>,
    /// Position of a target.
    pub position_qty: Option<i64>,
    /// Ticks that a round trip in the direction of the signal costs a taker that looks at costs.
    pub round_trip_ticks: Option<f64>,
}

/// What the template's rule asks for at `view`.
#[must_use]
pub fn wanted(template: &Template, view: &View<'_>) -> Wanted {
    let none = Wanted::default();
    match template {
        Template::Taker { .. } | Template::External { .. } | Template::Remote { .. } => none,
        Template::CostTaker(_) => Wanted {
            round_trip_ticks: round_trip_ticks(view, if view.signal > 0.0 { 1 } else { -1 }),
            ..none
        },
        Template::Target(rule) => Wanted {
            position_qty: wanted_position_qty(view, rule),
            ..none
        },
        Template::Maker { .. }
        | Template::QueueMaker(_)
        | Template::AvellanedaStoikovMaker(_)
        | Template::GlftMaker(_) => {
            let (bid, ask) = wanted_prices(view, template);
            Wanted { bid, ask, ..none }
        }
    }
}
