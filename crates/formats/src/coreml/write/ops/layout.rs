//! Shapes and places of elements.

use kinglet_graph::ops::{
    Concat, DepthSpace, Flatten, Gather, GatherElements, GatherNd, Pad, PadMode, Shape, Split, Transpose,
};
use kinglet_graph::{Dim, TensorType, axis};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::write::node::{Arg, Ex, shaped};

type Done = Result<(), String>;

pub(super) const OPS: &[Entry] = &[
    ("Reshape", reshape),
    ("Flatten", |ex| {
        if open_sizes(ex)? < 2 {
            return reshape(ex);
        }
        let (x, axis) = (ex.input(0)?, Arg::Int(ex.op::<Flatten>()?.axis));
        ex.emit("flatten2d", vec![("x", x.into()), ("axis", axis)])
    }),
    ("Squeeze", squeeze),
    ("Unsqueeze", |ex| {
        let (x, axes) = (ex.input(0)?, ex.ints(1)?);
        ex.emit("expand_dims", vec![("x", x.into()), ("axes", Arg::Ints(axes))])
    }),
    ("Transpose", |ex| {
        let rank = ex.ty(0)?.rank();
        let perm = ex.op::<Transpose>()?.order(rank).into_iter().map(|i| i as i64).collect();
        let x = ex.input(0)?;
        ex.emit("transpose", vec![("x", x.into()), ("perm", Arg::Ints(perm))])
    }),
    ("Expand", expand),
    ("Tile", |ex| {
        let (x, reps) = (ex.input(0)?, ex.ints(1)?);
        ex.emit("tile", vec![("x", x.into()), ("reps", Arg::Ints(reps))])
    }),
    ("Concat", concat),
    ("Split", split),
    ("Slice", slice),
    ("Pad", pad),
    ("DepthSpace", depth_space),
    ("Shape", shape),
    ("Gather", |ex| {
        let (axis, x, indices) = (ex.op::<Gather>()?.axis, ex.input(0)?, ex.input(1)?);
        let given = vec![
            ("x", x.into()),
            ("indices", indices.into()),
            ("axis", Arg::Int(axis)),
            ("batch_dims", Arg::Int(0)),
        ];
        ex.emit("gather", given)
    }),
    ("GatherElements", |ex| {
        let (axis, x, indices) = (ex.op::<GatherElements>()?.axis, ex.input(0)?, ex.input(1)?);
        ex.emit(
            "gather_along_axis",
            vec![("x", x.into()), ("indices", indices.into()), ("axis", Arg::Int(axis))],
        )
    }),
    ("GatherNd", |ex| {
        let (batch, x, indices) = (ex.op::<GatherNd>()?.batch_dims as i64, ex.input(0)?, ex.input(1)?);
        ex.emit(
            "gather_nd",
            vec![("x", x.into()), ("indices", indices.into()), ("batch_dims", Arg::Int(batch))],
        )
    }),
];

/// How many sizes of the result are open.
fn open_sizes(ex: &Ex<'_, '_>) -> Result<usize, String> {
    Ok(ex.made(0)?.shape.iter().filter(|dim| dim.fixed().is_none()).count())
}

/// The sizes of some dimensions.
fn shape(ex: &mut Ex<'_, '_>) -> Done {
    let (x, rank) = (ex.input(0)?, ex.ty(0)?.rank());
    let range = ex.op::<Shape>()?.range(rank);
    if range.len() == rank {
        return ex.emit("shape", vec![("x", x.into())]);
    }
    let all = all_sizes(ex)?;
    let place = |n: usize| Arg::Ints(vec![n as i64]);
    ex.emit(
        "slice_by_size",
        vec![("x", all.into()), ("begin", place(range.start)), ("size", place(range.len()))],
    )
}

/// All sizes of input 0, which the program computes.
fn all_sizes(ex: &mut Ex<'_, '_>) -> Result<String, String> {
    let (x, rank) = (ex.input(0)?, ex.ty(0)?.rank());
    let ty = TensorType::fixed(DType::I64, &[rank]);
    Ok(ex.temp("shape", vec![("x", x.into())], &ty))
}

/// To the shape that it makes, of which one size may be open; else to that which is given, whose sizes of 0 are those of the
/// input.
fn reshape(ex: &mut Ex<'_, '_>) -> Done {
    let x = ex.input(0)?;
    if open_sizes(ex)? < 2 {
        let sizes = ex.made(0)?.shape.iter().map(|dim| dim.fixed().map_or(-1, |n| n as i64));
        let shape = Arg::Ints(sizes.collect());
        return ex.emit("reshape", vec![("x", x.into()), ("shape", shape)]);
    }
    let shape = match ex.ints(1) {
        Ok(list) => Arg::Name(with_kept(ex, &list)?),
        Err(_) => Arg::Name(ex.input(1)?),
    };
    ex.emit("reshape", vec![("x", x.into()), ("shape", shape)])
}

