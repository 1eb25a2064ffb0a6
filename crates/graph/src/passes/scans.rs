//! `Scan` spelled as `Loop`, for formats that have only the latter: each round picks its slices by the number of the round.

use std::collections::HashMap;
use std::sync::Arc;

use kinglet_tensor::DType;

use super::rewrite::Rewrite;
use crate::ops::{Binary, Fun2, Gather, If, Loop, Reshape, Scan, Shape, Slice, Transpose, int_tensor};
use crate::{BuildError, Def, Graph, GraphBuilder, Node, Op, TensorType, ValueId, axis};

/// The graph with every `Scan` as a `Loop`, in bodies too. One whose results have no known number of dimensions, and another
/// axis than the first, stays.
pub fn spell_scans(graph: &Graph) -> Result<Graph, BuildError> {
    let mut rewrite = Rewrite::of(graph)?;
    for node in graph.nodes() {
        if let Some(scan) = node.op.downcast::<Scan>()
            && let Some(orders) = orders(scan)
        {
            Spelling { rewrite: &mut rewrite, graph, node, scan }.put(&orders)?;
            continue;
        }
        match within(&*node.op)? {
            Some(op) => rewrite.put(op, &node.inputs, &node.outputs, node.note.clone())?,
            None => rewrite.keep(node)?,
        }
    }
    rewrite.finish()
}

/// The op with its bodies spelled, when it has some.
fn within(op: &dyn Op) -> Result<Option<Arc<dyn Op>>, BuildError> {
    let spelled = |body: &Graph| spell_scans(body).map(Arc::new);
    if let Some(If { then, otherwise }) = op.downcast() {
        return Ok(Some(Arc::new(If { then: spelled(then)?, otherwise: spelled(otherwise)? })));
    }
    let Some(Loop { body, carried }) = op.downcast() else { return Ok(None) };
    Ok(Some(Arc::new(Loop { body: spelled(body)?, carried: *carried })))
}

/// For each scan output the order of dimensions that moves its first to its own axis; none where they need no move.
fn orders(scan: &Scan) -> Option<Vec<Option<Vec<usize>>>> {
    let made = scan.body.outputs().iter().skip(scan.carried);
    let order = |((along, _), id): (&(i64, bool), &ValueId)| {
        if *along == 0 {
            return Some(None);
        }
        let rank = scan.body.tensor_type(*id)?.rank() + 1;
        let at = axis(*along, rank).ok()?;
        let mut order: Vec<usize> = (1..rank).collect();
        order.insert(at, 0);
        Some((at > 0).then_some(order))
    };
    scan.outputs.iter().zip(made).map(order).collect()
}

/// One node on its way to a loop.
struct Spelling<'s, 'a> {
    rewrite: &'s mut Rewrite<'a>,
    graph: &'a Graph,
    node: &'a Node,
    scan: &'a Scan,
}

impl Spelling<'_, '_> {
    fn put(mut self, orders: &[Option<Vec<usize>>]) -> Result<(), BuildError> {
        let (carried, scanned) = (self.scan.carried, self.scan.inputs.len());
        let rounds = self.rounds()?;
        let one = self.rewrite.constant(&format!("{}.one", self.node.name), int_tensor(vec![], &[1]))?;
        let last = self.temp("last", Binary(Fun2::Sub), &[rounds, one])?;
        let op = Loop { body: Arc::new(self.round()?), carried };
        let (starts, rest) = self.node.inputs.split_at(carried);
        let go = self.rewrite.absent();
        let mut inputs = vec![rounds, go];
        inputs.extend(starts);
        inputs.extend(&rest[..scanned]);
        inputs.push(last);
        inputs.extend(&rest[scanned..]);

        let mut outputs = self.node.outputs.clone();
        let moved = |i: &usize| orders[*i].is_some() || self.scan.outputs[*i].1;
        let moved: Vec<usize> =
            (0..orders.len().min(outputs.len().saturating_sub(carried))).filter(moved).collect();
        for i in &moved {
            outputs[carried + i] = self.rewrite.temporary(&format!("{}.rounds", self.node.name));
        }
        self.rewrite.put(Arc::new(op), &inputs, &outputs, String::new())?;
        for i in moved {
            self.lay(
                outputs[carried + i],
                self.node.outputs[carried + i],
                self.scan.outputs[i].1,
                orders[i].clone(),
            )?;
        }
        Ok(())
    }

    fn temp(&mut self, stem: &str, op: impl Op, inputs: &[ValueId]) -> Result<ValueId, BuildError> {
        let made = self.rewrite.temporary(&format!("{}.{stem}", self.node.name));
        self.rewrite.put(Arc::new(op), inputs, &[made], String::new())?;
        Ok(made)
    }

    fn ints(&mut self, values: &[i64]) -> Result<ValueId, BuildError> {
        self.rewrite.constant(&format!("{}.ints", self.node.name), int_tensor(vec![values.len()], values))
    }

