//! Operations that move elements.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Concat, DepthSpace, Expand, Gather, GatherElements, GatherNd, Pad, PadMode, Reshape, Shape, Slice, Split,
    Squeeze, Tile, Transpose, Unsqueeze,
};

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
    ("reshape", reshape),
    ("reverse", reverse),
    ("shape", |cx| { let x = cx.input("x")?; cx.emit(Shape { start: 0, end: None }, &[x]) }),
    ("slice_by_index", slice),
    ("slice_by_size", slice_by_size),
    ("space_to_depth", |cx| depth_space(cx, "block_size", false, false)),
    ("split", split),
    ("squeeze", squeeze),
    ("stack", stack),
    ("tile", |cx| with_ints(cx, "reps", Tile)),
    ("transpose", transpose),
];

/// An op whose second input are known whole numbers.
fn with_ints(cx: &mut Cx<'_>, parameter: &str, op: impl kinglet_graph::Op) -> Done {
    let list = cx.required(parameter)?;
    let (x, list) = (cx.input("x")?, cx.constant_ints(&list)?);
    cx.emit(op, &[x, list])
}

fn concat(cx: &mut Cx<'_>) -> Done {
    if cx.flag("interleave", false) {
        return Err(cx.fail("interleaved concatenation cannot run"));
    }
    let (values, axis) = (cx.list("values")?, cx.int("axis", 0));
    cx.emit(Concat { axis }, &values)
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
            cx.temp(kinglet_graph::ops::Cast::to(kinglet_tensor::DType::I64), &[shape])?
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
    if cx.int("batch_dims", 0) != 0 {
        return Err(cx.fail("gathering with batch dimensions cannot run"));
    }
    let (x, indices, axis) = (cx.input("x")?, cx.input("indices")?, cx.int("axis", 0));
    cx.emit(Gather { axis }, &[x, indices])
}

fn fill(cx: &mut Cx<'_>) -> Done {
    let shape = cx.required("shape")?;
    let shape = cx.constant_ints(&shape)?;
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

fn truths(cx: &Cx<'_>, parameter: &str, rank: usize) -> Result<Vec<bool>, CoreMlError> {
    let mut list: Vec<bool> = cx.ints(parameter)?.unwrap_or_default().iter().map(|n| *n != 0).collect();
    list.resize(rank, false);
    Ok(list)
}

/// Adds a slice; `i64::MAX` and `i64::MIN` are the ends.
fn cut(
    cx: &mut Cx<'_>,
    x: ValueId,
    starts: &[i64],
    ends: &[i64],
    steps: &[i64],
) -> Result<ValueId, CoreMlError> {
    let axes: Vec<i64> = (0..starts.len() as i64).collect();
    let lists = [starts, ends, &axes, steps].map(|list| cx.constant_ints(list));
    let [starts, ends, axes, steps] = lists;
    cx.temp(Slice, &[x, starts?, ends?, axes?, steps?])
}

/// Begin, end and stride of each dimension; masks leave a side open or take one element and drop the dimension.
fn slice(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let (mut begin, mut end) = (cx.required("begin")?, cx.required("end")?);
    let rank = begin.len();
    let steps = cx.ints("stride")?.unwrap_or_else(|| vec![1; rank]);
    if end.len() != rank || steps.len() != rank {
        return Err(cx.fail("begin, end and stride have different lengths"));
    }
    let open_begin = truths(cx, "begin_mask", rank)?;
    let open_end = truths(cx, "end_mask", rank)?;
    let single = truths(cx, "squeeze_mask", rank)?;
    for axis in 0..rank {
        let forward = steps[axis] > 0;
        if open_begin[axis] {
            begin[axis] = if forward { 0 } else { i64::MAX };
        }
        if single[axis] {
            end[axis] = if begin[axis] == -1 { i64::MAX } else { begin[axis].saturating_add(1) };
        } else if open_end[axis] {
            end[axis] = if forward { i64::MAX } else { i64::MIN };
        }
    }
    let cut = cut(cx, x, &begin, &end, &steps)?;
    let gone: Vec<i64> = (0..rank).filter(|axis| single[*axis]).map(|axis| axis as i64).collect();
    if gone.is_empty() {
        cx.bind(cut);
        return Ok(());
    }
    let gone = cx.constant_ints(&gone)?;
    cx.emit(Squeeze, &[cut, gone])
}

/// A size of -1 reaches to the end.
fn slice_by_size(cx: &mut Cx<'_>) -> Done {
    let (x, begin, size) = (cx.input("x")?, cx.required("begin")?, cx.required("size")?);
    let end = |(begin, size): (&i64, &i64)| if *size < 0 { i64::MAX } else { begin.saturating_add(*size) };
    let ends: Vec<i64> = begin.iter().zip(&size).map(end).collect();
    let steps = vec![1; ends.len()];
    let cut = cut(cx, x, &begin[..ends.len()], &ends, &steps)?;
    cx.bind(cut);
    Ok(())
}

fn reverse(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let rank = cx.rank(x)?;
    let axes = cx.ints("axes")?.unwrap_or_else(|| (0..rank as i64).collect());
    let turned = |axis: i64| axes.iter().any(|a| *a == axis || a.saturating_add(rank as i64) == axis);
    let pick = |yes: i64, no: i64| {
        (0..rank as i64).map(|axis| if turned(axis) { yes } else { no }).collect::<Vec<_>>()
    };
    let (starts, ends, steps) = (pick(i64::MAX, 0), pick(i64::MIN, i64::MAX), pick(-1, 1));
    let cut = cut(cx, x, &starts, &ends, &steps)?;
    cx.bind(cut);
    Ok(())
}
