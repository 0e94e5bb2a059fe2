//! Life of an order as one table: state x event, every pair has a row.

use crate::reason::ReasonCode;

/// Where an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum OrderState {
    /// Sent, no answer yet.
    PendingNew = 0,
    /// The exchange has it.
    Working = 1,
    /// A cancel was sent, no answer yet.
    PendingCancel = 2,
    /// Nobody knows; counts as full exposure.
    Unknown = 3,
    /// Done: everything was filled.
    Filled = 4,
    /// Done: the rest was canceled.
    Canceled = 5,
    /// Done: refused.
    Rejected = 6,
    /// Done: the immediate-or-cancel remainder lapsed.
    Expired = 7,
}

impl OrderState {
    /// Its name for people: `pending_new`, `working`, `pending_cancel`, `unknown`, `filled`,
    /// `canceled`, `rejected` or `expired`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PendingNew => "pending_new",
            Self::Working => "working",
            Self::PendingCancel => "pending_cancel",
            Self::Unknown => "unknown",
            Self::Filled => "filled",
            Self::Canceled => "canceled",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        }
    }

    /// True while it can still be filled and counts as exposure.
    #[must_use]
    pub fn is_open(self) -> bool {
        self < Self::Filled
    }
}

/// What can happen to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OrderEvent {
    /// We sent a cancel.
    CancelSent = 0,
    /// The exchange has it.
    Working = 1,
    /// Definitive refusal.
    Rejected = 2,
    /// An execution that leaves a rest.
    PartialFill = 3,
    /// An execution that leaves nothing.
    FullFill = 4,
    /// The rest was canceled.
    Canceled = 5,
    /// The cancel was refused.
    CancelRejected = 6,
    /// The remainder lapsed.
    Expired = 7,
    /// The outcome is not known.
    Unknown = 8,
}

/// Number of states and of events.
const STATE_COUNT: usize = 8;
const EVENT_COUNT: usize = 9;

/// What an event does: the next state, and a code to count when it does not fit.
pub type Transition = (OrderState, Option<ReasonCode>);

/// Rows are states, columns are events, both in the order of their numbers.
pub const TRANSITIONS: [[Transition; EVENT_COUNT]; STATE_COUNT] = {
    use OrderState::{
        Canceled, Expired, Filled, PendingCancel, PendingNew, Rejected, Unknown, Working,
    };
    const ODD: Option<ReasonCode> = Some(ReasonCode::OrderStateInvalid);
    const LOST: Option<ReasonCode> = Some(ReasonCode::OrderOutcomeUnknown);
    const OVER: Option<ReasonCode> = Some(ReasonCode::OverFill);
    [
        // CancelSent, Working, Rejected, PartialFill, FullFill, Canceled, CancelRejected, Expired, Unknown
        // PendingNew: never canceled before it works.
        [
            (PendingNew, ODD),
            (Working, None),
            (Rejected, None),
            (Working, None),
            (Filled, None),
            (Canceled, None),
            (PendingNew, ODD),
            (Expired, None),
            (Unknown, LOST),
        ],
        // Working
        [
            (PendingCancel, None),
            (Working, ODD),
            (Working, ODD),
            (Working, None),
            (Filled, None),
            (Canceled, None),
            (Working, ODD),
            (Expired, None),
            (Unknown, LOST),
        ],
        // PendingCancel: a fill may overtake the cancel.
        [
            (PendingCancel, ODD),
            (PendingCancel, ODD),
            (PendingCancel, ODD),
            (PendingCancel, None),
            (Filled, None),
            (Canceled, None),
            (Working, None),
            (Expired, None),
            (Unknown, LOST),
        ],
        // Unknown: any definite answer resolves it; it is never sent again nor canceled blindly.
        [
            (Unknown, ODD),
            (Working, None),
            (Rejected, None),
            (Working, None),
            (Filled, None),
            (Canceled, None),
            (Unknown, ODD),
            (Expired, None),
            (Unknown, None),
        ],
        // Filled: any further fill is too much.
        [
            (Filled, ODD),
            (Filled, ODD),
            (Filled, ODD),
            (Filled, OVER),
            (Filled, OVER),
            (Filled, ODD),
            (Filled, None),
            (Filled, ODD),
            (Filled, ODD),
        ],
        // Canceled: a late fill is real and is counted.
        [
            (Canceled, ODD),
            (Canceled, ODD),
            (Canceled, ODD),
            (Canceled, ODD),
            (Filled, ODD),
            (Canceled, ODD),
            (Canceled, None),
            (Canceled, ODD),
            (Canceled, ODD),
        ],
        // Rejected
        [
            (Rejected, ODD),
            (Rejected, ODD),
            (Rejected, ODD),
            (Rejected, ODD),
            (Filled, ODD),
            (Rejected, ODD),
            (Rejected, ODD),
            (Rejected, ODD),
            (Rejected, ODD),
        ],
        // Expired
        [
            (Expired, ODD),
            (Expired, ODD),
            (Expired, ODD),
            (Expired, ODD),
            (Filled, ODD),
            (Expired, ODD),
            (Expired, None),
            (Expired, ODD),
            (Expired, ODD),
        ],
    ]
};

/// The row for `state` and `event`.
#[must_use]
pub fn transition(state: OrderState, event: OrderEvent) -> Transition {
    TRANSITIONS[state as usize][event as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [OrderState; STATE_COUNT] = [
        OrderState::PendingNew,
        OrderState::Working,
        OrderState::PendingCancel,
        OrderState::Unknown,
        OrderState::Filled,
        OrderState::Canceled,
        OrderState::Rejected,
        OrderState::Expired,
    ];
    const EVENTS: [OrderEvent; EVENT_COUNT] = [
        OrderEvent::CancelSent,
        OrderEvent::Working,
        OrderEvent::Rejected,
        OrderEvent::PartialFill,
        OrderEvent::FullFill,
        OrderEvent::Canceled,
        OrderEvent::CancelRejected,
        OrderEvent::Expired,
        OrderEvent::Unknown,
    ];

    /// Every pair: a done order never opens again, and only Working takes a cancel.
    #[test]
    fn the_table_keeps_its_rules_for_all_pairs() {
        for (row, state) in STATES.into_iter().enumerate() {
            assert_eq!(state as usize, row);
            for (column, event) in EVENTS.into_iter().enumerate() {
                assert_eq!(event as usize, column);
                let (next, code) = transition(state, event);
                assert!(state.is_open() || !next.is_open(), "{state:?} {event:?}");
                if event == OrderEvent::CancelSent {
                    assert_eq!(code.is_none(), state == OrderState::Working, "{state:?}");
                }
                if event == OrderEvent::FullFill {
                    assert_eq!(next, OrderState::Filled);
                }
                let is_fill = matches!(event, OrderEvent::PartialFill | OrderEvent::FullFill);
                if !state.is_open() && is_fill {
                    assert!(
                        code.is_some(),
                        "a fill of a done order is counted: {state:?}"
                    );
                }
                if code.is_some() && state.is_open() && event != OrderEvent::Unknown {
                    assert_eq!(
                        next, state,
                        "what does not fit changes nothing: {state:?} {event:?}"
                    );
                }
            }
        }
    }
}
