//! Attention that exporters spell out becomes `Attend`: `softmax(scale q kᵀ + mask) v`, scores and weights unseen.
//!
//! The factor may stand before or after the product, on either side of it; the mask is added or chosen by `Where`; rows
//! without weights may be set to zero. What splits rows into heads and puts them together again (reshapes and
//! transposes, also of queries, keys and values packed in one value) goes into the op, which reads rows as they are.

use std::collections::HashMap;
use std::sync::Arc;

use super::attention_parts::{Heads, Scores, Source};
use super::look::Look;
use super::prune::prune;
use super::rewrite::Rewrite;
use crate::ops::{Attend, MatMul, Reshape, Split, Transpose, Where, float_scalar, int_tensor};
use crate::{BuildError, Graph, Node, ValueId};

/// Fuses every attention over values of known shape whose scores nobody else reads.
pub fn fuse_attention(graph: &Graph) -> Result<Graph, BuildError> {
    let look = Look::at(graph);
    let mut put = Put { rewrite: Rewrite::of(graph)?, parts: HashMap::new() };
    for node in graph.nodes() {
        match look.attention(node) {
            Some(found) => put.attention(node, &found)?,
            None => put.rewrite.keep(node)?,
        }
    }
    prune(&put.rewrite.finish()?)
}

/// An attention, and where its operands come from.
pub(super) struct Found {
    op: Attend,
    sources: [Source; 3],
    mask: Option<Source>,
}

impl Look<'_> {
    /// The attention whose result this node makes.
    fn attention(&self, node: &Node) -> Option<Found> {
        let out = node.outputs[0];
        let together = self.heads_together(out);
        let product = together.unwrap_or(out);
        if together.is_none() && self.put_together_later(out).is_some() {
            return None;
        }
        let (found, heads) = self.weighted_sum(product)?;
        let rows = heads.iter().map(|heads| heads.rows.clone()).collect::<Vec<_>>();
        // Queries in rows make a result in rows.
        let query = match (together, &rows[0]) {
            (Some(_), rows) => rows.clone()?,
            (None, _) => heads[0].split.clone(),
        };
        let source = |i: usize| rows[i].clone().unwrap_or_else(|| heads[i].split.clone());
        Some(Found { sources: [query, source(1), source(2)], ..found })
    }

    /// The product whose heads were put side by side to make `id`.
    fn heads_together(&self, id: ValueId) -> Option<ValueId> {
        let (node, _) = self.made_by::<Reshape>(id)?;
        let turned = node.inputs[0];
        let product = self.transposed(turned, &[0, 2, 1, 3])?;
        self.made_by::<MatMul>(product)?;
        let ([b, s, h, d], rows) = (<[usize; 4]>::try_from(self.dims(turned)?).ok()?, self.dims(id)?);
        let once = self.is_read_once(turned) && self.is_read_once(product);
        (once && rows == [b, s, h * d] && self.queries_in_rows(product)).then_some(product)
    }

    /// The node behind a product that puts its heads side by side.
    fn put_together_later(&self, product: ValueId) -> Option<ValueId> {
        let last = self.reader(self.reader(product)?.outputs[0])?.outputs[0];
        self.heads_together(last).filter(|found| *found == product)
    }

    fn queries_in_rows(&self, product: ValueId) -> bool {
        self.weighted_sum(product).is_some_and(|(_, heads)| heads[0].rows.is_some())
    }

    /// `softmax(..) v` that makes `product`: the op, and the heads of queries, keys and values.
    fn weighted_sum(&self, product: ValueId) -> Option<(Found, [Heads; 3])> {
        let (node, _) = self.made_by::<MatMul>(product)?;
        let Scores { scale, queries, keys, mask, blank } = self.scores(node.inputs[0])?;
        let (q, k) = (self.heads(queries), self.keys(keys));
        let (outer, [_, dim]) = self.sizes(queries)?;
        let (key_outer, [other, _]) = self.sizes(keys)?;
        let (value_outer, _) = self.sizes(node.inputs[1])?;
        // Products also repeat keys and values for several batches or heads; attention does not.
        if dim != other || outer != key_outer || outer != value_outer || scale <= 0.0 {
            return None;
        }
        let heads = if let [_, heads] = *outer.as_slice() { heads } else { 1 };
        let kv_heads = heads;
        let op = Attend { heads, kv_heads, scale: Some(scale), blank, ..Attend::default() };
        let v = self.heads(node.inputs[1]);
        let sources = [q.split.clone(), k.split.clone(), v.split.clone()];
        Some((Found { op, sources, mask }, [q, k, v]))
    }

    /// `[B, H]` and `[rows, columns]` of `[B, H, rows, columns]`, or `[B]` and the same of `[B, rows, columns]`.
    fn sizes(&self, id: ValueId) -> Option<(Vec<usize>, [usize; 2])> {
        match *self.dims(id)?.as_slice() {
            [batch, heads, rows, columns] => Some((vec![batch, heads], [rows, columns])),
            [batch, rows, columns] => Some((vec![batch], [rows, columns])),
            _ => None,
        }
    }
}

