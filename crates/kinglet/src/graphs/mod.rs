//! ONNX and Core ML models and vision checkpoints: opened, run, and what they are for.
//!
//! [`GraphModel`] opens a file or package and runs it on tensors; [`Task`] says what a model does to a picture and
//! [`GraphModel::look`] does it; [`Reader`] reads text in pictures with three models; [`Embedder`] makes vectors of texts, [`PictureEmbedder`] of pictures;
//! [`GraphBench`] measures; [`GraphFiles::convert`] writes a model in another format, [`Optimised`] a better one.

mod bench;
mod convert;
mod embed;
mod files;
mod made_up;
mod model;
mod npz;
mod ocr;
mod optimise;
mod outputs;
mod picture;
mod place;
mod sweep;
mod trunk;
mod verdict;

pub use bench::GraphBench;
pub use convert::{ConvertOptions, Converted};
pub use embed::Embedder;
pub use files::GraphFiles;
pub use kinglet_cpu::{Array as ValueArray, BufferStats, OutputFiles, Value};
pub use model::{GraphModel, Port, floats};
pub use npz::{Arrays, write_npz};
pub use ocr::Reader;
pub use optimise::{Difference, Gain, Joined, Optimised};
pub use outputs::{OutputFile, OutputFolder};
pub use picture::{Answer, Task};
pub use trunk::PictureEmbedder;
pub use verdict::{Label, Verdict};
