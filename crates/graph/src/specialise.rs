//! Binding a graph to the types that a run brings: symbolic dims become numbers, constants fold, branches that constants
//! decide are taken, and what nobody reads goes away.
//!
//! Values keep their names. What only the data decides stays unknown. Deliberately absent: evaluating ops, which is the
//! backend's ([`Evaluate`]).

use std::sync::Arc;

use kinglet_tensor::{DType, Tensor};

use crate::args::{Arg, Args};
use crate::ops::{Dequantize, If, Loop, Op};
use crate::passes::prune;
use crate::{BuildError, Def, Graph, GraphBuilder, Node, TensorType, Type, ValueId};

/// Folded constants may always be this large; larger ones only when they are no larger than what they are made of.
const SMALL: usize = 1 << 20;

/// Computes nodes whose inputs are constants.
pub trait Evaluate {
    /// The outputs of `op`, or none when it cannot be computed here.
    fn evaluate(&self, op: &dyn Op, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Option<Vec<Tensor>>;
}

/// What is known of an input of the graph.
#[derive(Clone, Debug)]
pub enum Binding {
    /// It stays an input, of this type.
    Input(Type),
    /// It is this constant in all runs, and no input any more.
    Constant(Tensor),
}

/// The graph for inputs of these types, one a graph input in order.
pub fn specialise(graph: &Graph, inputs: &[Binding], evaluate: &dyn Evaluate) -> Result<Graph, BuildError> {
    bound(graph, inputs, evaluate, false)
}

/// The same, with the bodies of branches and loops bound to what is around them, too.
pub fn specialise_bodies(
    graph: &Graph,
    inputs: &[Binding],
    evaluate: &dyn Evaluate,
) -> Result<Graph, BuildError> {
    bound(graph, inputs, evaluate, true)
}

fn bound(
    graph: &Graph,
    inputs: &[Binding],
    evaluate: &dyn Evaluate,
    bodies: bool,
) -> Result<Graph, BuildError> {
    let mut walk = Walk { new: GraphBuilder::new(), evaluate, bodies };
    // Bindings may leave dims open by their names.
    for dim in graph.dims() {
        walk.new.dim(&dim.name, dim.max);
    }
    if let Some(kv) = graph.kv() {
        walk.new.kv(kv.clone());
    }
    let mut args = Vec::with_capacity(inputs.len());
    for (id, binding) in graph.inputs().iter().zip(inputs) {
        let name = &graph.value(*id).name;
        args.push(match binding {
            Binding::Input(ty) => walk.new.input(name, ty.clone())?,
            Binding::Constant(tensor) => walk.new.weight_as(name, tensor.clone())?,
        });
    }
    let outputs = walk.graph(graph, &args)?;
    outputs.into_iter().for_each(|id| walk.new.output(id));
    prune(&walk.new.finish())
}

/// An op, and the inputs that it reads.
type BoundOp = (Arc<dyn Op>, Vec<ValueId>);

struct Walk<'a> {
    new: GraphBuilder,
    evaluate: &'a dyn Evaluate,
    /// Whether bodies are bound, too.
    bodies: bool,
}

