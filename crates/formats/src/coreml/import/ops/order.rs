//! Operations that count, sort, mark and number.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Binary, Cast, Cumulative, Expand, Fun, Fun2, NonZero, OneHot, Range, Reduce, ReduceKind, Shape, TopK,
    Transpose, Trilu, Unary,
};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::program::Cx;
use crate::coreml::value::Literal;

type Done = Result<(), CoreMlError>;

#[rustfmt::skip]
pub(super) const OPS: &[Entry] = &[
    ("argsort", argsort),
    ("band_part", band_part),
    ("classify", classify),
    ("cumsum", cumsum),
    ("fill_like", fill_like),
    ("l2_norm", l2_norm),
    ("non_zero", |cx| { let x = cx.input("x")?; let places = cx.temp(NonZero, &[x])?; let rows = cx.temp(Transpose { perm: vec![1, 0] }, &[places])?; cx.emit(Cast::to(DType::I32), &[rows]) }),
    ("one_hot", one_hot),
    ("range_1d", |cx| { let (start, end, step) = (cx.input("start")?, cx.input("end")?, cx.input("step")?); cx.emit(Range, &[start, end, step]) }),
    ("topk", topk),
];

/// The `k` extreme elements along an axis, and where they stand.
fn topk(cx: &mut Cx<'_>) -> Done {
    let both = extremes(cx, cx.int("k", 1))?;
    cx.bind_all(&both);
    Ok(())
}

fn argsort(cx: &mut Cx<'_>) -> Done {
    let [_, places] = extremes(cx, -1)?;
    cx.bind(places);
    Ok(())
}

/// Values and places; all of them when `k` is negative.
fn extremes(cx: &mut Cx<'_>, k: i64) -> Result<[ValueId; 2], CoreMlError> {
    let (x, axis) = (cx.input("x")?, cx.int("axis", -1));
    let largest = !cx.flag("ascending", false);
    let k = if k < 0 {
        // All of them, in order.
        cx.temp(Shape { start: axis, end: (axis != -1).then_some(axis.saturating_add(1)) }, &[x])?
    } else {
        cx.constant_ints(&[k])?
    };
    let both = cx.temps(TopK { axis, largest }, &[x, k], 2)?;
    Ok([both[0], cx.temp(Cast::to(DType::I32), &[both[1]])?])
}

/// The probabilities as they are, and the names of their classes; the best one's name is for callers to find.
fn classify(cx: &mut Cx<'_>) -> Done {
    let probabilities = cx.input("probabilities")?;
    cx.making.classes = cx.literal("classes").and_then(names);
    if let [(label, _), (scores, _)] = &cx.op.outputs[..] {
        cx.making.texts.push(label.clone());
        cx.making.bind(scores, probabilities);
    }
    Ok(())
}

/// Classes as texts, whatever they are listed as.
fn names(literal: Literal) -> Option<Vec<String>> {
    match literal {
        Literal::Texts(names) => Some(names),
        Literal::Tensor(tensor) => {
            kinglet_graph::ints(&tensor).map(|numbers| numbers.iter().map(i64::to_string).collect())
        }
        Literal::List(list) => {
            list.into_iter().map(names).collect::<Option<Vec<_>>>().map(|all| all.concat())
        }
    }
}

fn cumsum(cx: &mut Cx<'_>) -> Done {
    let (x, axis) = (cx.input("x")?, cx.int("axis", 0));
    let axis = cx.constant_ints(&[axis])?;
    let (exclusive, reverse) = (cx.flag("exclusive", false), cx.flag("reverse", false));
    cx.emit(Cumulative { product: false, exclusive, reverse }, &[x, axis])
}

/// What lies `lower` diagonals below the main one or `upper` above it; negative ones reach to the corner.
fn band_part(cx: &mut Cx<'_>) -> Done {
    let mut x = cx.input("x")?;
    for (parameter, upper) in [("lower", true), ("upper", false)] {
        let width = cx.int(parameter, -1);
        if width >= 0 {
            // What lies above the lowest diagonal, and below the highest.
            let diagonal = if upper { -width } else { width };
            let wide = cx.constant_index(diagonal)?;
            x = cx.temp(Trilu { upper }, &[x, wide])?;
        }
    }
    cx.bind(x);
    Ok(())
}

fn one_hot(cx: &mut Cx<'_>) -> Done {
    let (indices, axis) = (cx.input("indices")?, cx.int("axis", -1));
    let depth = cx.required("one_hot_vector_size")?;
    let depth = cx.constant_index(depth.first().copied().unwrap_or(0))?;
    let (off, on) = (cx.float("off_value", 0.0), cx.float("on_value", 1.0));
    let name = format!("{}.values", cx.op.name);
    let mut values = cx.making.floats(&name, &[2], &[off, on])?;
    if !cx.makes_floats() {
        values = cx.temp(Cast::to(DType::I32), &[values])?;
    }
    cx.emit(OneHot { axis }, &[indices, depth, values])
}

fn fill_like(cx: &mut Cx<'_>) -> Done {
    let like = cx.input("ref_tensor")?;
    let shape = cx.temp(Shape { start: 0, end: None }, &[like])?;
    let value = match cx.maybe("value")? {
        Some(value) => value,
        None => cx.scalar(0.0)?,
    };
    cx.emit(Expand, &[value, shape])
}

/// `x / sqrt(sum(x^2) + epsilon)` over the last three dimensions.
fn l2_norm(cx: &mut Cx<'_>) -> Done {
    let (x, epsilon) = (cx.input("x")?, cx.float("epsilon", 1e-6));
    let axes = cx.constant_ints(&[-3, -2, -1])?;
    let sum =
        cx.temp(Reduce { kind: ReduceKind::SumSquare, keep_dims: true, keep_all: false }, &[x, axes])?;
    let epsilon = cx.scalar(epsilon)?;
    let sum = cx.temp(Binary(Fun2::Add), &[sum, epsilon])?;
    let length = cx.temp(Unary(Fun::Sqrt), &[sum])?;
    cx.emit(Binary(Fun2::Div), &[x, length])
}
