//! Numbers drawn at random.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    ArgReduce, Binary, Cast, Concat, Distribution, Fun, Fun2, Random, Shape, Unary, Unsqueeze,
};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::program::Cx;

type Done = Result<(), CoreMlError>;

#[rustfmt::skip]
pub(super) const OPS: &[Entry] = &[
    ("random_bernoulli", bernoulli),
    ("random_categorical", categorical),
    ("random_normal", |cx| { let from = Distribution::Normal { mean: cx.float("mean", 0.0), deviation: cx.float("stddev", 1.0) }; drawn(cx, from) }),
    ("random_uniform", |cx| { let from = Distribution::Uniform { low: cx.float("low", 0.0), high: cx.float("high", 1.0) }; drawn(cx, from) }),
];

/// Numbers of this distribution in floats; negative seeds are none.
fn random(cx: &Cx<'_>, from: Distribution) -> Random {
    Random { from, seed: u64::try_from(cx.int("seed", -1)).ok(), dtype: DType::F32 }
}

fn shape(cx: &mut Cx<'_>) -> Result<ValueId, CoreMlError> {
    let shape = cx.input("shape")?;
    cx.temp(Cast::to(DType::I64), &[shape])
}

fn drawn(cx: &mut Cx<'_>, from: Distribution) -> Done {
    let (op, shape) = (random(cx, from), shape(cx)?);
    cx.emit(op, &[shape])
}

fn bernoulli(cx: &mut Cx<'_>) -> Done {
    let (shape, probability) = (shape(cx)?, cx.float("prob", 0.5));
    let op = random(cx, Distribution::Uniform { low: 0.0, high: 1.0 });
    let (drawn, probability) = (cx.temp(op, &[shape])?, cx.scalar(probability)?);
    let below = cx.temp(Binary(Fun2::Less), &[drawn, probability])?;
    cx.emit(Cast::to(DType::F32), &[below])
}

/// Places in the last dimension, by probabilities or their logarithms: the largest after noise.
fn categorical(cx: &mut Cx<'_>) -> Done {
    let mut x = cx.input("x")?;
    if cx.text("mode").as_deref() == Some("probs") {
        x = cx.temp(Unary(Fun::Log), &[x])?;
    }
    let op = random(cx, Distribution::Gumbel);
    let front = cx.temp(Shape { start: 0, end: Some(-1) }, &[x])?;
    let back = cx.temp(Shape { start: -1, end: None }, &[x])?;
    let count = cx.constant_ints(&[cx.int("size", 1)])?;
    let shape = cx.temp(Concat { axis: 0 }, &[front, count, back])?;
    let (noise, axis) = (cx.temp(op, &[shape])?, cx.constant_ints(&[-2])?);
    let x = cx.temp(Unsqueeze, &[x, axis])?;
    let noisy = cx.temp(Binary(Fun2::Add), &[x, noise])?;
    let best = cx.temp(ArgReduce { max: true, axis: -1, keep_dims: false, last: false }, &[noisy])?;
    cx.emit(Cast::to(DType::F32), &[best])
}
