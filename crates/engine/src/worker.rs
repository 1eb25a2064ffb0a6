//! The thread that owns the executable: waits for work, runs it, hands out what came of it.
//!
//! The scheduler is shared with those who submit and cancel; the lock is never held while a batch runs.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kinglet_graph::{Call, CancelToken, ExecError, Executable, Input};
use kinglet_tensor::{PageId, SeqRows};

use crate::core::{Action, Batch, Core, Event, Finish, RequestId, Submission, Time, Verdict};
use crate::error::{GenerateError, Refusal};
use crate::job::Job;

/// What the engine's thread and its callers share.
pub(crate) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    start: Instant,
}

/// Behind the lock.
pub(crate) struct State {
    pub(crate) core: Core,
    pub(crate) last_id: RequestId,
    /// No new requests.
    pub(crate) closed: bool,
    /// Requests that are alive end as well.
    pub(crate) aborted: bool,
    arrivals: Vec<(RequestId, Job)>,
    ends: Vec<(RequestId, Finish)>,
}

impl Shared {
    pub(crate) fn new(core: Core) -> Self {
        let (arrivals, ends) = (Vec::new(), Vec::new());
        let state = State { core, last_id: 0, closed: false, aborted: false, arrivals, ends };
        Shared { state: Mutex::new(state), wake: Condvar::new(), start: Instant::now() }
    }

    /// Time on the engine's clock.
    pub(crate) fn now(&self) -> Time {
        self.start.elapsed()
    }

