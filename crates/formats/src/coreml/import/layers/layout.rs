//! Layers that move elements, and constants.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Concat, DepthSpace, Pad, PadMode, Slice, Split, Squeeze, Tile, Transpose, Unsqueeze,
};

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::network::Cx;

type Done = Result<(), CoreMlError>;

#[rustfmt::skip]
pub(super) const LAYERS: &[Entry] = &[
    ("concat", |cx| { if cx.params().bool(100) { Err(cx.fail("sequences cannot be joined")) } else { concat(cx, 1) } }),
    ("concatND", |cx| { let axis = cx.params().int(1); concat(cx, axis) }),
    ("constantPad", constant_pad),
    ("copy", |cx| { let x = cx.input(0)?; cx.pass(x) }),
    ("crop", crop),
    ("expandDims", |cx| with_axes(cx, Unsqueeze)),
    ("flatten", flatten),
    ("flattenTo2D", |cx| { let (x, axis) = (cx.input(0)?, cx.params().int(1)); cx.emit(kinglet_graph::ops::Flatten { axis }, &[x]) }),
    ("loadConstant", |cx| constant(cx, true)),
    ("loadConstantND", |cx| constant(cx, false)),
    ("padding", padding),
    ("permute", permute),
    ("reorganizeData", reorganize),
    ("reshape", reshape),
    ("reshapeStatic", |cx| { let (x, shape) = (cx.input(0)?, cx.params().ints(1)); let y = cx.reshaped(x, &shape)?; cx.pass(y) }),
    ("slice", slice),
    ("sliceStatic", slice_static),
    ("split", |cx| { let (x, parts) = (cx.picture(0)?, cx.layer.outputs.len()); cx.emit(Split { axis: 1, parts }, &[x]) }),
    ("squeeze", |cx| { if cx.params().bool(2) { let x = cx.input(0)?; cx.emit(Squeeze, &[x]) } else { with_axes(cx, Squeeze) } }),
    ("tile", |cx| with_axes(cx, Tile)),
    ("transpose", |cx| { let (x, perm) = (cx.input(0)?, cx.sizes(1, &[])); cx.emit(Transpose { perm }, &[x]) }),
];

/// An op whose second input are the whole numbers in field 1.
fn with_axes(cx: &mut Cx<'_>, op: impl kinglet_graph::Op) -> Done {
    let (x, list) = (cx.input(0)?, cx.params().ints(1));
    let list = cx.ints(&list)?;
    cx.emit(op, &[x, list])
}

fn concat(cx: &mut Cx<'_>, axis: i64) -> Done {
    let inputs = cx.inputs()?;
    cx.emit(Concat { axis }, &inputs)
}

/// Old constants are `[C, H, W]` of pictures.
fn constant(cx: &mut Cx<'_>, picture: bool) -> Done {
    let mut shape = cx.sizes(1, &[]);
    if picture && shape.len() == 3 {
        shape.insert(0, 1);
    }
    let id = cx.weights(2, &shape)?;
    cx.pass(id)
}

fn padded(cx: &mut Cx<'_>, x: ValueId, pads: [i64; 4], mode: PadMode, value: f32) -> Done {
    let [top, bottom, left, right] = pads;
    let (pads, value) = (cx.ints(&[0, 0, top, left, 0, 0, bottom, right])?, cx.scalar(value)?);
    cx.emit(Pad { mode }, &[x, pads, value])
}

/// Begin and end of rows and columns in field `tag`.
fn borders(cx: &Cx<'_>, tag: u32) -> Result<[i64; 4], CoreMlError> {
    let amounts = cx.params().message(tag)?.unwrap_or_default().messages(10)?;
    let edge = |i: usize, side: u32| amounts.get(i).map_or(0, |edge| edge.int(side));
    Ok([edge(0, 1), edge(0, 2), edge(1, 1), edge(1, 2)])
}

fn padding(cx: &mut Cx<'_>) -> Done {
    let x = cx.picture(0)?;
    let value = cx.params().message(1)?.map_or(0.0, |constant| constant.float(1));
    let mode = match (cx.params().has(2), cx.params().has(3)) {
        (true, _) => PadMode::Reflect,
        (_, true) => PadMode::Edge,
        _ => PadMode::Constant,
    };
    let pads = borders(cx, 10)?;
    padded(cx, x, pads, mode, value)
}

/// Begin and end of each dimension in turn.
fn constant_pad(cx: &mut Cx<'_>) -> Done {
    if cx.params().bool(3) {
        return Err(cx.fail("padding to a size cannot run"));
    }
    let (x, value, amounts) = (cx.input(0)?, cx.params().float(1), cx.params().ints(2));
    let side = |side: usize| amounts.iter().skip(side).step_by(2).copied();
    let pads: Vec<i64> = side(0).chain(side(1)).collect();
    let (pads, value) = (cx.ints(&pads)?, cx.scalar(value)?);
    cx.emit(Pad { mode: PadMode::Constant }, &[x, pads, value])
}

