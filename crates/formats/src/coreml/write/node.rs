//! What an op's exporter sees: its node with named inputs, and ways to add operations to the program.

use std::collections::BTreeMap;

use kinglet_graph::ops::Dequantize;
use kinglet_graph::{Arg as Known, Args, Def, Dim, Graph, Node, Op, TensorType, Type, ValueId};
use kinglet_tensor::{Bytes, DType, Tensor};

use super::{Writer, weights};
use crate::coreml::proto;

/// Adds the operations for one op; an error says why a program cannot express it.
pub(super) type Export = fn(&mut Ex<'_, '_>) -> Result<(), String>;

/// What a parameter is given.
pub(super) enum Arg<'s> {
    Name(String),
    Names(Vec<String>),
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Flag(bool),
    Flags(Vec<bool>),
    Text(&'s str),
}

impl From<&String> for Arg<'_> {
    fn from(name: &String) -> Self {
        Self::Name(name.clone())
    }
}

impl From<String> for Arg<'_> {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

/// Parameters with what they are given.
pub(super) type Given<'s> = Vec<(&'s str, Arg<'s>)>;

/// A node being written.
pub(super) struct Ex<'w, 'a> {
    pub(super) writer: &'w mut Writer<'a>,
    pub(super) graph: &'w Graph,
    pub(super) node: &'w Node,
}

/// A parameter bound to a value.
pub(super) fn bound(name: &str) -> proto::Argument {
    let binding = proto::Binding { bound: Some(proto::Bound::Name(name.into())) };
    proto::Argument { bindings: vec![binding] }
}

/// An operation that is a constant.
pub(super) fn constant(named: proto::NamedType, value: proto::Value) -> proto::Operation {
    let attributes = [("name".to_owned(), weights::text(&named.name)), ("val".to_owned(), value)].into();
    proto::Operation {
        kind: "const".into(),
        inputs: BTreeMap::new(),
        outputs: vec![named],
        blocks: Vec::new(),
        attributes,
    }
}

impl<'w, 'a> Ex<'w, 'a> {
    pub(super) fn new(writer: &'w mut Writer<'a>, graph: &'w Graph, node: &'w Node) -> Self {
        Self { writer, graph, node }
    }

