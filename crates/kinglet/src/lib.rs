//! On-device AI inference: the library.
//!
//! [`Model::load`] opens a GGUF file or a Hugging Face folder and binds it to this machine; [`Model::engine`] answers many
//! requests at once; [`catalog`] finds and fetches models by name.
#![forbid(unsafe_code)]

pub mod bench;
pub mod catalog;
mod chat_prompt;
pub mod device;
mod error;
pub mod evaluate;
mod files;
mod footprint;
pub mod graphs;
pub mod hardware;
mod logits_file;
mod model;
mod overview;
pub mod packs;
pub mod profile;
mod random;
mod vocabulary;

pub use error::{Error, Size};
pub use files::{Folder, ModelFiles, read as read_file};
pub use footprint::Footprint;
pub use kinglet_cpu::Precision;
pub use kinglet_engine as engine;
pub use kinglet_formats as formats;
pub use kinglet_graph as graph;
pub use kinglet_models as models;
pub use kinglet_tensor as tensor;
pub use kinglet_text::{chat, sample, tokenizer};
pub use model::{Buffers, Compiled, LoadOptions, Model};
pub use overview::{Overview, Share, Sizes, Vocabulary};
