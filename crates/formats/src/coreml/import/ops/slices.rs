//! Operations that cut values, and that move pixels between rows, columns and the batch.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Binary, Cast, Fun2, Gather, Pad, PadMode, Reshape, Slice, Squeeze, Transpose, Where,
};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::program::Cx;

type Done = Result<(), CoreMlError>;

/// Most places of a table that windows are picked by.
const MAX_PLACES: i64 = 1 << 24;

pub(super) const OPS: &[Entry] = &[
    ("batch_to_space", batch_to_space),
    ("crop", crop),
    ("reverse", reverse),
    ("slice_by_index", slice),
    ("slice_by_size", slice_by_size),
    ("sliding_windows", sliding_windows),
    ("space_to_batch", space_to_batch),
];

/// Rows and columns without this many at each end.
fn crop(cx: &mut Cx<'_>) -> Done {
    let (x, rows, columns) = (cx.input("x")?, cx.required("crop_height")?, cx.required("crop_width")?);
    let (&[top, bottom], &[left, right]) = (rows.as_slice(), columns.as_slice()) else {
        return Err(cx.fail("it takes two numbers a side"));
    };
    let end = |n: i64| if n == 0 { i64::MAX } else { n.saturating_neg() };
    let lists = [&[top, left], &[end(bottom), end(right)], &[-2, -1]].map(|list| cx.constant_ints(list));
    let [starts, ends, axes] = lists;
    cx.emit(Slice, &[x, starts?, ends?, axes?])
}

/// Windows along an axis, in a dimension behind it: elements picked by a table of places.
fn sliding_windows(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let (axis, size, stride) = (cx.int("axis", 0), cx.int("size", 1), cx.int("stride", 1).max(1));
    let rank = cx.rank(x)? as i64;
    let place = usize::try_from(if axis < 0 { axis + rank } else { axis }).unwrap_or(usize::MAX);
    let length = cx.making.builder.ty(x).tensor().and_then(|ty| ty.shape.get(place)?.fixed());
    let length = length.ok_or_else(|| cx.fail("the size of its axis is open"))? as i64;
    if size < 1 || size > length {
        return Err(cx.fail(format!("windows of {size} over {length} elements")));
    }
    let count = (length - size) / stride + 1;
    if count.saturating_mul(size) > MAX_PLACES {
        return Err(cx.fail(format!("{count} windows of {size} elements are too many")));
    }
    let places: Vec<i64> = (0..count).flat_map(|w| (0..size).map(move |i| w * stride + i)).collect();
    let places = cx.constant_ints(&places)?;
    let shape = cx.constant_ints(&[count, size])?;
    let places = cx.temp(Reshape { allow_zero: false }, &[places, shape])?;
    cx.emit(Gather { axis }, &[x, places])
}

/// What moves between space and batch.
struct Blocks {
    /// Sizes `[N, C, H, W]` of the value.
    sizes: [i64; 4],
    /// Rows and columns of a block.
    block: [i64; 2],
    /// Added or taken: above, below, left, right.
    edges: [i64; 4],
}

fn blocks(cx: &Cx<'_>, x: ValueId, amounts: &str) -> Result<Blocks, CoreMlError> {
    let dims = cx.making.dims(x).and_then(|dims| <[usize; 4]>::try_from(dims).ok());
    let dims = dims.ok_or_else(|| cx.fail("it takes four dimensions of known sizes"))?;
    let block = <[i64; 2]>::try_from(cx.required("block_shape")?).ok().filter(|b| b.iter().all(|n| *n > 0));
    let amounts = <[i64; 4]>::try_from(cx.required(amounts)?).ok();
    let (block, edges) = block.zip(amounts).ok_or_else(|| cx.fail("its blocks are impossible"))?;
    Ok(Blocks { sizes: dims.map(|n| n as i64), block, edges })
}

fn space_to_batch(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let Blocks { sizes: [n, c, h, w], block: [down, across], edges } = blocks(cx, x, "paddings")?;
    let [top, bottom, left, right] = edges;
    let pads = cx.constant_ints(&[0, 0, top, left, 0, 0, bottom, right])?;
    let x = cx.temp(Pad { mode: PadMode::Constant }, &[x, pads])?;
    let rows = h.saturating_add(top).saturating_add(bottom) / down;
    let columns = w.saturating_add(left).saturating_add(right) / across;
    let split = cx.constant_ints(&[n, c, rows, down, columns, across])?;
    let x = cx.temp(Reshape { allow_zero: true }, &[x, split])?;
    let x = cx.temp(Transpose { perm: vec![3, 5, 0, 1, 2, 4] }, &[x])?;
    let shape = cx.constant_ints(&[n.saturating_mul(down).saturating_mul(across), c, rows, columns])?;
    cx.emit(Reshape { allow_zero: true }, &[x, shape])
}

