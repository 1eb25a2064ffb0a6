//! Sessions, queue, continuous batching, KV pages.
//!
//! [`Engine`] is what one uses; [`core`] is the scheduler inside it, a state machine without clock or threads. The
//! engine knows hardware through [`kinglet_graph::Executable`] only, and neither HTTP nor file formats.
#![forbid(unsafe_code)]

pub mod core;
mod engine;
mod error;
mod job;
mod request;
mod speaker;
mod worker;

pub use core::{Load, Priority};
pub use engine::{Canceller, Engine, EngineConfig, Generation};
pub use error::{ConfigError, GenerateError, Refusal, ScoreError};
pub use request::{Done, FinishReason, GenerateEvent, GenerateRequest, Timings, Token, Usage};
