//! Operations that put elements at places.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Expand, Fun, Identity, Reshape, ScatterElements, ScatterKind, ScatterNd, Shape, Unary, Unsqueeze,
};

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::program::Cx;

type Done = Result<(), CoreMlError>;

pub(super) const OPS: &[Entry] = &[
    ("read_state", |cx| {
        let state = cx.input("input")?;
        cx.emit(Identity, &[state])
    }),
    ("scatter", scatter),
    ("scatter_along_axis", |cx| {
        let (data, indices) = (cx.input("data")?, cx.input("indices")?);
        elements(cx, data, indices)
    }),
    ("scatter_nd", scatter_nd),
    ("slice_update", slice_update),
    ("write_state", write_state),
];

/// From now on reading the state gives this value.
fn write_state(cx: &mut Cx<'_>) -> Done {
    let value = cx.input("data")?;
    let state = cx.name_of("input").ok_or_else(|| cx.fail("`input` is no state"))?;
    cx.making.bind(&state, value);
    Ok(())
}

/// What an update does, and the updates as it takes them.
fn kind(cx: &mut Cx<'_>) -> Result<(ScatterKind, ValueId), CoreMlError> {
    let updates = cx.input("updates")?;
    Ok(match cx.text("mode").as_deref() {
        Some("update") => (ScatterKind::Replace, updates),
        None | Some("add") => (ScatterKind::Add, updates),
        Some("sub") => (ScatterKind::Add, cx.temp(Unary(Fun::Neg), &[updates])?),
        Some("mul") => (ScatterKind::Mul, updates),
        Some("div") => (ScatterKind::Mul, cx.temp(Unary(Fun::Reciprocal), &[updates])?),
        Some("max") => (ScatterKind::Max, updates),
        Some("min") => (ScatterKind::Min, updates),
        Some(other) => return Err(cx.fail(format!("mode `{other}` is not known"))),
    })
}

fn elements(cx: &mut Cx<'_>, data: ValueId, indices: ValueId) -> Done {
    let (axis, (kind, updates)) = (cx.int("axis", 0), kind(cx)?);
    cx.emit(ScatterElements { axis, kind }, &[data, indices, updates])
}

fn scatter_nd(cx: &mut Cx<'_>) -> Done {
    let (data, indices) = (cx.input("data")?, cx.input("indices")?);
    let (kind, updates) = kind(cx)?;
    cx.emit(ScatterNd { kind }, &[data, indices, updates])
}

/// Slices along an axis at the places of a list: each index stands for all elements of its slice.
fn scatter(cx: &mut Cx<'_>) -> Done {
    let (data, indices, updates) = (cx.input("data")?, cx.input("indices")?, cx.input("updates")?);
    let (rank, axis) = (cx.rank(data)? as i64, cx.int("axis", 0));
    let axis = if axis < 0 { axis + rank } else { axis };
    let others: Vec<i64> = (0..rank).filter(|other| *other != axis).collect();
    let others = cx.constant_ints(&others)?;
    let indices = cx.temp(Unsqueeze, &[indices, others])?;
    let shape = cx.temp(Shape { start: 0, end: None }, &[updates])?;
    let indices = cx.temp(Expand, &[indices, shape])?;
    elements(cx, data, indices)
}

/// `x` with the elements that a slice names in the place of others: the slice of all places says where each one goes.
fn slice_update(cx: &mut Cx<'_>) -> Done {
    let (x, update) = (cx.input("x")?, cx.input("update")?);
    let shape = cx.temp(Shape { start: 0, end: None }, &[x])?;
    let count = cx.temp(kinglet_graph::ops::Size, &[x])?;
    let (zero, one) = (cx.constant_index(0)?, cx.constant_index(1)?);
    let places = cx.temp(kinglet_graph::ops::Range, &[zero, count, one])?;
    let places = cx.temp(Reshape { allow_zero: true }, &[places, shape])?;
    let cut = super::slices::sliced(cx, places)?;
    let all = cx.constant_ints(&[-1])?;
    let [places, update, flat] =
        [cut, update, x].map(|id| cx.temp(Reshape { allow_zero: false }, &[id, all]));
    let made =
        cx.temp(ScatterElements { axis: 0, kind: ScatterKind::Replace }, &[flat?, places?, update?])?;
    cx.emit(Reshape { allow_zero: true }, &[made, shape])
}
