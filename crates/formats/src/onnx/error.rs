//! Why an ONNX model cannot be read.

use kinglet_graph::BuildError;

/// A model that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
#[non_exhaustive]
pub enum OnnxError {
    #[error("not an ONNX model: {0}; download or export it again")]
    Protobuf(String),
    #[error("the model holds no graph; export it again")]
    NoGraph,
    #[error("IR version {found} is newer than {most}: export for an older one, or update Kinglet")]
    IrVersion { found: i64, most: i64 },
    #[error(
        "opset {version} of `{domain}` cannot be read ({least} to {most} can): convert the model to one of them"
    )]
    Opset { domain: String, version: i64, least: i64, most: i64 },
    #[error("operators that are not supported: {}", list(.0))]
    Unsupported(Vec<(String, Vec<String>)>),
    #[error("node `{node}` ({op}): {reason}")]
    Node { node: String, op: String, reason: String },
    #[error("node `{node}` reads `{value}`, which nothing makes; the model is damaged, export it again")]
    Dangling { node: String, value: String },
    #[error("nodes wait for each other in a circle, `{0}` among them; the model is damaged, export it again")]
    Cycle(String),
    #[error("constant `{name}`: {reason}")]
    Tensor { name: String, reason: String },
    #[error("constant `{name}`: {source}")]
    External { name: String, source: ExternalError },
    #[error("output `{0}` is made by no node; the model is damaged, export it again")]
    Output(String),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("functions call each other more than {0} deep; the model is damaged, export it again")]
    Depth(usize),
    #[error(
        "more than {0} operations, those of functions counted wherever they are called; the model is damaged, export it again"
    )]
    Operations(usize),
}

/// Why a file beside a model cannot be read; `location` is what the model calls it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
#[non_exhaustive]
pub enum ExternalError {
    #[error("its data lies in `{location}`, and no folder was given")]
    NoFolder { location: String },
    #[error("`{location}` points outside the model's folder; do not trust this model")]
    Outside { location: String },
    #[error(
        "`{location}` is a link to {target}, outside the model's folder, and is not followed; if you trust this model, put a copy of that file in the link's place"
    )]
    Link { location: String, target: String },
    #[error("`{location}` is missing: copy or download the files beside the model, too")]
    Missing { location: String },
    #[error("`{location}` has {bytes} bytes, fewer than the model says")]
    Short { location: String, bytes: usize },
    #[error("{reason}")]
    Open { location: String, reason: String },
}

/// At most ten operators, each with at most three of its nodes.
fn list(ops: &[(String, Vec<String>)]) -> String {
    let some = |names: &[String], most: usize| {
        let more = names.len().saturating_sub(most);
        let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{tail}", names[..names.len().min(most)].join(", "))
    };
    let ops: Vec<String> = ops.iter().map(|(op, nodes)| format!("{op} (nodes {})", some(nodes, 3))).collect();
    some(&ops, 10)
}
