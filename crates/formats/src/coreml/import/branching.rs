//! Branches and loops of neural networks.
//!
//! Layers write to names that all layers after them see, those around a branch or a loop too, and `copy` may write to a name
//! again. So a body becomes a graph whose inputs are the names it reads and whose outputs are the names it leaves: those that
//! stood before it, and those that something outside of it reads. `loopBreak` and `loopContinue` set truth values, and what
//! follows them runs where they are not set. Values are floats, conditions hold where they are not zero.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use kinglet_graph::ops::{Cast, If, Loop, Reshape, Where};
use kinglet_graph::{Graph, Op, TensorType, Type, ValueId};
use kinglet_tensor::{DType, Tensor};

use super::body::{BROKEN, Body, LEFT, Reads, nothing, written};
use super::making::Making;
use super::network;
use crate::coreml::CoreMlError;
use crate::coreml::network::Layer;
use crate::custom::CustomOps;

type Done = Result<(), CoreMlError>;

/// Bodies that lie in each other, those made of what follows a jump included.
const MAX_DEPTH: usize = 48;
/// Layers that are imported at most, those of bodies once for each attempt to type them.
const MAX_LAYERS: usize = 1 << 20;

/// Whether layers of this kind are imported here.
pub(super) fn knows(kind: &str) -> bool {
    matches!(kind, "branch" | "loop" | "loopBreak" | "loopContinue" | "copy")
}

/// Adds the layers of a whole network that makes these outputs.
pub(super) fn network(list: &[Layer], outputs: &[&str], custom: &CustomOps, making: &mut Making) -> Done {
    let mut reads = Reads::default();
    reads.count(list);
    outputs.iter().for_each(|name| reads.add(name));
    if list.iter().any(|layer| knows(layer.kind)) {
        making.kept.extend(outputs.iter().map(|name| (*name).to_owned()));
    }
    Walk { custom, reads, depth: Cell::new(0), layers: Cell::new(0) }.layers(list, making)
}

/// The walk over the layers of a network.
struct Walk<'a> {
    custom: &'a CustomOps,
    /// Reads of the whole network.
    reads: Reads<'a>,
    depth: Cell<usize>,
    layers: Cell<usize>,
}

