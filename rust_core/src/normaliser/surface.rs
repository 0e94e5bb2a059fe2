//! Which attributes the SDK's quote classes have: the schema that the normaliser was written for.
//!
//! Why: an attribute that was renamed, or that changes from `Decimal` to `float`, must stop the feed
//! at the start and not turn into a wrong price at the open.
//!
//! Invariants:
//! 1. A class is accepted only when its public attributes and their types are exactly these, and the
//!    SDK's version is of the line they were read from.
//! 2. What is compared comes from a probe: a real object with every field filled.
//!
//! It reads no Python object (the binding does). Operator's page: `docs/normaliser.md`.

use crate::normaliser::config::Market;

/// Versions of the SDK start with this.
pub const SDK_VERSION_LINE: &str = "1.7.";

/// The six classes of market data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuoteClass {
    /// `TickFOPv1`
    TickFop,
    /// `BidAskFOPv1`
    BidAskFop,
    /// `TickSTKv1`
    TickStk,
    /// `BidAskSTKv1`
    BidAskStk,
    /// `QuoteFOPv1`
    QuoteFop,
    /// `QuoteSTKv1`
    QuoteStk,
}

/// Number of classes.
pub const CLASS_COUNT: usize = 6;

/// All of them.
pub const CLASSES: [QuoteClass; CLASS_COUNT] = [
    QuoteClass::TickFop,
    QuoteClass::BidAskFop,
    QuoteClass::TickStk,
    QuoteClass::BidAskStk,
    QuoteClass::QuoteFop,
    QuoteClass::QuoteStk,
];

/// Attributes that every class has.
const COMMON: &[(&str, &str)] = &[
    ("code", "str"),
    ("date", "date"),
    ("datetime", "datetime"),
    ("exchange", "Exchange"),
    ("from_msgpack", "method"),
    ("simtrade", "bool"),
    ("time", "time"),
    ("to_dict", "method"),
];
const BOOK: &[(&str, &str)] = &[
    ("ask_price", "list of 5 Decimal"),
    ("ask_volume", "list of 5 int"),
    ("bid_price", "list of 5 Decimal"),
    ("bid_volume", "list of 5 int"),
    ("diff_ask_vol", "list of 5 int"),
    ("diff_bid_vol", "list of 5 int"),
];
const TRADE: &[(&str, &str)] = &[
    ("amount", "Decimal"),
    ("amount_sum", "Decimal"),
    ("ask_side_total_vol", "int"),
    ("avg_price", "Decimal"),
    ("bid_side_total_vol", "int"),
    ("chg_type", "int"),
    ("close", "Decimal"),
    ("diff_price", "Decimal"),
    ("diff_type", "int"),
    ("high", "Decimal"),
    ("low", "Decimal"),
    ("open", "Decimal"),
    ("pct_chg", "Decimal"),
    ("price_chg", "Decimal"),
    ("tick_type", "int"),
    ("total_amount", "Decimal"),
    ("total_volume", "int"),
    ("trade_ask_vol_sum", "int"),
    ("trade_bid_vol_sum", "int"),
    ("vol_sum", "int"),
    ("volume", "int"),
];
const UNDERLYING: &[(&str, &str)] = &[
    ("target_kind_price", "Decimal"),
    ("underlying_price", "Decimal"),
];
const DERIVED: &[(&str, &str)] = &[
    ("first_derived_ask_price", "Decimal"),
    ("first_derived_ask_vol", "int"),
    ("first_derived_ask_volume", "int"),
    ("first_derived_bid_price", "Decimal"),
    ("first_derived_bid_vol", "int"),
    ("first_derived_bid_volume", "int"),
];
const TOTALS: &[(&str, &str)] = &[
    ("ask_total_vol", "int"),
    ("ask_vol_sum", "int"),
    ("bid_total_vol", "int"),
    ("bid_vol_sum", "int"),
];
const COUNTS: &[(&str, &str)] = &[
    ("ask_side_total_cnt", "int"),
    ("bid_side_total_cnt", "int"),
    ("trade_ask_cnt", "int"),
    ("trade_bid_cnt", "int"),
];
const CLOSING: &[(&str, &str)] = &[
    ("closing_oddlot_amount", "Decimal"),
    ("closing_oddlot_ask_price", "Decimal"),
    ("closing_oddlot_bid_price", "Decimal"),
    ("closing_oddlot_close", "Decimal"),
    ("closing_oddlot_shares", "int"),
    ("fixed_trade_amount", "Decimal"),
    ("fixed_trade_vol", "int"),
    ("fixed_trade_volume", "int"),
];
const RATE_DECIMAL: &[(&str, &str)] = &[("diff_rate", "Decimal")];
const RATE_INT: &[(&str, &str)] = &[("diff_rate", "int")];
const SUSPEND: &[(&str, &str)] = &[("suspend", "bool")];
const ODD: &[(&str, &str)] = &[("intraday_odd", "bool")];
const BORROWING: &[(&str, &str)] = &[("avail_borrowing", "int")];