/// A list of sizes as one vector; zeros become the sizes that input 0 has there.
fn with_kept(ex: &mut Ex<'_, '_>, list: &[i64]) -> Result<String, String> {
    let all = all_sizes(ex)?;
    let list: Vec<Option<i64>> = list.iter().map(|size| Some(*size).filter(|size| *size != 0)).collect();
    joined(ex, &list, &all)
}

/// Numbers as one vector; each that is missing is that of the vector `from` in its place.
fn joined(ex: &mut Ex<'_, '_>, list: &[Option<i64>], from: &str) -> Result<String, String> {
    let one = TensorType::fixed(DType::I64, &[1]);
    let mut parts = Vec::new();
    for (i, number) in list.iter().enumerate() {
        parts.push(match number {
            Some(number) => ex.tensor("size", DType::I64, &[1], number.to_le_bytes().to_vec().into())?,
            None => {
                let begin = Arg::Ints(vec![i as i64]);
                let given =
                    vec![("x", Arg::Name(from.into())), ("begin", begin), ("size", Arg::Ints(vec![1]))];
                ex.temp("slice_by_size", given, &one)
            }
        });
    }
    let given = vec![("values", Arg::Names(parts)), ("axis", Arg::Int(0)), ("interleave", Arg::Flag(false))];
    Ok(ex.temp("concat", given, &TensorType::fixed(DType::I64, &[list.len()])))
}

fn squeeze(ex: &mut Ex<'_, '_>) -> Done {
    let x = ex.input(0)?;
    let axes = match ex.has(1) {
        true => ex.ints(1)?,
        false => {
            let dims = ex.dims(0)?;
            (0..dims.len()).filter(|i| dims[*i] == 1).map(|i| i as i64).collect()
        }
    };
    ex.emit("squeeze", vec![("x", x.into()), ("axes", Arg::Ints(axes))])
}

/// Repeats along the dimensions that grow, after those that are missing were added.
fn expand(ex: &mut Ex<'_, '_>) -> Done {
    let (ty, made) = (ex.ty(0)?, ex.made(0)?);
    let missing = made.rank() - ty.rank();
    let from: Vec<Dim> =
        std::iter::repeat_n(Dim::Fixed(1), missing).chain(ty.shape.iter().copied()).collect();
    // None: as often as the shape says, which the program computes.
    let rep = |(from, to): (&Dim, &Dim)| match (from, to.fixed()) {
        (from, _) if from == to && *from != Dim::Unknown => Ok(Some(1)),
        (Dim::Fixed(1), Some(n)) => Ok(Some(n as i64)),
        (Dim::Fixed(1), None) => Ok(None),
        // Whatever the shape says, a dimension of several elements stays as long.
        (Dim::Fixed(_), None) => Ok(Some(1)),
        _ => Err("to a shape that is open".to_owned()),
    };
    let reps = from.iter().zip(&made.shape).map(rep).collect::<Result<Vec<_>, _>>()?;
    let reps = match reps.iter().copied().collect::<Option<Vec<i64>>>() {
        Some(list) => Arg::Ints(list),
        None => Arg::Name(counts(ex, &reps)?),
    };
    let mut x = ex.input(0)?;
    if missing > 0 {
        let raised = shaped(ty, from);
        let axes = Arg::Ints((0..missing as i64).collect());
        x = ex.temp("expand_dims", vec![("x", x.into()), ("axes", axes)], &raised);
    }
    ex.emit("tile", vec![("x", x.into()), ("reps", reps)])
}

/// Numbers as one vector, those that are open out of the shape at input 1.
fn counts(ex: &mut Ex<'_, '_>, reps: &[Option<i64>]) -> Result<String, String> {
    if ex.ty(1)?.dims().as_deref() != Some(&[reps.len()]) {
        return Err("to a shape that is open".into());
    }
    let shape = ex.input(1)?;
    joined(ex, reps, &shape)
}

fn concat(ex: &mut Ex<'_, '_>) -> Done {
    let axis = ex.op::<Concat>()?.axis;
    let values = (0..ex.node.inputs.len()).map(|i| ex.input(i)).collect::<Result<Vec<_>, _>>()?;
    let given =
        vec![("values", Arg::Names(values)), ("axis", Arg::Int(axis)), ("interleave", Arg::Flag(false))];
    ex.emit("concat", given)
}

fn split(ex: &mut Ex<'_, '_>) -> Done {
    let op = *ex.op::<Split>()?;
    let sizes = ex.with_args(|args| op.sizes(args))?.ok_or("into parts of open sizes")?;
    if ex.node.outputs.len() != op.parts {
        return Err("of which a part is not read".into());
    }
    let (x, sizes) = (ex.input(0)?, Arg::Ints(sizes.into_iter().map(|n| n as i64).collect()));
    let given = vec![("x", x.into()), ("split_sizes", sizes), ("axis", Arg::Int(op.axis))];
    ex.emit_all("split", given, op.parts)
}

