//! Blocks that several families build: attention, MLPs, convolutions with their norm, squeeze and excitation.
//!
//! Paths are whole ones, as the checkpoint spells them; `at` is what the values in between are named after.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Attend, Fun, Split};

use super::net::{EACH, Net, Stride};
use super::parts;
use crate::ModelError;

/// Planes `[N, width, rows, columns]` as a sequence of pixels, `[N, rows * columns, width]`.
pub(super) fn pixels(net: &mut Net<'_>, at: &str, planes: ValueId) -> Result<ValueId, ModelError> {
    let [width, rows, columns] = [1, 2, 3].map(|axis| net.dim(planes, axis).unwrap_or(0) as i64);
    let flat = net.reshape(&parts(at, "pixels"), planes, &[0, width, rows.saturating_mul(columns)])?;
    net.transpose(&parts(at, "rows"), flat, &[0, 2, 1])
}

/// Queries, keys and values from one product.
pub(super) fn stacked(
    net: &mut Net<'_>,
    at: &str,
    product: &str,
    x: ValueId,
) -> Result<Vec<ValueId>, ModelError> {
    let all = net.linear(product, x)?;
    net.parts(&parts(at, "split"), Split { axis: -1, parts: 3 }, &[all], 3)
}

/// Attention of all queries to all keys, and the product `out` of what it finds; `qkv` are `[N, tokens, width]` each.
pub(super) fn attention(
    net: &mut Net<'_>,
    at: &str,
    out: &str,
    heads: usize,
    qkv: &[ValueId],
) -> Result<ValueId, ModelError> {
    let op = Attend { heads, kv_heads: heads, ..Attend::default() };
    let y = net.node(&parts(at, "attend"), op, qkv)?;
    net.linear(out, y)
}

/// `last(act(first(x)))` of two products.
pub(super) fn mlp(
    net: &mut Net<'_>,
    at: &str,
    [first, last]: [&str; 2],
    act: Fun,
    x: ValueId,
) -> Result<ValueId, ModelError> {
    let y = net.linear(first, x)?;
    let y = net.map(&parts(at, "act"), act, y)?;
    net.linear(last, y)
}

/// A convolution and its batch norm.
pub(super) fn conv_norm(
    net: &mut Net<'_>,
    [conv, norm]: [&str; 2],
    x: ValueId,
    stride: Stride,
    eps: f32,
) -> Result<ValueId, ModelError> {
    let x = net.conv(conv, x, stride)?;
    net.batch_norm(norm, x, eps)
}

/// `x * gate(expand(act(reduce(mean(x)))))`: squeeze and excitation.
pub(super) fn squeeze(
    net: &mut Net<'_>,
    at: &str,
    [reduce, expand]: [&str; 2],
    [act, gate]: [Fun; 2],
    x: ValueId,
) -> Result<ValueId, ModelError> {
    let y = net.mean(&parts(at, "mean"), x, &[2, 3], true)?;
    let y = net.conv(&parts(at, reduce), y, EACH)?;
    let y = net.map(&parts(at, "act"), act, y)?;
    let y = net.conv(&parts(at, expand), y, EACH)?;
    let y = net.map(&parts(at, "gate"), gate, y)?;
    net.mul(at, x, y)
}

/// Squeeze and excitation by the module `se` of a block that has it; `x` itself in others.
pub(super) fn squeeze_where(net: &mut Net<'_>, at: &str, x: ValueId) -> Result<ValueId, ModelError> {
    let se = parts(at, "se");
    if !net.has_module(&se) {
        return Ok(x);
    }
    squeeze(net, &se, ["fc1", "fc2"], [Fun::Relu, Fun::Sigmoid], x)
}
