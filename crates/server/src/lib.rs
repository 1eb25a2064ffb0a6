//! The HTTP server: OpenAI's API over an engine.
//!
//! `/v1/models`, `/v1/chat/completions` and `/v1/completions` (with SSE) answer as OpenAI's do, errors included;
//! `/health` is for whoever watches the process. Further sampling settings (`top_k`, `min_p`, `typical_p`,
//! `repeat_penalty`, `repeat_last_n`), `priority` and `deadline_ms` are extension fields; fields nobody knows are
//! ignored. A client that goes away cancels its request, a full queue answers 429 at once.
//!
//! Wire types stay in this crate and are converted by hand. Deliberately absent: tools, images, structured output
//! (asking for them is an error, never ignored), TLS.
#![forbid(unsafe_code)]

mod api;
mod app;
mod error;
mod facade;
mod fields;
mod model;
mod params;
mod prepare;
mod server;
mod stream;
mod wire;

pub use model::{ChatModel, PromptError};
pub use server::{Cors, ServeError, Server, ServerConfig, Stopper};
