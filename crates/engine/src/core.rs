//! The scheduler: a deterministic state machine that decides what runs next and who ends how.
//!
//! [`Core::step`] takes one event and returns what has to be done. There is no clock (time comes with
//! [`Event::Tick`]), no thread, no executable and no sampling here: whoever drives the core runs the batches it asks
//! for, one at a time, and reports the sampled tokens.
//!
//! Each iteration runs one row for every sequence that decodes, and fills what is left with prompt rows, in the
//! order of [`Priority`] and arrival. When pages run out, the last in order loses its pages (they stay cached while
//! there is room) and catches up later; its output does not change. Every accepted request ends exactly once.

mod batch;
mod order;
mod pages;
mod plan;
mod sequence;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use kinglet_tensor::PageId;

pub use batch::{Batch, BatchSeq};
pub use order::{Priority, RequestId, Time};

use crate::error::{ConfigError, Refusal};
use order::Rank;
use pages::PagePool;
use sequence::Sequence;

/// What the core may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of prompt and answer that one sequence may have.
    pub context: usize,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Positions a page holds.
    pub page_tokens: usize,
    /// Pages of all sequences and the prefix cache together.
    pub pages: usize,
    /// Rows of a batch.
    pub max_rows: usize,
    /// Prompt rows of a batch that also decodes: what a long prompt may delay the answers that are under way.
    pub prompt_rows: usize,
    /// Rows of a batch that have logits; not fewer than `max_running`.
    pub max_outputs: usize,
    /// Sequences that run together; not more than `max_rows`.
    pub max_running: usize,
    /// Requests that wait for a place among the running ones.
    pub max_waiting: usize,
}

/// A request as the core sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Unique among all requests of the core.
    pub id: RequestId,
    /// Its urgency.
    pub priority: Priority,
    /// When it ends at the latest.
    pub deadline: Option<Time>,
    /// Tokens to start from; never empty.
    pub prompt: Vec<u32>,
    /// What is wanted.
    pub goal: Goal,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// New tokens, at most so many; the context bounds them too.
    Generate {
        /// At least one.
        max_tokens: usize,
    },
    /// The logits after each prompt token, from the given one on.
    Score {
        /// Index into the prompt.
        from: usize,
    },
}

/// What happens to the core. The list is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request comes.
    Submit(Submission),
    /// A request is no longer wanted. Unknown ids are ignored: it may just have ended.
    Cancel(RequestId),
    /// The time is now this much; it never goes back.
    Tick(Time),
    /// The executable is free. Asks for the next batch; ignored while one is under way.
    Ready,
    /// The batch has run. One verdict for each sequence of it that generates and had an output.
    BatchDone(Vec<(RequestId, Verdict)>),
    /// The batch could not be run; its requests fail.
    BatchFailed,
}

/// What came of one sequence's logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The sampled token.
    Token(u32),
    /// The sampled token ends the text, or completed a stop string.
    Stop,
    /// No token could be sampled.
    Fail,
}

/// What has to be done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The request was not accepted.
    Refuse(RequestId, Refusal),
    /// Copy a page before the run that follows.
    CopyPage {
        /// Source.
        from: PageId,
        /// Destination.
        to: PageId,
    },
    /// Run this, then report.
    Run(Batch),
    /// The request has ended; nothing more comes for it.
    Finish(RequestId, Finish),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// The model ended its text, or a stop string came.
    Stop,
    /// The asked number of tokens or the context was reached.
    Length,
    /// All logits have been delivered.
    Scored,
    /// Cancelled.
    Cancelled,
    /// Its deadline passed.
    Deadline,
    /// Its batch or its sampling failed.
    Failed,
}

/// How busy the core is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests among the running ones.
    pub running: usize,
    /// Requests that wait for a place.
    pub waiting: usize,
    /// Pages in use by sequences.
    pub pages_held: usize,
    /// Pages kept for their prefix only.
    pub pages_cached: usize,
    /// Times that a sequence lost its pages to another, since the start.
    pub preemptions: u64,
    /// Prompt tokens that were found in the cache, since the start.
    pub cached_tokens: u64,
}

/// The scheduler's state.
#[derive(Debug)]
pub struct Core {
    limits: Limits,
    now: Time,
    pool: PagePool,
    live: BTreeMap<Rank, Sequence>, // all requests in order; the first `max_running` may run
    ranks: HashMap<RequestId, Rank>,
    deadlines: BTreeSet<(Time, RequestId)>,
    in_flight: Option<Vec<(RequestId, usize)>>, // rows of each sequence
    pace: Pace,
    preemptions: u64,
    cached_tokens: u64,
}

impl Core {
    /// An idle core at time zero.
    pub fn new(limits: Limits) -> Result<Self, ConfigError> {
        limits.check()?;
        Ok(Core {
            pool: PagePool::new(limits.page_tokens, limits.pages),
            limits,
            now: Time::ZERO,
            live: BTreeMap::new(),
            ranks: HashMap::new(),
            deadlines: BTreeSet::new(),
            in_flight: None,
            pace: Pace::default(),
            preemptions: 0,
            cached_tokens: 0,
        })
    }

