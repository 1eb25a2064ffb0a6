//! A model file to a graph: constants, inputs, nodes in running order, functions inlined, bodies closed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kinglet_graph::{BuildError, Dim, Graph, GraphBuilder, TensorType, Type, ValueId};
use kinglet_tensor::{Bytes, DType};
use prost::Message;

use super::error::OnnxError;
use super::node::Cx;
use super::proto::{self, DimensionValue, TypeValue};
use super::scope::{Frame, Scopes};
use super::tensor::{External, dtype_of, tensor};
use crate::custom::CustomOps;

/// Newest version of the file format.
const IR_VERSION: i64 = 14;
/// Oldest and newest set of standard operators.
const OPSETS: (i64, i64) = (1, 28);
/// Deepest nesting of function calls.
const MAX_DEPTH: usize = 32;
/// Nodes of a model, those of a function wherever it is called.
const MAX_OPERATIONS: usize = 1 << 20;

/// A model that was read.
#[derive(Debug)]
pub struct OnnxModel {
    /// Its computation.
    pub graph: Graph,
    /// Who wrote the file.
    pub producer: String,
    /// Version of the standard operators that it uses.
    pub opset: i64,
    /// What its makers noted.
    pub metadata: BTreeMap<String, String>,
    /// Names of its outputs in the file, and their types as far as it tells them; open dims have no names here.
    pub outputs: Vec<(String, Type)>,
}

/// Reads a model.
pub fn read(data: Bytes, external: &dyn External) -> Result<OnnxModel, OnnxError> {
    read_with(data, external, &CustomOps::new())
}

/// Reads a model that may use these operators besides Kinglet's own.
pub fn read_with(data: Bytes, external: &dyn External, custom: &CustomOps) -> Result<OnnxModel, OnnxError> {
    let model = proto::Model::decode(data).map_err(|e| OnnxError::Protobuf(e.to_string()))?;
    if model.ir_version > IR_VERSION {
        return Err(OnnxError::IrVersion { found: model.ir_version, most: IR_VERSION });
    }
    let graph = model.graph.as_ref().ok_or(OnnxError::NoGraph)?;
    let opsets = Opsets::of(&model.opset_import)?;
    let functions = model.functions.iter().map(|f| ((f.domain.as_str(), f.name.as_str()), f)).collect();
    let mut reader =
        Reader { scopes: Scopes::default(), external, custom, functions, opsets, depth: 0, added: 0 };
    reader.check_supported(graph)?;
    reader.scopes.top();
    let outputs = reader.graph(graph)?;
    let frame = reader.scopes.0.pop().unwrap_or_default();
    Ok(OnnxModel {
        graph: finish(frame.builder, &outputs),
        producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
        opset: reader.opsets.version(""),
        metadata: model.metadata_props.iter().map(|e| (e.key.clone(), e.value.clone())).collect(),
        outputs: graph.output.iter().map(declared).collect(),
    })
}

/// Name and type of an output as the file declares it.
fn declared(info: &proto::ValueInfo) -> (String, Type) {
    let (mut builder, mut dims) = (GraphBuilder::new(), HashMap::new());
    let ty = info.r#type.as_ref().map_or(Type::Unknown, |ty| type_of(ty, &mut builder, &mut dims));
    (info.name.clone(), ty.closed())
}

fn finish(mut builder: GraphBuilder, outputs: &[ValueId]) -> Graph {
    outputs.iter().for_each(|id| builder.output(*id));
    builder.finish()
}

/// Versions of operator sets by domain.
#[derive(Clone, Default)]
struct Opsets(HashMap<String, i64>);

impl Opsets {
    fn of(list: &[proto::OperatorSet]) -> Result<Self, OnnxError> {
        let mut versions = HashMap::new();
        for set in list {
            let domain = domain(&set.domain);
            let (least, most) = OPSETS;
            if domain.is_empty() && !(least..=most).contains(&set.version) {
                return Err(OnnxError::Opset { domain: "ai.onnx".into(), version: set.version, least, most });
            }
            versions.insert(domain.to_owned(), set.version);
        }
        Ok(Self(versions))
    }

