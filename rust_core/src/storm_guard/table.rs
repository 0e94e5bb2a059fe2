//! The guard's states as labeled rows; a test wants exactly one row for every combination.

use super::Level;

/// How rough it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum StormState {
    /// Nothing restricts.
    Normal = 0,
    /// Reported, nothing restricts.
    Warm = 1,
    /// No order that opens.
    Storm = 2,
    /// Everything is taken back; latched.
    Halt = 3,
}

impl StormState {
    /// The state of a number, if there is one.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        [Self::Normal, Self::Warm, Self::Storm, Self::Halt]
            .into_iter()
            .find(|state| *state as u32 == code)
    }

    /// `NORMAL`, `WARM`, `STORM` or `HALT`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Warm => "WARM",
            Self::Storm => "STORM",
            Self::Halt => "HALT",
        }
    }
}

/// What happens to the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// A look at the levels; the state has not cooled.
    Look = 0,
    /// A look; enough calm looks in a row, and long enough since the last cause.
    Cooled = 1,
    /// The second step of a resume.
    Resume = 2,
}

/// One row: in `state`, with a level from `low` to `high`, at one of `events`.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// What it says, for counters and records.
    pub label: &'static str,
    state: StormState,
    low: Level,
    high: Level,
    events: &'static [Event],
    /// Where it leads.
    pub next: StormState,
}

impl Row {
    /// True if the row is about this.
    #[must_use]
    pub fn matches(&self, state: StormState, asked: Level, event: Event) -> bool {
        self.state == state
            && (self.low..=self.high).contains(&asked)
            && self.events.contains(&event)
    }
}

const ANY: &[Event] = &[Event::Look, Event::Cooled, Event::Resume];
const LOOKS: &[Event] = &[Event::Look, Event::Cooled];
const NOT_COOLED: &[Event] = &[Event::Look, Event::Resume];
const COOLED: &[Event] = &[Event::Cooled];
const RESUME: &[Event] = &[Event::Resume];

const fn row(
    label: &'static str,
    state: StormState,
    (low, high): (Level, Level),
    events: &'static [Event],
    next: StormState,
) -> Row {
    Row {
        label,
        state,
        low,
        high,
        events,
        next,
    }
}

/// The whole table.
pub const ROWS: [Row; 17] = {
    use Level as L;
    use StormState::{Halt, Normal, Storm, Warm};
    [
        row("normal_stays", Normal, (L::Clear, L::Clear), ANY, Normal),
        row("normal_warms", Normal, (L::Warm, L::Warm), ANY, Warm),
        row("normal_storms", Normal, (L::Storm, L::Storm), ANY, Storm),
        row("normal_halts", Normal, (L::Halt, L::Halt), ANY, Halt),
        row("warm_waits", Warm, (L::Clear, L::Clear), NOT_COOLED, Warm),
        row("warm_cools", Warm, (L::Clear, L::Clear), COOLED, Normal),
        row("warm_stays", Warm, (L::Warm, L::Warm), ANY, Warm),
        row("warm_storms", Warm, (L::Storm, L::Storm), ANY, Storm),
        row("warm_halts", Warm, (L::Halt, L::Halt), ANY, Halt),
        row("storm_waits", Storm, (L::Clear, L::Warm), NOT_COOLED, Storm),
        row("storm_cools", Storm, (L::Clear, L::Warm), COOLED, Warm),
        row("storm_stays", Storm, (L::Storm, L::Storm), ANY, Storm),
        row("storm_halts", Storm, (L::Halt, L::Halt), ANY, Halt),
        row("halt_latches", Halt, (L::Clear, L::Halt), LOOKS, Halt),
        row("resume_to_warm", Halt, (L::Clear, L::Warm), RESUME, Warm),
        row("resume_to_storm", Halt, (L::Storm, L::Storm), RESUME, Storm),
        row("resume_refused", Halt, (L::Halt, L::Halt), RESUME, Halt),
    ]
};

/// Place of the row that a missing one would stand for, if there could be one.
const LATCHED: usize = 13;
const _: () = assert!(matches!(ROWS[LATCHED].next, StormState::Halt));

/// The row for a state, what the inputs ask for, and an event.
#[must_use]
pub fn next(state: StormState, asked: Level, event: Event) -> &'static Row {
    let found = ROWS.iter().find(|row| row.matches(state, asked, event));
    assert!(
        found.is_some(),
        "Invariant: every state, level and event has a row"
    );
    found.unwrap_or(&ROWS[LATCHED])
}