/// One dimension of a slice as MIL tells it; a side that is masked is open.
struct Range {
    begin: i64,
    end: i64,
    stride: i64,
    from_start: bool,
    to_end: bool,
}

/// Places beyond this stand for the ends of a dimension.
const FAR: i64 = 1 << 31;

impl Range {
    const ALL: Self = Self { begin: 0, end: 0, stride: 1, from_start: true, to_end: true };

    /// Negative places count from the end, which is the same in both formats; places outside of the dimension are open.
    fn of(size: Option<i64>, begin: i64, end: i64, stride: i64) -> Self {
        let behind = |n: i64, last: i64| n > FAR || size.is_some_and(|size| n >= size - last);
        let before = |n: i64| n < -FAR || size.is_some_and(|size| n < -size);
        let (from_start, to_end) = if stride > 0 {
            (begin == 0 || before(begin), behind(end, 0))
        } else {
            (begin == -1 || behind(begin, 1), before(end))
        };
        let place = |n: i64, open: bool| if open { 0 } else { n };
        Self { begin: place(begin, from_start), end: place(end, to_end), stride, from_start, to_end }
    }
}

fn slice(ex: &mut Ex<'_, '_>) -> Done {
    let ty = ex.ty(0)?;
    let (starts, ends) = (ex.ints(1)?, ex.ints(2)?);
    let axes = if ex.has(3) { ex.ints(3)? } else { (0..starts.len() as i64).collect() };
    let steps = if ex.has(4) { ex.ints(4)? } else { vec![1; starts.len()] };
    let mut ranges: Vec<Range> = (0..ty.rank()).map(|_| Range::ALL).collect();
    for (i, along) in axes.iter().enumerate() {
        let along = axis(*along, ty.rank())?;
        let size = ty.shape[along].fixed().map(|n| n as i64);
        ranges[along] = Range::of(size, starts[i], ends[i], steps[i]);
    }
    let x = ex.input(0)?;
    let ints = |of: fn(&Range) -> i64| Arg::Ints(ranges.iter().map(of).collect());
    let flags = |of: fn(&Range) -> bool| Arg::Flags(ranges.iter().map(of).collect());
    let given = vec![
        ("x", x.into()),
        ("begin", ints(|r| r.begin)),
        ("end", ints(|r| r.end)),
        ("stride", ints(|r| r.stride)),
        ("begin_mask", flags(|r| r.from_start)),
        ("end_mask", flags(|r| r.to_end)),
    ];
    ex.emit("slice_by_index", given)
}

fn pad(ex: &mut Ex<'_, '_>) -> Done {
    let mode = match ex.op::<Pad>()?.mode {
        PadMode::Constant => "constant",
        PadMode::Reflect => "reflect",
        PadMode::Edge => "replicate",
        PadMode::Wrap => return Err("whose padding repeats what it pads".into()),
    };
    let amounts = ex.with_args(Pad::amounts)?.ok_or("by amounts that are no constants")?;
    if amounts.iter().any(|(a, b)| *a < 0 || *b < 0) {
        return Err("which crops".into());
    }
    if mode != "constant" && amounts.iter().rev().skip(2).any(|pair| *pair != (0, 0)) {
        return Err("of more than the last two dimensions".into());
    }
    let value = if ex.has(2) { ex.float(2)? } else { 0.0 };
    let first = if mode == "constant" { 0 } else { amounts.len().saturating_sub(2) };
    let pads = amounts[first..].iter().flat_map(|(a, b)| [*a, *b]).collect();
    let x = ex.input(0)?;
    let value = if ex.is_float(0) { Arg::Float(value) } else { Arg::Int(value as i64) };
    let given =
        vec![("x", x.into()), ("pad", Arg::Ints(pads)), ("mode", Arg::Text(mode)), ("constant_val", value)];
    ex.emit("pad", given)
}

fn depth_space(ex: &mut Ex<'_, '_>) -> Done {
    let DepthSpace { block, to_space, channels_first } = *ex.op()?;
    let (x, block) = (ex.input(0)?, Arg::Int(block as i64));
    match (to_space, channels_first) {
        (true, true) => ex.emit("pixel_shuffle", vec![("x", x.into()), ("upscale_factor", block)]),
        (true, false) => ex.emit("depth_to_space", vec![("x", x.into()), ("block_size", block)]),
        (false, false) => ex.emit("space_to_depth", vec![("x", x.into()), ("block_size", block)]),
        (false, true) => Err("whose channels come first".into()),
    }
}

/// A type of these sizes.
pub(super) fn sized(ty: &TensorType, sizes: &[usize]) -> TensorType {
    shaped(ty, sizes.iter().map(|n| Dim::Fixed(*n)).collect())
}
