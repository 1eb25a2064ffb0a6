//! Operations that move elements.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Cast, Concat, DepthSpace, Expand, Gather, GatherElements, GatherNd, Pad, PadMode, Reshape,
    ReverseSequence, Shape, Split, Squeeze, Tile, Transpose, Unsqueeze,
};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::program::Cx;

type Done = Result<(), CoreMlError>;

#[rustfmt::skip]
pub(super) const OPS: &[Entry] = &[
    ("concat", concat),
    ("depth_to_space", |cx| depth_space(cx, "block_size", true, false)),
    ("expand_dims", |cx| with_ints(cx, "axes", Unsqueeze)),
    ("fill", fill),
    ("flatten2d", flatten),
    ("gather", gather),
    ("gather_along_axis", |cx| { let axis = cx.int("axis", 0); let (x, i) = (cx.input("x")?, cx.input("indices")?); cx.emit(GatherElements { axis }, &[x, i]) }),
    ("gather_nd", |cx| { let batch_dims = cx.int("batch_dims", 0).max(0) as usize; let (x, i) = (cx.input("x")?, cx.input("indices")?); cx.emit(GatherNd { batch_dims }, &[x, i]) }),
    ("pad", pad),
    ("pixel_shuffle", |cx| depth_space(cx, "upscale_factor", true, true)),
    ("pixel_unshuffle", |cx| depth_space(cx, "downscale_factor", false, true)),
    ("reshape", reshape),
    ("reshape_like", reshape_like),
    ("reverse_sequence", reverse_sequence),
    ("shape", |cx| { let x = cx.input("x")?; let sizes = cx.temp(Shape { start: 0, end: None }, &[x])?; cx.emit(Cast::to(DType::I32), &[sizes]) }),
    ("space_to_depth", |cx| depth_space(cx, "block_size", false, false)),
    ("split", split),
    ("squeeze", squeeze),
    ("stack", stack),
    ("tile", tile),
    ("transpose", transpose),
];

/// An op whose second input are known whole numbers.
fn with_ints(cx: &mut Cx<'_>, parameter: &str, op: impl kinglet_graph::Op) -> Done {
    let list = cx.required(parameter)?;
    let (x, list) = (cx.input("x")?, cx.constant_ints(&list)?);
    cx.emit(op, &[x, list])
}

fn tile(cx: &mut Cx<'_>) -> Done {
    if cx.ints("reps").is_ok() {
        return with_ints(cx, "reps", Tile);
    }
    let (x, reps) = (cx.input("x")?, cx.input("reps")?);
    let reps = cx.temp(Cast::to(DType::I64), &[reps])?;
    cx.emit(Tile, &[x, reps])
}

fn concat(cx: &mut Cx<'_>) -> Done {
    let (values, axis) = (cx.list("values")?, cx.int("axis", 0));
    if !cx.flag("interleave", false) {
        return cx.emit(Concat { axis }, &values);
    }
    // One element of each in turn: they meet in a dimension behind the axis, which then joins it.
    let rank = cx.rank(*values.first().ok_or_else(|| cx.fail("it has no values"))?)?;
    let axis = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).unwrap_or(rank);
    let behind = cx.constant_ints(&[axis as i64 + 1])?;
    let raised = values.iter().map(|value| cx.temp(Unsqueeze, &[*value, behind]));
    let raised = raised.collect::<Result<Vec<_>, _>>()?;
    let together = cx.temp(Concat { axis: axis as i64 + 1 }, &raised)?;
    let own = |i: usize| cx.making.builder.ty(values[0]).tensor().and_then(|ty| ty.shape.get(i)?.fixed());
    let sizes: Option<Vec<i64>> =
        (0..rank).map(|i| if i == axis { Some(-1) } else { own(i).map(|n| n as i64) }).collect();
    let sizes = sizes.ok_or_else(|| cx.fail("interleaved values have open sizes"))?;
    let sizes = cx.constant_ints(&sizes)?;
    cx.emit(Reshape { allow_zero: false }, &[together, sizes])
}

/// The shape of parts of other values' shapes.
fn reshape_like(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let references = cx.list("ref_tensors")?;
    let (begins, ends, open) = (cx.numbers("begins")?, cx.numbers("ends")?, cx.numbers("end_masks")?);
    if [begins.len(), ends.len(), open.len()].iter().any(|n| *n != references.len()) {
        return Err(cx.fail("begins, ends and references differ in number"));
    }
    let mut parts = Vec::new();
    for (i, reference) in references.iter().enumerate() {
        let end = (open[i] == 0).then_some(ends[i]);
        parts.push(cx.temp(Shape { start: begins[i], end }, &[*reference])?);
    }
    let shape = cx.temp(Concat { axis: 0 }, &parts)?;
    cx.emit(Reshape { allow_zero: true }, &[x, shape])
}

fn reverse_sequence(cx: &mut Cx<'_>) -> Done {
    let (x, lengths) = (cx.input("x")?, cx.input("lengths")?);
    let axis = |name: &str| usize::try_from(cx.int(name, 0)).unwrap_or(usize::MAX);
    let op = ReverseSequence { batch_axis: axis("batch_axis"), time_axis: axis("seq_axis") };
    let lengths = cx.temp(Cast::to(DType::I64), &[lengths])?;
    cx.emit(op, &[x, lengths])
}

