//! Graphs to Core ML packages: ML Programs of specification 7 (8 where activations are quantised) with their weight file.
//!
//! A package has the parts of [`Written`]. Programs know floats, 32-bit integers and truth values: 64-bit integers become
//! 32-bit ones, and results that are truth values leave as integers. Names become identifiers, which Core ML asks for.
//! Everything that cannot be expressed is told at once. Deliberately absent: paths, and changing the graph.

mod block;
mod node;
mod ops;
mod weights;

use std::collections::{BTreeMap, HashMap, HashSet};

use kinglet_graph::passes::spell_codes;
use kinglet_graph::{Def, Dim, Graph, TensorType, ValueId};
use kinglet_tensor::{Bytes, DType, Tensor};
use prost::Message;

use super::proto;
use crate::export::{ExportError, Gathered};
use node::Ex;
use weights::Weights;

/// Specifications that are written, and the sets of operations that came with them. The second one is for what has no
/// operation in the first: codes of activations.
const SPECIFICATIONS: [(i32, &str); 2] = [(7, "CoreML6"), (8, "CoreML7")];
/// Where the model lies in a package.
pub const MODEL_PATH: &str = "Data/com.apple.CoreML/model.mlmodel";
/// Where the weights lie in a package.
pub const WEIGHTS_PATH: &str = "Data/com.apple.CoreML/weights/weight.bin";
/// The largest size that an open dimension may take.
const OPEN: i64 = -1;

/// How a package is written.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Names of the outputs, when they are not those of the graph's values.
    pub outputs: Vec<String>,
    /// Whether weights and activations are floats of 16 bits, which the Neural Engine computes in.
    pub half: bool,
    /// What is noted in the model.
    pub metadata: BTreeMap<String, String>,
}

/// The parts of a package.
#[derive(Clone, Debug)]
pub struct Written {
    /// `Manifest.json`.
    pub manifest: String,
    /// The file at [`MODEL_PATH`].
    pub model: Vec<u8>,
    /// The file at [`WEIGHTS_PATH`], in pieces.
    pub weights: Vec<Bytes>,
    /// The specification that it follows.
    pub specification: i32,
    /// Operations, constants not counted.
    pub nodes: usize,
    /// What is written otherwise than it stands in the graph.
    pub notes: Vec<String>,
}

/// Writes a graph as a package.
pub fn write(graph: &Graph, options: &WriteOptions) -> Result<Written, ExportError> {
    let graph = &spell_codes(graph)?;
    let mut writer = Writer::new(options);
    let inputs = writer.inputs(graph);
    let names = writer.output_names(graph);
    writer.nodes(graph);
    let outputs = writer.outputs(graph, &names);
    writer.missing.finish("Core ML")?;
    let (specification, opset) = SPECIFICATIONS[usize::from(writer.newer)];
    let block = proto::Block {
        inputs: Vec::new(),
        outputs: outputs.iter().map(|feature| feature.name.clone()).collect(),
        operations: writer.operations,
    };
    let function = proto::Function {
        inputs: inputs.iter().map(|(_, named)| named.clone()).collect(),
        opset: opset.into(),
        blocks: [(opset.to_owned(), block)].into(),
    };
    let program = proto::Program { version: 1, functions: [("main".to_owned(), function)].into() };
    let model = proto::Model {
        version: specification,
        description: Some(proto::Description {
            inputs: inputs.into_iter().map(|(feature, _)| feature).collect(),
            outputs,
            metadata: Some(proto::Metadata { user: options.metadata.clone(), ..Default::default() }),
            ..Default::default()
        }),
        kind: Some(proto::Kind::Program(program)),
    };
    Ok(Written {
        manifest: MANIFEST.into(),
        model: model.encode_to_vec(),
        weights: writer.weights.finish(),
        specification,
        nodes: writer.count,
        notes: writer.notes,
    })
}

const MANIFEST: &str = r#"{
    "fileFormatVersion": "1.0.0",
    "itemInfoEntries": {
        "6B696E67-6C65-4000-8000-000000000001": {
            "author": "com.apple.CoreML",
            "description": "CoreML Model Specification",
            "name": "model.mlmodel",
            "path": "com.apple.CoreML/model.mlmodel"
        },
        "6B696E67-6C65-4000-8000-000000000002": {
            "author": "com.apple.CoreML",
            "description": "CoreML Model Weights",
            "name": "weights",
            "path": "com.apple.CoreML/weights"
        }
    },
    "rootModelIdentifier": "6B696E67-6C65-4000-8000-000000000001"
}
"#;

/// A program being written.
pub(super) struct Writer<'a> {
    options: &'a WriteOptions,
    names: HashMap<ValueId, String>,
    taken: HashSet<String>,
    /// What nodes read, and outputs.
    read: HashSet<ValueId>,
    operations: Vec<proto::Operation>,
    count: usize,
    weights: Weights,
    missing: Gathered,
    notes: Vec<String>,
    /// Codes by the value that they stand for as 32-bit integers.
    codes: HashMap<ValueId, String>,
    /// Whether operations of the next specification are needed.
    newer: bool,
}

