//! On-device AI inference: the library.
#![forbid(unsafe_code)]

pub mod catalog;
mod error;
mod files;
pub mod hardware;

pub use error::{Error, Size};
pub use files::{Folder, ModelFiles};
pub use kinglet_models as models;
pub use kinglet_tensor as tensor;
