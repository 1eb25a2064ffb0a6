//! Sessions, queue, continuous batching, KV pages.
#![forbid(unsafe_code)]

pub mod core;
mod error;

pub use error::{ConfigError, GenerateError, Refusal};
