//! The engine: a thread around one executable, and the handles to talk to it.
//!
//! Every call but [`Engine::score`] answers at once; [`Generation`] gives the tokens, to threads and to tasks alike.

use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use kinglet_graph::{CancelToken, Executable};
use kinglet_text::tokenizer::Tokenizer;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::core::{Core, Goal, Limits, Load, Priority, RequestId, Submission};
use crate::error::{ConfigError, GenerateError, Refusal, ScoreError};
use crate::job::{Clock, GenerateJob, Job, ScoreJob};
use crate::request::{GenerateEvent, GenerateRequest, Usage};
use crate::speaker::Speaker;
use crate::worker::{Shared, Worker};

/// How an engine is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Tokens of prompt and answer that one request may have.
    pub context: usize,
    /// Tokens whose keys and values are kept, over all requests and the cache of prefixes; at least one context.
    /// Memory is taken as it is needed.
    pub kv_tokens: usize,
    /// Requests that are computed together.
    pub max_running: usize,
    /// Requests that wait; more are refused.
    pub max_waiting: usize,
    /// Prompt tokens computed together with tokens of answers: how long a prompt may hold up the answers.
    pub prompt_rows: usize,
}

impl EngineConfig {
    /// Settings for one user at a time.
    pub fn new(context: usize) -> Self {
        EngineConfig { context, kv_tokens: context, max_running: 16, max_waiting: 256, prompt_rows: 128 }
    }
}

/// Runs one language model for many requests. Dropping it ends them.
pub struct Engine {
    shared: Arc<Shared>,
    tokenizer: Tokenizer,
    limits: Limits,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread. The executable's graph has the inputs tokens and output rows, and gives logits of `vocab`
    /// values a row.
    pub fn spawn(
        executable: Box<dyn Executable>,
        tokenizer: Tokenizer,
        vocab: usize,
        config: EngineConfig,
    ) -> Result<Self, ConfigError> {
        let page_tokens = executable.kv().ok_or(ConfigError::NotADecoder)?.page_tokens;
        let max_rows = executable.max_rows();
        let max_outputs = executable.max_outputs();
        let max_running = config.max_running.min(max_rows).min(max_outputs);
        let limits = Limits {
            context: config.context,
            vocab,
            page_tokens,
            pages: config.kv_tokens.div_ceil(page_tokens.max(1)),
            max_rows,
            prompt_rows: config.prompt_rows.min(max_rows),
            max_outputs,
            max_running,
            max_waiting: config.max_waiting,
        };
        let shared = Arc::new(Shared::new(Core::new(limits)?));
        let worker = Worker::new(Arc::clone(&shared), executable);
        let thread = std::thread::Builder::new().name("kinglet-engine".into()).spawn(|| worker.serve());
        let thread = Some(thread.map_err(|error| ConfigError::Thread(error.to_string()))?);
        Ok(Engine { shared, tokenizer, limits, thread })
    }

    /// Asks for an answer.
    pub fn generate(&self, request: GenerateRequest) -> Result<Generation, Refusal> {
        let speaker = Speaker::new(&request, &self.tokenizer)?;
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let cancel = Arc::new(CancelToken::default());
        let usage = Usage { prompt_tokens: request.prompt.len(), ..Usage::default() };
        let job = Job::Generate(Box::new(GenerateJob {
            speaker,
            events: sender,
            cancel: Arc::clone(&cancel),
            clock: Clock::start(),
            usage,
            spoken: None,
            error: None,
        }));
        let goal = Goal::Generate { max_tokens: request.max_tokens.unwrap_or(usize::MAX) };
        let id = self.submit(request.prompt, goal, request.priority, request.deadline, job)?;
        let canceller = Canceller { shared: Arc::clone(&self.shared), id, token: cancel };
        Ok(Generation { events, canceller, ended: false })
    }

