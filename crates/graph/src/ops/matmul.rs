//! `MatMul` and `Gemm`: matrix products of values.

use super::Op;
use crate::{Args, Dim, TensorType, Type, broadcast};

/// `y = a @ b` as NumPy defines it: the last two dimensions are matrices, the others broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatMul;

impl Op for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let [a, b] = args.tensors::<2>()?;
        let shape = matmul_shape(&a.shape, &b.shape)?;
        Ok(vec![TensorType { dtype: a.dtype, shape }.into()])
    }
}

/// The shape of `a @ b`.
pub(crate) fn matmul_shape(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, String> {
    if a.is_empty() || b.is_empty() {
        return Err("scalars cannot be multiplied as matrices".into());
    }
    let (rows, k) =
        (a.len() >= 2).then(|| a[a.len() - 2]).map_or((None, a[0]), |m| (Some(m), a[a.len() - 1]));
    let (inner, cols) = if b.len() >= 2 { (b[b.len() - 2], Some(b[b.len() - 1])) } else { (b[0], None) };
    if let (Some(x), Some(y)) = (k.fixed(), inner.fixed())
        && x != y
    {
        return Err(format!("{x} columns against {y} rows"));
    }
    let mut shape = broadcast(&a[..a.len().saturating_sub(2)], &b[..b.len().saturating_sub(2)])?;
    shape.extend(rows);
    shape.extend(cols);
    Ok(shape)
}

/// `y = alpha * op(a) @ op(b) + beta * c`, where `op` may transpose and `c` is optional and broadcasts.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the formula names them")]
pub struct Gemm {
    pub alpha: f32,
    pub beta: f32,
    pub trans_a: bool,
    pub trans_b: bool,
}

impl Op for Gemm {
    fn name(&self) -> &'static str {
        "Gemm"
    }

    fn infer(&self, args: &Args<'_>) -> Result<Vec<Type>, String> {
        let (a, b) = (args.tensor(0)?, args.tensor(1)?);
        let (&[a0, a1], &[b0, b1]) = (a.shape.as_slice(), b.shape.as_slice()) else {
            return Err("takes matrices".into());
        };
        let (m, k) = if self.trans_a { (a1, a0) } else { (a0, a1) };
        let (inner, n) = if self.trans_b { (b1, b0) } else { (b0, b1) };
        let shape = matmul_shape(&[m, k], &[inner, n])?;
        if let Some(c) = args.optional(2)
            && broadcast(&shape, &c.shape)?.len() != 2
        {
            return Err("c has too many dimensions".into());
        }
        Ok(vec![TensorType { dtype: a.dtype, shape }.into()])
    }

    fn describe(&self) -> String {
        let t = |yes| if yes { "ᵀ" } else { "" };
        format!("{} a{} b{} + {} c", self.alpha, t(self.trans_a), t(self.trans_b), self.beta)
    }
}
