//! What spelled-out attention is made of: scores and their masks, heads of queries, keys and values.

use kinglet_tensor::DType;

use super::look::Look;
use crate::ValueId;
use crate::ops::{
    Blank, Expand, Fun, Fun2, Gather, MatMul, Reshape, Softmax, SoftmaxKind, Split, Squeeze, Where,
};

/// Summands below this make exact zeros of weights beside any finite score.
const HIDDEN: f32 = -1e8;

/// Where an operand comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    /// A value of the graph.
    There(ValueId),
    /// A value under another shape.
    Shaped(ValueId, Vec<usize>),
    /// A value in another order of dimensions.
    Turned(ValueId, Vec<usize>),
    /// One of equal parts of the rows that `packed` holds.
    Part { packed: ValueId, rows: Box<Source>, index: usize, parts: usize },
    /// `condition ? yes : no`.
    Mask { condition: ValueId, yes: f32, no: f32 },
}

/// Scores `scale q kᵀ + mask` turned into weights.
pub(super) struct Scores {
    pub(super) scale: f32,
    pub(super) queries: ValueId,
    /// Transposed: `[.., D, T]`.
    pub(super) keys: ValueId,
    pub(super) mask: Option<Source>,
    /// Which rows that make no weights are zero.
    pub(super) blank: Blank,
}

/// Forms in which an operand can be read.
pub(super) struct Heads {
    /// `[B, H, S, D]`, or `[B, S, D]` of one head.
    pub(super) split: Source,
    /// `[B, S, H * D]`.
    pub(super) rows: Option<Source>,
}

