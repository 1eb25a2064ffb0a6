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
    #[error("output `{0}` is made by no node; the model is damaged, export it again")]
    Output(String),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("functions call each other more than {0} deep; the model is damaged, export it again")]
    Depth(usize),
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
