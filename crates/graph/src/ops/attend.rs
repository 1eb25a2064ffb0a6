//! `Attend` and `Rotate`: attention over values of the graph (no state), and rotary embedding from tables.

use kinglet_tensor::DType;

use super::{
    Binary, Fun, Fun2, MatMul, Op, Parts, Reshape, Slot, Softmax, SoftmaxKind, Transpose, Unary, Where,
};
use crate::{Args, Dim, TensorType, Type};

/// `softmax(cap(scale q k^T) + mask) v` for each head.
///
/// Inputs: `q` `[B, heads, S, D]` or `[B, S, heads * D]`, `k` and `v` alike with their heads; optional mask (truth values or
/// summands, broadcast to `[B, heads, S, T]`), past keys and values `[B, kv heads, P, D]`, and the valid positions of each
/// batch entry. Outputs: `y`, all keys, all values, and the scores as `scores` says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attend {
    /// Query heads, for inputs of three dimensions.
    pub heads: usize,
    /// Key/value heads, for inputs of three dimensions.
    pub kv_heads: usize,
    /// Factor on `q . k`; `1 / sqrt(D)` when none.
    pub scale: Option<f32>,
    /// Position `i` sees positions up to `i` plus the length of the past. Where valid positions are told and no past is given,
    /// the queries are the last of them.
    pub causal: bool,
    /// How many positions before its own and behind it a query sees; all of those when none.
    pub window: [Option<usize>; 2],
    /// `cap * tanh(s / cap)`; none when 0.
    pub softcap: f32,
    /// Which queries whose weights the formula leaves without a number weigh nothing.
    pub blank: Blank,
    /// Output 3: scores (0), capped (1), masked (2), or their softmax (3).
    pub scores: u8,
}

/// Queries that weigh nothing, where `softmax` makes NaN of their scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blank {
    /// None: they make NaN.
    #[default]
    Never,
    /// Those that see nothing: all their scores are minus infinity. Scores that are NaN make NaN.
    Hidden,
    /// All, those with scores that are NaN too.
    Always,
}

/// Dimensions of `[B, H, S, D]` or `[B, S, H * D]`.
pub fn heads_of(ty: &TensorType, heads: usize) -> Result<[Dim; 4], String> {
    match *ty.shape.as_slice() {
        [b, h, s, d] => Ok([b, h, s, d]),
        [b, s, c] if heads > 0 => Ok([b, Dim::Fixed(heads), s, c.map(|c| c / heads)]),
        _ => Err(format!("takes [B, H, S, D] or [B, S, H * D], got {:?} with {heads} heads", ty.shape)),
    }
}

/// Whether two dimensions are known and not the same.
fn differ(a: Dim, b: Dim) -> bool {
    a.fixed().zip(b.fixed()).is_some_and(|(a, b)| a != b)
}

/// Positions of past keys and values, for this batch, these heads, and these elements of a key and of a value.
fn past(args: &Args<'_>, [batch, heads, key, value]: [Dim; 4]) -> Result<Dim, String> {
    let mut length = None;
    for (i, dim) in [(4, key), (5, value)] {
        let Some(ty) = args.optional(i) else { continue };
        let wrong = || format!("a past of {:?} for [{batch:?}, {heads:?}, _, {dim:?}]", ty.shape);
        let [b, h, n, d] = <[Dim; 4]>::try_from(ty.shape.as_slice()).map_err(|_| wrong())?;
        if differ(b, batch) || differ(h, heads) || differ(d, dim) || differ(n, *length.get_or_insert(n)) {
            return Err(wrong());
        }
    }
    Ok(length.unwrap_or(Dim::Fixed(0)))
}

