//! From the events of generations to a whole answer or a stream of pieces, whatever the endpoint.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use kinglet_engine::{FinishReason, GenerateError, GenerateEvent, Generation, Token};
use serde::Serialize;

use crate::error::ApiError;
use crate::wire::{Completion, PromptDetails, Usage};

/// How an endpoint words its answers.
pub(crate) trait Format: Send + Unpin + 'static {
    /// A choice of a whole answer.
    type Choice: Serialize;
    /// A choice in a piece of a streamed one.
    type Piece: Serialize;
    /// What the object is called, whole and in pieces.
    const OBJECTS: [&'static str; 2];

    /// What a choice begins with.
    fn begin(&mut self, index: usize) -> Option<Self::Piece>;
    /// What a token adds.
    fn piece(&mut self, index: usize, token: &Token) -> Self::Piece;
    /// What a choice ends with.
    fn end(&mut self, index: usize, reason: &'static str) -> Self::Piece;
    /// A choice as a whole.
    fn whole(&mut self, index: usize, tokens: &[Token], reason: &'static str) -> Self::Choice;
}

/// What all pieces of an answer share.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
}

/// An answer that is being made.
pub(crate) struct Answer<F> {
    pub(crate) head: Head,
    pub(crate) format: F,
    pub(crate) choices: Choices,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

impl<F: Format> Answer<F> {
    /// The response: whole, or a stream that begins at once.
    pub(crate) async fn respond(self) -> Result<Response, ApiError> {
        if self.stream {
            return Ok(Sse::new(Pieces::new(self)).keep_alive(KeepAlive::default()).into_response());
        }
        let body = json(&self.whole().await?);
        Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
    }

    async fn whole(mut self) -> Result<Completion<F::Choice>, ApiError> {
        let mut tokens: Vec<Vec<Token>> = self.choices.generations.iter().map(|_| Vec::new()).collect();
        let mut reasons = vec![FinishReason::Stop; tokens.len()];
        while let Some((index, event)) = std::future::poll_fn(|context| self.choices.poll(context)).await {
            match event? {
                GenerateEvent::Token(token) => tokens[index].push(token),
                GenerateEvent::Done(done) => reasons[index] = done.reason,
            }
        }
        let whole = tokens.iter().zip(reasons).enumerate();
        let choices =
            whole.map(|(index, (tokens, end))| self.format.whole(index, tokens, reason(end))).collect();
        let Head { id, created, model } = self.head;
        let usage = Some(Some(self.choices.usage));
        Ok(Completion { id, object: F::OBJECTS[0], created, model, choices, usage })
    }
}

/// Several generations as one stream of events, and what they used together.
pub(crate) struct Choices {
    generations: Vec<Generation>,
    per_prompt: usize, // so many neighbours share a prompt
    turn: usize,
    usage: Usage,
}

impl Choices {
    pub(crate) fn new(generations: Vec<Generation>, per_prompt: usize) -> Self {
        Choices { generations, per_prompt, turn: 0, usage: Usage::default() }
    }

    /// The next event of any of them, with its index. None when all have ended.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<(usize, Result<GenerateEvent, GenerateError>)>> {
        let mut ended = 0;
        for _ in 0..self.generations.len() {
            let index = self.turn;
            self.turn = (self.turn + 1) % self.generations.len();
            match self.generations[index].poll_recv(context) {
                Poll::Ready(Some(event)) => {
                    self.note(index, &event);
                    return Poll::Ready(Some((index, event)));
                }
                Poll::Ready(None) => ended += 1,
                Poll::Pending => {}
            }
        }
        if ended == self.generations.len() { Poll::Ready(None) } else { Poll::Pending }
    }

    fn note(&mut self, index: usize, event: &Result<GenerateEvent, GenerateError>) {
        let Ok(GenerateEvent::Done(done)) = event else { return };
        if index.is_multiple_of(self.per_prompt) {
            self.usage.prompt_tokens += done.usage.prompt_tokens;
            let PromptDetails { cached_tokens } = &mut self.usage.prompt_tokens_details;
            *cached_tokens += done.usage.cached_tokens;
        }
        self.usage.completion_tokens += done.usage.completion_tokens;
        self.usage.total_tokens = self.usage.prompt_tokens + self.usage.completion_tokens;
    }
}

/// An answer as server-sent events.
struct Pieces<F> {
    answer: Answer<F>,
    ready: VecDeque<String>,
    ended: bool,
}

impl<F: Format> Pieces<F> {
    fn new(answer: Answer<F>) -> Self {
        let choices = answer.choices.generations.len();
        let mut pieces = Pieces { answer, ready: VecDeque::new(), ended: false };
        for index in 0..choices {
            if let Some(piece) = pieces.answer.format.begin(index) {
                pieces.push(vec![piece], None);
            }
        }
        pieces
    }

    fn push(&mut self, choices: Vec<F::Piece>, usage: Option<Usage>) {
        let Head { id, created, model } = self.answer.head.clone();
        let usage = self.answer.include_usage.then_some(usage);
        let piece = Completion { id, object: F::OBJECTS[1], created, model, choices, usage };
        self.ready.push_back(json(&piece));
    }

    fn take(&mut self, index: usize, event: Result<GenerateEvent, GenerateError>) {
        let format = &mut self.answer.format;
        match event {
            Ok(GenerateEvent::Token(token))
                if token.text.is_empty() && (token.end || token.logprobs.is_none()) => {}
            Ok(GenerateEvent::Token(token)) => {
                let piece = format.piece(index, &token);
                self.push(vec![piece], None);
            }
            Ok(GenerateEvent::Done(done)) => {
                let piece = format.end(index, reason(done.reason));
                self.push(vec![piece], None);
            }
            Err(error) => {
                self.ready.push_back(ApiError::from(error).body());
                self.ended = true;
            }
        }
    }

    fn end(&mut self) {
        if self.answer.include_usage {
            self.push(Vec::new(), Some(self.answer.choices.usage));
        }
        self.ready.push_back("[DONE]".to_owned());
        self.ended = true;
    }
}

impl<F: Format> Stream for Pieces<F> {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Event::default().data(data))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match std::task::ready!(self.answer.choices.poll(context)) {
                Some((index, event)) => self.take(index, event),
                None => self.end(),
            }
        }
    }
}

fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::Cancelled => "stop",
    }
}

/// The wire types have no maps with keys that are not strings, hence always become JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