impl Walk<'_> {
    /// Adds the nodes of a graph with these values as its inputs; returns its outputs.
    fn graph(&mut self, graph: &Graph, args: &[ValueId]) -> Result<Vec<ValueId>, BuildError> {
        let mut map: Vec<Option<ValueId>> = vec![None; graph.values().len()];
        for (id, arg) in graph.inputs().iter().zip(args) {
            map[id.index()] = Some(*arg);
        }
        for node in graph.nodes() {
            let inputs: Vec<ValueId> =
                node.inputs.iter().map(|v| self.mapped(graph, &mut map, *v)).collect::<Result<_, _>>()?;
            let made = self.node(graph, node, &inputs)?;
            node.outputs.iter().zip(made).for_each(|(old, new)| map[old.index()] = Some(new));
        }
        graph.outputs().iter().map(|v| self.mapped(graph, &mut map, *v)).collect()
    }

    /// The new value of an old one; constants are added when they are first read.
    fn mapped(
        &mut self,
        graph: &Graph,
        map: &mut [Option<ValueId>],
        id: ValueId,
    ) -> Result<ValueId, BuildError> {
        if let Some(new) = map[id.index()] {
            return Ok(new);
        }
        let value = graph.value(id);
        let new = match &value.def {
            Def::Weight(tensor) => self.constant(&value.name, tensor.clone())?,
            Def::Absent => self.new.absent(),
            Def::Input | Def::Node(..) => return Err(BuildError::UnknownValue(id.0)),
        };
        map[id.index()] = Some(new);
        Ok(new)
    }

    fn constant(&mut self, name: &str, tensor: Tensor) -> Result<ValueId, BuildError> {
        let name = self.new.fresh(name);
        self.new.weight_as(&name, tensor)
    }

    fn node(&mut self, graph: &Graph, node: &Node, inputs: &[ValueId]) -> Result<Vec<ValueId>, BuildError> {
        if let Some(made) = self.branch(node, inputs)? {
            return Ok(made);
        }
        let names: Vec<&str> = node.outputs.iter().map(|v| graph.value(*v).name.as_str()).collect();
        let args: Vec<Arg<'_>> = inputs.iter().map(|v| self.new.graph().arg(*v)).collect();
        let args = Args(&args);
        let unknown = args.0.iter().any(|arg| *arg.ty == Type::Unknown);
        if !unknown && let Some(tensors) = node.op.known(&args) {
            return self.constants(&names, tensors);
        }
        if names.len() == 1
            && !unknown
            && let Some(same) = node.op.passes(&args)
        {
            return Ok(vec![inputs[same]]);
        }
        if let Some(tensors) = self.fold(node, &args)? {
            return self.constants(&names, tensors);
        }
        let names: Vec<String> = names.iter().map(|name| self.new.fresh(name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        // The body of a loop that cannot be bound may never run.
        let inner = if self.bodies { self.bound_bodies(&*node.op, inputs).unwrap_or_default() } else { None };
        let (op, inputs) = inner.unwrap_or_else(|| (node.op.clone(), inputs.to_vec()));
        self.new.push(&names, op, &inputs, node.note.clone())
    }

    /// A branch or loop whose bodies are bound to these inputs, and the inputs that they still read.
    fn bound_bodies(&self, op: &dyn Op, inputs: &[ValueId]) -> Result<Option<BoundOp>, BuildError> {
        if let Some(op) = op.downcast::<If>() {
            let mut reads = vec![inputs[0]];
            let mut side = |taken: bool| {
                let (body, args) = op.branch(taken, inputs);
                let bound = self.body(body, args.iter().map(|id| self.binding(*id)).collect());
                // A branch that cannot be bound may never be taken.
                let open = |id: &&ValueId| bound.is_err() || self.new.graph().weight(**id).is_none();
                reads.extend(args.iter().filter(open));
                bound.unwrap_or_else(|_| body.clone())
            };
            let (then, otherwise) = (side(true), side(false));
            return Ok(Some((Arc::new(If { then, otherwise }), reads)));
        }
        let Some(Loop { body, carried }) = op.downcast::<Loop>() else { return Ok(None) };
        let own = (2 + carried).min(inputs.len());
        let (own, around) = inputs.split_at(own);
        let scalar = |dtype| Type::from(TensorType { dtype, shape: Vec::new() });
        let mut types = vec![scalar(DType::I64), scalar(DType::Bool)];
        types.extend(own.iter().skip(2).map(|id| self.new.ty(*id).clone().closed()));
        let body = loop {
            let mut bindings: Vec<Binding> = types.iter().cloned().map(Binding::Input).collect();
            bindings.extend(around.iter().map(|id| self.binding(*id)));
            let bound = self.body(body, bindings)?;
            let made = bound.outputs().iter().skip(1).map(|id| &bound.value(*id).ty);
            let joined = types[2..].iter().zip(made).map(|(held, made)| held.join(made));
            let next: Vec<Type> = types[..2].iter().cloned().chain(joined).collect();
            if next == types {
                break bound;
            }
            types = next;
        };
        let open = around.iter().filter(|id| self.new.graph().weight(**id).is_none());
        let reads = own.iter().chain(open).copied().collect();
        Ok(Some((Arc::new(Loop { body, carried: *carried }), reads)))
    }

    fn body(&self, body: &Graph, bindings: Vec<Binding>) -> Result<Arc<Graph>, BuildError> {
        specialise_bodies(body, &bindings, self.evaluate).map(Arc::new)
    }

    /// What is known of a value for a body that reads it.
    fn binding(&self, id: ValueId) -> Binding {
        match self.new.graph().weight(id) {
            Some(tensor) => Binding::Constant(tensor.clone()),
            None => Binding::Input(self.new.ty(id).clone().closed()),
        }
    }

    fn constants(&mut self, names: &[&str], tensors: Vec<Tensor>) -> Result<Vec<ValueId>, BuildError> {
        names.iter().zip(tensors).map(|(name, tensor)| self.constant(name, tensor)).collect()
    }

    /// The outputs, when all inputs are constants and the result is worth keeping.
    fn fold(&self, node: &Node, args: &Args<'_>) -> Result<Option<Vec<Tensor>>, BuildError> {
        let all = args.0.iter().all(|arg| *arg.ty == Type::Absent || arg.constant.is_some());
        if !all || !node.op.pure() || !node.op.bodies().is_empty() {
            return Ok(None);
        }
        let types = node.op.infer(args).map_err(|reason| BuildError::Node {
            node: node.name.clone(),
            op: node.op.name().into(),
            reason,
        })?;
        let bytes = |ty: &Type| {
            let ty = ty.known()?;
            ty.dtype.bytes_for(ty.elements()?)
        };
        let made = types.iter().map(|ty| bytes(ty).unwrap_or(0)).fold(0usize, usize::saturating_add);
        let read: usize = args.0.iter().filter_map(|arg| Some(arg.constant?.data().len())).sum();
        // Numbers that codes stand for are what kernels pack.
        let most = if node.op.downcast::<Dequantize>().is_some() { read.saturating_mul(4) } else { read };
        if made > SMALL.max(most) {
            return Ok(None);
        }
        let inputs: Vec<Option<&Tensor>> = args.0.iter().map(|arg| arg.constant).collect();
        Ok(self.evaluate.evaluate(&*node.op, &inputs, &types[..node.outputs.len().min(types.len())]))
    }

    /// The outputs of the branch that a constant condition takes.
    fn branch(&mut self, node: &Node, inputs: &[ValueId]) -> Result<Option<Vec<ValueId>>, BuildError> {
        let Some(op) = node.op.downcast::<If>() else { return Ok(None) };
        let Some(taken) = self.new.graph().weight(inputs[0]).and_then(|t| t.data().first().copied()) else {
            return Ok(None);
        };
        let (body, args) = op.branch(taken != 0, inputs);
        let body = Arc::clone(body);
        self.graph(&body, args).map(Some)
    }
}