impl QuoteClass {
    /// The class of that name, if it is one of ours.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        CLASSES.into_iter().find(|class| class.name() == name)
    }

    /// Name in the SDK.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TickFop => "TickFOPv1",
            Self::BidAskFop => "BidAskFOPv1",
            Self::TickStk => "TickSTKv1",
            Self::BidAskStk => "BidAskSTKv1",
            Self::QuoteFop => "QuoteFOPv1",
            Self::QuoteStk => "QuoteSTKv1",
        }
    }

    /// Family of codes.
    #[must_use]
    pub fn market(self) -> Market {
        match self {
            Self::TickFop | Self::BidAskFop | Self::QuoteFop => Market::Futures,
            Self::TickStk | Self::BidAskStk | Self::QuoteStk => Market::Stock,
        }
    }

    /// Whether objects carry a book.
    #[must_use]
    pub fn has_book(self) -> bool {
        !matches!(self, Self::TickFop | Self::TickStk)
    }

    /// Whether objects carry a print.
    #[must_use]
    pub fn has_trade(self) -> bool {
        !matches!(self, Self::BidAskFop | Self::BidAskStk)
    }

    /// Whether the book carries the totals of its sides.
    #[must_use]
    pub fn has_totals(self) -> bool {
        self == Self::BidAskFop
    }

    /// Whether objects say that trading is suspended.
    #[must_use]
    pub fn has_suspend(self) -> bool {
        self.market() == Market::Stock
    }

    /// Whether objects say that they are of the odd-lot stream.
    #[must_use]
    pub fn has_odd_lot(self) -> bool {
        matches!(self, Self::TickStk | Self::BidAskStk)
    }

    /// Public attributes and their types, by name.
    #[must_use]
    pub fn attributes(self) -> Vec<(&'static str, &'static str)> {
        let parts: &[&[(&str, &str)]] = match self {
            Self::TickFop => &[COMMON, TRADE, UNDERLYING, RATE_DECIMAL],
            Self::BidAskFop => &[COMMON, BOOK, UNDERLYING, DERIVED, TOTALS],
            Self::TickStk => &[COMMON, TRADE, RATE_INT, COUNTS, CLOSING, SUSPEND, ODD],
            Self::BidAskStk => &[COMMON, BOOK, SUSPEND, ODD],
            Self::QuoteFop => &[
                COMMON,
                BOOK,
                TRADE,
                UNDERLYING,
                RATE_DECIMAL,
                COUNTS,
                DERIVED,
            ],
            Self::QuoteStk => &[
                COMMON, BOOK, TRADE, RATE_INT, COUNTS, CLOSING, SUSPEND, BORROWING,
            ],
        };
        let mut attributes: Vec<_> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        attributes.sort_unstable();
        attributes
    }

    /// How a class differs from what the normaliser was written for; `None` when it does not.
    ///
    /// `observed` are the public attributes of a probe with the types of their values.
    #[must_use]
    pub fn difference(self, observed: &[(String, String)]) -> Option<String> {
        let expected = self.attributes();
        let type_in = |rows: &[(&str, &str)], name: &str| {
            let row = rows.iter().find(|row| row.0 == name)?;
            Some(row.1.to_owned())
        };
        let seen: Vec<(&str, &str)> = observed
            .iter()
            .map(|(name, kind)| (name.as_str(), kind.as_str()))
            .collect();
        let mut notes = Vec::new();
        for (name, kind) in &expected {
            match type_in(&seen, name) {
                None => notes.push(format!("{name} is missing")),
                Some(other) if other != *kind => {
                    notes.push(format!("{name} is {other}, expected {kind}"));
                }
                Some(_) => {}
            }
        }
        for (name, kind) in &seen {
            if type_in(&expected, name).is_none() {
                notes.push(format!("{name} ({kind}) is new"));
            }
        }
        (!notes.is_empty()).then(|| format!("{}: {}", self.name(), notes.join("; ")))
    }
}

/// Why a version of the SDK is not accepted, or `None`.
#[must_use]
pub fn version_difference(version: &str) -> Option<String> {
    (!version.starts_with(SDK_VERSION_LINE))
        .then(|| format!("SDK version is {version:?}, expected {SDK_VERSION_LINE}*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(class: QuoteClass) -> Vec<(String, String)> {
        class
            .attributes()
            .into_iter()
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .collect()
    }

    #[test]
    fn no_class_names_an_attribute_twice() {
        for class in CLASSES {
            let attributes = class.attributes();
            assert!(
                attributes.windows(2).all(|pair| pair[0].0 < pair[1].0),
                "{class:?}"
            );
            assert_eq!(QuoteClass::from_name(class.name()), Some(class));
            assert_eq!(class.difference(&observed(class)), None);
        }
    }

    #[test]
    fn a_missing_new_or_changed_attribute_is_named() {
        for class in CLASSES {
            for index in 0..class.attributes().len() {
                let mut rows = observed(class);
                let (name, _) = rows.remove(index);
                let text = class.difference(&rows).unwrap_or_default();
                assert!(text.contains(&format!("{name} is missing")), "{text}");
                rows.push((name.clone(), "float".to_owned()));
                let text = class.difference(&rows).unwrap_or_default();
                assert!(text.contains(&format!("{name} is float")), "{text}");
            }
            let mut rows = observed(class);
            rows.push(("rate".to_owned(), "int".to_owned()));
            let text = class.difference(&rows).unwrap_or_default();
            assert!(text.ends_with("rate (int) is new"), "{text}");
        }
    }

    #[test]
    fn another_line_of_the_sdk_is_refused() {
        assert_eq!(version_difference("1.7.9"), None);
        for version in ["1.8.0", "1.70.0", "2.1.7.9", "", "1.7"] {
            assert!(version_difference(version).is_some(), "{version}");
        }
    }
}