impl Look<'_> {
    /// The scores whose softmax, along the innermost dimension, `weights` is.
    pub(super) fn scores(&self, weights: ValueId) -> Option<Scores> {
        let (weights, blank) = self.blanked(weights).unwrap_or((weights, Blank::Never));
        let once = blank == Blank::Always || self.is_read_once(weights);
        let (node, op) = self.made_by::<Softmax>(weights).filter(|_| once)?;
        let shape = self.dims(node.inputs[0])?;
        let last = op.axis == -1 || op.axis == shape.len() as i64 - 1;
        let alone = blank == Blank::Hidden || self.is_read_once(node.inputs[0]);
        if op.kind != SoftmaxKind::Soft || !last || !alone {
            return None;
        }
        let (scores, mask) = self.masked(node.inputs[0], &shape)?;
        // Who reads the softmax's own input was looked at above.
        let free = |id: ValueId| id == node.inputs[0] || self.is_read_once(id);
        let (mut scale, mut product) = (1.0, scores);
        while let Some((factor, inner)) = self.multiple(product).filter(|_| free(product)) {
            (scale, product) = (scale * factor, inner);
        }
        let (node, _) = self.made_by::<MatMul>(product).filter(|_| free(product))?;
        let [queries, keys] = [node.inputs[0], node.inputs[1]].map(|mut side| {
            while let Some((factor, inner)) = self.multiple(side) {
                (scale, side) = (scale * factor, inner);
            }
            side
        });
        (self.dims(product)? == shape).then_some(Scores { scale, queries, keys, mask, blank })
    }

    /// The weights of `Where(IsNaN(w), 0, w)`, and of `Where(Equal(s, -inf), 0, softmax(s))`.
    fn blanked(&self, id: ValueId) -> Option<(ValueId, Blank)> {
        let (node, _) = self.made_by::<Where>(id).filter(|_| self.is_read_once(id))?;
        let &[condition, zero, weights] = node.inputs.as_slice() else { return None };
        if self.scalar(zero) != Some(0.0) || !self.is_read_once(condition) {
            return None;
        }
        let twice = |id: ValueId| self.readers_of(id) == 2 && !self.graph.outputs().contains(&id);
        if let Some((tested, Fun::IsNan)) = self.unary(condition) {
            return (tested == weights && twice(weights)).then_some((weights, Blank::Always));
        }
        let [scores, hidden] = self.binary(condition, Fun2::Equal)?;
        let (node, _) = self.made_by::<Softmax>(weights)?;
        let same = node.inputs[0] == scores && self.scalar(hidden) == Some(f32::NEG_INFINITY);
        (same && twice(scores)).then_some((weights, Blank::Hidden))
    }

    /// Scores before they are masked, and the mask if there is one; none when they are masked in a way that is no sum.
    fn masked(&self, id: ValueId, shape: &[usize]) -> Option<(ValueId, Option<Source>)> {
        if let Some([a, b]) = self.binary(id, Fun2::Add) {
            let product = |id: ValueId| self.is_read_once(id) && self.is_product(id);
            let (scores, mask) = if product(a) { (a, b) } else { (b, a) };
            return (product(scores) && self.dims(scores)? == shape)
                .then_some((scores, self.mask(mask, shape)?));
        }
        if let Some((node, _)) = self.made_by::<Where>(id) {
            let &[condition, a, b] = node.inputs.as_slice() else { return None };
            let (scores, yes, no) = match (self.scalar(a), self.scalar(b)) {
                (None, Some(fill)) => (a, 0.0, fill),
                (Some(fill), None) => (b, fill, 0.0),
                _ => return None,
            };
            let fits = yes.min(no) <= HIDDEN && self.is_read_once(scores) && self.dims(scores)? == shape;
            return fits
                .then(|| self.chosen(condition, [yes, no], shape.len() == 4))
                .flatten()
                .map(|mask| (scores, mask));
        }
        Some((id, None))
    }

    /// Whether a value is a product of matrices, by a factor or without.
    fn is_product(&self, mut id: ValueId) -> bool {
        while let Some((_, inner)) = self.multiple(id) {
            id = inner;
        }
        self.made_by::<MatMul>(id).is_some()
    }

    /// A value that is added to scores of this shape, as a mask.
    fn mask(&self, id: ValueId, shape: &[usize]) -> Option<Option<Source>> {
        if let Some((node, _)) = self.made_by::<Where>(id)
            && let Some(yes) = self.scalar(node.inputs[1])
            && let Some(no) = self.scalar(node.inputs[2])
        {
            return self.chosen(node.inputs[0], [yes, no], shape.len() == 4);
        }
        let mask = self.unexpanded(id);
        let size = self.dims(mask)?;
        if self.graph.weight(mask).is_some_and(|t| t.data().iter().all(|byte| *byte == 0)) {
            return Some(None);
        }
        // A mask of `[B, S, T]` beside scores of one head.
        Some(Some(match (size.as_slice(), shape.len()) {
            (&[b, s, t], 3) if b > 1 => Source::Shaped(mask, vec![b, 1, s, t]),
            (size, rank) if size.len() <= rank => Source::There(mask),
            _ => return None,
        }))
    }

    /// The mask that is `yes` where a condition holds and `no` elsewhere, for scores of several heads or of one.
    fn chosen(&self, condition: ValueId, [yes, no]: [f32; 2], heads: bool) -> Option<Option<Source>> {
        let condition = self.unexpanded(condition);
        let dims = self.graph.tensor_type(condition)?.dims()?;
        let all = |wanted: bool| {
            let constant = self.graph.weight(condition).filter(|t| t.dtype() == DType::Bool);
            constant.is_some_and(|t| t.data().iter().all(|byte| (*byte != 0) == wanted))
        };
        if yes == 0.0 && all(true) || no == 0.0 && all(false) {
            return Some(None);
        }
        let shown = yes == 0.0 && no == f32::NEG_INFINITY;
        let mask = if shown { Source::There(condition) } else { Source::Mask { condition, yes, no } };
        (dims.len() <= 2 || heads || dims.len() == 3 && dims[0] == 1).then_some(Some(mask))
    }

    /// The value before it was broadcast to more elements of the same rank.
    fn unexpanded(&self, mut id: ValueId) -> ValueId {
        let rank = |id: ValueId| self.graph.tensor_type(id).map(|ty| ty.rank());
        while let Some((node, _)) = self.made_by::<Expand>(id).filter(|(n, _)| rank(n.inputs[0]) == rank(id))
        {
            id = node.inputs[0];
        }
        id
    }

    /// Forms of keys that are given transposed.
    pub(super) fn keys(&self, id: ValueId) -> Heads {
        if let Some(keys) = self.transposed(id, &[0, 2, 3, 1]) {
            let turned = Source::Turned(keys, vec![0, 2, 1, 3]);
            return Heads { split: turned, rows: self.rows(keys) };
        }
        let whole = [&[0, 1, 3, 2][..], &[0, 2, 1]];
        if let Some(keys) = whole.iter().find_map(|perm| self.transposed(id, perm)) {
            return self.heads(keys);
        }
        let perm = if self.dims(id).is_some_and(|dims| dims.len() == 3) { whole[1] } else { whole[0] };
        Heads { split: Source::Turned(id, perm.to_vec()), rows: None }
    }

    /// Forms of queries, keys or values `[B, H, S, D]`.
    pub(super) fn heads(&self, id: ValueId) -> Heads {
        let split = Source::There(id);
        if self.dims(id).is_some_and(|dims| dims.len() == 3) {
            return Heads { rows: Some(split.clone()), split };
        }
        let rows = self.transposed(id, &[0, 2, 1, 3]).and_then(|x| self.rows(x)).or_else(|| self.part(id));
        Heads { split, rows }
    }

    /// `[B, S, H, D]` as rows.
    fn rows(&self, id: ValueId) -> Option<Source> {
        let [b, s, h, d] = self.dims(id)?.try_into().ok()?;
        self.side_by_side(id, [b, s, h * d])
    }

    /// A value of another shape as this one.
    fn side_by_side(&self, id: ValueId, shape: [usize; 3]) -> Option<Source> {
        if let Some((node, _)) = self.made_by::<Reshape>(id)
            && self.dims(node.inputs[0]).is_some_and(|dims| dims == shape)
        {
            return Some(Source::There(node.inputs[0]));
        }
        Some(Source::Shaped(id, shape.to_vec()))
    }

    /// One part of `[B, S, parts, H, D]` turned to `[parts, B, H, S, D]`, as rows.
    fn part(&self, id: ValueId) -> Option<Source> {
        let (turned, index) = self.slice_of_first(id)?;
        let packed = self.transposed(turned, &[2, 0, 3, 1, 4])?;
        let [b, s, parts, h, d] = self.dims(packed)?.try_into().ok()?;
        let rows = Box::new(self.side_by_side(packed, [b, s, parts * h * d])?);
        Some(Source::Part { packed, rows, index, parts })
    }

    /// The value whose slice along the first dimension `id` is, and which: by `Gather`, or by `Split` into single ones.
    fn slice_of_first(&self, id: ValueId) -> Option<(ValueId, usize)> {
        if let Some((node, op)) = self.made_by::<Gather>(id) {
            let index = crate::args::ints(self.graph.weight(node.inputs[1])?)?;
            let scalar = self.graph.tensor_type(node.inputs[1])?.rank() == 0;
            let count = *self.dims(node.inputs[0])?.first()? as i64;
            let at = if index[0] < 0 { index[0] + count } else { index[0] };
            return (op.axis == 0 && scalar).then_some((node.inputs[0], usize::try_from(at).ok()?));
        }
        let squeezed = match self.made_by::<Squeeze>(id) {
            Some((node, _)) => node.inputs[0],
            None => self.made_by::<Reshape>(id)?.0.inputs[0],
        };
        let crate::Def::Node(_, index) = self.graph.value(squeezed).def else { return None };
        let node = self.node(squeezed)?;
        let op = node.op.downcast::<Split>()?;
        let (part, all) = (self.dims(squeezed)?, self.dims(node.inputs[0])?);
        let single = op.axis == 0 && part.first() == Some(&1) && all.first() == Some(&op.parts);
        (single && self.dims(id)? == part[1..]).then_some((node.inputs[0], index))
    }
}
