//! Shared helpers of the tests: an independent evaluator of graphs, golden models, real models where there are any.
#![forbid(unsafe_code)]

mod decoder;
pub mod golden;
pub mod reference;
pub mod runner;
mod words;

pub use decoder::{FakeDecoder, Script, hashed_logits};
pub use words::{BYTE_VOCAB, END, TURN, byte_tokenizer, say, speaking_decoder};
