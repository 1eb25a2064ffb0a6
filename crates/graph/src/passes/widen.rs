//! Graphs that compute in floats of 16 bits, in floats of 32: what comes in is widened, what goes out is rounded again.
//!
//! Kernels know 32 bits between ops; sums and functions in between are the more exact. Left as they are: graphs of which the
//! products are of other types, those with bodies, and those that cannot be typed so.

use std::collections::HashMap;
use std::sync::Arc;

use kinglet_tensor::{DType, Tensor, quant};

use crate::ops::{Cast, ConstantOfShape, Conv, Dequantize, Gemm, Linear, MatMul};
use crate::{BuildError, Def, Graph, GraphBuilder, Node, Op, TensorType, Type, ValueId};

/// The graph in floats of 32 bits, where products are of 16.
pub fn widen(graph: Graph) -> Graph {
    let narrow = graph.nodes().iter().any(|node| {
        is_product(&*node.op) && graph.tensor_type(node.inputs[0]).is_some_and(|ty| is_narrow(ty.dtype))
    });
    if !narrow || graph.nodes().iter().any(|node| !node.op.bodies().is_empty()) {
        return graph;
    }
    Widened::of(&graph).unwrap_or(graph)
}

fn is_product(op: &dyn Op) -> bool {
    op.downcast::<Conv>().is_some()
        || op.downcast::<MatMul>().is_some()
        || op.downcast::<Gemm>().is_some()
        || op.downcast::<Linear>().is_some()
}

fn is_narrow(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

fn wide(dtype: DType) -> DType {
    if is_narrow(dtype) { DType::F32 } else { dtype }
}

/// The op that makes floats of 32 bits where this one asks for 16.
fn wide_op(op: &Arc<dyn Op>) -> Arc<dyn Op> {
    if let Some(cast) = op.downcast::<Cast>().filter(|cast| is_narrow(cast.to)) {
        return Arc::new(Cast { to: DType::F32, ..*cast });
    }
    if let Some(dequantize) = op.downcast::<Dequantize>().filter(|op| op.to.is_some_and(is_narrow)) {
        return Arc::new(Dequantize { to: Some(DType::F32), ..*dequantize });
    }
    if let Some(value) = op.downcast::<ConstantOfShape>().and_then(|op| wide_tensor(&op.value)) {
        return Arc::new(ConstantOfShape { value });
    }
    op.clone()
}

/// The same numbers in 32 bits; none when they have other types.
fn wide_tensor(tensor: &Tensor) -> Option<Tensor> {
    if !is_narrow(tensor.dtype()) {
        return None;
    }
    let mut values = vec![0.0; tensor.elements()];
    quant::dequantize(tensor.dtype(), tensor.data(), &mut values).ok()?;
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    Tensor::new(tensor.name(), DType::F32, tensor.shape().to_vec(), bytes.into()).ok()
}

/// A graph being widened.
struct Widened<'a> {
    old: &'a Graph,
    new: GraphBuilder,
    map: HashMap<ValueId, ValueId>,
}

impl<'a> Widened<'a> {
    fn of(old: &'a Graph) -> Result<Graph, BuildError> {
        let mut new = GraphBuilder::new();
        for dim in old.dims() {
            new.dim(&dim.name, dim.max);
        }
        let mut this = Self { old, new, map: HashMap::new() };
        for id in old.inputs() {
            this.input(*id)?;
        }
        for node in old.nodes() {
            this.node(node)?;
        }
        for id in old.outputs() {
            let made = this.output(*id)?;
            this.new.output(made);
        }
        Ok(this.new.finish())
    }

    fn input(&mut self, id: ValueId) -> Result<(), BuildError> {
        let value = self.old.value(id);
        let mut made = self.new.input(&value.name, value.ty.clone())?;
        if matches!(&value.ty, Type::Tensor(ty) if is_narrow(ty.dtype)) {
            let name = self.new.fresh(&format!("{}.wide", value.name));
            made = self.new.node(&name, Cast::to(DType::F32), &[made])?;
        }
        self.map.insert(id, made);
        Ok(())
    }

