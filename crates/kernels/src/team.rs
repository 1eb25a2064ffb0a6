//! The thread team: threads that live as long as the team and enter a job together.
//!
//! A job runs once on every worker, the calling thread being worker 0; inside, workers meet at barriers. Between jobs
//! the threads wait, first spinning, then asleep. Where threads cannot be had, the team is as large as it got.
//!
//! Deliberately absent: work queues and stealing, threads that are bound to processors, priorities.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::SharedMut;
use crate::barrier::{Barrier, Gate};

/// Bytes from which a copy is shared out, and what is never parted.
const SHARED_COPY: usize = 64 << 10;
const COPY_GRAIN: usize = 4 << 10;

/// A worker's place in the team, handed to the job.
#[derive(Clone, Copy, Debug)]
pub struct Worker<'a> {
    index: usize,
    count: usize,
    barrier: Option<&'a Barrier>,
}

impl Worker<'_> {
    /// The only worker of a job that runs on one thread.
    pub const ALONE: Worker<'static> = Worker { index: 0, count: 1, barrier: None };

    /// Which one of `0..count` this is.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many run the job.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Waits until every worker of the team is here; what they wrote before is visible after.
    ///
    /// All workers must come equally often. Unwinds when another worker panicked.
    pub fn barrier(&self) {
        self.barrier_meanwhile(|| ());
    }

    /// A [`barrier`](Self::barrier) that calls `meanwhile`, which is short, over and over while it waits.
    pub(crate) fn barrier_meanwhile(&self, meanwhile: impl FnMut()) {
        let Some(barrier) = self.barrier else { return };
        if let Err(broken) = barrier.wait(self.index, meanwhile) {
            resume_unwind(Box::new(broken));
        }
    }

    /// Whether this worker takes work from the front when there are two ends.
    pub(crate) fn is_front(&self) -> bool {
        2 * self.index < self.count
    }

    /// Which of `0..count` it takes first when the workers take their work from both ends at the same pace.
    pub(crate) fn first_near(&self, count: usize) -> usize {
        let last = count.saturating_sub(1);
        if self.is_front() { self.index.min(last) } else { last.saturating_sub(self.count - 1 - self.index) }
    }

    /// This worker's part of `0..items`: contiguous, in multiples of `grain` except for the last. The parts of all
    /// workers cover the items once.
    pub fn share(&self, items: usize, grain: usize) -> Range<usize> {
        let grain = grain.max(1);
        let grains = items.div_ceil(grain);
        let at = |index: usize| (index * grains / self.count * grain).min(items);
        at(self.index)..at(self.index + 1)
    }
}