impl Op for Attend {
    fn name(&self) -> &'static str {
        "Attend"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let (q, k, v) = (args.tensor(0)?, args.tensor(1)?, args.tensor(2)?);
        let [b, h, s, d] = heads_of(q, self.heads)?;
        let [kb, kh, kv, kd] = heads_of(k, self.kv_heads)?;
        let [vb, vh, vv, vd] = heads_of(v, self.kv_heads)?;
        let grouped = h.fixed().zip(kh.fixed()).is_none_or(|(h, k)| k > 0 && h.is_multiple_of(k));
        let lengths = differ(b, kb) || differ(b, vb) || differ(kv, vv);
        if lengths || differ(d, kd) || differ(kh, vh) || !grouped {
            return Err(format!("{:?} queries against {:?} keys and {:?} values", q.shape, k.shape, v.shape));
        }
        let past = past(args, [b, kh, kd, vd])?;
        let total = match (past.fixed(), kv.fixed()) {
            (Some(past), Some(n)) => Dim::Fixed(past.checked_add(n).ok_or("too many positions")?),
            _ => Dim::Unknown,
        };
        let of = |shape: Vec<Dim>| TensorType { dtype: q.dtype, shape };
        let width = h.fixed().zip(vd.fixed()).map_or(Dim::Unknown, |(h, d)| Dim::Fixed(h * d));
        let y = if q.rank() == 3 { of(vec![b, s, width]) } else { of(vec![b, h, s, vd]) };
        let keys = TensorType { dtype: k.dtype, shape: vec![b, kh, total, kd] };
        let values = TensorType { dtype: v.dtype, shape: vec![b, vh, total, vd] };
        Ok(vec![y.into(), keys.into(), values.into(), of(vec![b, h, s, total]).into()])
    }

    fn describe(&self) -> String {
        let order = if self.causal { ", causal" } else { "" };
        let window =
            if self.window == [None; 2] { String::new() } else { format!(", window {:?}", self.window) };
        format!("{} over {} heads{order}{window}", self.heads, self.kv_heads)
    }

    /// Of as many key/value heads as query heads, without past, cap, cause and effect, or scores.
    fn decompose(&self, args: &Args<'_>) -> Option<Parts> {
        use Slot::{In, Out};
        let (q, k) = (args.optional(0)?, args.optional(1)?);
        let heads = |ty: &TensorType, n: usize| heads_of(ty, n).ok().map(|[_, h, _, d]| (h, d));
        let ((h, d), (kv, _)) = (heads(q, self.heads)?, heads(k, self.kv_heads)?);
        if self.ordered() || self.softcap != 0.0 || h != kv || (4..7).any(|i| args.has(i)) {
            return None;
        }
        let scale = self.scale.map_or_else(|| d.fixed().map(|d| 1.0 / (d as f32).sqrt()), Some)?;
        let mut parts = Parts::default();
        let queries = self.split(&mut parts, args, 0, &[0, 2, 1, 3])?;
        let values = self.split(&mut parts, args, 2, &[0, 2, 1, 3])?;
        let keys = if k.rank() == 4 {
            parts.temp(Transpose { perm: vec![0, 1, 3, 2] }, &[In(1)])
        } else {
            self.split(&mut parts, args, 1, &[0, 2, 3, 1])?
        };
        let product = parts.temp(MatMul, &[queries, keys]);
        let factor = parts.float(scale)?;
        let scores = parts.temp(Binary(Fun2::Mul), &[product, factor]);
        let weights = self.weights(&mut parts, args, scores)?;
        if q.rank() == 4 {
            parts.node(MatMul, &[weights, values], &[Out(0)]);
        } else {
            let sums = parts.temp(MatMul, &[weights, values]);
            let (turned, shape) =
                (parts.temp(Transpose { perm: vec![0, 2, 1, 3] }, &[sums]), parts.ints(&[0, 0, -1])?);
            parts.node(Reshape { allow_zero: false }, &[turned, shape], &[Out(0)]);
        }
        Some(parts)
    }
}

impl Attend {
    /// Whether what a query sees depends on its position.
    pub fn ordered(&self) -> bool {
        self.causal || self.window != [None; 2]
    }

    /// Input `i` by heads, in an order of `[B, S, H, D]`, when it is given in rows.
    fn split(&self, parts: &mut Parts, args: &Args<'_>, i: usize, order: &[usize]) -> Option<Slot> {
        if args.optional(i)?.rank() == 4 {
            return Some(Slot::In(i));
        }
        let heads = if i == 0 { self.heads } else { self.kv_heads };
        let shape = parts.ints(&[0, 0, heads as i64, -1])?;
        let split = parts.temp(Reshape { allow_zero: false }, &[Slot::In(i), shape]);
        Some(parts.temp(Transpose { perm: order.to_vec() }, &[split]))
    }