fn stack(cx: &mut Cx<'_>) -> Done {
    let axis = cx.int("axis", 0);
    let at = cx.constant_ints(&[axis])?;
    let values: Vec<ValueId> = cx.list("values")?;
    let raised = values.iter().map(|value| cx.temp(Unsqueeze, &[*value, at]));
    let raised = raised.collect::<Result<Vec<_>, _>>()?;
    cx.emit(Concat { axis }, &raised)
}

fn reshape(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let shape = match cx.ints("shape") {
        Ok(Some(list)) => cx.constant_ints(&list)?,
        _ => {
            let shape = cx.input("shape")?;
            cx.temp(Cast::to(DType::I64), &[shape])?
        }
    };
    cx.emit(Reshape { allow_zero: false }, &[x, shape])
}

fn flatten(cx: &mut Cx<'_>) -> Done {
    let (x, axis) = (cx.input("x")?, cx.int("axis", 1));
    cx.emit(kinglet_graph::ops::Flatten { axis }, &[x])
}

fn transpose(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let rank = cx.rank(x)? as i64;
    let place =
        |axis: &i64| usize::try_from(if *axis < 0 { axis + rank } else { *axis }).unwrap_or(usize::MAX);
    let perm = cx.required("perm")?.iter().map(place).collect();
    cx.emit(Transpose { perm }, &[x])
}

fn squeeze(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    match cx.ints("axes")? {
        None => cx.emit(Squeeze, &[x]),
        Some(list) => {
            let axes = cx.constant_ints(&list)?;
            cx.emit(Squeeze, &[x, axes])
        }
    }
}

fn split(cx: &mut Cx<'_>) -> Done {
    let (x, axis, parts) = (cx.input("x")?, cx.int("axis", 0), cx.op.outputs.len());
    match cx.ints("split_sizes")? {
        None => cx.emit(Split { axis, parts }, &[x]),
        Some(list) => {
            let sizes = cx.constant_ints(&list)?;
            cx.emit(Split { axis, parts }, &[x, sizes])
        }
    }
}

fn gather(cx: &mut Cx<'_>) -> Done {
    let (x, indices, axis) = (cx.input("x")?, cx.input("indices")?, cx.int("axis", 0));
    let batch_dims = cx.int("batch_dims", 0);
    if batch_dims == 0 {
        return cx.emit(Gather { axis }, &[x, indices]);
    }
    let rank = cx.rank(x)?;
    let count = cx.rank(indices)?;
    let axis = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).unwrap_or(rank);
    let shared = usize::try_from(batch_dims).ok().filter(|n| *n <= axis.min(count) && axis < rank);
    let shared =
        shared.ok_or_else(|| cx.fail(format!("{batch_dims} shared dimensions before axis {axis}")))?;
    // The axis follows the shared dimensions first, so that places are indices of one number each.
    let places = count - shared;
    let front: Vec<usize> = (0..shared).chain([axis]).chain(shared..axis).chain(axis + 1..rank).collect();
    let between = shared + places..places + axis;
    let back = (0..shared)
        .chain(between.clone())
        .chain(shared..shared + places)
        .chain(between.end..rank + places - 1);
    let last = cx.constant_ints(&[-1])?;
    let (x, indices) = (cx.temp(Transpose { perm: front }, &[x])?, cx.temp(Unsqueeze, &[indices, last])?);
    let read = cx.temp(GatherNd { batch_dims: shared }, &[x, indices])?;
    cx.emit(Transpose { perm: back.collect() }, &[read])
}

fn fill(cx: &mut Cx<'_>) -> Done {
    let shape = match cx.ints("shape") {
        Ok(Some(list)) => cx.constant_ints(&list)?,
        _ => {
            let shape = cx.input("shape")?;
            cx.temp(Cast::to(DType::I64), &[shape])?
        }
    };
    let value = cx.input("value")?;
    cx.emit(Expand, &[value, shape])
}

fn depth_space(cx: &mut Cx<'_>, parameter: &str, to_space: bool, channels_first: bool) -> Done {
    let block = usize::try_from(cx.int(parameter, 0)).unwrap_or(0);
    let x = cx.input("x")?;
    cx.emit(DepthSpace { block, to_space, channels_first }, &[x])
}

/// `pad` lists begin and end of the last dimensions, in order.
fn pad(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let (rank, given) = (cx.rank(x)?, cx.required("pad")?);
    let padded = given.len() / 2;
    if padded > rank || !given.len().is_multiple_of(2) {
        return Err(cx.fail(format!("{} pads for {rank} dimensions", given.len())));
    }
    let mut pads = vec![0; 2 * rank];
    for (i, pair) in given.chunks_exact(2).enumerate() {
        let axis = rank - padded + i;
        (pads[axis], pads[rank + axis]) = (pair[0], pair[1]);
    }
    let mode = match cx.text("mode").as_deref() {
        None | Some("constant") => PadMode::Constant,
        Some("reflect") => PadMode::Reflect,
        Some("replicate") => PadMode::Edge,
        Some(other) => return Err(cx.fail(format!("mode `{other}` is not known"))),
    };
    let value = cx.float("constant_val", 0.0);
    let (pads, value) = (cx.constant_ints(&pads)?, cx.scalar(value)?);
    cx.emit(Pad { mode }, &[x, pads, value])
}
