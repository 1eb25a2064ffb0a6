//! Which processor each worker of a team was last seen on, so that two of them do not share one while another is idle.
//!
//! On machines of few processors Linux may wake a thread where its waker runs and leave both there for tens of
//! milliseconds. A worker that has waited in vain asks here and moves away once; it stays free to be moved anywhere.
//! Elsewhere than on Linux nothing happens.

use std::sync::atomic::{AtomicU32, Ordering};

/// A processor that nobody knows.
const UNKNOWN: u32 = u32::MAX;

/// A worker's last known processor, on a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Seat(AtomicU32);

/// The workers' seats.
#[derive(Debug)]
pub(crate) struct Seats(Box<[Seat]>);

impl Seats {
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).map(|_| Seat(AtomicU32::new(UNKNOWN))).collect())
    }

    /// Notes where worker `index`, which calls this, runs now.
    pub(crate) fn note(&self, index: usize) {
        self.0[index].0.store(system::processor().unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    /// Moves the calling thread, worker `index`, to another processor when somebody else was last seen on its own.
    #[cold]
    pub(crate) fn part(&self, index: usize) {
        let others = || {
            let others = self.0.iter().enumerate().filter(|(other, _)| *other != index);
            others.map(|(_, seat)| seat.0.load(Ordering::Relaxed)).filter(|&seat| seat != UNKNOWN)
        };
        if system::processor().is_some_and(|mine| others().any(|other| other == mine)) {
            system::leave(others());
            self.note(index);
        }
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod system {
    use libc::{CPU_CLR, CPU_COUNT, CPU_SETSIZE, cpu_set_t, sched_getaffinity, sched_setaffinity};

    /// The processor that the calling thread runs on.
    pub(super) fn processor() -> Option<u32> {
        // SAFETY: takes nothing and touches nothing of this process.
        u32::try_from(unsafe { libc::sched_getcpu() }).ok()
    }

    /// Moves the calling thread off these processors, when it may run on others; afterwards it may run on all as before.
    pub(super) fn leave(taken: impl Iterator<Item = u32>) {
        let size = size_of::<cpu_set_t>();
        // SAFETY: a set of processors is plain bits; the calls get its size, and a refusal changes nothing.
        unsafe {
            let mut allowed: cpu_set_t = std::mem::zeroed();
            if sched_getaffinity(0, size, &raw mut allowed) != 0 {
                return;
            }
            let mut free = allowed;
            taken.filter(|&at| at < CPU_SETSIZE as u32).for_each(|at| CPU_CLR(at as usize, &mut free));
            if CPU_COUNT(&free) > 0 && sched_setaffinity(0, size, &raw const free) == 0 {
                sched_setaffinity(0, size, &raw const allowed);
            }
        }
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod system {
    pub(super) fn processor() -> Option<u32> {
        None
    }

    pub(super) fn leave(_: impl Iterator<Item = u32>) {}
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn who_shares_a_processor_moves_and_stays_free() {
        std::thread::spawn(|| {
            let seats = Seats::new(2);
            let free = || std::thread::available_parallelism().map_or(1, usize::from);
            let before = free();
            let moves = || {
                seats.note(1);
                let shared = seats.0[1].0.load(Ordering::Relaxed);
                seats.0[0].0.store(shared, Ordering::Relaxed);
                seats.part(1);
                seats.0[1].0.load(Ordering::Relaxed) != shared
            };
            // The system may move a thread at any moment, back to where it was too.
            assert!(before == 1 || (0..1000).any(|_| moves()), "a thread never leaves a processor it shares");
            assert_eq!(free(), before);
        })
        .join()
        .expect("no panic");
    }
}