impl<'a> Writer<'a> {
    fn new(options: &'a WriteOptions) -> Self {
        Self {
            options,
            names: HashMap::new(),
            taken: HashSet::new(),
            read: HashSet::new(),
            operations: Vec::new(),
            count: 0,
            weights: Weights::default(),
            missing: Gathered::default(),
            notes: Vec::new(),
            codes: HashMap::new(),
            newer: false,
        }
    }

    fn inputs(&mut self, graph: &Graph) -> Vec<(proto::Feature, proto::NamedType)> {
        let mut inputs = Vec::new();
        for id in graph.inputs() {
            let value = graph.value(*id);
            let name = self.interface_name(&value.name);
            let Some(ty) = value.ty.tensor() else {
                self.missing.add("input", "which is no tensor".into(), &value.name);
                continue;
            };
            let given = self.given(*id, &name, ty);
            match self.feature(&name, &given) {
                Ok(feature) => inputs.push((feature, self.named(&name, &given))),
                Err(why) => self.missing.add("input", why, &value.name),
            }
        }
        inputs
    }

    /// The type of an input as the interface has it: numbers, with dimensions. Operations make what the graph reads of it.
    fn given(&mut self, id: ValueId, name: &str, ty: &TensorType) -> TensorType {
        let (truth, scalar) = (ty.dtype == DType::Bool, ty.rank() == 0);
        let mut given = if truth { ty.with(DType::I32) } else { ty.clone() };
        let mut made = name.to_owned();
        if scalar {
            given.shape.push(Dim::Fixed(1));
            let inputs = [("x".to_owned(), node::bound(&made))].into();
            made = self.derived(&format!("{name}_scalar"), "squeeze", inputs, &ty.with(given.dtype));
        }
        if truth {
            let dtype = self.text_constant(&format!("{name}_dtype"), "bool");
            let inputs = [("x", node::bound(&made)), ("dtype", node::bound(&dtype))];
            let inputs = inputs.map(|(name, argument)| (name.to_owned(), argument)).into();
            made = self.derived(&format!("{name}_truth"), "cast", inputs, ty);
        }
        if scalar || truth {
            let words = |ty: &TensorType| format!("{} of {} dimensions", ty.dtype, ty.rank());
            self.notes.push(format!("`{name}` takes {} in the place of {}", words(&given), words(ty)));
        }
        self.names.insert(id, made);
        given
    }

    /// A value that one operation makes, under a name like `stem`.
    fn derived(
        &mut self,
        stem: &str,
        kind: &str,
        inputs: BTreeMap<String, proto::Argument>,
        ty: &TensorType,
    ) -> String {
        let name = self.fresh(stem);
        let named = self.named(&name, ty);
        self.push(kind, inputs, vec![named]);
        name
    }

    /// Adds what the nodes of a graph compute.
    fn nodes(&mut self, graph: &Graph) {
        let inputs = graph.nodes().iter().flat_map(|node| &node.inputs);
        self.read = inputs.chain(graph.outputs()).copied().collect();
        for node in graph.nodes() {
            let words = crate::export::words(&*node.op);
            let Some(export) = ops::exporter(node.op.name()) else {
                self.missing.add(&words, "which has no counterpart".into(), &node.name);
                continue;
            };
            if let Err(why) = export(&mut Ex::new(self, graph, node)) {
                self.missing.add(&words, why, &node.name);
            }
        }
    }

    /// The names of the outputs. A value that an operation makes takes the name of the first output that it is.
    fn output_names(&mut self, graph: &Graph) -> Vec<String> {
        let mut names = Vec::new();
        for (i, id) in graph.outputs().iter().enumerate() {
            let value = graph.value(*id);
            let name = self.interface_name(self.options.outputs.get(i).unwrap_or(&value.name));
            let truth = value.ty.tensor().is_some_and(|ty| ty.dtype == DType::Bool);
            if matches!(value.def, Def::Node(..)) && !truth {
                self.names.entry(*id).or_insert_with(|| name.clone());
            }
            names.push(name);
        }
        names
    }

    /// The outputs: always made by an operation, and numbers.
    fn outputs(&mut self, graph: &Graph, names: &[String]) -> Vec<proto::Feature> {
        let mut outputs = Vec::new();
        for (id, name) in graph.outputs().iter().zip(names) {
            let Some(ty) = graph.tensor_type(*id) else {
                self.missing.add("output", "whose shape only the data decides".into(), name);
                continue;
            };
            let (truth, made) = (ty.dtype == DType::Bool, self.name_of(graph, *id));
            let ty = if truth { ty.with(DType::I32) } else { ty.clone() };
            if made != *name {
                self.leave(&made, name, &ty, truth);
            }
            match self.feature(name, &ty) {
                Ok(feature) => outputs.push(feature),
                Err(why) => self.missing.add("output", why, name),
            }
        }
        outputs
    }

