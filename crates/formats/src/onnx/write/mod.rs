//! Graphs to ONNX models: the registry of importers the other way round.
//!
//! A graph keeps its names, its symbolic dims and its control flow. Ops that ONNX has are written as such; fused ones in
//! their plain spelling. The oldest set of operators that will do is chosen, [`OPSET`] at least. Weights go into the model,
//! or, when they are many, into a file beside it. Everything that cannot be expressed is told at once. Deliberately
//! absent: paths, and changing the graph.

mod attribute;
mod body;
mod node;
pub(super) mod ops;
mod tensor;
mod types;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;

use kinglet_graph::passes::spell_codes;
use kinglet_graph::{Def, Graph, Type, ValueId};
use kinglet_tensor::Bytes;
use prost::Message;

use super::proto;
use crate::export::{ExportError, Gathered};
use node::Ex;

/// The set of operators that is written unless an op needs a newer one.
pub const OPSET: i64 = 21;
/// The newest set of operators that can be written.
pub const NEWEST_OPSET: i64 = 28;
/// The oldest one.
pub const OLDEST_OPSET: i64 = 18;
/// Messages hold fewer than 2 GiB; so much of it is left for what is not weights.
const INLINE: u64 = (1 << 31) - (1 << 26);
/// Weights in a file of their own start at multiples of this, so that they can be mapped.
const ALIGN: u64 = 4096;
/// Weights smaller than this stay in the model: shapes are read from it.
const SMALL: usize = 1024;

/// How a model is written.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// The set of operators; an op that needs a newer one is an error. None: [`OPSET`], or newer where an op needs it.
    pub opset: Option<i64>,
    /// Names of the outputs, when they are not those of the graph's values.
    pub outputs: Vec<String>,
    /// Types of outputs by name, for those of which the graph itself knows nothing.
    pub types: HashMap<String, Type>,
    /// The name by which the model calls the file of its weights, when they do not fit into the model.
    pub data_name: String,
    /// Bytes of weights from which on they go to a file of their own; none: when they must.
    pub inline: Option<u64>,
    /// What is noted in the model.
    pub metadata: BTreeMap<String, String>,
}

/// A model as bytes.
#[derive(Clone, Debug)]
pub struct Written {
    /// The model file.
    pub model: Vec<u8>,
    /// The set of operators that it uses.
    pub opset: i64,
    /// Nodes in it, nested ones included.
    pub nodes: usize,
    /// What belongs into the file of weights, in order; empty when the model holds them itself.
    data: Vec<(u64, Bytes)>,
}

impl Written {
    /// Bytes of the file of weights; 0 when there is none.
    pub fn data_len(&self) -> u64 {
        self.data.last().map_or(0, |(at, bytes)| at + bytes.len() as u64)
    }

    /// Writes the file of weights; `progress` hears how many of its bytes are written.
    pub fn write_data(&self, sink: &mut dyn Write, progress: &mut dyn FnMut(u64)) -> std::io::Result<()> {
        let mut done = 0;
        for (at, bytes) in &self.data {
            std::io::copy(&mut std::io::Read::take(std::io::repeat(0), at - done), sink)?;
            sink.write_all(bytes)?;
            done = at + bytes.len() as u64;
            progress(done);
        }
        Ok(())
    }
}

/// Writes a graph as a model.
pub fn write(graph: &Graph, options: &WriteOptions) -> Result<Written, ExportError> {
    // Files know pairs around ops, not ops over codes.
    let graph = spell_codes(graph)?;
    let mut writer = Writer::new(options);
    let message = writer.main(&graph)?;
    let (opset, nodes) = (writer.opset, writer.nodes);
    let data = writer.place();
    writer.missing.finish("ONNX")?;
    let entry = |(key, value): (&String, &String)| proto::Entry { key: key.clone(), value: value.clone() };
    let model = proto::Model {
        ir_version: types::ir_version(opset),
        producer_name: "kinglet".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(proto::Graph { initializer: writer.initializers, ..message }),
        opset_import: vec![proto::OperatorSet { domain: String::new(), version: opset }],
        metadata_props: options.metadata.iter().map(entry).collect(),
        ..Default::default()
    };
    let size = model.encoded_len() as u64;
    if size >= 1 << 31 {
        return Err(ExportError::Size(size));
    }
    Ok(Written { model: model.encode_to_vec(), opset, nodes, data })
}

/// A model being written.
pub(super) struct Writer<'a> {
    options: &'a WriteOptions,
    opset: i64,
    nodes: usize,
    /// Every name in the model: bodies must not hide what is around them.
    names: HashSet<String>,
    missing: Gathered,
    initializers: Vec<proto::Tensor>,
}

/// A graph being written: its own, or a body's.
#[derive(Default)]
pub(super) struct Frame {
    names: HashMap<ValueId, String>,
    prefix: String,
    nodes: Vec<proto::Node>,
}

impl<'a> Writer<'a> {
    fn new(options: &'a WriteOptions) -> Self {
        Self {
            options,
            opset: options.opset.unwrap_or(OPSET),
            nodes: 0,
            names: HashSet::new(),
            missing: Gathered::default(),
            initializers: Vec::new(),
        }
    }