    /// Computes the logits that follow each of `tokens` from index `from` on, hands them to `take` with their index,
    /// in order, and returns `state` when all are done. `take` runs on the engine's thread and holds up everyone
    /// while it does.
    pub fn score<T: Send + 'static>(
        &self,
        tokens: Vec<u32>,
        from: usize,
        state: T,
        mut take: impl FnMut(&mut T, usize, &[f32]) + Send + 'static,
    ) -> Result<T, ScoreError> {
        let (done, wait) = mpsc::sync_channel(1);
        let (give_back, returned) = mpsc::sync_channel(1);
        let mut state = ReturnOnDrop { state: Some(state), give_back };
        let callback = Box::new(move |index: usize, logits: &[f32]| {
            if let Some(state) = &mut state.state {
                take(state, index, logits);
            }
        });
        let cancel = Arc::new(CancelToken::default());
        let job = Job::Score(ScoreJob { callback, done, cancel, error: None });
        self.submit(tokens, Goal::Score { from }, Priority::Normal, None, job)?;
        wait.recv().unwrap_or(Err(GenerateError::ShutDown))?;
        returned.recv().map_err(|_| ScoreError::Failed(GenerateError::ShutDown))
    }

    /// Tokens of prompt and answer that one request may have.
    pub fn context(&self) -> usize {
        self.limits.context
    }

    /// How busy the engine is.
    pub fn load(&self) -> Load {
        self.shared.lock().core.load()
    }

    /// Refuses requests from now on; those accepted before are answered.
    pub fn close(&self) {
        self.shared.lock().closed = true;
    }

    fn submit(
        &self,
        prompt: Vec<u32>,
        goal: Goal,
        priority: Priority,
        patience: Option<Duration>,
        job: Job,
    ) -> Result<RequestId, Refusal> {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        if state.closed {
            return Err(Refusal::ShuttingDown);
        }
        state.last_id += 1;
        let id = state.last_id;
        let deadline = patience.map(|patience| now.saturating_add(patience));
        state.submit(Submission { id, priority, deadline, prompt, goal }, job)?;
        drop(state);
        self.shared.wake();
        Ok(id)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        (state.closed, state.aborted) = (true, true);
        drop(state);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Sends its state back when the callback that owns it goes.
struct ReturnOnDrop<T> {
    state: Option<T>,
    give_back: mpsc::SyncSender<T>,
}

impl<T> Drop for ReturnOnDrop<T> {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            let _gone = self.give_back.send(state);
        }
    }
}

/// The events of one request: an iterator for threads, [`Generation::recv`] for tasks. Dropping it cancels the request.
#[derive(Debug)]
pub struct Generation {
    events: UnboundedReceiver<Result<GenerateEvent, GenerateError>>,
    canceller: Canceller,
    ended: bool,
}

impl Generation {
    /// The next event, for tasks of any runtime. None after the end.
    pub async fn recv(&mut self) -> Option<Result<GenerateEvent, GenerateError>> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// The same, to build streams with.
    pub fn poll_recv(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<GenerateEvent, GenerateError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.events.poll_recv(context).map(|event| self.note(event))
    }

    /// A handle that ends the request from elsewhere; the events then end with
    /// [`FinishReason::Cancelled`](crate::FinishReason).
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    fn note(
        &mut self,
        event: Option<Result<GenerateEvent, GenerateError>>,
    ) -> Option<Result<GenerateEvent, GenerateError>> {
        let event = event.unwrap_or(Err(GenerateError::ShutDown));
        self.ended = !matches!(event, Ok(GenerateEvent::Token(_)));
        Some(event)
    }
}

/// Waits for the next event. Not to be called from an asynchronous task.
impl Iterator for Generation {
    type Item = Result<GenerateEvent, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let event = self.events.blocking_recv();
        self.note(event)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.ended {
            self.canceller.cancel();
        }
    }
}

/// Ends a request early.
#[derive(Clone)]
pub struct Canceller {
    shared: Arc<Shared>,
    id: RequestId,
    token: Arc<CancelToken>,
}

impl Canceller {
    /// Ends it; nothing happens when it has ended.
    pub fn cancel(&self) {
        self.shared.cancel(self.id);
        self.token.cancel();
    }
}

impl std::fmt::Debug for Canceller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canceller").field("id", &self.id).finish_non_exhaustive()
    }
}
