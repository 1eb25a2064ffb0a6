//! Architectures as data, and the builders that emit the graph.
//!
//! A model is `Arch` (choices) + [`DecoderConfig`] (sizes, read from the file) + a weight source; [`build_decoder`] makes
//! the graph. [`image`] makes inputs of pictures, [`task`] makes answers of outputs. Deliberately absent: file parsing, running, and anything about a backend.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

mod arch;
mod archs;
mod config;
mod decoder;
mod error;
pub mod image;
mod rope;
pub mod task;
pub mod vision;
mod weights;

pub use arch::{Arch, Norm, Windows};
pub use archs::{ARCHS, GEMMA2, GEMMA3, LLAMA, MISTRAL, PHI3, QWEN2, QWEN3, find_arch};
pub use config::{Convention, DecoderConfig};
pub use decoder::{DecoderOptions, build_decoder};
pub use error::ModelError;
pub use rope::{RopeConfig, RopeScaling, Yarn};
