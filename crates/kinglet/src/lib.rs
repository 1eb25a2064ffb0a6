//! On-device AI inference: the library.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod device;
mod error;
mod files;
mod footprint;
pub mod hardware;
mod overview;
mod vocabulary;

pub use error::{Error, Size};
pub use files::{Folder, ModelFiles};
pub use footprint::Footprint;
pub use kinglet_models as models;
pub use kinglet_tensor as tensor;
pub use overview::{Overview, Share, Sizes, Vocabulary};
