//! Ways to break the log on purpose. The harnesses of `tests/` run with each of them and must find
//! it: a proof that cannot fail proves nothing. In a build without tests each is a constant `false`.

/// One protection taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// A frame's checksum is not compared.
    NoChecksum,
    /// Every segment's chain of checksums starts with the same number.
    NoChainSeed,
    /// Any whole frame behind a bad one counts as proof of damage.
    RefuseAnyLaterFrame,
    /// Nothing behind a bad frame counts as proof of damage.
    NeverRefuse,
    /// Recovery trusts the folder as it reads, synced or not.
    NoFolderSync,
    /// The manifest's entries count as durable because they can be read.
    NoManifestSync,
}

#[cfg(not(test))]
pub(super) const fn is(_: Sabotage) -> bool {
    false
}

#[cfg(test)]
pub(super) use armed::{is, with};

#[cfg(test)]
mod armed {
    use std::cell::Cell;

    use super::Sabotage;

    thread_local! {
        static ARMED: Cell<Option<Sabotage>> = const { Cell::new(None) };
    }

    pub(in crate::wal) fn is(sabotage: Sabotage) -> bool {
        ARMED.get() == Some(sabotage)
    }

    /// Runs `work` on this thread with one protection taken away.
    pub(in crate::wal) fn with<T>(sabotage: Sabotage, work: impl FnOnce() -> T) -> T {
        ARMED.set(Some(sabotage));
        let outcome = work();
        ARMED.set(None);
        outcome
    }
}