fn crop(cx: &mut Cx<'_>) -> Done {
    if cx.layer.inputs.len() != 1 {
        return Err(cx.fail("cropping to another input cannot run"));
    }
    let x = cx.picture(0)?;
    let [top, bottom, left, right] = borders(cx, 1)?;
    padded(cx, x, [top, bottom, left, right].map(i64::saturating_neg), PadMode::Constant, 0.0)
}

/// `[1, C, H, W]` to `[1, C * H * W, 1, 1]`, channels slowest, or fastest.
fn flatten(cx: &mut Cx<'_>) -> Done {
    let mut x = cx.picture(0)?;
    if cx.params().int(1) == 1 {
        x = cx.temp(Transpose { perm: vec![0, 2, 3, 1] }, &[x])?;
    }
    let flat = cx.reshaped(x, &[0, -1, 1, 1])?;
    cx.pass(flat)
}

fn reshape(cx: &mut Cx<'_>) -> Done {
    let (x, shape) = (cx.picture(0)?, cx.params().ints(1));
    let [.., c, h, w] = shape[..] else { return Err(cx.fail("its target has fewer than three dimensions")) };
    if cx.params().int(2) == 0 {
        let y = cx.reshaped(x, &[1, c, h, w])?;
        return cx.pass(y);
    }
    let turned = cx.temp(Transpose { perm: vec![0, 2, 3, 1] }, &[x])?;
    let y = cx.reshaped(turned, &[1, h, w, c])?;
    cx.emit(Transpose { perm: vec![0, 3, 1, 2] }, &[y])
}

/// The order of `[sequence, C, H, W]`; the sequence stays in front.
fn permute(cx: &mut Cx<'_>) -> Done {
    let (x, perm) = (cx.picture(0)?, cx.sizes(1, &[]));
    cx.emit(Transpose { perm }, &[x])
}

fn reorganize(cx: &mut Cx<'_>) -> Done {
    let (x, mode, block) = (cx.picture(0)?, cx.params().int(1), cx.size(2));
    cx.emit(DepthSpace { block, to_space: mode != 0, channels_first: mode == 2 }, &[x])
}

fn sliced(cx: &mut Cx<'_>, x: ValueId, lists: [&[i64]; 4]) -> Result<ValueId, CoreMlError> {
    let [starts, ends, axes, steps] = lists.map(|list| cx.ints(list));
    cx.temp(Slice, &[x, starts?, ends?, axes?, steps?])
}

/// Part of the channels, rows or columns.
fn slice(cx: &mut Cx<'_>) -> Done {
    let x = cx.picture(0)?;
    let params = cx.params();
    let (start, end, step, axis) =
        (params.int(1), params.int(2), params.int(3).max(1), params.int(4).saturating_add(1));
    // An end of -1 is the last element, which is included.
    let end = if end < 0 { if end == -1 { i64::MAX } else { end + 1 } } else { end };
    let y = sliced(cx, x, [&[start], &[end], &[axis], &[step]])?;
    cx.pass(y)
}

fn slice_static(cx: &mut Cx<'_>) -> Done {
    let x = cx.input(0)?;
    let lists = [1, 2, 3, 4, 5, 6].map(|tag| cx.params().ints(tag));
    let [mut starts, begin_masks, mut ends, end_masks, steps, squeezes] = lists;
    let set = |masks: &[i64], i: usize| masks.get(i).is_some_and(|mask| *mask != 0);
    let rank = starts.len();
    if ends.len() != rank || steps.len() != rank {
        return Err(cx.fail("begin, end and stride have different lengths"));
    }
    for i in 0..rank {
        if set(&begin_masks, i) {
            starts[i] = if steps[i] > 0 { 0 } else { i64::MAX };
        }
        if set(&squeezes, i) {
            ends[i] = if starts[i] == -1 { i64::MAX } else { starts[i].saturating_add(1) };
        } else if set(&end_masks, i) {
            ends[i] = if steps[i] > 0 { i64::MAX } else { i64::MIN };
        }
    }
    let axes: Vec<i64> = (0..rank as i64).collect();
    let y = sliced(cx, x, [&starts, &ends, &axes, &steps])?;
    let gone: Vec<i64> = axes.into_iter().filter(|i| set(&squeezes, *i as usize)).collect();
    if gone.is_empty() {
        return cx.pass(y);
    }
    let gone = cx.ints(&gone)?;
    cx.emit(Squeeze, &[y, gone])
}
