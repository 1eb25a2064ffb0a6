//! One answer: asked for, printed as it comes, ended by Ctrl-C.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Error, Result};
use kinglet::engine::{Done, FinishReason, GenerateEvent, GenerateRequest};
use kinglet::sample::SamplerConfig;
use kinglet::{Model, Size};

use crate::failure::Interrupted;
use crate::interrupt;

/// How often Ctrl-C is looked for while no token comes.
const POLL: Duration = Duration::from_millis(20);

/// How to ask.
#[derive(Clone)]
pub(super) struct Asking {
    pub(super) sampler: SamplerConfig,
    pub(super) max_tokens: Option<usize>,
    pub(super) stop: Vec<String>,
}

/// A complete answer, or what there was of it when it was stopped.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) done: Done,
}

/// Asks and hands out the text as it comes.
pub(super) fn ask(
    model: &Model,
    prompt: Vec<u32>,
    asking: &Asking,
    mut show: impl FnMut(&str) -> Result<()>,
) -> Result<Answer> {
    let request = GenerateRequest {
        sampler: asking.sampler.clone(),
        max_tokens: asking.max_tokens,
        stop: asking.stop.clone(),
        ..GenerateRequest::new(prompt)
    };
    let generation = model.engine().generate(request)?;
    let canceller = generation.canceller();
    let (ctrl_c, over) = (interrupt::listen(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !over.load(Ordering::Acquire) && !ctrl_c.pressed() {
                std::thread::park_timeout(POLL);
            }
            canceller.cancel();
        });
        let answer = collect(generation, &mut show);
        over.store(true, Ordering::Release);
        watcher.thread().unpark();
        answer
    })
}

fn collect(
    generation: kinglet::engine::Generation,
    show: &mut impl FnMut(&str) -> Result<()>,
) -> Result<Answer> {
    let mut text = String::new();
    for event in generation {
        match event? {
            GenerateEvent::Token(token) => {
                show(&token.text)?;
                text += &token.text;
            }
            GenerateEvent::Done(done) => return Ok(Answer { text, done }),
        }
    }
    Err(Error::msg("the engine ended without an answer"))
}

/// Prints a piece of an answer at once.
pub(super) fn print(piece: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(piece.as_bytes()).and_then(|()| stdout.flush()).context("standard output")
}

impl Answer {
    /// An error when Ctrl-C ended it.
    pub(super) fn outcome(&self) -> Result<()> {
        if self.done.reason == FinishReason::Cancelled { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// Why it ends before the model ended it, unless a person did that.
    pub(super) fn cut(&self, model: &Model, asking: &Asking) -> Option<String> {
        let FinishReason::Length = self.done.reason else { return None };
        Some(match asking.max_tokens {
            Some(most) if self.done.usage.completion_tokens >= most => {
                format!("the answer is cut at --max-tokens {most}")
            }
            _ => format!("the answer is cut: the context of {} tokens is full", model.context()),
        })
    }

    /// What it took, in one line.
    pub(super) fn figures(&self) -> String {
        let (usage, timings) = (&self.done.usage, &self.done.timings);
        let mut line = format!(
            "first token after {:.0} ms · {} prompt tokens at {:.0}/s · {} tokens at {:.1}/s",
            timings.time_to_first_token().as_secs_f64() * 1e3,
            usage.prompt_tokens - usage.cached_tokens,
            timings.prefill_rate(usage),
            usage.completion_tokens,
            timings.decode_rate(usage),
        );
        if let Some(bytes) = kinglet::hardware::peak_memory() {
            line += &format!(" · peak memory {}", Size(bytes));
        }
        line
    }
}
