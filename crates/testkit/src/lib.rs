//! Shared helpers of the tests: an independent evaluator of graphs, golden models, real models where there are any.
#![forbid(unsafe_code)]

mod decoder;
pub mod golden;
pub mod reference;

pub use decoder::{FakeDecoder, Script, hashed_logits};
