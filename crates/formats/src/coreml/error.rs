//! Why a Core ML model cannot be read.

use kinglet_graph::BuildError;
use kinglet_tensor::TensorError;

use crate::error::printable;

/// A model that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
#[non_exhaustive]
pub enum CoreMlError {
    #[error("{what} is not well-formed: {why}; the file is damaged or no Core ML model, download it again")]
    Protobuf { what: String, why: String },
    #[error(
        "specification version {found} cannot be read (1 to {most} can); export the model for an older one"
    )]
    Version { found: i32, most: i32 },
    #[error(
        "the model is {0}; neural networks, ML Programs, scalers, linear models, trees and pipelines of them can be read"
    )]
    Kind(&'static str),
    #[error("pipelines are nested more than {0} deep; the file is damaged")]
    Depth(usize),
    #[error("networks are nested more than {0} deep; build the model flatter")]
    Nested(usize),
    #[error("Manifest.json: {0}; the package is damaged, copy it as a whole folder again")]
    Manifest(String),
    #[error("`{0}` points outside the package; do not trust this model")]
    UnsafeName(String),
    #[error(
        "`{name}` is a link to {target}, outside the package, and is not followed; if you trust this model, put a copy of that file in the link's place"
    )]
    Link { name: String, target: String },
    #[error("the weight file `{0}` is missing; copy the package as a whole folder")]
    MissingBlob(String),
    #[error("weight file `{file}` at byte {offset}: {why}; the file is damaged, download it again")]
    Blob { file: String, offset: u64, why: String },
    #[error("`{name}`: {why}")]
    Value { name: String, why: String },
    #[error("layer `{layer}` ({kind}): {why}")]
    Layer { layer: String, kind: String, why: String },
    #[error("operation `{op}` ({kind}): {why}")]
    Op { op: String, kind: String, why: String },
    #[error("the program has no function; export the model again")]
    NoFunction,
    #[error("`{0}` is made by nothing; the model is damaged, export it again")]
    Dangling(String),
    #[error("only ML Programs have functions to choose from; this model is none")]
    NoFunctions,
    #[error("the program has no function `{name}`; it has {known}")]
    Function { name: String, known: String },
    #[error("operations that are not supported: {}", list(.0))]
    Unsupported(Vec<(String, Vec<String>)>),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl CoreMlError {
    pub(super) fn protobuf(what: &str, error: &prost::DecodeError) -> Self {
        Self::Protobuf { what: printable(what), why: error.to_string() }
    }

    pub(super) fn value(name: &str, why: impl Into<String>) -> Self {
        Self::Value { name: printable(name), why: why.into() }
    }
}

/// Each kind with at most three of the names that need it.
fn list(kinds: &[(String, Vec<String>)]) -> String {
    let one = |(kind, names): &(String, Vec<String>)| {
        let some = names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
        format!("{kind} ({some}{more})")
    };
    kinds.iter().map(one).collect::<Vec<_>>().join(", ")
}