    /// The op as what it is.
    pub(super) fn op<T: Op>(&self) -> Result<&'w T, String> {
        self.node.op.downcast().ok_or_else(|| "which is not what its name says".into())
    }

    /// Whether input `i` is given.
    pub(super) fn has(&self, i: usize) -> bool {
        self.node.inputs.get(i).is_some_and(|id| self.graph.value(*id).ty != Type::Absent)
    }

    /// The name of input `i`.
    pub(super) fn input(&mut self, i: usize) -> Result<String, String> {
        let id = *self.node.inputs.get(i).ok_or_else(|| format!("without its input {i}"))?;
        Ok(self.writer.name_of(self.graph, id))
    }

    /// The tensor type of input `i`.
    pub(super) fn ty(&self, i: usize) -> Result<&'w TensorType, String> {
        let id = *self.node.inputs.get(i).ok_or_else(|| format!("without its input {i}"))?;
        self.graph.tensor_type(id).ok_or_else(|| "of a value whose shape only the data decides".into())
    }

    /// The tensor type of output `i`.
    pub(super) fn made(&self, i: usize) -> Result<&'w TensorType, String> {
        let id = *self.node.outputs.get(i).ok_or("without a result")?;
        self.graph.tensor_type(id).ok_or_else(|| "whose shape only the data decides".into())
    }

    /// All sizes of input `i`.
    pub(super) fn dims(&self, i: usize) -> Result<Vec<usize>, String> {
        self.ty(i)?.dims().ok_or_else(|| "of a value with open sizes".into())
    }

    /// The constant at input `i`.
    pub(super) fn weight(&self, i: usize) -> Result<&'w Tensor, String> {
        let constant = self.node.inputs.get(i).and_then(|id| self.graph.weight(*id));
        constant.ok_or_else(|| format!("whose input {i} is no constant"))
    }

    /// An error unless input `i` is a constant, or made of constant codes alone.
    pub(super) fn fixed(&self, i: usize) -> Result<(), String> {
        let made = |id: &ValueId| {
            let Def::Node(node, _) = self.graph.value(*id).def else { return false };
            let node = &self.graph.nodes()[node];
            node.op.downcast::<Dequantize>().is_some() && self.graph.weight(node.inputs[0]).is_some()
        };
        let codes = self.node.inputs.get(i).is_some_and(made);
        if codes { Ok(()) } else { self.weight(i).map(|_| ()) }
    }

    /// The whole numbers of the constant at input `i`.
    pub(super) fn ints(&self, i: usize) -> Result<Vec<i64>, String> {
        kinglet_graph::ints(self.weight(i)?).ok_or_else(|| format!("whose input {i} holds no integers"))
    }

    /// The only number of the constant at input `i`.
    pub(super) fn float(&self, i: usize) -> Result<f32, String> {
        let literal = crate::coreml::Literal::Tensor(self.weight(i)?.clone());
        literal.float().ok_or_else(|| format!("whose input {i} is not one number"))
    }

    /// What inference sees of the inputs.
    pub(super) fn with_args<T>(&self, f: impl FnOnce(&Args<'_>) -> T) -> T {
        let args: Vec<Known<'_>> = self.node.inputs.iter().map(|id| self.graph.arg(*id)).collect();
        f(&Args(&args))
    }

    /// Whether elements of input `i` are floats.
    pub(super) fn is_float(&self, i: usize) -> bool {
        self.ty(i).is_ok_and(|ty| matches!(ty.dtype, DType::F32 | DType::F16 | DType::BF16 | DType::F64))
    }

    /// An error when only the first output may be read, and another one is.
    pub(super) fn only_first(&self) -> Result<(), String> {
        let read = self.node.outputs[1..].iter().any(|id| self.writer.read.contains(id));
        if read { Err("with more than one result".into()) } else { Ok(()) }
    }

    /// The node's first output as that of one operation.
    pub(super) fn emit(&mut self, kind: &str, given: Given<'_>) -> Result<(), String> {
        self.only_first()?;
        self.emit_all(kind, given, 1)
    }

    /// The node's first `count` outputs as those of one operation.
    pub(super) fn emit_all(&mut self, kind: &str, given: Given<'_>, count: usize) -> Result<(), String> {
        let mut outputs = Vec::new();
        for (i, id) in self.node.outputs.iter().take(count).enumerate() {
            let ty = self.made(i)?;
            weights::computed(ty.dtype, false)?;
            let name = self.writer.name_of(self.graph, *id);
            outputs.push(self.writer.named(&name, ty));
        }
        let stem = outputs[0].name.clone();
        let inputs = self.arguments(&stem, given);
        self.writer.push(kind, inputs, outputs);
        Ok(())
    }

    /// Output `i` of the node as that of one operation.
    pub(super) fn emit_at(&mut self, i: usize, kind: &str, given: Given<'_>) -> Result<(), String> {
        let ty = self.made(i)?;
        weights::computed(ty.dtype, false)?;
        let name = self.writer.name_of(self.graph, self.node.outputs[i]);
        let inputs = self.arguments(&name, given);
        let named = self.writer.named(&name, ty);
        self.writer.push(kind, inputs, vec![named]);
        Ok(())
    }

    /// A value between the operations of a spelling, of this type.
    pub(super) fn temp(&mut self, kind: &str, given: Given<'_>, ty: &TensorType) -> String {
        self.temp_of(kind, given, weights::value_type(ty, self.writer.options.half))
    }

    /// The same for a value of any type.
    pub(super) fn temp_of(&mut self, kind: &str, given: Given<'_>, ty: proto::ValueType) -> String {
        let name = self.writer.fresh(&format!("{}_{kind}", self.node.name));
        let inputs = self.arguments(&name, given);
        let named = proto::NamedType { name: name.clone(), ty: Some(ty) };
        self.writer.push(kind, inputs, vec![named]);
        name
    }

    /// Whether the node's result is read by `Dequantize` alone.
    pub(super) fn only_dequantized(&self) -> bool {
        let id = self.node.outputs[0];
        let others = |node: &&Node| node.inputs.contains(&id) && node.op.downcast::<Dequantize>().is_none();
        !self.graph.outputs().contains(&id) && !self.graph.nodes().iter().any(|node| others(&node))
    }

    /// Codes of 8 bits as a constant under a name like `stem`.
    pub(super) fn codes(&mut self, stem: &str, tensor: &Tensor) -> Result<String, String> {
        let name = self.writer.fresh(&format!("{}_{stem}", self.node.name));
        let value = weights::codes(tensor, &mut self.writer.weights);
        let value = value.ok_or_else(|| format!("with codes of {}", tensor.dtype()))?;
        let named = proto::NamedType { name: name.clone(), ty: value.ty.clone() };
        self.writer.operations.push(constant(named, value));
        Ok(name)
    }

    /// The node's result as the numbers that constant codes stand for, which stay codes in the file.
    pub(super) fn compressed(
        &mut self,
        codes: &Tensor,
        scale: &Tensor,
        zero: Option<&Tensor>,
        axis: usize,
    ) -> Result<(), String> {
        let ty = self.made(0)?;
        let zeros = Tensor::new("", codes.dtype(), Vec::new(), vec![0].into()).map_err(|e| e.to_string())?;
        let zero = zero.unwrap_or(&zeros);
        let (half, weights) = (self.writer.options.half, &mut self.writer.weights);
        let codes = weights::codes(codes, weights).ok_or("with codes of another type")?;
        let zero = weights::codes(zero, weights).ok_or("with zero points of another type")?;
        let (scale, _) = weights::value(scale, half, weights)?;
        let axis = Tensor::new("", DType::I32, Vec::new(), (axis as i32).to_le_bytes().to_vec().into());
        let (axis, _) = weights::value(&axis.map_err(|e| e.to_string())?, half, weights)?;
        let name = self.writer.name_of(self.graph, self.node.outputs[0]);
        let named = self.writer.named(&name, ty);
        let attributes = [
            ("name", weights::text(&name)),
            ("quantized_data", codes),
            ("zero_point", zero),
            ("scale", scale),
            ("axis", axis),
        ];
        self.writer.operations.push(proto::Operation {
            kind: "constexpr_affine_dequantize".into(),
            inputs: BTreeMap::new(),
            outputs: vec![named],
            blocks: Vec::new(),
            attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
        });
        Ok(())
    }

    /// Several results of one operation between those of a spelling.
    pub(super) fn temps(&mut self, kind: &str, given: Given<'_>, types: &[TensorType]) -> Vec<String> {
        let names: Vec<String> =
            types.iter().map(|_| self.writer.fresh(&format!("{}_{kind}", self.node.name))).collect();
        let inputs = self.arguments(&names[0], given);
        let outputs = names.iter().zip(types).map(|(name, ty)| self.writer.named(name, ty)).collect();
        self.writer.push(kind, inputs, outputs);
        names
    }

    /// A constant under a name like `stem`.
    pub(super) fn tensor(
        &mut self,
        stem: &str,
        dtype: DType,
        shape: &[usize],
        data: Bytes,
    ) -> Result<String, String> {
        let tensor = Tensor::new("", dtype, shape.to_vec(), data).map_err(|e| e.to_string())?;
        let name = self.writer.fresh(&format!("{}_{stem}", self.node.name));
        self.writer.constant(&name, &tensor);
        Ok(name)
    }

    pub(super) fn arguments(&mut self, stem: &str, given: Given<'_>) -> BTreeMap<String, proto::Argument> {
        given.into_iter().map(|(name, arg)| (name.to_owned(), self.argument(stem, name, arg))).collect()
    }

    fn argument(&mut self, stem: &str, parameter: &str, arg: Arg<'_>) -> proto::Argument {
        let ints = |list: &[i64]| list.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let (dtype, shape, bytes) = match arg {
            Arg::Name(name) => return bound(&name),
            Arg::Names(names) => {
                let bindings = names.iter().flat_map(|name| bound(name).bindings).collect();
                return proto::Argument { bindings };
            }
            Arg::Text(text) => {
                return bound(&self.writer.text_constant(&format!("{stem}_{parameter}"), text));
            }
            Arg::Int(n) => (DType::I64, vec![], ints(&[n])),
            Arg::Ints(list) => (DType::I64, vec![list.len()], ints(&list)),
            Arg::Float(x) => (DType::F32, vec![], x.to_le_bytes().to_vec()),
            Arg::Flag(b) => (DType::Bool, vec![], vec![u8::from(b)]),
            Arg::Flags(list) => (DType::Bool, vec![list.len()], list.into_iter().map(u8::from).collect()),
        };
        let name = self.writer.fresh(&format!("{stem}_{parameter}"));
        match Tensor::new("", dtype, shape, bytes.into()) {
            Ok(tensor) => self.writer.constant(&name, &tensor),
            Err(e) => self.writer.missing.add("constant", e.to_string(), &name),
        }
        bound(&name)
    }
}

/// The type with another shape.
pub(super) fn shaped(ty: &TensorType, shape: Vec<Dim>) -> TensorType {
    TensorType { dtype: ty.dtype, shape }
}