fn batch_to_space(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let Blocks { sizes: [n, c, h, w], block: [down, across], edges } = blocks(cx, x, "crops")?;
    let [top, bottom, left, right] = edges;
    let (batch, down_all, across_all) =
        (n / down.saturating_mul(across), h.saturating_mul(down), w.saturating_mul(across));
    let split = cx.constant_ints(&[down, across, batch, c, h, w])?;
    let x = cx.temp(Reshape { allow_zero: true }, &[x, split])?;
    let x = cx.temp(Transpose { perm: vec![2, 3, 4, 0, 5, 1] }, &[x])?;
    let shape = cx.constant_ints(&[batch, c, down_all, across_all])?;
    let x = cx.temp(Reshape { allow_zero: true }, &[x, shape])?;
    let lists = [&[top, left], &[down_all.saturating_sub(bottom), across_all.saturating_sub(right)], &[2, 3]];
    let [starts, ends, axes] = lists.map(|list| cx.constant_ints(list));
    cx.emit(Slice, &[x, starts?, ends?, axes?])
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
    let made = sliced(cx, x)?;
    cx.bind(made);
    Ok(())
}

/// The slice of a value that the operation's parameters name; numbers that only a run knows keep to plain bounds.
pub(super) fn sliced(cx: &mut Cx<'_>, x: ValueId) -> Result<ValueId, CoreMlError> {
    if cx.ints("begin").is_err() || cx.ints("end").is_err() {
        return computed_slice(cx, x);
    }
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
        return Ok(cut);
    }
    let gone = cx.constant_ints(&gone)?;
    cx.temp(Squeeze, &[cut, gone])
}

/// A slice whose bounds the program computes.
fn computed_slice(cx: &mut Cx<'_>, x: ValueId) -> Result<ValueId, CoreMlError> {
    let (begin, end) = (cx.input("begin")?, cx.input("end")?);
    let rank = cx.rank(x)?;
    let steps = cx.ints("stride")?.unwrap_or_else(|| vec![1; rank]);
    let masks = ["begin_mask", "end_mask", "squeeze_mask"].map(|name| truths(cx, name, rank));
    let [open_begin, open_end, single] = masks;
    let (open_begin, open_end, single) = (open_begin?, open_end?, single?);
    if steps.len() != rank || steps.iter().any(|step| *step < 1) {
        return Err(cx.fail("computed bounds go with steps ahead only"));
    }
    let number = Cast::to(DType::I64);
    let (begin, end) = (cx.temp(number, &[begin])?, cx.temp(number, &[end])?);
    // Open sides take the ends of a dimension, single elements end behind themselves.
    let zeros = cx.constant_ints(&vec![0; rank])?;
    let begin = choose(cx, &open_begin, zeros, begin)?;
    let ones = cx.constant_ints(&vec![1; rank])?;
    let behind = cx.temp(Binary(Fun2::Add), &[begin, ones])?;
    let end = choose(cx, &single, behind, end)?;
    let most = cx.constant_ints(&vec![i64::MAX; rank])?;
    let open: Vec<bool> = open_end.iter().zip(&single).map(|(open, single)| *open && !single).collect();
    let end = choose(cx, &open, most, end)?;
    let (axes, steps) = ((0..rank as i64).collect::<Vec<_>>(), steps);
    let (axes, steps) = (cx.constant_ints(&axes)?, cx.constant_ints(&steps)?);
    let cut = cx.temp(Slice, &[x, begin, end, axes, steps])?;
    let gone: Vec<i64> = (0..rank).filter(|axis| single[*axis]).map(|axis| axis as i64).collect();
    if gone.is_empty() {
        return Ok(cut);
    }
    let gone = cx.constant_ints(&gone)?;
    cx.temp(Squeeze, &[cut, gone])
}

/// The elements of `a` where the mask is set, of `b` elsewhere.
fn choose(cx: &mut Cx<'_>, mask: &[bool], a: ValueId, b: ValueId) -> Result<ValueId, CoreMlError> {
    if !mask.contains(&true) {
        return Ok(b);
    }
    let mask: Vec<i64> = mask.iter().map(|set| i64::from(*set)).collect();
    let mask = cx.constant_ints(&mask)?;
    let mask = cx.temp(Cast::to(DType::Bool), &[mask])?;
    cx.temp(Where, &[mask, a, b])
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
