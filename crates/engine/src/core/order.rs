//! Who goes first: priorities turned into one fixed rank per request.
//!
//! A rank is the arrival time plus the patience of the priority class, so a request of a better class overtakes
//! those of a worse one that came shortly before, and none waits for work that came later than its own patience.
//! The rank never changes: the first in order is never displaced, which is why the engine always makes progress.

use std::time::Duration;

/// Time on the engine's clock, counted from its start.
pub type Time = Duration;

/// Names a request for as long as the engine lives.
pub type RequestId = u64;

/// How urgent a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Before everything that came within the last minute.
    Critical,
    /// Somebody waits for it and said so.
    High,
    /// The default.
    #[default]
    Normal,
    /// Background work.
    Low,
}

impl Priority {
    /// All classes, most urgent first.
    pub const ALL: [Priority; 4] = [Priority::Critical, Priority::High, Priority::Normal, Priority::Low];

    /// How much later a request of the most urgent class may come and still go first.
    pub const fn patience(self) -> Duration {
        match self {
            Priority::Critical => Duration::ZERO,
            Priority::High => Duration::from_secs(5),
            Priority::Normal => Duration::from_secs(20),
            Priority::Low => Duration::from_secs(60),
        }
    }
}

/// Total order over requests; smaller goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    due: Time,
    id: RequestId,
}

impl Rank {
    /// Rank of a request that arrives now.
    pub(crate) fn new(now: Time, priority: Priority, id: RequestId) -> Self {
        Rank { due: now.saturating_add(priority.patience()), id }
    }

    /// The request that holds the rank.
    pub(crate) fn id(self) -> RequestId {
        self.id
    }
}
