//! The gateway's policy: NORMAL, DEGRADED or HALT, what passes in each, and how a halt is lifted.
//!
//! Why: one place says what may leave, whatever the reason is; a cancel and an order that only
//! reduces must get through exactly when things go wrong.
//!
//! Invariants:
//! 1. Every combination of latches and weather has exactly one row in [`POLICY_ROWS`].
//! 2. A cancel and a reducing order pass in every state; an opening one in NORMAL only.
//! 3. Every step of a resume has exactly one row in [`RESUME_ROWS`]; a halt takes an arm back.
//!
//! It holds no latch (the engine does). Operator's page: `docs/storm-guard.md`.

use crate::reason::ReasonCode;
use crate::storm_guard::StormState;

/// What the gateway lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum PolicyState {
    /// Everything that passes the checks.
    Normal = 0,
    /// Cancels, and orders that only reduce.
    Degraded = 1,
    /// The same, and what was working is taken back; latched.
    Halt = 2,
}

impl PolicyState {
    /// The state of a number, if there is one.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        [Self::Normal, Self::Degraded, Self::Halt]
            .into_iter()
            .find(|state| *state as u32 == code)
    }

    /// `NORMAL`, `DEGRADED` or `HALT`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Degraded => "DEGRADED",
            Self::Halt => "HALT",
        }
    }
}

/// What somebody wants to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// An order that can enlarge a position.
    Opening,
    /// An order that can only make one smaller.
    Reducing,
    /// A cancel.
    Cancel,
}

/// Whether `request` passes in `state`.
#[must_use]
pub fn passes(state: PolicyState, request: Request) -> bool {
    match (state, request) {
        (PolicyState::Normal, _) | (_, Request::Reducing | Request::Cancel) => true,
        (PolicyState::Degraded | PolicyState::Halt, Request::Opening) => false,
    }
}

/// One row: `None` stands for either.
#[derive(Debug, Clone, Copy)]
pub struct PolicyRow {
    /// What it says.
    pub label: &'static str,
    is_halted: Option<bool>,
    is_reduce_only: Option<bool>,
    storm: &'static [StormState],
    /// Where it leads.
    pub state: PolicyState,
}

impl PolicyRow {
    /// True if the row is about this.
    #[must_use]
    pub fn matches(&self, is_halted: bool, is_reduce_only: bool, storm: StormState) -> bool {
        self.is_halted.is_none_or(|wanted| wanted == is_halted)
            && self
                .is_reduce_only
                .is_none_or(|wanted| wanted == is_reduce_only)
            && self.storm.contains(&storm)
    }
}

const FAIR: &[StormState] = &[StormState::Normal, StormState::Warm];
const STORM: &[StormState] = &[StormState::Storm];
const HALT: &[StormState] = &[StormState::Halt];
const ANY: &[StormState] = &[
    StormState::Normal,
    StormState::Warm,
    StormState::Storm,
    StormState::Halt,
];

/// The whole table.
pub const POLICY_ROWS: [PolicyRow; 5] = [
    PolicyRow {
        label: "halt_latched",
        is_halted: Some(true),
        is_reduce_only: None,
        storm: ANY,
        state: PolicyState::Halt,
    },
    PolicyRow {
        label: "storm_guard_halts",
        is_halted: Some(false),
        is_reduce_only: None,
        storm: HALT,
        state: PolicyState::Halt,
    },
    PolicyRow {
        label: "storm",
        is_halted: Some(false),
        is_reduce_only: None,
        storm: STORM,
        state: PolicyState::Degraded,
    },
    PolicyRow {
        label: "reduce_only_latched",
        is_halted: Some(false),
        is_reduce_only: Some(true),
        storm: FAIR,
        state: PolicyState::Degraded,
    },
    PolicyRow {
        label: "free",
        is_halted: Some(false),
        is_reduce_only: Some(false),
        storm: FAIR,
        state: PolicyState::Normal,
    },
];

/// The state that latches and weather make.
#[must_use]
pub fn policy_state(is_halted: bool, is_reduce_only: bool, storm: StormState) -> PolicyState {
    let found = POLICY_ROWS
        .iter()
        .find(|row| row.matches(is_halted, is_reduce_only, storm));
    assert!(
        found.is_some(),
        "Invariant: every combination of latches and weather has a row"
    );
    found.map_or(PolicyState::Halt, |row| row.state)
}

/// How far a resume has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ResumeState {
    /// Nobody asked.
    Idle = 0,
    /// The first step was taken.
    Armed = 1,
}

/// What happens to a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ResumeEvent {
    /// Something halted, again or for the first time.
    Halted = 0,
    /// The first step.
    Arm = 1,
    /// The second step, and everything about it is right.
    Confirm = 2,
    /// The second step names another arm.
    ConfirmOther = 3,
    /// The second step came too late.
    ConfirmLate = 4,
    /// The second step, while what halted is still there.
    ConfirmTooSoon = 5,
}