    /// The state at the present time.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.step(Event::Tick(self.now()));
        state
    }

    /// Lets the thread look at the state again.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends a request early; nothing happens when it has ended.
    pub(crate) fn cancel(&self, id: RequestId) {
        self.lock().step(Event::Cancel(id));
        self.wake();
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let Some(deadline) = state.core.next_deadline() else {
            return self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        let left = deadline.saturating_sub(self.now());
        self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl State {
    /// Steps the core; what ended is kept for the thread, the rest is returned.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Action> {
        let mut actions = self.core.step(event);
        actions.retain(|action| match *action {
            Action::Finish(id, how) => {
                self.ends.push((id, how));
                false
            }
            _ => true,
        });
        actions
    }

    /// Hands over the jobs that have come, and says which have ended.
    fn collect(&mut self, jobs: &mut HashMap<RequestId, Job>) -> Vec<(RequestId, Finish)> {
        jobs.extend(self.arrivals.drain(..));
        std::mem::take(&mut self.ends)
    }

    /// Submits a request with its receiving end.
    pub(crate) fn submit(&mut self, submission: Submission, job: Job) -> Result<(), Refusal> {
        let id = submission.id;
        match self.step(Event::Submit(submission)).pop() {
            Some(Action::Refuse(_, refusal)) => Err(refusal),
            _ => {
                self.arrivals.push((id, job));
                Ok(())
            }
        }
    }
}

/// The engine's thread.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    executable: Box<dyn Executable>,
    jobs: HashMap<RequestId, Job>,
    reserved: usize, // pages
    never: Arc<CancelToken>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, executable: Box<dyn Executable>) -> Self {
        Worker { shared, executable, jobs: HashMap::new(), reserved: 0, never: Arc::default() }
    }

    /// Serves until the engine is dropped.
    pub(crate) fn serve(mut self) {
        while let Some(actions) = self.next() {
            let Some((batch, copies)) = split(actions) else { continue };
            for seq in &batch.seqs {
                if let Some(job) = self.jobs.get_mut(&seq.id) {
                    job.start(seq);
                }
            }
            let result = catch_unwind(AssertUnwindSafe(|| self.run(&batch, &copies)));
            let result = result.unwrap_or_else(|panic| Err(GenerateError::Panicked(message(&*panic))));
            self.report(&batch, result);
        }
        self.shared.lock().collect(&mut self.jobs);
        for (_, job) in self.jobs {
            job.finish(Finish::Failed);
        }
    }

    /// Waits for work. None when the engine is dropped.
    fn next(&mut self) -> Option<Vec<Action>> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if state.aborted {
                return None;
            }
            let actions = state.step(Event::Ready);
            let ends = state.collect(&mut self.jobs);
            if ends.is_empty() && actions.is_empty() {
                state = shared.wait(state);
                state.step(Event::Tick(shared.now()));
                continue;
            }
            drop(state);
            self.finish(ends);
            return Some(actions);
        }
    }

    fn finish(&mut self, ends: Vec<(RequestId, Finish)>) {
        for (id, how) in ends {
            if let Some(job) = self.jobs.remove(&id) {
                job.finish(how);
            }
        }
    }

    fn run(
        &mut self,
        batch: &Batch,
        copies: &[(PageId, PageId)],
    ) -> Result<Vec<(RequestId, Verdict)>, GenerateError> {
        self.reserve(batch, copies)?;
        for &(from, to) in copies {
            self.executable.copy_page(from, to)?;
        }
        // A part of a long prompt has no logits that anyone reads; an executable computes one row at least.
        let out_rows = if batch.out_rows.is_empty() { &[0][..] } else { &batch.out_rows };
        let inputs = [Input::I32(&batch.tokens), Input::I32(out_rows)];
        let rows = batch.seqs.iter().map(|seq| SeqRows {
            start: seq.start,
            len: seq.len,
            past: seq.past,
            pages: &seq.pages,
        });
        let cancel = match batch.seqs.as_slice() {
            [seq] => self.jobs.get(&seq.id).map_or(&self.never, Job::cancel),
            _ => &self.never,
        };
        self.executable.run(&Call { inputs: &inputs, seqs: &rows.collect::<Vec<_>>(), cancel })?;
        self.take_logits(batch)
    }

    fn take_logits(&mut self, batch: &Batch) -> Result<Vec<(RequestId, Verdict)>, GenerateError> {
        if batch.out_rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut logits = self.executable.output(0)?;
        let vocab = logits.len() / batch.out_rows.len();
        let mut verdicts = Vec::with_capacity(batch.seqs.len());
        for seq in batch.seqs.iter().filter(|seq| seq.outputs > 0) {
            let (rows, rest) = logits.split_at(seq.outputs * vocab);
            logits = rest;
            let verdict = self.jobs.get_mut(&seq.id).and_then(|job| job.take_logits(seq, rows));
            verdicts.extend(verdict.map(|verdict| (seq.id, verdict)));
        }
        Ok(verdicts)
    }

    fn reserve(&mut self, batch: &Batch, copies: &[(PageId, PageId)]) -> Result<(), ExecError> {
        let used = batch.seqs.iter().flat_map(|seq| &seq.pages).copied();
        let pages = used.chain(copies.iter().map(|copy| copy.1)).max().map_or(0, |page| page as usize + 1);
        if pages > self.reserved {
            self.executable.reserve_pages(pages)?;
            self.reserved = pages;
        }
        Ok(())
    }

    /// Tells the core, then those who wait.
    fn report(&mut self, batch: &Batch, result: Result<Vec<(RequestId, Verdict)>, GenerateError>) {
        let event = match result {
            Ok(verdicts) => Event::BatchDone(verdicts),
            Err(error) => {
                let seqs = batch.seqs.iter();
                seqs.filter_map(|seq| self.jobs.get_mut(&seq.id).map(|job| job.fail(&error))).count();
                Event::BatchFailed
            }
        };
        let mut state = self.shared.lock();
        state.step(event);
        let ends = state.collect(&mut self.jobs);
        drop(state);
        self.finish(ends);
        for seq in &batch.seqs {
            if let Some(job) = self.jobs.get_mut(&seq.id) {
                job.deliver();
            }
        }
    }
}

/// The batch among the actions, and the copies before it.
fn split(actions: Vec<Action>) -> Option<(Batch, Vec<(PageId, PageId)>)> {
    let (mut batch, mut copies) = (None, Vec::new());
    for action in actions {
        match action {
            Action::CopyPage { from, to } => copies.push((from, to)),
            Action::Run(run) => batch = Some(run),
            Action::Refuse(..) | Action::Finish(..) => {}
        }
    }
    Some((batch?, copies))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
