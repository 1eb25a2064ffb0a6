//! Numbers drawn at random. A seed gives the same numbers in every run, and other ones than another runtime's generator.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{ArgReduce, Binary, Cast, Concat, Distribution, Fun2, Random, Shape, Unsqueeze};
use kinglet_tensor::DType;

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;
use crate::onnx::tensor::dtype_of;

type Done = Result<(), OnnxError>;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "Bernoulli", bernoulli),
    ("", "Multinomial", multinomial),
    ("", "RandomNormal", |cx| of_shape(cx, normal(cx))),
    ("", "RandomNormalLike", |cx| like(cx, normal(cx))),
    ("", "RandomUniform", |cx| of_shape(cx, uniform(cx))),
    ("", "RandomUniformLike", |cx| like(cx, uniform(cx))),
];

fn normal(cx: &Cx<'_, '_>) -> Distribution {
    Distribution::Normal { mean: cx.float("mean", 0.0), deviation: cx.float("scale", 1.0) }
}

fn uniform(cx: &Cx<'_, '_>) -> Distribution {
    Distribution::Uniform { low: cx.float("low", 0.0), high: cx.float("high", 1.0) }
}

fn seed(cx: &Cx<'_, '_>) -> Option<u64> {
    cx.attrs.float("seed").map(|seed| u64::from(seed.to_bits()))
}

/// The type that attribute `dtype` names.
fn dtype(cx: &Cx<'_, '_>, default: DType) -> Result<DType, OnnxError> {
    let Some(number) = cx.attrs.int("dtype") else { return Ok(default) };
    let known = i32::try_from(number).ok().and_then(dtype_of);
    known.ok_or_else(|| cx.fail(format!("element type {number} does not exist")))
}

fn of_shape(cx: &mut Cx<'_, '_>, from: Distribution) -> Done {
    let shape = cx.attrs.ints("shape").ok_or_else(|| cx.fail("attribute `shape` is missing"))?;
    let (shape, dtype) = (cx.ints(shape)?, dtype(cx, DType::F32)?);
    let seed = seed(cx);
    cx.emit_with(Random { from, seed, dtype }, &[shape])
}

fn shape_of(cx: &mut Cx<'_, '_>, start: i64, end: Option<i64>) -> Result<ValueId, OnnxError> {
    let x = cx.input(0);
    cx.temp(Shape { start, end }, &[x])
}

fn input_type(cx: &mut Cx<'_, '_>) -> DType {
    cx.ty(0).tensor().map_or(DType::F32, |ty| ty.dtype)
}

fn like(cx: &mut Cx<'_, '_>, from: Distribution) -> Done {
    let own = input_type(cx);
    let (shape, dtype) = (shape_of(cx, 0, None)?, dtype(cx, own)?);
    let seed = seed(cx);
    cx.emit_with(Random { from, seed, dtype }, &[shape])
}

/// 1 with the probability that the input gives.
fn bernoulli(cx: &mut Cx<'_, '_>) -> Done {
    let own = input_type(cx);
    let (shape, to) = (shape_of(cx, 0, None)?, dtype(cx, own)?);
    let from = Distribution::Uniform { low: 0.0, high: 1.0 };
    let drawn = cx.temp(Random { from, seed: seed(cx), dtype: own }, &[shape])?;
    let x = cx.input(0);
    let below = cx.temp(Binary(Fun2::Less), &[drawn, x])?;
    cx.emit_with(Cast::to(to), &[below])
}

/// Classes by the logarithms of their weights, `[N, classes]`, drawn `sample_size` times: the largest after noise.
fn multinomial(cx: &mut Cx<'_, '_>) -> Done {
    let (own, to, x) = (input_type(cx), dtype(cx, DType::I32)?, cx.input(0));
    let count = cx.int("sample_size", 1);
    let parts = [shape_of(cx, 0, Some(-1))?, cx.ints(&[count])?, shape_of(cx, -1, None)?];
    let shape = cx.temp(Concat { axis: 0 }, &parts)?;
    let noise = cx.temp(Random { from: Distribution::Gumbel, seed: seed(cx), dtype: own }, &[shape])?;
    let axis = cx.ints(&[-2])?;
    let weights = cx.temp(Unsqueeze, &[x, axis])?;
    let noisy = cx.temp(Binary(Fun2::Add), &[weights, noise])?;
    let best = cx.temp(ArgReduce { max: true, axis: -1, keep_dims: false, last: false }, &[noisy])?;
    cx.emit_with(Cast::to(to), &[best])
}