/// What a step of a resume leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeOutcome {
    /// Nothing else happens.
    Nothing,
    /// The latches are lifted.
    Lifted,
    /// It is refused.
    Refused(ReasonCode),
}

/// Rows are states, columns are events, both in the order of their numbers.
pub const RESUME_ROWS: [[(ResumeState, ResumeOutcome); 6]; 2] = {
    use ResumeOutcome::{Lifted, Nothing, Refused};
    use ResumeState::{Armed, Idle};
    const NOT_ARMED: ResumeOutcome = Refused(ReasonCode::ResumeNotArmed);
    [
        // Halted, Arm, Confirm, ConfirmOther, ConfirmLate, ConfirmTooSoon
        // Idle: the second step alone is nothing.
        [
            (Idle, Nothing),
            (Armed, Nothing),
            (Idle, NOT_ARMED),
            (Idle, NOT_ARMED),
            (Idle, NOT_ARMED),
            (Idle, NOT_ARMED),
        ],
        // Armed: whatever the second step is, the arm is used up.
        [
            (Idle, Nothing),
            (Armed, Nothing),
            (Idle, Lifted),
            (Idle, NOT_ARMED),
            (Idle, Refused(ReasonCode::ResumeTooLate)),
            (Idle, Refused(ReasonCode::HaltCauseRemains)),
        ],
    ]
};

/// The row for a step.
#[must_use]
pub fn resume_step(state: ResumeState, event: ResumeEvent) -> (ResumeState, ResumeOutcome) {
    RESUME_ROWS[state as usize][event as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORMS: [StormState; 4] = [
        StormState::Normal,
        StormState::Warm,
        StormState::Storm,
        StormState::Halt,
    ];
    const REQUESTS: [Request; 3] = [Request::Opening, Request::Reducing, Request::Cancel];
    const EVENTS: [ResumeEvent; 6] = [
        ResumeEvent::Halted,
        ResumeEvent::Arm,
        ResumeEvent::Confirm,
        ResumeEvent::ConfirmOther,
        ResumeEvent::ConfirmLate,
        ResumeEvent::ConfirmTooSoon,
    ];

    /// Invariants 1 and 2, for all 16 combinations: one row each, and nothing that restricts is
    /// ever outvoted.
    #[test]
    fn every_combination_has_one_row_and_the_strictest_wins() {
        for number in 0..16_usize {
            let (is_halted, is_reduce_only) = (number & 1 == 1, number & 2 == 2);
            let storm = STORMS[number / 4];
            let rows = POLICY_ROWS
                .iter()
                .filter(|row| row.matches(is_halted, is_reduce_only, storm));
            assert_eq!(rows.count(), 1, "{is_halted} {is_reduce_only} {storm:?}");
            let state = policy_state(is_halted, is_reduce_only, storm);
            let is_halt = is_halted || storm == StormState::Halt;
            assert_eq!(state == PolicyState::Halt, is_halt);
            let is_free = !is_halt && !is_reduce_only && storm < StormState::Storm;
            assert_eq!(state == PolicyState::Normal, is_free);
        }
    }

    #[test]
    fn cancels_and_reducing_orders_pass_in_every_state() {
        for code in 0..3 {
            let state = PolicyState::from_code(code).unwrap_or(PolicyState::Normal);
            assert_eq!(state as u32, code);
            for request in REQUESTS {
                let is_free = state == PolicyState::Normal || request != Request::Opening;
                assert_eq!(passes(state, request), is_free, "{state:?} {request:?}");
            }
        }
        assert_eq!(PolicyState::from_code(3), None);
    }

    /// Invariant 3: a halt is lifted by an arm and the one good confirm that follows it, and by
    /// nothing else; every sequence of five steps.
    #[test]
    fn only_an_arm_and_its_good_confirm_lift() {
        for number in 0..EVENTS.len().pow(5) {
            let (mut state, mut rest, mut previous) = (ResumeState::Idle, number, None);
            for _ in 0..5 {
                let event = EVENTS[rest % EVENTS.len()];
                rest /= EVENTS.len();
                let (next, outcome) = resume_step(state, event);
                let is_good = event == ResumeEvent::Confirm && previous == Some(ResumeEvent::Arm);
                assert_eq!(
                    outcome == ResumeOutcome::Lifted,
                    is_good,
                    "{previous:?} {event:?}"
                );
                let is_confirm = !matches!(event, ResumeEvent::Halted | ResumeEvent::Arm);
                assert_eq!(
                    matches!(outcome, ResumeOutcome::Refused(_)),
                    is_confirm && !is_good
                );
                assert_eq!(next == ResumeState::Armed, event == ResumeEvent::Arm);
                (state, previous) = (next, Some(event));
            }
        }
    }
}
