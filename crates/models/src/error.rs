//! Why a model could not be built.

use kinglet_graph::BuildError;
use kinglet_tensor::TensorError;

use crate::ARCHS;

/// Why a model could not be built from a file.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum ModelError {
    #[error("architecture `{0}` is not supported; supported: {known}", known = known())]
    UnknownArch(String),
    #[error("the file does not say its architecture (`{0}` is missing)")]
    NoArch(&'static str),
    #[error("`{key}` is missing from the model's configuration")]
    MissingKey { key: String },
    #[error("`{key}` is {found}, expected {expected}")]
    BadKey { key: String, found: String, expected: String },
    #[error("`{key}` = {value} changes what the model computes and is not supported")]
    UnsupportedKey { key: String, value: String },
    #[error("tensor `{name}` has shape {found:?}, the configuration asks for {expected:?}")]
    Shape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error(
        "{count} tensors are not understood, the first is `{first}`: the model computes something else than Kinglet would"
    )]
    UnusedTensors { first: String, count: usize },
    #[error(transparent)]
    Tensor(#[from] TensorError),
    #[error("tensor `{name}`: {source}")]
    Values { name: String, source: kinglet_tensor::quant::QuantError },
    #[error(transparent)]
    Graph(#[from] BuildError),
}

fn known() -> String {
    let ids: Vec<&str> = ARCHS.iter().flat_map(|arch| arch.ids.iter().copied()).collect();
    format!("{}; of pictures: {}", ids.join(", "), crate::vision::KNOWN)
}