    fn node(&mut self, node: &Node) -> Result<(), BuildError> {
        let inputs: Vec<ValueId> = node.inputs.iter().map(|id| self.mapped(*id)).collect::<Result<_, _>>()?;
        let name = |id: &ValueId| {
            let name = &self.old.value(*id).name;
            if self.leaves(*id) { self.new.fresh(&format!("{name}.wide")) } else { name.clone() }
        };
        let names: Vec<String> = node.outputs.iter().map(name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let made = self.new.push(&names, wide_op(&node.op), &inputs, node.note.clone())?;
        for (old, new) in node.outputs.iter().zip(made) {
            self.check(*old, new)?;
            self.map.insert(*old, new);
        }
        Ok(())
    }

    /// Whether an output of the graph is to be rounded again.
    fn leaves(&self, id: ValueId) -> bool {
        self.narrow(id) && self.old.outputs().contains(&id)
    }

    fn narrow(&self, id: ValueId) -> bool {
        matches!(&self.old.value(id).ty, Type::Tensor(ty) if is_narrow(ty.dtype))
    }

    /// An error unless the new value has the type of the old one, in 32 bits where that had 16.
    fn check(&self, old: ValueId, new: ValueId) -> Result<(), BuildError> {
        let dtype = |ty: &Type| ty.tensor().map(|ty: &TensorType| wide(ty.dtype));
        let (old, new) = (&self.old.value(old).ty, self.new.ty(new));
        let same = dtype(old) == new.tensor().map(|ty| ty.dtype);
        if same { Ok(()) } else { Err(BuildError::UnknownValue(0)) }
    }

    fn mapped(&mut self, id: ValueId) -> Result<ValueId, BuildError> {
        if let Some(new) = self.map.get(&id) {
            return Ok(*new);
        }
        let value = self.old.value(id);
        let new = match &value.def {
            Def::Weight(tensor) => {
                let tensor = wide_tensor(tensor).unwrap_or_else(|| tensor.clone());
                self.new.weight_as(&value.name, tensor)?
            }
            Def::Absent => self.new.absent(),
            Def::Input | Def::Node(..) => return Err(BuildError::UnknownValue(id.0)),
        };
        self.map.insert(id, new);
        Ok(new)
    }

    /// An output of the graph in its own type.
    fn output(&mut self, id: ValueId) -> Result<ValueId, BuildError> {
        let made = self.mapped(id)?;
        let ty = &self.old.value(id).ty;
        let Type::Tensor(TensorType { dtype, .. }) = ty else { return Ok(made) };
        if !is_narrow(*dtype) {
            return Ok(made);
        }
        let name = self.new.fresh(&self.old.value(id).name);
        self.new.node(&name, Cast::to(*dtype), &[made])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_16_bits_are_computed_in_32() {
        let mut b = GraphBuilder::new();
        let half = |shape: &[usize]| TensorType::fixed(DType::F16, shape);
        let x = b.input("x", half(&[2, 3])).expect("new");
        let w = Tensor::new("w", DType::F16, vec![3, 4], vec![0; 24].into()).expect("sizes");
        let w = b.weight(w).expect("new");
        let y = b.node("y", MatMul, &[x, w]).expect("typed");
        b.output(y);
        let wide = widen(b.finish());
        let ty = |name: &str| {
            let found = wide.values().iter().find(|value| value.name == name);
            found.and_then(|value| value.ty.tensor()).map(|ty| ty.dtype)
        };
        assert_eq!((ty("x"), ty("w"), ty("y")), (Some(DType::F16), Some(DType::F32), Some(DType::F16)));
        let product = wide.nodes().iter().find(|node| node.op.downcast::<MatMul>().is_some()).expect("kept");
        assert_eq!(wide.tensor_type(product.outputs[0]).map(|ty| ty.dtype), Some(DType::F32));
    }

    #[test]
    fn products_of_other_types_stay() {
        let mut b = GraphBuilder::new();
        let x = b.input("x", TensorType::fixed(DType::F32, &[2, 3])).expect("new");
        let y = b.node("y", Cast::to(DType::F16), &[x]).expect("typed");
        b.output(y);
        assert_eq!(widen(b.finish()).nodes().len(), 1);
    }
}