    fn version(&self, domain: &str) -> i64 {
        self.0.get(domain).copied().unwrap_or(1)
    }
}

/// The standard domain has two names.
fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// The name of a node in messages.
pub(crate) fn label(node: &proto::Node) -> String {
    let first = node.output.iter().find(|name| !name.is_empty());
    if node.name.is_empty() { first.cloned().unwrap_or_default() } else { node.name.clone() }
}

/// A model being read.
pub(crate) struct Reader<'a> {
    pub(crate) scopes: Scopes,
    pub(crate) external: &'a dyn External,
    custom: &'a CustomOps,
    functions: HashMap<(&'a str, &'a str), &'a proto::Function>,
    opsets: Opsets,
    depth: usize,
    /// Nodes that were added so far.
    added: usize,
}

impl<'a> Reader<'a> {
    /// Adds a graph's constants, inputs and nodes to the innermost frame; returns its outputs.
    fn graph(&mut self, graph: &proto::Graph) -> Result<Vec<ValueId>, OnnxError> {
        for message in &graph.initializer {
            let id = if dtype_of(message.data_type) == Some(DType::Str) {
                super::ops::text_constant(&mut self.scopes.top().builder, message)?
            } else {
                let tensor = tensor(message, self.external)?;
                let builder = &mut self.scopes.top().builder;
                let name = builder.fresh(&message.name);
                builder.weight_as(&name, tensor)?
            };
            self.scopes.top().names.insert(message.name.clone(), id);
        }
        for sparse in &graph.sparse_initializer {
            let (name, tensor) = super::ops::dense(sparse, self.external)?;
            let id = self.scopes.top().builder.weight_as(&name, tensor)?;
            self.scopes.top().names.insert(name, id);
        }
        let mut dims = HashMap::new();
        for input in graph.input.iter() {
            if self.scopes.top().names.contains_key(&input.name) {
                continue;
            }
            let builder = &mut self.scopes.top().builder;
            let ty = input.r#type.as_ref().map_or(Type::Unknown, |ty| type_of(ty, builder, &mut dims));
            let id = builder.input(&input.name, ty)?;
            self.scopes.top().names.insert(input.name.clone(), id);
        }
        self.nodes(&graph.node)?;
        let output = |o: &proto::ValueInfo| {
            self.scopes.resolve(&o.name)?.ok_or_else(|| OnnxError::Output(o.name.clone()))
        };
        graph.output.iter().map(output).collect()
    }

    /// Imports a body as a graph of its own; also tells what it reads from around it.
    pub(crate) fn body(&mut self, graph: &proto::Graph) -> Result<(Arc<Graph>, Vec<ValueId>), OnnxError> {
        self.deeper(|reader| {
            reader.scopes.0.push(Frame::default());
            let outputs = reader.graph(graph);
            let frame = reader.scopes.0.pop().unwrap_or_default();
            Ok((Arc::new(finish(frame.builder, &outputs?)), frame.captures))
        })
    }