    /// Makes a value that is there already an output of this name.
    fn leave(&mut self, made: &str, name: &str, ty: &TensorType, truth: bool) {
        let mut inputs: BTreeMap<String, proto::Argument> = [("x".to_owned(), node::bound(made))].into();
        if truth {
            let dtype = self.text_constant(&format!("{name}_dtype"), "int32");
            inputs.insert("dtype".into(), node::bound(&dtype));
        }
        let named = self.named(name, ty);
        self.push(if truth { "cast" } else { "identity" }, inputs, vec![named]);
    }

    /// The name of a value; constants become operations when they are first read.
    pub(super) fn name_of(&mut self, graph: &Graph, id: ValueId) -> String {
        if let Some(name) = self.names.get(&id) {
            return name.clone();
        }
        let value = graph.value(id);
        let name = self.fresh(&value.name);
        self.names.insert(id, name.clone());
        if let Def::Weight(tensor) = &value.def {
            self.constant(&name, tensor);
        }
        name
    }

    /// Adds a constant under this name.
    pub(super) fn constant(&mut self, name: &str, tensor: &Tensor) {
        match weights::value(tensor, self.options.half, &mut self.weights) {
            Ok((value, dtype)) => {
                let ty = TensorType::fixed(dtype, tensor.shape());
                let named = self.named(name, &ty);
                self.operations.push(node::constant(named, value));
            }
            Err(why) => self.missing.add("constant", why, name),
        }
    }

    /// Lets the program use operations of the next specification.
    pub(super) fn newer(&mut self) {
        self.newer = true;
    }

    /// Adds a constant text under a name like `stem`; its name.
    pub(super) fn text_constant(&mut self, stem: &str, text: &str) -> String {
        let name = self.fresh(stem);
        let value = weights::text(text);
        let named = proto::NamedType { name: name.clone(), ty: value.ty.clone() };
        self.operations.push(node::constant(named, value));
        name
    }

    pub(super) fn push(
        &mut self,
        kind: &str,
        inputs: BTreeMap<String, proto::Argument>,
        outputs: Vec<proto::NamedType>,
    ) {
        self.push_blocks(kind, inputs, outputs, Vec::new());
    }

    /// Adds an operation that owns blocks.
    pub(super) fn push_blocks(
        &mut self,
        kind: &str,
        inputs: BTreeMap<String, proto::Argument>,
        outputs: Vec<proto::NamedType>,
        blocks: Vec<proto::Block>,
    ) {
        self.count += 1;
        let name = outputs.first().map_or("", |named| named.name.as_str());
        let attributes = [("name".to_owned(), weights::text(name))].into();
        self.operations.push(proto::Operation { kind: kind.into(), inputs, outputs, blocks, attributes });
    }

    /// An identifier like `stem` that is not taken yet, now taken.
    pub(super) fn fresh(&mut self, stem: &str) -> String {
        let plain = identifier(stem);
        let numbered = (1..).map(|n| format!("{plain}_{n}"));
        let name = std::iter::once(plain.clone()).chain(numbered).find(|name| !self.taken.contains(name));
        let name = name.unwrap_or_default();
        self.taken.insert(name.clone());
        name
    }

    /// The same for what callers ask for by name; a change is noted.
    fn interface_name(&mut self, wanted: &str) -> String {
        let name = self.fresh(wanted);
        if name != wanted {
            self.notes.push(format!("`{}` is called `{name}`", crate::error::printable(wanted)));
        }
        name
    }

    pub(super) fn named(&self, name: &str, ty: &TensorType) -> proto::NamedType {
        proto::NamedType { name: name.into(), ty: Some(weights::value_type(ty, self.options.half)) }
    }

    fn feature(&self, name: &str, ty: &TensorType) -> Result<proto::Feature, String> {
        let dtype = match ty.dtype {
            DType::F32 | DType::F16 | DType::BF16 | DType::F64 if self.options.half => 65552,
            DType::F32 | DType::F16 | DType::BF16 | DType::F64 => 65568,
            DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::U8 | DType::U16 | DType::U32 => 131_104,
            other => return Err(format!("whose elements are {other}")),
        };
        let range = |dim: &Dim| match dim {
            Dim::Fixed(n) => proto::Range { low: *n as u64, high: *n as i64 },
            _ => proto::Range { low: 1, high: OPEN },
        };
        let open = ty.dims().is_none();
        let array = proto::ArrayType {
            shape: ty.shape.iter().map(|dim| dim.fixed().map_or(1, |n| n as i64)).collect(),
            dtype,
            range: open.then(|| proto::Ranges { ranges: ty.shape.iter().map(range).collect() }),
            ..Default::default()
        };
        let kind = Some(proto::FeatureKind::Array(array));
        Ok(proto::Feature {
            name: name.into(),
            ty: Some(proto::FeatureType { kind, ..Default::default() }),
            ..Default::default()
        })
    }
}

/// A text as Core ML's names may be: a letter or `_`, then letters, digits and `_`.
fn identifier(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = text.chars().map(plain).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') { name } else { format!("v_{name}") }
}
