//! `Recurrent` and `LinearAttention`: layers that pass a state from each position to the next.

use super::{Fun, Op};
use crate::{Args, Dim, TensorType, Type};

/// What a recurrent layer computes at each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// `h = f(W x + R h + b)`.
    Plain,
    /// Gates: update, reset, hidden.
    Gru {
        /// The reset gate acts on `R h + b`, not on `h`.
        reset_after: bool,
    },
    /// Gates: input, output, forget, cell.
    Lstm {
        /// The forget gate is 1 less the input gate.
        coupled: bool,
    },
}

impl Cell {
    /// Rows of the matrices for each hidden element.
    pub fn gates(self) -> usize {
        match self {
            Self::Plain => 1,
            Self::Gru { .. } => 3,
            Self::Lstm { .. } => 4,
        }
    }

    /// Number of activation functions.
    pub fn functions(self) -> usize {
        match self {
            Self::Plain => 1,
            Self::Gru { .. } => 2,
            Self::Lstm { .. } => 3,
        }
    }
}

/// A recurrent layer over sequences, with the layout of ONNX.
///
/// Inputs: `x` `[T, N, in]`, `W` `[D, gates * H, in]`, `R` `[D, gates * H, H]`, and optionally biases `[D, 2 * gates * H]`,
/// lengths `[N]`, first hidden state `[D, N, H]`; for LSTM the first cell state `[D, N, H]` and the weights of the cell in
/// the gates `[D, 3 * H]`. Outputs: all hidden states `[T, D, N, H]`, the last hidden state `[D, N, H]`, the last cell state.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// What each position computes.
    pub cell: Cell,
    /// For each direction, whether it runs from the end.
    pub backwards: Vec<bool>,
    /// [`Cell::functions`] for each direction.
    pub functions: Vec<Fun>,
    /// Bound on what goes into functions.
    pub clip: Option<f32>,
    /// The batch is the first dimension of `x`, of all states and of the outputs.
    pub batch_first: bool,
}

impl Op for Recurrent {
    fn name(&self) -> &'static str {
        "Recurrent"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let (x, w, r) = (args.tensor(0)?, args.tensor(1)?, args.tensor(2)?);
        let (&[a, b, _], &[_, _, _], &[d, rows, h]) =
            (x.shape.as_slice(), w.shape.as_slice(), r.shape.as_slice())
        else {
            return Err(format!("takes inputs and matrices of 3 dimensions, got {x:?}, {w:?} and {r:?}"));
        };
        let directions = self.backwards.len();
        let gates = self.cell.gates();
        let odd = d.fixed().is_some_and(|d| d != directions)
            || rows.fixed().zip(h.fixed()).is_some_and(|(rows, h)| rows != gates * h);
        if odd {
            return Err(format!("{directions} directions of {gates} gates against matrices {r:?}"));
        }
        let d = Dim::Fixed(directions);
        let of = |shape: Vec<Dim>| Type::from(TensorType { dtype: x.dtype, shape });
        let (all, last) = if self.batch_first {
            (of(vec![a, b, d, h]), of(vec![a, d, h]))
        } else {
            (of(vec![a, d, b, h]), of(vec![d, b, h]))
        };
        Ok(vec![all, last.clone(), last])
    }

    fn describe(&self) -> String {
        format!("{:?}, {} directions", self.cell, self.backwards.len())
    }
}

/// Attention as a recurrence over a state `S` `[K, V]` for each key head: `S = exp(g) S + b k (v - S' k)`, `y = scale q S`.
///
/// Inputs: `q` `[B, T, heads * K]`, `k` `[B, T, kv * K]`, `v` `[B, T, kv * V]`, and optionally the state before
/// `[B, kv, K, V]`, the decay `g` `[B, T, kv * K]` or `[B, T, kv]`, the rate `b` `[B, T, kv]` or `[B, T, 1]`. Outputs: `y`
/// `[B, T, heads * V]` and the state after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearAttention {
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Factor on the result; `1 / sqrt(K)` when none.
    pub scale: Option<f32>,
    /// Whether what the state already answers to a key is taken off its value (the delta rule).
    pub delta: bool,
}

impl Op for LinearAttention {
    fn name(&self) -> &'static str {
        "LinearAttention"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let (q, k, v) = (args.tensor(0)?, args.tensor(1)?, args.tensor(2)?);
        if self.kv_heads == 0 || self.heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!("{} heads over {}", self.heads, self.kv_heads));
        }
        if q.rank() != 3 || k.rank() != 3 || v.rank() != 3 {
            return Err(format!("takes [B, T, heads * width], got {q:?}, {k:?} and {v:?}"));
        }
        let keys = k.shape[2].map(|n| n / self.kv_heads);
        let values = v.shape[2].map(|n| n / self.kv_heads);
        let wide = q.shape[2].map(|n| n / self.heads);
        if keys.fixed().zip(wide.fixed()).is_some_and(|(k, q)| k != q) {
            return Err(format!("queries {q:?} against keys {k:?}"));
        }
        let shape = vec![q.shape[0], q.shape[1], values.map(|n| n * self.heads)];
        let y = TensorType { dtype: q.dtype, shape };
        let shape = vec![q.shape[0], Dim::Fixed(self.kv_heads), keys, values];
        let dtype = args.optional(3).map_or(q.dtype, |ty| ty.dtype);
        Ok(vec![y.into(), TensorType { dtype, shape }.into()])
    }
}
