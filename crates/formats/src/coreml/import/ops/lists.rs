//! Lists: tensors whose first dimension counts the elements. Writing behind the end makes them longer, with zeros between.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Binary, Cast, Concat, Expand, Fun2, Gather, Identity, Reduce, ReduceKind, Reshape, ScatterKind,
    ScatterNd, Shape, Squeeze, Unsqueeze,
};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::program::Cx;

type Done = Result<(), CoreMlError>;

pub(super) const OPS: &[Entry] = &[
    ("list_gather", |cx| {
        let (list, places) = (cx.input("ls")?, cx.input("indices")?);
        cx.emit(Gather { axis: 0 }, &[list, places])
    }),
    ("list_length", |cx| {
        let list = cx.input("ls")?;
        let length = length(cx, list)?;
        let shape = cx.constant_ints(&[])?;
        let length = cx.temp(Reshape { allow_zero: false }, &[length, shape])?;
        cx.emit(Cast::to(DType::I32), &[length])
    }),
    ("list_read", |cx| {
        let (list, place) = (cx.input("ls")?, one_place(cx)?);
        let element = cx.temp(Gather { axis: 0 }, &[list, place])?;
        let axis = cx.constant_ints(&[0])?;
        cx.emit(Squeeze, &[element, axis])
    }),
    ("list_scatter", |cx| {
        let (places, values) = (cx.input("indices")?, cx.input("value")?);
        let places = cx.temp(Cast::to(DType::I64), &[places])?;
        put(cx, places, values)
    }),
    ("list_write", |cx| {
        let (place, axis) = (one_place(cx)?, cx.constant_ints(&[0])?);
        let value = cx.input("value")?;
        let values = cx.temp(Unsqueeze, &[value, axis])?;
        put(cx, place, values)
    }),
    ("make_list", make_list),
];

/// `init_length` zeros of the element's shape.
fn make_list(cx: &mut Cx<'_>) -> Done {
    let shape = cx.numbers("elem_shape");
    let shape = shape.map_err(|_| cx.fail("lists of elements whose sizes are open cannot run"))?;
    let zero = match cx.text("dtype").as_deref() {
        None | Some("fp32" | "fp16") => cx.scalar(0.0)?,
        Some(other) => {
            let zero = cx.constant_index(0)?;
            cx.temp(Cast::to(if other == "bool" { DType::Bool } else { DType::I32 }), &[zero])?
        }
    };
    let length = match cx.maybe("init_length")? {
        Some(length) => vector(cx, length)?,
        None => cx.constant_ints(&[1])?,
    };
    let shape = cx.constant_ints(&shape)?;
    let shape = cx.temp(Concat { axis: 0 }, &[length, shape])?;
    cx.emit(Expand, &[zero, shape])
}

/// A whole number as a vector of one.
fn vector(cx: &mut Cx<'_>, x: ValueId) -> Result<ValueId, CoreMlError> {
    let (x, shape) = (cx.temp(Cast::to(DType::I64), &[x])?, cx.constant_ints(&[1])?);
    cx.temp(Reshape { allow_zero: false }, &[x, shape])
}

fn one_place(cx: &mut Cx<'_>) -> Result<ValueId, CoreMlError> {
    let place = cx.input("index")?;
    vector(cx, place)
}

fn length(cx: &mut Cx<'_>, list: ValueId) -> Result<ValueId, CoreMlError> {
    cx.temp(Shape { start: 0, end: Some(1) }, &[list])
}

/// The list with these values at these places, made long enough for them first.
fn put(cx: &mut Cx<'_>, places: ValueId, values: ValueId) -> Done {
    let list = cx.input("ls")?;
    let list = grown(cx, list, places)?;
    let last = cx.constant_ints(&[-1])?;
    let places = cx.temp(Unsqueeze, &[places, last])?;
    let made = cx.temp(ScatterNd { kind: ScatterKind::Replace }, &[list, places, values])?;
    cx.emit(Identity, &[made])
}

fn grown(cx: &mut Cx<'_>, list: ValueId, places: ValueId) -> Result<ValueId, CoreMlError> {
    let length = length(cx, list)?;
    let (axis, one) = (cx.constant_ints(&[0])?, cx.constant_ints(&[1])?);
    let largest = Reduce { kind: ReduceKind::Max, keep_dims: true, keep_all: false };
    let most = cx.temp(largest, &[places, axis])?;
    let needed = cx.temp(Binary(Fun2::Add), &[most, one])?;
    let more = cx.temp(Binary(Fun2::Sub), &[needed, length])?;
    let more = cx.temp(Binary(Fun2::Max), &[more, axis])?;
    let element = cx.temp(Shape { start: 1, end: None }, &[list])?;
    let shape = cx.temp(Concat { axis: 0 }, &[more, element])?;
    let zero = cx.constant_index(0)?;
    let dtype = cx.making.builder.dtype(list).unwrap_or(DType::F32);
    let zero = cx.temp(Cast::to(dtype), &[zero])?;
    let zeros = cx.temp(Expand, &[zero, shape])?;
    cx.temp(Concat { axis: 0 }, &[list, zeros])
}
