//! What a model's outputs mean to people: classes, boxes, masks, text, vectors.
//!
//! Everything here takes the arrays a model left and gives values; running the model is the caller's part. Shapes that do
//! not fit the task are a [`TaskError`], never a panic: outputs are as untrusted as the file that computed them.

mod boxes;
mod classify;
mod detect;
mod embed;
mod error;
pub mod labels;
pub mod ocr;
mod segment;

pub use boxes::{Detection, suppress};
pub use classify::{Ranked, softmax, top};
pub use detect::{DetectionHead, DetectionOptions, detect};
pub use embed::{Pooling, cosine, normalise, pool};
pub use error::TaskError;
pub use segment::{Mask, segment};
