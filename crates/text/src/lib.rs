//! Tokenizers, chat templates, samplers and incremental detokenising.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

pub mod chat;
pub mod detokenize;
pub mod sample;
pub mod span;
pub mod stop;
pub mod tokenizer;