    /// How many slices the first scan input has: the number of rounds, without dimensions.
    fn rounds(&mut self) -> Result<ValueId, BuildError> {
        let (node, scan) = (self.node, self.scan);
        let (Some((along, _)), Some(first)) = (scan.inputs.first(), node.inputs.get(scan.carried)) else {
            return self.rewrite.constant(&format!("{}.none", node.name), int_tensor(vec![], &[0]));
        };
        let end = Some(along + 1).filter(|end| *end != 0);
        let size = self.temp("sizes", Shape { start: *along, end }, &[*first])?;
        let shape = self.ints(&[])?;
        self.temp("count", Reshape { allow_zero: false }, &[size, shape])
    }

    /// The slices of all rounds in the order and along the axis that the scan leaves them.
    fn lay(
        &mut self,
        made: ValueId,
        to: ValueId,
        backwards: bool,
        order: Option<Vec<usize>>,
    ) -> Result<(), BuildError> {
        let mut made = made;
        if backwards {
            let cut = [self.ints(&[-1])?, self.ints(&[i64::MIN])?, self.ints(&[0])?, self.ints(&[-1])?];
            let inputs = [made, cut[0], cut[1], cut[2], cut[3]];
            if order.is_none() {
                return self.rewrite.put(Arc::new(Slice), &inputs, &[to], String::new());
            }
            made = self.temp("forwards", Slice, &inputs)?;
        }
        let perm = order.unwrap_or_default();
        self.rewrite.put(Arc::new(Transpose { perm }), &[made], &[to], String::new())
    }

    /// The body of the loop: from the round, the condition, what is carried, what is scanned, the number of the last round
    /// and the surroundings to the condition, what is carried, and the slices of this round.
    fn round(&self) -> Result<Graph, BuildError> {
        let body = spell_scans(&self.scan.body)?;
        let (carried, scanned) = (self.scan.carried, self.scan.inputs.len());
        let mut b = GraphBuilder::new();
        let names =
            |prefix: &str, body: &Graph, i: usize| format!("{prefix}{}", body.value(body.inputs()[i]).name);
        let scalar = |dtype| TensorType { dtype, shape: Vec::new() };
        let round = b.input("scan.round", scalar(DType::I64))?;
        let go = b.input("scan.go", scalar(DType::Bool))?;
        let mut args = Vec::new();
        for i in 0..carried {
            args.push(b.input(&names("", &body, i), body.value(body.inputs()[i]).ty.clone())?);
        }
        let mut whole = Vec::new();
        for i in 0..scanned {
            let ty = self.graph.value(self.node.inputs[carried + i]).ty.clone().closed();
            whole.push(b.input(&names("scan.all.", &body, carried + i), ty)?);
        }
        let last = b.input("scan.last", scalar(DType::I64))?;
        let back = self.scan.inputs.iter().any(|(_, backwards)| *backwards);
        let back = if back { Some(b.node("scan.back", Binary(Fun2::Sub), &[last, round])?) } else { None };
        for (i, ((along, backwards), all)) in self.scan.inputs.iter().zip(&whole).enumerate() {
            let number = back.filter(|_| *backwards).unwrap_or(round);
            args.push(b.node(&names("", &body, carried + i), Gather { axis: *along }, &[*all, number])?);
        }
        for i in carried + scanned..body.inputs().len() {
            args.push(b.input(&names("", &body, i), body.value(body.inputs()[i]).ty.clone())?);
        }
        let made = inline(&mut b, &body, &args)?;
        std::iter::once(go).chain(made).for_each(|id| b.output(id));
        Ok(b.finish())
    }
}

/// Adds the nodes of a graph whose inputs are these values; its outputs.
fn inline(b: &mut GraphBuilder, graph: &Graph, args: &[ValueId]) -> Result<Vec<ValueId>, BuildError> {
    let mut map: HashMap<ValueId, ValueId> =
        graph.inputs().iter().copied().zip(args.iter().copied()).collect();
    let find = |b: &mut GraphBuilder, map: &mut HashMap<ValueId, ValueId>, id: ValueId| {
        if let Some(new) = map.get(&id) {
            return Ok(*new);
        }
        let new = match &graph.value(id).def {
            Def::Weight(tensor) => {
                let name = b.fresh(&graph.value(id).name);
                b.weight_as(&name, tensor.clone())?
            }
            Def::Absent => b.absent(),
            Def::Input | Def::Node(..) => return Err(BuildError::UnknownValue(id.0)),
        };
        map.insert(id, new);
        Ok(new)
    };
    for node in graph.nodes() {
        let inputs = node.inputs.iter().map(|id| find(b, &mut map, *id)).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<String> = node.outputs.iter().map(|id| b.fresh(&graph.value(*id).name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let made = b.push(&names, node.op.clone(), &inputs, node.note.clone())?;
        map.extend(node.outputs.iter().copied().zip(made));
    }
    graph.outputs().iter().map(|id| find(b, &mut map, *id)).collect()
}
