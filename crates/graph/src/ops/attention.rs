//! `Attention`: causal grouped-query attention over a key/value state.

use super::{Op, Rope, cols, same};
use crate::{Args, TensorType, Type};

/// Rotates queries and keys, stores keys and values of the batch's rows in the state, then attends to all that the
/// row's sequence holds up to the row's own position.
///
/// Inputs: `q` f32 `[T, heads * key_dim]`, `k` f32 `[T, kv_heads * key_dim]`, `v` f32 `[T, kv_heads * value_dim]`; output
/// f32 `[T, heads * value_dim]`. `heads` is a multiple of `kv_heads`; query head `h` reads key/value head
/// `h * kv_heads / heads`.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Layer of the state that it reads and writes.
    pub layer: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a query or key head.
    pub key_dim: usize,
    /// Elements of a value head.
    pub value_dim: usize,
    /// Factor on `q . k`.
    pub scale: f32,
    /// Row `t` sees positions `> t - window` only.
    pub window: Option<usize>,
    /// `s = cap * tanh(s / cap)` before the softmax (Gemma 2).
    pub softcap: Option<f32>,
    /// Rotation of queries and keys.
    pub rope: Option<Rope>,
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "Attention"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let inputs = args.tensors::<3>()?;
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!("{} heads over {} key/value heads", self.heads, self.kv_heads));
        }
        if self.rope.as_ref().is_some_and(|r| r.dims() > self.key_dim) {
            return Err("rotates more elements than a head has".into());
        }
        same("columns of q", self.heads * self.key_dim, cols("q", inputs[0])?)?;
        same("columns of k", self.kv_heads * self.key_dim, cols("k", inputs[1])?)?;
        same("columns of v", self.kv_heads * self.value_dim, cols("v", inputs[2])?)?;
        Ok(vec![TensorType::rows_of(inputs[0].shape[0], self.heads * self.value_dim).into()])
    }

    fn describe(&self) -> String {
        let mut text = format!("{} heads over {}, dim {}", self.heads, self.kv_heads, self.key_dim);
        if let Some(rope) = &self.rope {
            text += &format!(", rope {:?} {}", rope.style, rope.dims());
        }
        if let Some(window) = self.window {
            text += &format!(", window {window}");
        }
        if let Some(cap) = self.softcap {
            text += &format!(", softcap {cap}");
        }
        text
    }
}
