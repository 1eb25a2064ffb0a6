//! ONNX and Core ML models: opened, run, and what they are for.
//!
//! [`GraphModel`] opens a file or package and runs it on tensors; [`Task`] says what a model does to a picture and
//! [`GraphModel::look`] does it; [`Reader`] reads text in pictures with three models; [`Embedder`] makes vectors of texts;
//! [`GraphBench`] measures.

mod bench;
mod embed;
mod files;
mod model;
mod npz;
mod ocr;
mod picture;

pub use bench::GraphBench;
pub use embed::Embedder;
pub use files::GraphFiles;
pub use model::{GraphModel, Port, floats};
pub use npz::write_npz;
pub use ocr::Reader;
pub use picture::{Answer, Task};