    /// Adds a body where its node stands; its inputs are these values.
    pub(crate) fn inline(
        &mut self,
        graph: &proto::Graph,
        inputs: &[ValueId],
    ) -> Result<Vec<ValueId>, OnnxError> {
        self.deeper(|reader| {
            let outer = reader.scopes.top().names.clone();
            for (input, id) in graph.input.iter().zip(inputs) {
                reader.scopes.top().names.insert(input.name.clone(), *id);
            }
            let made = reader.graph(graph);
            reader.scopes.top().names = outer;
            made
        })
    }

    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, OnnxError>) -> Result<T, OnnxError> {
        if self.depth >= MAX_DEPTH {
            return Err(OnnxError::Depth(MAX_DEPTH));
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    fn nodes(&mut self, nodes: &[proto::Node]) -> Result<(), OnnxError> {
        for index in running_order(nodes)? {
            self.node(&nodes[index])?;
        }
        Ok(())
    }

    /// Adds a node, whose inputs are there.
    pub(crate) fn node(&mut self, node: &proto::Node) -> Result<(), OnnxError> {
        self.added += 1;
        if self.added > MAX_OPERATIONS {
            return Err(OnnxError::Operations(MAX_OPERATIONS));
        }
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            inputs.push(if name.is_empty() {
                self.scopes.top().builder.absent()
            } else {
                let found = self.scopes.resolve(name)?;
                found.ok_or_else(|| OnnxError::Dangling { node: label(node), value: name.clone() })?
            });
        }
        let domain = domain(&node.domain);
        let (custom, opset) = (self.custom, self.opsets.version(domain));
        if custom.has(domain, &node.op_type) {
            return Cx::new(self, node, opset, inputs).custom(custom, domain);
        }
        if let Some(function) = self.functions.get(&(domain, node.op_type.as_str())).copied()
            && super::ops::importer(domain, &node.op_type).is_none()
        {
            return self.deeper(|reader| reader.call(function, node, &inputs));
        }
        let import = super::ops::importer(domain, &node.op_type)
            .ok_or_else(|| OnnxError::Unsupported(vec![(node.op_type.clone(), vec![label(node)])]))?;
        import(&mut Cx::new(self, node, opset, inputs))
    }

    /// Inlines a function: its names stand for themselves, its attributes are replaced by the caller's.
    fn call(
        &mut self,
        function: &proto::Function,
        node: &proto::Node,
        inputs: &[ValueId],
    ) -> Result<(), OnnxError> {
        let body: Vec<proto::Node> =
            function.node.iter().map(|n| with_attributes(n, function, node)).collect();
        let opsets = Opsets::of(&function.opset_import)?;
        let outer_opsets = std::mem::replace(&mut self.opsets, opsets);
        let outer_names = std::mem::take(&mut self.scopes.top().names);
        let absent = self.scopes.top().builder.absent();
        for (i, name) in function.input.iter().enumerate() {
            let id = inputs.get(i).copied().unwrap_or(absent);
            self.scopes.top().names.insert(name.clone(), id);
        }
        let done = self.nodes(&body);
        let inner = std::mem::replace(&mut self.scopes.top().names, outer_names);
        self.opsets = outer_opsets;
        done?;
        for (formal, actual) in function.output.iter().zip(&node.output) {
            let id = inner.get(formal).ok_or_else(|| OnnxError::Output(formal.clone()))?;
            if !actual.is_empty() && self.scopes.top().names.insert(actual.clone(), *id).is_some() {
                return Err(BuildError::DuplicateName(actual.clone()).into());
            }
        }
        Ok(())
    }

    /// Every operator without an importer, with the nodes that use it.
    fn check_supported(&self, graph: &proto::Graph) -> Result<(), OnnxError> {
        let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        self.scan(&graph.node, &mut missing, &mut seen);
        if missing.is_empty() { Ok(()) } else { Err(OnnxError::Unsupported(missing.into_iter().collect())) }
    }

    fn scan(
        &self,
        nodes: &[proto::Node],
        missing: &mut BTreeMap<String, Vec<String>>,
        seen: &mut BTreeSet<(String, String)>,
    ) {
        for node in nodes {
            let domain = domain(&node.domain);
            let known = self.custom.has(domain, &node.op_type);
            if !known && super::ops::importer(domain, &node.op_type).is_none() {
                match self.functions.get(&(domain, node.op_type.as_str())) {
                    Some(function) => {
                        if seen.insert((domain.into(), node.op_type.clone())) {
                            self.scan(&function.node, missing, seen);
                        }
                    }
                    None => {
                        let dot = if domain.is_empty() { "" } else { "." };
                        let op = format!("{domain}{dot}{}", node.op_type);
                        missing.entry(op).or_default().push(label(node));
                    }
                }
            }
            let graphs = node.attribute.iter().filter_map(|a| a.g.as_ref());
            graphs.for_each(|g| self.scan(&g.node, missing, seen));
        }
    }
}

/// A function's node with references to the function's attributes replaced.
fn with_attributes(node: &proto::Node, function: &proto::Function, call: &proto::Node) -> proto::Node {
    let mut node = node.clone();
    node.attribute = node.attribute.into_iter().filter_map(|a| given(a, function, call)).collect();
    node
}