/// The new graph under construction.
struct Put<'a> {
    rewrite: Rewrite<'a>,
    /// Parts of packed values that were split so far.
    parts: HashMap<ValueId, Vec<ValueId>>,
}

impl Put<'_> {
    fn attention(&mut self, node: &Node, found: &Found) -> Result<(), BuildError> {
        let mut inputs = Vec::with_capacity(4);
        for source in found.sources.iter().chain(&found.mask) {
            inputs.push(self.operand(&node.name, source)?);
        }
        let note = "scores, softmax and weighted sum in one pass".into();
        self.rewrite.put(Arc::new(found.op), &inputs, &node.outputs, note)
    }

    /// The operand, made where it is not there yet.
    fn operand(&mut self, name: &str, source: &Source) -> Result<ValueId, BuildError> {
        match source {
            Source::There(id) => Ok(*id),
            Source::Shaped(id, shape) => {
                let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
                let shape = self.ints(name, &shape)?;
                let out = self.rewrite.temporary(&format!("{name}.rows"));
                let op = Arc::new(Reshape { allow_zero: true });
                self.rewrite.put(op, &[*id, shape], &[out], "heads side by side".into())?;
                Ok(out)
            }
            Source::Turned(id, perm) => {
                let out = self.rewrite.temporary(&format!("{name}.keys"));
                let op = Arc::new(Transpose { perm: perm.clone() });
                self.rewrite.put(op, &[*id], &[out], "keys as rows".into())?;
                Ok(out)
            }
            Source::Part { packed, rows, index, parts } => {
                if !self.parts.contains_key(packed) {
                    let rows = self.operand(name, rows)?;
                    let outs: Vec<ValueId> =
                        (0..*parts).map(|i| self.rewrite.temporary(&format!("{name}.part{i}"))).collect();
                    let op = Arc::new(Split { axis: -1, parts: *parts });
                    self.rewrite.put(op, &[rows], &outs, "queries, keys and values side by side".into())?;
                    self.parts.insert(*packed, outs);
                }
                Ok(self.parts[packed][*index])
            }
            Source::Mask { condition, yes, no } => {
                let stem = format!("{name}.bias");
                let yes = self.rewrite.constant(&stem, float_scalar(*yes))?;
                let no = self.rewrite.constant(&stem, float_scalar(*no))?;
                let out = self.rewrite.temporary(&format!("{name}.mask"));
                let op = Arc::new(Where);
                self.rewrite.put(op, &[*condition, yes, no], &[out], "mask as summands".into())?;
                Ok(out)
            }
        }
    }

    fn ints(&mut self, name: &str, values: &[i64]) -> Result<ValueId, BuildError> {
        let tensor = int_tensor(vec![values.len()], values);
        self.rewrite.constant(&format!("{name}.shape"), tensor)
    }
}