impl Walk<'_> {
    fn layers(&self, list: &[Layer], making: &mut Making) -> Done {
        for (i, layer) in list.iter().enumerate() {
            self.layers.set(self.layers.get() + 1);
            if self.layers.get() > MAX_LAYERS {
                return Err(layer.fails("its loops lie too deep in each other"));
            }
            match layer.kind {
                "branch" => {
                    self.branch(layer, making)?;
                    if jumps(layer) {
                        return self.rest(layer, &list[i + 1..], making);
                    }
                }
                "loop" => self.repeat(layer, making)?,
                // What follows in the same list never runs.
                "loopBreak" | "loopContinue" => return jump(layer, making),
                "copy" => copy(layer, making)?,
                _ => network::layer(layer, self.custom, making)?,
            }
        }
        Ok(())
    }

    fn branch(&self, layer: &Layer, making: &mut Making) -> Done {
        let [then, otherwise] = &layer.bodies[..] else { return Err(layer.fails("it has no branches")) };
        let condition = truth(layer, read(layer, 0, making)?, making)?;
        self.choose(layer, condition, [then, otherwise], making)
    }

    /// What follows a branch that may jump.
    fn rest(&self, layer: &Layer, rest: &[Layer], making: &mut Making) -> Done {
        if rest.is_empty() {
            return Ok(());
        }
        let left = making.find(LEFT).ok_or_else(|| layer.fails("it leaves a loop, but stands in none"))?;
        self.choose(layer, left, [&[], rest], making)
    }

    /// Runs the first list of layers where the condition holds, the second one elsewhere.
    fn choose(&self, layer: &Layer, condition: ValueId, lists: [&[Layer]; 2], making: &mut Making) -> Done {
        let results = self.results(&lists, making);
        if results.is_empty() {
            return Ok(());
        }
        let mut reads = vec![condition];
        let mut graphs = Vec::new();
        for list in lists {
            let mut body = Body::new(making, &results, &[list], &[])?;
            self.nested(layer, list, &mut body.making)?;
            let made = results.iter().map(|name| body.result(name)).collect::<Result<Vec<_>, _>>()?;
            reads.extend(body.outer.iter().copied());
            graphs.push(body.finish(&made));
        }
        let [then, otherwise] = &graphs[..] else { return Ok(()) };
        let op = If { then: then.clone(), otherwise: otherwise.clone() };
        leave(layer, making, &results, op, &reads)
    }

    fn nested(&self, layer: &Layer, list: &[Layer], making: &mut Making) -> Done {
        self.depth.set(self.depth.get() + 1);
        if self.depth.get() > MAX_DEPTH {
            return Err(layer.fails(format!("more than {MAX_DEPTH} branches and loops lie in each other")));
        }
        self.layers(list, making)?;
        self.depth.set(self.depth.get() - 1);
        Ok(())
    }

    /// Names that bodies leave: what stood before them, and what is read outside.
    fn results(&self, lists: &[&[Layer]], making: &Making) -> Vec<String> {
        let (mut names, mut inside) = (BTreeSet::new(), Reads::default());
        for list in lists {
            written(list, &mut names);
            inside.count(list);
        }
        let outside = |name: &str| self.reads.of(name) > inside.of(name);
        let left = names.into_iter().filter(|name| making.find(name).is_some() || outside(name));
        left.map(str::to_owned).collect()
    }

    /// The condition is computed once before the loop, and at the end of each round.
    fn repeat(&self, layer: &Layer, making: &mut Making) -> Done {
        let [test, round] = &layer.bodies[..] else { return Err(layer.fails("it has no body")) };
        let most = most(layer, !test.is_empty(), making)?;
        self.layers(test, making)?;
        let go = match condition(layer, making)? {
            Some(go) => go,
            None => making.builder.absent(),
        };
        let mut carried = self.results(&[test, round], making);
        carried.retain(|name| name != LEFT && name != BROKEN);
        let (mut firsts, mut types) = (Vec::new(), Vec::new());
        for name in &carried {
            let (first, ty) = match making.find(name) {
                Some(id) => (id, making.builder.ty(id).clone().closed()),
                None => (nothing(making)?, Type::Unknown),
            };
            firsts.push(first);
            types.push(ty);
        }
        let (graph, outer) = loop {
            let (graph, outer) = self.round(layer, &carried, &types, making)?;
            let made = graph.outputs().iter().skip(1).map(|id| &graph.value(*id).ty);
            let next: Vec<Type> = types.iter().zip(made).map(|(held, made)| held.join(made)).collect();
            if next == types {
                break (graph, outer);
            }
            types = next;
        };
        let inputs: Vec<ValueId> = [most, go].into_iter().chain(firsts).chain(outer).collect();
        if carried.is_empty() {
            return Ok(());
        }
        let op = Loop { body: graph, carried: carried.len() };
        leave(layer, making, &carried, op, &inputs)
    }

    /// A round of a loop that carries values of these types: the next condition, then the values.
    fn round(
        &self,
        layer: &Layer,
        carried: &[String],
        types: &[Type],
        making: &Making,
    ) -> Result<(Arc<Graph>, Vec<ValueId>), CoreMlError> {
        let [test, round] = &layer.bodies[..] else { return Err(layer.fails("it has no body")) };
        let scalar = |dtype| Type::from(TensorType { dtype, shape: Vec::new() });
        let count = ("\0round", scalar(DType::I64));
        let mut own = vec![count, ("\0go", scalar(DType::Bool))];
        own.extend(carried.iter().map(String::as_str).zip(types.iter().cloned()));
        let mut body = Body::new(making, carried, &[test, round], &own)?;
        for flag in [LEFT, BROKEN] {
            let no = truth_value(&mut body.making, false)?;
            body.making.bind(flag, no);
        }
        self.nested(layer, round, &mut body.making)?;
        self.nested(layer, test, &mut body.making)?;
        let go = match condition(layer, &mut body.making)? {
            Some(go) => go,
            None => truth_value(&mut body.making, true)?,
        };
        let go = match body.making.find(BROKEN) {
            Some(broken) if jumps(layer) => unless(&mut body.making, broken, go)?,
            _ => go,
        };
        let mut results = vec![go];
        for name in carried {
            results.push(body.result(name)?);
        }
        let outer = std::mem::take(&mut body.outer);
        Ok((body.finish(&results), outer))
    }
}