    fn main(&mut self, graph: &Graph) -> Result<proto::Graph, ExportError> {
        let mut frame = Frame::default();
        for id in graph.inputs() {
            let name = graph.value(*id).name.clone();
            self.names.insert(name.clone());
            frame.names.insert(*id, name);
        }
        let outputs = self.name_outputs(graph, &mut frame);
        let input = graph.inputs().iter().map(|id| self.info(graph, *id, &frame.names[id])).collect();
        self.body_nodes(graph, &mut frame);
        for (id, name) in graph.outputs().iter().zip(&outputs) {
            let made = self.name_of(graph, &mut frame, *id);
            if made != *name {
                self.push(&mut frame, node::plain("Identity", name, &[made], std::slice::from_ref(name)));
            }
        }
        let output =
            graph.outputs().iter().zip(&outputs).map(|(id, name)| self.info(graph, *id, name)).collect();
        Ok(proto::Graph { name: "kinglet".into(), node: frame.nodes, input, output, ..Default::default() })
    }

    /// The names of the outputs. A value that a node makes takes the name of the first output that it is.
    fn name_outputs(&mut self, graph: &Graph, frame: &mut Frame) -> Vec<String> {
        let mut names = Vec::new();
        for (i, id) in graph.outputs().iter().enumerate() {
            let wanted = self.options.outputs.get(i).unwrap_or(&graph.value(*id).name).clone();
            let own = matches!(graph.value(*id).def, Def::Node(..)) && !frame.names.contains_key(id);
            let name = if own || self.names.contains(&wanted) { self.fresh(&wanted) } else { wanted };
            self.names.insert(name.clone());
            if own {
                frame.names.insert(*id, name.clone());
            }
            names.push(name);
        }
        names
    }

    fn body_nodes(&mut self, graph: &Graph, frame: &mut Frame) {
        for node in graph.nodes() {
            let Some(export) = ops::exporter(node.op.name()) else {
                self.missing.add(
                    &crate::export::words(&*node.op),
                    "which has no counterpart".into(),
                    &node.name,
                );
                continue;
            };
            let made = frame.nodes.len();
            let mut ex = Ex::new(self, graph, node, frame);
            if let Err(reason) = ex.needs_types().and_then(|()| export(&mut ex)) {
                frame.nodes.truncate(made);
                self.missing.add(&crate::export::words(&*node.op), reason, &node.name);
            }
        }
    }

    pub(super) fn push(&mut self, frame: &mut Frame, node: proto::Node) {
        self.nodes += 1;
        frame.nodes.push(node);
    }

    /// The name of a value; constants are added to the model when they are first read.
    pub(super) fn name_of(&mut self, graph: &Graph, frame: &mut Frame, id: ValueId) -> String {
        if let Some(name) = frame.names.get(&id) {
            return name.clone();
        }
        let value = graph.value(id);
        if matches!(value.def, Def::Absent) {
            return String::new();
        }
        let name = self.fresh(&format!("{}{}", frame.prefix, value.name));
        if let Def::Weight(tensor) = &value.def {
            match tensor::message(tensor, &name) {
                Ok(message) => self.initializers.push(message),
                Err(reason) => self.missing.add("constant", reason, &name),
            }
        }
        frame.names.insert(id, name.clone());
        name
    }

    /// A name that the model does not have yet, now taken.
    pub(super) fn fresh(&mut self, stem: &str) -> String {
        let stem = if stem.is_empty() { "value" } else { stem };
        let name = if self.names.contains(stem) {
            let numbered = (1..).map(|n| format!("{stem}.{n}")).find(|name| !self.names.contains(name));
            numbered.unwrap_or_default()
        } else {
            stem.to_owned()
        };
        self.names.insert(name.clone());
        name
    }

    fn info(&mut self, graph: &Graph, id: ValueId, name: &str) -> proto::ValueInfo {
        let ty = &graph.value(id).ty;
        let ty = if *ty == Type::Unknown { self.options.types.get(name).unwrap_or(ty) } else { ty };
        let written = types::message(graph, ty);
        if written.is_none() {
            self.missing.add("a result", "whose element type only the data decides".into(), name);
        }
        proto::ValueInfo { name: name.into(), r#type: written }
    }

    /// Moves weights out of the model when they are many; what belongs into their file, in order.
    fn place(&mut self) -> Vec<(u64, Bytes)> {
        let bytes = |t: &proto::Tensor| t.raw_data.as_ref().map_or(0, Bytes::len);
        let all: u64 = self.initializers.iter().map(|t| bytes(t) as u64).sum();
        if all < self.options.inline.unwrap_or(INLINE).min(INLINE) {
            return Vec::new();
        }
        let (mut at, mut data) = (0u64, Vec::new());
        for tensor in self.initializers.iter_mut().filter(|t| bytes(t) >= SMALL) {
            let Some(raw) = tensor.raw_data.take() else { continue };
            at = at.next_multiple_of(ALIGN);
            let entries = [
                ("location", self.options.data_name.clone()),
                ("offset", at.to_string()),
                ("length", raw.len().to_string()),
            ];
            tensor.external_data =
                entries.into_iter().map(|(key, value)| proto::Entry { key: key.into(), value }).collect();
            tensor.data_location = 1;
            data.push((at, raw.clone()));
            at += raw.len() as u64;
        }
        data
    }
}
