//! Operations that own blocks: each block becomes a graph, and what it reads from around it an input of the node.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kinglet_graph::ops::{If, Loop};
use kinglet_graph::{Def, Dim, Graph, TensorType, Type, ValueId};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::making::Making;
use crate::coreml::import::program::{Cx, operations, outputs, widened};
use crate::coreml::program::{Argument, Block, ValueType};
use crate::coreml::value::{self, Literal};

type Done = Result<(), CoreMlError>;

pub(super) const OPS: &[Entry] = &[("cond", cond), ("while_loop", while_loop)];

fn cond(cx: &mut Cx<'_>) -> Done {
    let [then, otherwise] = &cx.op.blocks[..] else { return Err(cx.fail("it has not two blocks")) };
    let pred = cx.input("pred")?;
    let mut reads = vec![pred];
    let mut branch = |cx: &mut Cx<'_>, block: &Block| {
        let mut body = Body::new(cx, &[block])?;
        let made = body.run(block, &[])?;
        let (graph, outer) = body.finish(&made);
        reads.extend(outer);
        Ok::<_, CoreMlError>(graph)
    };
    let (then, otherwise) = (branch(cx, then)?, branch(cx, otherwise)?);
    cx.emit(If { then, otherwise }, &reads)
}

/// The condition is computed once before the loop, and at the end of each round.
fn while_loop(cx: &mut Cx<'_>) -> Done {
    let [test, round] = &cx.op.blocks[..] else { return Err(cx.fail("it has not two blocks")) };
    let first = cx.list("loop_vars")?;
    let wrong = cx.fail("its blocks take other values than it carries");
    if test.inputs.len() != first.len() || round.inputs.len() != first.len() {
        return Err(wrong);
    }
    let go = cx.inline(test, &first)?;
    let mut body = Body::new(cx, &[test, round])?;
    body.input("round", TensorType { dtype: DType::I64, shape: Vec::new() }.into())?;
    body.input("go", TensorType { dtype: DType::Bool, shape: Vec::new() }.into())?;
    let mut carried = Vec::new();
    for (name, ty) in &round.inputs {
        let ty = input_type(name, ty)?;
        carried.push(body.input(name, ty)?);
    }
    let made = body.run(round, &carried)?;
    let again = body.run(test, &made)?;
    if made.len() != first.len() || again.len() != 1 || go.len() != 1 {
        return Err(wrong);
    }
    let results: Vec<ValueId> = again.into_iter().chain(made).collect();
    let (graph, reads) = body.finish(&results);
    let absent = cx.absent();
    let inputs: Vec<ValueId> = [absent, go[0]].into_iter().chain(first).chain(reads).collect();
    let carried = graph.outputs().len() - 1;
    cx.emit(Loop { body: graph, carried }, &inputs)
}

/// Type of what a block takes; sizes that it leaves open are any, and a list's length is a dimension.
fn input_type(name: &str, ty: &ValueType) -> Result<Type, CoreMlError> {
    let (ty, list) = match ty {
        ValueType::Tensor(ty) => (ty, false),
        ValueType::List(ty) => (ty, true),
        _ => return Err(CoreMlError::value(name, "loops carry tensors and lists only")),
    };
    let dtype = ty.dtype.ok_or_else(|| CoreMlError::value(name, "loops cannot carry texts"))?;
    let dim = |dim: &value::Dim| match dim {
        value::Dim::Fixed(n) => Dim::Fixed(*n),
        value::Dim::Unknown => Dim::Unknown,
    };
    let count = list.then_some(Dim::Unknown);
    let shape = count.into_iter().chain(ty.shape.iter().map(dim)).collect();
    Ok(TensorType { dtype: widened(dtype), shape }.into())
}

/// A graph that blocks become.
struct Body {
    making: Making,
    known: HashMap<String, Literal>,
    /// What it reads from around it: the name, and the value there.
    reads: Vec<(String, ValueId)>,
    /// Their types, until they are inputs.
    types: Vec<Type>,
}

impl Body {
    /// A graph for these blocks, with the constants of what is around them.
    fn new(cx: &Cx<'_>, blocks: &[&Block]) -> Result<Self, CoreMlError> {
        let mut known = cx.known().clone();
        let mut names = BTreeSet::new();
        for block in blocks {
            known.extend(block.constants()?);
            free(block, &mut BTreeSet::new(), &mut names);
        }
        let outer = |name: String| cx.making.find(&name).map(|id| (name, id));
        let mut body = Self { making: Making::default(), known, reads: Vec::new(), types: Vec::new() };
        for (name, id) in names.into_iter().filter_map(outer) {
            match &cx.making.builder.graph().value(id).def {
                Def::Weight(tensor) => {
                    let inner = body.making.weight(&name, tensor.clone())?;
                    body.making.bind(&name, inner);
                }
                _ => {
                    body.types.push(cx.making.builder.ty(id).clone().closed());
                    body.reads.push((name, id));
                }
            }
        }
        Ok(body)
    }

    /// An input of its own; all of them stand before what it reads from around it.
    fn input(&mut self, name: &str, ty: Type) -> Result<ValueId, CoreMlError> {
        let name = self.making.builder.fresh(name);
        Ok(self.making.builder.input(&name, ty)?)
    }

    /// The outputs of a block that takes these values.
    fn run(&mut self, block: &Block, inputs: &[ValueId]) -> Result<Vec<ValueId>, CoreMlError> {
        self.bind_reads()?;
        block.inputs.iter().zip(inputs).for_each(|((name, _), id)| self.making.bind(name, *id));
        operations(block, &self.known, &mut self.making)?;
        outputs(block, &self.known, &mut self.making)
    }

    /// Makes what it reads inputs, once.
    fn bind_reads(&mut self) -> Result<(), CoreMlError> {
        for ((name, _), ty) in self.reads.iter().zip(std::mem::take(&mut self.types)) {
            let inner = self.making.builder.fresh(name);
            let id = self.making.builder.input(&inner, ty)?;
            self.making.bind(name, id);
        }
        Ok(())
    }

    /// The graph, and the values that it reads from around it.
    fn finish(self, results: &[ValueId]) -> (Arc<Graph>, Vec<ValueId>) {
        let (graph, _) = self.making.finish(results);
        (Arc::new(graph), self.reads.into_iter().map(|(_, id)| id).collect())
    }
}

/// Names that a block reads and neither takes nor makes.
fn free(block: &Block, made: &mut BTreeSet<String>, found: &mut BTreeSet<String>) {
    made.extend(block.inputs.iter().map(|(name, _)| name.clone()));
    for op in &block.ops {
        let arguments = op.inputs.values().flatten();
        let names = arguments.filter_map(|argument| match argument {
            Argument::Name(name) => Some(name),
            Argument::Value(_) => None,
        });
        found.extend(names.filter(|name| !made.contains(*name)).cloned());
        op.blocks.iter().for_each(|inner| free(inner, &mut made.clone(), found));
        made.extend(op.outputs.iter().map(|(name, _)| name.clone()));
    }
    found.extend(block.outputs.iter().filter(|name| !made.contains(*name)).cloned());
}
