//! The engine thread's side of a request: where its logits go.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use kinglet_graph::CancelToken;
use tokio::sync::mpsc::UnboundedSender;

use crate::core::{BatchSeq, Finish, Verdict};
use crate::error::GenerateError;
use crate::request::{Done, FinishReason, GenerateEvent, Timings, Token, Usage};
use crate::speaker::Speaker;

/// A request that has been accepted.
pub(crate) enum Job {
    /// Its logits become text.
    Generate(Box<GenerateJob>),
    /// Its logits are handed to a callback.
    Score(ScoreJob),
}

/// See [`Job::Generate`].
pub(crate) struct GenerateJob {
    pub(crate) speaker: Speaker,
    pub(crate) events: UnboundedSender<Result<GenerateEvent, GenerateError>>,
    pub(crate) cancel: Arc<CancelToken>,
    pub(crate) clock: Clock,
    pub(crate) usage: Usage,
    pub(crate) spoken: Option<Token>,
    pub(crate) error: Option<GenerateError>,
}

/// Takes the index of a token and the logits that follow it.
type TakeLogits = Box<dyn FnMut(usize, &[f32]) + Send>;

/// See [`Job::Score`].
pub(crate) struct ScoreJob {
    pub(crate) callback: TakeLogits,
    pub(crate) done: SyncSender<Result<(), GenerateError>>,
    pub(crate) cancel: Arc<CancelToken>,
    pub(crate) error: Option<GenerateError>,
}

/// The moments of a generation.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    submitted: Instant,
    started: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Job {
    /// Its first rows are about to run.
    pub(crate) fn start(&mut self, seq: &BatchSeq) {
        if let Job::Generate(job) = self
            && job.clock.started.is_none()
        {
            job.clock.started = Some(Instant::now());
            job.usage.cached_tokens = seq.past;
        }
    }

    /// Stops a run of which this is the only sequence.
    pub(crate) fn cancel(&self) -> &Arc<CancelToken> {
        match self {
            Job::Generate(job) => &job.cancel,
            Job::Score(job) => &job.cancel,
        }
    }

    /// Takes the logits of its outputs; `rows` holds them one after another.
    pub(crate) fn take_logits(&mut self, seq: &BatchSeq, rows: &[f32]) -> Option<Verdict> {
        match self {
            Job::Generate(job) => Some(job.speak(rows)),
            Job::Score(job) => {
                let first = seq.past + seq.len - seq.outputs;
                let vocab = rows.len() / seq.outputs.max(1);
                let rows = rows.chunks_exact(vocab.max(1));
                rows.enumerate().for_each(|(row, logits)| (job.callback)(first + row, logits));
                None
            }
        }
    }

    /// Sends the token that was sampled last.
    pub(crate) fn deliver(&mut self) {
        if let Job::Generate(job) = self {
            job.deliver();
        }
    }

    /// Notes why the batch failed.
    pub(crate) fn fail(&mut self, error: &GenerateError) {
        match self {
            Job::Generate(job) => job.error = Some(error.clone()),
            Job::Score(job) => job.error = Some(error.clone()),
        }
    }

    /// Tells the requester that this was all.
    pub(crate) fn finish(self, how: Finish) {
        match self {
            Job::Generate(job) => job.finish(how),
            Job::Score(job) => {
                let result = if how == Finish::Scored { Ok(()) } else { Err(failure(how, job.error)) };
                drop(job.callback); // the caller gets back what it holds
                let _gone = job.done.send(result);
            }
        }
    }
}

impl GenerateJob {
    fn speak(&mut self, logits: &[f32]) -> Verdict {
        match self.speaker.speak(logits) {
            Ok((token, end)) => {
                let verdict = if end { Verdict::Stop } else { Verdict::Token(token.id) };
                self.clock.token();
                self.usage.completion_tokens += 1;
                self.spoken = Some(token);
                verdict
            }
            Err(error) => {
                self.error = Some(error.into());
                Verdict::Fail
            }
        }
    }

    fn deliver(&mut self) {
        if let Some(token) = self.spoken.take() {
            self.send(Ok(GenerateEvent::Token(token)));
        }
    }

    fn finish(mut self, how: Finish) {
        if let Some(token) = &mut self.spoken {
            token.text.push_str(&self.speaker.finish());
        }
        self.deliver();
        let done = |reason| Done { reason, usage: self.usage, timings: self.clock.timings() };
        let last = FinishReason::of(how).map(|reason| GenerateEvent::Done(done(reason)));
        let error = self.error.take();
        self.send(last.ok_or_else(|| failure(how, error)));
    }

    /// Whether somebody still listens makes no difference here: who goes away cancels.
    fn send(&self, event: Result<GenerateEvent, GenerateError>) {
        let _gone = self.events.send(event);
    }
}

fn failure(how: Finish, error: Option<GenerateError>) -> GenerateError {
    match how {
        Finish::Deadline => GenerateError::DeadlineExceeded,
        _ => error.unwrap_or(GenerateError::ShutDown),
    }
}

impl Clock {
    /// The request has just come.
    pub(crate) fn start() -> Self {
        Clock { submitted: Instant::now(), started: None, first: None, last: None }
    }

    fn token(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    fn timings(&self) -> Timings {
        let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => to.saturating_duration_since(from),
            _ => Duration::ZERO,
        };
        Timings {
            queued: between(Some(self.submitted), self.started),
            prefill: between(self.started, self.first),
            decode: between(self.first, self.last),
        }
    }
}
