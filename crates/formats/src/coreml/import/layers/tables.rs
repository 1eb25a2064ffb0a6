//! Layers that look up, sort out by place, or spread values over shapes.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Binary, Cast, Expand, Fun, Fun2, Gather, Reshape, Shape, Slice, Squeeze, Tile, Transpose, Trilu, Unary,
};
use kinglet_tensor::DType;

use super::Entry;
use super::operations::{bound_to, fixed_to, run, text, whole};
use crate::coreml::CoreMlError;
use crate::coreml::import::network::Cx;

type Done = Result<(), CoreMlError>;

pub(super) const LAYERS: &[Entry] = &[
    ("broadcastToDynamic", |cx| {
        let (x, shape) = (cx.input(0)?, cx.input(1)?);
        let shape = cx.temp(Cast::to(DType::I64), &[shape])?;
        cx.emit(Expand, &[x, shape])
    }),
    ("broadcastToLike", |cx| {
        let (x, like) = (cx.input(0)?, cx.input(1)?);
        let shape = cx.temp(Shape { start: 0, end: None }, &[like])?;
        cx.emit(Expand, &[x, shape])
    }),
    ("broadcastToStatic", |cx| {
        let (x, shape) = (cx.input(0)?, cx.params().ints(1));
        let shape = cx.ints(&shape)?;
        cx.emit(Expand, &[x, shape])
    }),
    ("categoricalDistribution", categorical),
    ("embedding", embedding),
    ("embeddingND", embedding_nd),
    ("lowerTriangular", |cx| triangle(cx, false)),
    ("reverse", reverse),
    ("sequenceRepeat", |cx| {
        let (x, count) = (cx.input(0)?, cx.params().int(1).max(1));
        let rank = cx.making.rank(x).filter(|rank| *rank >= 5);
        let rank = rank.ok_or_else(|| cx.fail("it repeats the sequence of five dimensions"))?;
        let mut counts = vec![1; rank];
        counts[rank - 5] = count;
        let counts = cx.ints(&counts)?;
        cx.emit(Tile, &[x, counts])
    }),
    ("sliceBySize", slice_by_size),
    ("upperTriangular", |cx| triangle(cx, true)),
];

/// What is left below (or above) diagonal `k`.
fn triangle(cx: &mut Cx<'_>, upper: bool) -> Done {
    let (x, k) = (cx.input(0)?, cx.params().int(1));
    let (k, shape) = (cx.ints(&[k])?, cx.ints(&[])?);
    let k = cx.temp(Reshape { allow_zero: false }, &[k, shape])?;
    cx.emit(Trilu { upper }, &[x, k])
}

/// The dimensions whose flag in field 1 is set.
fn reverse(cx: &mut Cx<'_>) -> Done {
    let x = cx.input(0)?;
    let flags = cx.params().ints(1);
    let axes: Vec<i64> = (0..flags.len() as i64).filter(|i| flags[*i as usize] != 0).collect();
    if axes.is_empty() {
        return cx.pass(x);
    }
    let inputs = [bound_to(cx, "x", x), fixed_to("axes", whole(&axes, false)?)];
    run(cx, "reverse", inputs.into_iter().collect())
}

/// Classes by weights or their logarithms, after a division by the temperature.
fn categorical(cx: &mut Cx<'_>) -> Done {
    let mut x = cx.input(0)?;
    let (temperature, epsilon) = (cx.params().float(5), cx.params().float(4));
    if !cx.params().bool(3) {
        let epsilon = cx.scalar(epsilon)?;
        let safe = cx.temp(Binary(Fun2::Add), &[x, epsilon])?;
        x = cx.temp(Unary(Fun::Log), &[safe])?;
    }
    if temperature != 0.0 && temperature != 1.0 {
        let temperature = cx.scalar(temperature)?;
        x = cx.temp(Binary(Fun2::Div), &[x, temperature])?;
    }
    let (count, seed) = (cx.params().int(2).max(1), cx.params().int(1));
    let inputs = [
        bound_to(cx, "x", x),
        fixed_to("mode", text("logits")),
        fixed_to("size", whole(&[count], true)?),
        fixed_to("seed", whole(&[seed], true)?),
    ];
    run(cx, "random_categorical", inputs.into_iter().collect())
}

/// Rows of a table that is stored `[width, words]`, for places of any shape.
fn looked_up(cx: &mut Cx<'_>, places: ValueId, bias: u32) -> Result<ValueId, CoreMlError> {
    let (words, width) = (cx.size(1), cx.size(2));
    let table = cx.weights(20, &[width, words])?;
    let table = cx.temp(Transpose { perm: vec![1, 0] }, &[table])?;
    let places = cx.temp(Cast::to(DType::I64), &[places])?;
    let rows = cx.temp(Gather { axis: 0 }, &[table, places])?;
    if !cx.params().bool(bias) {
        return Ok(rows);
    }
    let bias = cx.weights(21, &[width])?;
    cx.temp(Binary(Fun2::Add), &[rows, bias])
}

/// Places `[.., 1, 1, 1]` to `[.., width, 1, 1]`.
fn embedding(cx: &mut Cx<'_>) -> Done {
    let x = cx.input(0)?;
    let rank = cx.making.rank(x);
    let places = if rank == Some(5) { cx.reshaped(x, &[0, 0])? } else { cx.reshaped(x, &[-1])? };
    let rows = looked_up(cx, places, 10)?;
    let width = cx.size(2) as i64;
    let shape: &[i64] = if rank == Some(5) { &[0, 0, width, 1, 1] } else { &[-1, width, 1, 1] };
    let made = cx.reshaped(rows, shape)?;
    cx.pass(made)
}

/// Places `[.., 1]` to `[.., width]`.
fn embedding_nd(cx: &mut Cx<'_>) -> Done {
    let (x, last) = (cx.input(0)?, cx.ints(&[-1])?);
    let places = cx.temp(Squeeze, &[x, last])?;
    let made = looked_up(cx, places, 3)?;
    cx.pass(made)
}

/// As many elements along an axis from a place that the second input tells.
fn slice_by_size(cx: &mut Cx<'_>) -> Done {
    let (x, begin) = (cx.input(0)?, cx.input(1)?);
    let (size, axis) = (cx.params().int(2), cx.params().int(3));
    let begin = cx.temp(Cast::to(DType::I64), &[begin])?;
    let begin = cx.reshaped(begin, &[1])?;
    let (size, axis) = (cx.ints(&[if size < 0 { i64::MAX / 2 } else { size }])?, cx.ints(&[axis])?);
    let end = cx.temp(Binary(Fun2::Add), &[begin, size])?;
    cx.emit(Slice, &[x, begin, end, axis])
}