    /// Weights of scores, masked by input 3.
    fn weights(&self, parts: &mut Parts, args: &Args<'_>, scores: Slot) -> Option<Slot> {
        let masked = match args.optional(3) {
            None => scores,
            Some(ty) if ty.dtype == DType::Bool => {
                let hidden = parts.float(f32::NEG_INFINITY)?;
                parts.temp(Where, &[Slot::In(3), scores, hidden])
            }
            Some(_) => parts.temp(Binary(Fun2::Add), &[scores, Slot::In(3)]),
        };
        let soft = Softmax { kind: SoftmaxKind::Soft, axis: -1, flat: false };
        let weights = parts.temp(soft, &[masked]);
        let nothing = match self.blank {
            Blank::Never => return Some(weights),
            // Where something is seen, weights of what is hidden are zero already.
            Blank::Hidden => {
                let hidden = parts.float(f32::NEG_INFINITY)?;
                parts.temp(Binary(Fun2::Equal), &[masked, hidden])
            }
            Blank::Always => parts.temp(Unary(Fun::IsNan), &[weights]),
        };
        let zero = parts.float(0.0)?;
        Some(parts.temp(Where, &[nothing, zero, weights]))
    }
}

/// Rotates the first `dims` elements of each head by tabulated angles.
///
/// Inputs: `x` `[B, heads, S, D]` or `[B, S, heads * D]`, cosines and sines `[positions, dims / 2]` with position ids
/// `[B, S]`, or `[B, S, dims / 2]` without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotate {
    /// Heads, for inputs of three dimensions.
    pub heads: usize,
    /// Rotated elements; 0: all of a head.
    pub dims: usize,
    /// Pairs are neighbours, not halves.
    pub interleaved: bool,
}

impl Op for Rotate {
    fn name(&self) -> &'static str {
        "Rotate"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let x = args.tensor(0)?;
        let [_, _, _, d] = heads_of(x, self.heads)?;
        if d.fixed().is_some_and(|d| self.dims > d || !self.dims.is_multiple_of(2)) {
            return Err(format!("rotates {} elements of {d:?}", self.dims));
        }
        Ok(vec![x.clone().into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arg;

    /// Whether attention of four query heads and two key/value heads takes inputs of these shapes; empty ones are absent.
    fn takes(shapes: &[&[usize]]) -> bool {
        let op = Attend { heads: 4, kv_heads: 2, ..Attend::default() };
        let types: Vec<Type> = shapes
            .iter()
            .map(|s| if s.is_empty() { Type::Absent } else { TensorType::fixed(DType::F32, s).into() })
            .collect();
        let args: Vec<Arg<'_>> = types.iter().map(|ty| Arg { ty, constant: None }).collect();
        op.infer(&Args(&args)).is_ok()
    }

    #[test]
    fn keys_and_values_must_fit_the_queries() {
        let (q, k, v): (&[usize], &[usize], &[usize]) = (&[3, 4, 5, 8], &[3, 2, 7, 8], &[3, 2, 7, 6]);
        assert!(takes(&[q, k, v]) && takes(&[&[3, 5, 32], &[3, 7, 16], &[3, 7, 12]]));
        assert!(!takes(&[q, &[1, 2, 7, 8], v]), "other batches of keys");
        assert!(!takes(&[q, k, &[1, 2, 7, 6]]), "other batches of values");
        assert!(!takes(&[q, k, &[3, 2, 9, 6]]), "more values than keys");
        assert!(!takes(&[&[3, 5, 32], &[3, 7, 16], &[3, 8, 12]]), "more values than keys, in rows");
        assert!(!takes(&[q, k, &[3, 1, 7, 6]]), "other heads");
        assert!(!takes(&[q, &[3, 2, 7, 9], v]), "longer keys");
    }

    #[test]
    fn the_past_must_fit_keys_and_values() {
        let (q, k, v): (&[usize], &[usize], &[usize]) = (&[3, 4, 5, 8], &[3, 2, 7, 8], &[3, 2, 7, 6]);
        let with = |key: &[usize], value: &[usize]| takes(&[q, k, v, &[], key, value]);
        assert!(with(&[3, 2, 9, 8], &[3, 2, 9, 6]));
        assert!(!with(&[3, 2, 9, 8], &[3, 2, 8, 6]), "of other lengths");
        assert!(!with(&[2, 2, 9, 8], &[2, 2, 9, 6]), "of other batches");
        assert!(!with(&[3, 4, 9, 8], &[3, 4, 9, 6]), "of other heads");
        assert!(!with(&[3, 2, 9, 6], &[3, 2, 9, 8]), "of other sizes");
        assert!(!with(&[3, 2, 9], &[3, 2, 9]), "of another rank");
    }
}