/// Threads that run jobs together.
#[derive(Debug)]
pub struct Team {
    shared: Arc<Shared>,
    entry: Mutex<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Team {
    /// A team of `threads` workers (at least one), the later caller included. Smaller when the system refuses threads.
    pub fn new(threads: usize) -> Self {
        let wanted = threads.clamp(1, u16::MAX.into());
        let (spawned, shared) = spawn(wanted);
        if spawned.len() + 1 == wanted {
            return Self { shared, entry: Mutex::new(()), threads: spawned };
        }
        // The size is part of the barrier: start again with what the system gave.
        let fewer = spawned.len() + 1;
        drop(Self { shared, entry: Mutex::new(()), threads: spawned });
        Self::new(fewer)
    }

    /// Number of workers.
    pub fn size(&self) -> usize {
        self.threads.len() + 1
    }

    /// Copies `from` over `to`, each worker its part where that gains. Panics when they are not of one length.
    pub fn copy(&self, from: &[u8], to: &mut [u8]) {
        assert_eq!(from.len(), to.len(), "bytes to copy");
        if from.len() < SHARED_COPY || self.size() == 1 {
            return to.copy_from_slice(from);
        }
        let to = SharedMut::new(to);
        self.run(|worker| {
            let part = worker.share(from.len(), COPY_GRAIN);
            // SAFETY: each worker has its own part.
            unsafe { to.part_mut(part.clone()) }.copy_from_slice(&from[part]);
        });
    }

    /// Runs `job` once on every worker and returns when all have ended. A second caller waits for the first.
    ///
    /// A job must not call this again on the same team. Allocates nothing.
    ///
    /// # Panics
    /// When a worker panics, with its payload, after all workers have left the job. The team stays usable.
    pub fn run<F: Fn(Worker<'_>) + Sync>(&self, job: F) {
        let entry = self.entry.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        shared.barrier.reset();
        let seen = shared.ended.opened();
        if !self.threads.is_empty() {
            shared.running.store(self.threads.len() as u32, Ordering::Relaxed);
            let job: &(dyn Fn(Worker<'_>) + Sync) = &job;
            // SAFETY: the workers wait for `start` and the previous job has ended, so nobody reads the cell; the
            // lifetime is erased, but this function returns only after the last worker has left the job.
            unsafe { *shared.job.get() = Some(std::mem::transmute::<JobRef<'_>, JobRef<'static>>(job)) };
            shared.start.open();
        }
        shared.take_part(&job, 0, self.size());
        if !self.threads.is_empty() {
            shared.ended.wait(seen);
        }
        if shared.barrier.is_broken() {
            let payload = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(entry);
            resume_unwind(payload.unwrap_or_else(|| Box::new("a worker panicked")));
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::Release);
        self.shared.start.open();
        for thread in self.threads.drain(..) {
            // A worker catches the panics of jobs; there is nothing to report from its own loop.
            let _ = thread.join();
        }
    }
}

type JobRef<'a> = &'a (dyn Fn(Worker<'_>) + Sync + 'a);

struct Shared {
    start: Gate,
    job: UnsafeCell<Option<JobRef<'static>>>,
    barrier: Barrier,
    /// Threads (without the caller) that are still in the job.
    running: AtomicU32,
    ended: Gate,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    quit: AtomicBool,
}

// SAFETY: `job` is written only while every worker waits at `start` and read only between `start` and `ended`; both
// gates order the accesses. Everything else is Sync by itself.
unsafe impl Sync for Shared {}
// SAFETY: the job reference is to a Sync closure, usable from any thread while it lives (see above).
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("barrier", &self.barrier).finish_non_exhaustive()
    }
}

impl Shared {
    fn new(count: usize) -> Self {
        Self {
            start: Gate::default(),
            job: UnsafeCell::new(None),
            barrier: Barrier::new(count as u32),
            running: AtomicU32::new(0),
            ended: Gate::default(),
            panic: Mutex::new(None),
            quit: AtomicBool::new(false),
        }
    }

    /// Runs the job as worker `index`; a panic breaks the barrier and is kept unless it only echoes another one.
    fn take_part(&self, job: JobRef<'_>, index: usize, count: usize) {
        let barrier = (count > 1).then_some(&self.barrier);
        let outcome = catch_unwind(AssertUnwindSafe(|| job(Worker { index, count, barrier })));
        if let Err(payload) = outcome {
            if !payload.is::<crate::barrier::Broken>() {
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
            }
            self.barrier.break_up();
        }
    }

    /// The life of a thread of the team.
    fn serve(&self, index: usize, count: usize) {
        let mut seen = 0;
        loop {
            self.start.wait(seen);
            seen = seen.wrapping_add(1);
            if self.quit.load(Ordering::Acquire) {
                return;
            }
            // SAFETY: `start` was opened after the cell was written; it is not written again before `running` is 0.
            if let Some(job) = unsafe { *self.job.get() } {
                self.take_part(job, index, count);
            }
            if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.ended.open();
            }
        }
    }
}

/// Starts the threads `1..count`, stopping at the first that the system refuses.
fn spawn(count: usize) -> (Vec<JoinHandle<()>>, Arc<Shared>) {
    let shared = Arc::new(Shared::new(count));
    let one = |index: usize| {
        let shared = Arc::clone(&shared);
        let named = Builder::new().name(format!("kinglet-{index}"));
        named.spawn(move || shared.serve(index, count)).ok()
    };
    ((1..count).map_while(one).collect(), Arc::clone(&shared))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn message(payload: Box<dyn Any + Send>) -> String {
        payload.downcast_ref::<&str>().map_or_else(|| "other".into(), |s| (*s).to_string())
    }

    #[test]
    fn every_worker_runs_each_job_once() {
        for threads in [0, 1, 2, 3, 8] {
            let team = Team::new(threads);
            assert_eq!(team.size(), threads.max(1));
            let ran: Vec<AtomicUsize> = (0..team.size()).map(|_| AtomicUsize::new(0)).collect();
            let rounds = if cfg!(miri) { 3 } else { 500 };
            for _ in 0..rounds {
                team.run(|worker| {
                    assert_eq!(worker.count(), ran.len());
                    ran[worker.index()].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(ran.iter().all(|n| n.load(Ordering::Relaxed) == rounds));
        }
    }

    #[test]
    fn copies_are_whole() {
        for threads in [1, 2, 3] {
            let team = Team::new(threads);
            for len in [0, 5, SHARED_COPY - 1, SHARED_COPY, 3 * SHARED_COPY + 7] {
                let from: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
                let mut to = vec![255; len];
                team.copy(&from, &mut to);
                assert!(from == to, "{len} bytes by {threads}");
            }
        }
    }

    #[test]
    fn workers_meet_at_barriers() {
        let team = Team::new(4);
        let sum = AtomicUsize::new(0);
        team.run(|worker| {
            for round in 1..=100 {
                sum.fetch_add(1, Ordering::Relaxed);
                worker.barrier();
                assert_eq!(sum.load(Ordering::Relaxed), 4 * round);
                worker.barrier();
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_survives() {
        let team = Team::new(3);
        for guilty in 0..3 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                team.run(|worker| {
                    worker.barrier();
                    if worker.index() == guilty {
                        resume_unwind(Box::new("boom"));
                    }
                    worker.barrier();
                    worker.barrier();
                });
            }));
            assert_eq!(message(outcome.expect_err("panicked")), "boom");
            team.run(|worker| worker.barrier());
        }
    }

    #[test]
    fn callers_take_turns() {
        let team = Team::new(2);
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        team.run(|worker| {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < worker.count());
                            worker.barrier();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            worker.barrier();
                        });
                    }
                });
            }
        });
    }

    #[test]
    fn shares_cover_everything_once_in_grains() {
        for (items, grain, count) in [(0, 4, 3), (7, 1, 2), (7, 4, 2), (100, 16, 3), (5, 0, 8)] {
            let shares: Vec<_> =
                (0..count).map(|index| Worker { index, count, barrier: None }.share(items, grain)).collect();
            assert_eq!((shares[0].start, shares[count - 1].end), (0, items));
            for pair in shares.windows(2) {
                assert_eq!(pair[0].end, pair[1].start);
                assert!(pair[0].end == items || pair[0].end.is_multiple_of(grain.max(1)));
            }
        }
    }
}