/// Gives the results of an op of bodies their names.
fn leave(layer: &Layer, making: &mut Making, names: &[String], op: impl Op, inputs: &[ValueId]) -> Done {
    let stem = |name: &String| match name.strip_prefix('\0') {
        Some(flag) => format!("{}.{flag}", layer.name),
        None => name.clone(),
    };
    let stems: Vec<String> = names.iter().map(stem).collect();
    let made = making.ops(&stems, op, inputs)?;
    names.iter().zip(made).for_each(|(name, id)| making.bind(name, id));
    Ok(())
}

/// Whether something in a layer leaves the loop around it, or the round.
fn jumps(layer: &Layer) -> bool {
    let mut names = BTreeSet::new();
    layer.bodies.iter().for_each(|body| written(body, &mut names));
    names.contains(LEFT)
}

fn jump(layer: &Layer, making: &mut Making) -> Done {
    if making.find(LEFT).is_none() {
        return Err(layer.fails("it stands in no loop"));
    }
    let yes = truth_value(making, true)?;
    making.bind(LEFT, yes);
    if layer.kind == "loopBreak" {
        making.bind(BROKEN, yes);
    }
    Ok(())
}

fn copy(layer: &Layer, making: &mut Making) -> Done {
    let [name] = &layer.outputs[..] else { return Err(layer.fails("it makes one value")) };
    let from = read(layer, 0, making)?;
    making.bind(name, from);
    Ok(())
}

fn read(layer: &Layer, i: usize, making: &Making) -> Result<ValueId, CoreMlError> {
    let name = layer.inputs.get(i).ok_or_else(|| layer.fails(format!("input {i} is missing")))?;
    let made = making.find(name);
    made.ok_or_else(|| layer.fails(format!("it reads `{name}`, which nothing made before")))
}

/// How many rounds a loop makes at most: its input, or the number in field 1; none for as many as the condition wants.
fn most(layer: &Layer, tested: bool, making: &mut Making) -> Result<ValueId, CoreMlError> {
    if !layer.inputs.is_empty() {
        let count = read(layer, 0, making)?;
        let count = making.op(&layer.name, Cast::to(DType::I64), &[count])?;
        return scalar(layer, count, making);
    }
    match layer.params.int(1) {
        0 if tested => Ok(making.builder.absent()),
        count => {
            let count = making.ints(&layer.name, &[count.max(0)])?;
            scalar(layer, count, making)
        }
    }
}

/// The value of a loop's condition, when it has one.
fn condition(layer: &Layer, making: &mut Making) -> Result<Option<ValueId>, CoreMlError> {
    if layer.bodies.first().is_none_or(Vec::is_empty) {
        return Ok(None);
    }
    let name = layer.params.texts(2).pop().unwrap_or_default();
    let made =
        making.find(&name).ok_or_else(|| layer.fails(format!("nothing makes its condition `{name}`")))?;
    truth(layer, made, making).map(Some)
}

/// A number as a truth value.
fn truth(layer: &Layer, x: ValueId, making: &mut Making) -> Result<ValueId, CoreMlError> {
    let truth = match making.builder.dtype(x) {
        Some(DType::Bool) => x,
        _ => making.op(&layer.name, Cast::to(DType::Bool), &[x])?,
    };
    scalar(layer, truth, making)
}

fn scalar(layer: &Layer, x: ValueId, making: &mut Making) -> Result<ValueId, CoreMlError> {
    if making.rank(x) == Some(0) {
        return Ok(x);
    }
    let shape = making.ints(&layer.name, &[])?;
    Ok(making.op(&layer.name, Reshape { allow_zero: false }, &[x, shape])?)
}

fn truth_value(making: &mut Making, value: bool) -> Result<ValueId, CoreMlError> {
    let tensor = Tensor::new("flag", DType::Bool, Vec::new(), vec![u8::from(value)].into())?;
    Ok(making.weight("flag", tensor)?)
}

/// `go` unless `broken`.
fn unless(making: &mut Making, broken: ValueId, go: ValueId) -> Result<ValueId, CoreMlError> {
    let no = truth_value(making, false)?;
    Ok(making.op("flag", Where, &[broken, no, go])?)
}