fn given(
    mut attribute: proto::Attribute,
    function: &proto::Function,
    call: &proto::Node,
) -> Option<proto::Attribute> {
    if let Some(graph) = &mut attribute.g {
        let nodes = std::mem::take(&mut graph.node);
        graph.node = nodes.iter().map(|n| with_attributes(n, function, call)).collect();
    }
    if attribute.ref_attr_name.is_empty() {
        return Some(attribute);
    }
    let named = |a: &&proto::Attribute| a.name == attribute.ref_attr_name;
    let value = call.attribute.iter().find(named).or_else(|| function.attribute_proto.iter().find(named))?;
    Some(proto::Attribute { name: attribute.name, ref_attr_name: String::new(), ..value.clone() })
}

/// Indices of nodes such that each stands behind those it reads from; the given order where it will do.
fn running_order(nodes: &[proto::Node]) -> Result<Vec<usize>, OnnxError> {
    let mut makers = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if makers.insert(name.as_str(), index).is_some() {
                return Err(BuildError::DuplicateName(name.clone()).into());
            }
        }
    }
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut waits = vec![0usize; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        let mut names = BTreeSet::new();
        names_read(node, &mut names);
        for maker in names.iter().filter_map(|name| makers.get(name)).collect::<BTreeSet<_>>() {
            readers[*maker].push(index);
            waits[index] += 1;
        }
    }
    let mut ready: BTreeSet<usize> = (0..nodes.len()).filter(|i| waits[*i] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for reader in &readers[index] {
            waits[*reader] -= 1;
            if waits[*reader] == 0 {
                ready.insert(*reader);
            }
        }
    }
    match waits.iter().position(|n| *n > 0) {
        Some(stuck) => Err(OnnxError::Cycle(label(&nodes[stuck]))),
        None => Ok(order),
    }
}

/// Every name that a node reads, and that its bodies read and do not have themselves.
fn names_read<'n>(node: &'n proto::Node, names: &mut BTreeSet<&'n str>) {
    names.extend(node.input.iter().filter(|name| !name.is_empty()).map(String::as_str));
    for graph in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
        let mut read = BTreeSet::new();
        graph.node.iter().for_each(|n| names_read(n, &mut read));
        read.extend(graph.output.iter().map(|o| o.name.as_str()));
        let made = graph.node.iter().flat_map(|n| &n.output).map(String::as_str);
        let given = graph.input.iter().map(|i| i.name.as_str());
        let constants = graph.initializer.iter().map(|t| t.name.as_str());
        made.chain(given).chain(constants).for_each(|name| _ = read.remove(name));
        names.extend(read);
    }
}

/// A value's type; names of dims are shared over a graph.
fn type_of(ty: &proto::Type, builder: &mut GraphBuilder, dims: &mut HashMap<String, Dim>) -> Type {
    let element = |e: &proto::ElementType, builder: &mut GraphBuilder, dims: &mut HashMap<String, Dim>| {
        Box::new(e.elem_type.as_ref().map_or(Type::Unknown, |ty| type_of(ty, builder, dims)))
    };
    match &ty.value {
        Some(TypeValue::Tensor(tensor)) => {
            let (Some(dtype), Some(shape)) = (dtype_of(tensor.elem_type), &tensor.shape) else {
                return Type::Unknown;
            };
            let shape = shape.dim.iter().map(|d| dim_of(d, builder, dims)).collect();
            TensorType { dtype, shape }.into()
        }
        Some(TypeValue::Sequence(e)) => Type::Sequence(element(e, builder, dims)),
        Some(TypeValue::Optional(e)) => Type::Optional(element(e, builder, dims)),
        _ => Type::Unknown,
    }
}

fn dim_of(dim: &proto::Dimension, builder: &mut GraphBuilder, dims: &mut HashMap<String, Dim>) -> Dim {
    match &dim.value {
        Some(DimensionValue::Value(n)) => usize::try_from(*n).map_or(Dim::Unknown, Dim::Fixed),
        // Exporters write "?" for sizes that have nothing to do with each other.
        Some(DimensionValue::Param(name)) if !name.is_empty() && name != "?" => {
            *dims.entry(name.clone()).or_insert_with(|| builder.dim(name, usize::MAX))
        }
        _ => Dim::Unknown,
    }
}