    /// Takes one event and says what to do.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Submit(submission) => self.submit(submission),
            Event::Cancel(id) => self.finish(id, Finish::Cancelled).into_iter().collect(),
            Event::Tick(now) => self.tick(now),
            Event::Ready => self.plan(),
            Event::BatchDone(verdicts) => self.batch_done(&verdicts),
            Event::BatchFailed => self.batch_failed(),
        }
    }

    /// Whether a request is alive.
    pub fn has_work(&self) -> bool {
        !self.live.is_empty()
    }

    /// When the next deadline passes.
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// What the core may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How busy the core is.
    pub fn load(&self) -> Load {
        let running = self.live.len().min(self.limits.max_running);
        Load {
            running,
            waiting: self.live.len() - running,
            pages_held: self.pool.held(),
            pages_cached: self.pool.idle(),
            preemptions: self.preemptions,
            cached_tokens: self.cached_tokens,
        }
    }

    fn submit(&mut self, submission: Submission) -> Vec<Action> {
        let id = submission.id;
        if let Err(refusal) = self.admit(&submission) {
            return vec![Action::Refuse(id, refusal)];
        }
        let rank = Rank::new(self.now, submission.priority, id);
        if let Some(deadline) = submission.deadline {
            self.deadlines.insert((deadline, id));
        }
        self.ranks.insert(id, rank);
        self.live.insert(rank, Sequence::new(submission));
        Vec::new()
    }

    fn admit(&self, submission: &Submission) -> Result<(), Refusal> {
        let limits = &self.limits;
        let tokens = submission.prompt.len();
        if tokens == 0 {
            return Err(Refusal::EmptyPrompt);
        }
        let room = match submission.goal {
            Goal::Generate { max_tokens: 0 } => return Err(Refusal::NothingAsked),
            Goal::Score { from } if from >= tokens => return Err(Refusal::NothingAsked),
            Goal::Generate { .. } => limits.context - 1, // one token of answer at least
            Goal::Score { .. } => limits.context,
        };
        if tokens > room {
            return Err(Refusal::PromptTooLong { tokens, context: limits.context });
        }
        if let Some(&token) = submission.prompt.iter().find(|&&token| token as usize >= limits.vocab) {
            return Err(Refusal::UnknownToken { token, vocab: limits.vocab });
        }
        if submission.deadline.is_some_and(|deadline| deadline <= self.now) {
            return Err(Refusal::DeadlineExceeded);
        }
        let waiting = self.live.len().saturating_sub(limits.max_running);
        if self.live.len() >= limits.max_running + limits.max_waiting {
            return Err(Refusal::QueueFull { waiting, retry_after: self.pace.retry_after() });
        }
        Ok(())
    }

    fn tick(&mut self, now: Time) -> Vec<Action> {
        self.now = self.now.max(now);
        let mut actions = Vec::new();
        while let Some(&(at, id)) = self.deadlines.first()
            && at <= self.now
        {
            actions.extend(self.finish(id, Finish::Deadline));
        }
        actions
    }

    fn batch_done(&mut self, verdicts: &[(RequestId, Verdict)]) -> Vec<Action> {
        let mut actions = Vec::new();
        for (id, rows) in self.in_flight.take().unwrap_or_default() {
            let Some(sequence) = self.ranks.get(&id).and_then(|rank| self.live.get_mut(rank)) else {
                continue;
            };
            sequence.advance(&mut self.pool, rows);
            if matches!(sequence.goal, Goal::Score { .. }) && sequence.pending() == 0 {
                actions.extend(self.finish(id, Finish::Scored));
            }
        }
        for &(id, verdict) in verdicts {
            actions.extend(self.judge(id, verdict));
        }
        actions
    }

    fn judge(&mut self, id: RequestId, verdict: Verdict) -> Option<Action> {
        let sequence = self.ranks.get(&id).and_then(|rank| self.live.get_mut(rank))?;
        let token = match verdict {
            Verdict::Token(token) => token,
            Verdict::Stop => return self.finish(id, Finish::Stop),
            Verdict::Fail => return self.finish(id, Finish::Failed),
        };
        sequence.tokens.push(token);
        let made = sequence.tokens.len() - sequence.prompt_len;
        let enough = matches!(sequence.goal, Goal::Generate { max_tokens } if made >= max_tokens);
        let full = sequence.tokens.len() >= self.limits.context;
        if enough || full { self.finish(id, Finish::Length) } else { None }
    }

    fn batch_failed(&mut self) -> Vec<Action> {
        let rows = self.in_flight.take().unwrap_or_default();
        rows.into_iter().filter_map(|(id, _)| self.finish(id, Finish::Failed)).collect()
    }

    fn finish(&mut self, id: RequestId, how: Finish) -> Option<Action> {
        let rank = self.ranks.remove(&id)?;
        let mut sequence = self.live.remove(&rank)?;
        sequence.release(&mut self.pool);
        if let Some(deadline) = sequence.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.pace.ended(self.now);
        Some(Action::Finish(id, how))
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        let pages = self.context.div_ceil(self.page_tokens.max(1));
        let problem = if self.context < 2 || self.page_tokens == 0 || self.vocab == 0 {
            "context, page size and vocabulary must not be empty"
        } else if self.max_running == 0 || self.max_running > self.max_rows {
            "max_running must lie between 1 and max_rows"
        } else if self.max_outputs < self.max_running {
            "max_outputs must not be smaller than max_running"
        } else if self.prompt_rows == 0 {
            "prompt_rows must not be 0"
        } else if self.pages < pages {
            return Err(ConfigError::TooFewPages { pages: self.pages, needed: pages, context: self.context });
        } else {
            return Ok(());
        };
        Err(ConfigError::Limits { problem })
    }
}

/// How fast places become free, for the advice that goes with a refusal.
#[derive(Debug, Default)]
struct Pace {
    last_end: Option<Time>,
    interval: Option<Duration>, // between ends, smoothed
}

impl Pace {
    fn ended(&mut self, now: Time) {
        if let Some(last) = self.last_end {
            let gap = now.saturating_sub(last);
            self.interval = Some(self.interval.map_or(gap, |mean| (mean * 3 + gap) / 4));
        }
        self.last_end = Some(now);
    }

    fn retry_after(&self) -> Duration {
        let second = Duration::from_secs(1);
        self.interval.unwrap_or(second).clamp(second, 60 * second)
    }
}
