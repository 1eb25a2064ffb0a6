//! Waiting for other threads: spin a while, then sleep.
//!
//! Contract: when the others arrive soon, waiting costs no system call; when they do not, it costs no CPU, so that idle
//! teams are free and more threads than cores make progress. Deliberately absent: clocks (the spin is a count).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::seats::Seats;

/// Polls before sleeping: in the order of 100 µs.
const SPINS: u32 = if cfg!(miri) { 10 } else { 4000 };

/// A counter that can be waited for.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    opened: AtomicU32,
    sleepers: AtomicU32,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Gate {
    /// How often it was opened; wraps.
    pub(crate) fn opened(&self) -> u32 {
        self.opened.load(Ordering::Acquire)
    }

    /// Returns once `opened` differs from `seen`. Everything done before the opening is visible then.
    pub(crate) fn wait(&self, seen: u32) {
        self.wait_or(seen, || (), || ());
    }

    /// Like [`wait`](Self::wait); calls `meanwhile` between looks, and `before` before it sleeps.
    fn wait_or(&self, seen: u32, mut meanwhile: impl FnMut(), before: impl FnOnce()) {
        for _ in 0..SPINS {
            if self.opened() != seen {
                return;
            }
            meanwhile();
            std::hint::spin_loop();
        }
        before();
        self.sleep(seen);
    }

    /// Opens once and wakes all who wait.
    ///
    /// The total order of the sequentially consistent accesses guarantees that this sees the sleeper, or the sleeper
    /// sees the opening.
    pub(crate) fn open(&self) {
        self.opened.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.locked());
            self.wake.notify_all();
        }
    }

    #[cold]
    fn sleep(&self, seen: u32) {
        let mut guard = self.locked();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.opened.load(Ordering::SeqCst) == seen {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    fn locked(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The barrier was broken: a thread that should have come will not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// Holds back `count` threads until all of them are there; reusable at once.
#[derive(Debug)]
pub(crate) struct Barrier {
    count: u32,
    arrived: AtomicU32,
    broken: AtomicBool,
    gate: Gate,
    seats: Seats,
}

impl Barrier {
    pub(crate) fn new(count: u32) -> Self {
        let (arrived, broken) = (AtomicU32::new(0), AtomicBool::new(false));
        Self { count, arrived, broken, gate: Gate::default(), seats: Seats::new(count as usize) }
    }

    /// Waits, as thread `index` of `0..count`, for the others; what any of them did before is visible after. The thread
    /// with index 0 is somebody else's: it is never moved to another processor. Calls `meanwhile`, which is short, over and
    /// over.
    pub(crate) fn wait(&self, index: usize, meanwhile: impl FnMut()) -> Result<(), Broken> {
        self.seats.note(index);
        let seen = self.gate.opened();
        if self.is_broken() {
            return Err(Broken);
        }
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.count {
            self.arrived.store(0, Ordering::Relaxed);
            self.gate.open();
        } else {
            self.gate.wait_or(seen, meanwhile, || {
                if index > 0 {
                    self.seats.part(index);
                }
            });
        }
        if self.is_broken() { Err(Broken) } else { Ok(()) }
    }

    /// Lets everybody go, now and in the future, with [`Broken`].
    pub(crate) fn break_up(&self) {
        self.broken.store(true, Ordering::Release);
        self.gate.open();
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Makes it whole again. Nobody may be waiting.
    pub(crate) fn reset(&self) {
        self.arrived.store(0, Ordering::Relaxed);
        self.broken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// In each round every thread adds one; after the barrier all see the whole round's sum.
    fn check_rounds(threads: usize, rounds: usize) {
        let (barrier, sum) = (&Barrier::new(threads as u32), &AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for index in 0..threads {
                scope.spawn(move || {
                    for round in 1..=rounds {
                        sum.fetch_add(1, Ordering::Relaxed);
                        barrier.wait(index, || ()).expect("whole");
                        assert_eq!(sum.load(Ordering::Relaxed), round * threads);
                        barrier.wait(index, || ()).expect("whole");
                    }
                });
            }
        });
    }

    #[test]
    fn all_arrive_before_any_leaves() {
        check_rounds(1, 100);
        check_rounds(2, if cfg!(miri) { 20 } else { 20_000 });
        check_rounds(5, if cfg!(miri) { 10 } else { 300 });
    }

    #[test]
    fn a_late_thread_finds_the_others_asleep() {
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| barrier.wait(1, || ()));
            while barrier.gate.sleepers.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            assert_eq!(barrier.wait(0, || ()), Ok(()));
        });
    }

    #[test]
    fn breaking_frees_who_waits_and_who_comes() {
        let barrier = Barrier::new(3);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| barrier.wait(1, || ()));
            barrier.break_up();
            assert_eq!(waiting.join().expect("no panic"), Err(Broken));
        });
        assert_eq!(barrier.wait(0, || ()), Err(Broken));
        barrier.reset();
        assert!(!barrier.is_broken());
    }
}
