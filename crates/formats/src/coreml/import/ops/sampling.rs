//! Pictures read between their pixels: resampling, affine maps, regions, and grids that no plain resize has.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    AffineGrid, Binary, Cast, Concat, Expand, Fun2, Gather, GridSample, Reshape, SampleMode, SamplePad,
    Shape, Slice, Split, Squeeze, Transpose, Unsqueeze, Where,
};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::program::Cx;

type Done = Result<(), CoreMlError>;
type Made = Result<ValueId, CoreMlError>;

pub(super) const OPS: &[Entry] = &[("affine", affine), ("crop_resize", crop_resize), ("resample", resample)];

/// Rounding that does not put a place outside of a picture, in pixels.
const SLACK: f32 = 1e-4;
/// Most places along a side of a grid.
const MAX_SIDE: usize = 1 << 16;

fn binary(cx: &mut Cx<'_>, fun: Fun2, a: ValueId, b: ValueId) -> Made {
    cx.temp(Binary(fun), &[a, b])
}

fn binary_with(cx: &mut Cx<'_>, fun: Fun2, a: ValueId, b: f32) -> Made {
    let b = cx.scalar(b)?;
    binary(cx, fun, a, b)
}

/// Columns and rows of a picture, `[2]` in floats.
fn sides(cx: &mut Cx<'_>, x: ValueId) -> Made {
    let (shape, order) = (cx.temp(Shape { start: -2, end: None }, &[x])?, cx.constant_ints(&[1, 0])?);
    let turned = cx.temp(Gather { axis: 0 }, &[shape, order])?;
    cx.temp(Cast::to(DType::F32), &[turned])
}

/// Places `[.., 2]` in pixels as [`GridSample`] takes them, from -1 to 1.
fn from_pixels(cx: &mut Cx<'_>, x: ValueId, places: ValueId, align: bool) -> Made {
    let sides = sides(cx, x)?;
    let doubled = binary(cx, Fun2::Add, places, places)?;
    let (above, below) = if align {
        let gaps = binary_with(cx, Fun2::Sub, sides, 1.0)?;
        (doubled, binary_with(cx, Fun2::Max, gaps, 1.0)?)
    } else {
        (binary_with(cx, Fun2::Add, doubled, 1.0)?, sides)
    };
    let share = binary(cx, Fun2::Div, above, below)?;
    binary_with(cx, Fun2::Sub, share, 1.0)
}

/// Places in another convention, in pixels.
fn to_pixels(cx: &mut Cx<'_>, x: ValueId, places: ValueId, mode: &str, align: bool) -> Made {
    let share = match mode {
        "unnormalized" => return Ok(places),
        "normalized_zero_to_one" => places,
        "normalized_minus_one_to_one" => {
            let raised = binary_with(cx, Fun2::Add, places, 1.0)?;
            binary_with(cx, Fun2::Mul, raised, 0.5)?
        }
        other => return Err(cx.fail(format!("coordinates `{other}` are not known"))),
    };
    let sides = sides(cx, x)?;
    if align {
        let gaps = binary_with(cx, Fun2::Sub, sides, 1.0)?;
        return binary(cx, Fun2::Mul, share, gaps);
    }
    let edges = binary(cx, Fun2::Mul, share, sides)?;
    binary_with(cx, Fun2::Sub, edges, 0.5)
}

/// Pictures read at given places, `[N, rows, columns, 2]`.
fn resample(cx: &mut Cx<'_>) -> Done {
    const PLAIN: &str = "normalized_minus_one_to_one";
    let mode = match cx.text("sampling_mode").as_deref() {
        Some("bilinear") => SampleMode::Linear,
        Some("nearest") => SampleMode::Nearest,
        other => return Err(cx.fail(format!("sampling mode {other:?} cannot run"))),
    };
    let (x, align) = (cx.input("x")?, cx.flag("align_corners", true));
    let places = cx.input("coordinates")?;
    let mut places = cx.temp(Cast::to(DType::F32), &[places])?;
    let convention = cx.text("coordinates_mode").unwrap_or_default();
    let padding = cx.text("padding_mode");
    // Whether the outermost pixels are repeated by a reflection: mirrors stand at their edges, not at their centres.
    let (pad, edges) = match padding.as_deref() {
        Some("constant") => (SamplePad::Zeros, None),
        Some("border") => (SamplePad::Border, None),
        Some("reflection") => (SamplePad::Reflection, Some(!align && convention != "unnormalized")),
        Some("symmetric") => (SamplePad::Reflection, Some(true)),
        other => return Err(cx.fail(format!("padding mode {other:?} cannot run"))),
    };
    let mut align_corners = align;
    if convention != PLAIN || edges.is_some_and(|edges| edges == align) {
        align_corners = edges.is_some_and(|edges| !edges);
        places = to_pixels(cx, x, places, &convention, align)?;
        places = from_pixels(cx, x, places, align_corners)?;
    }
    let op = GridSample { mode, pad, align_corners };
    let outside = cx.float("padding_value", 0.0);
    if outside == 0.0 || pad != SamplePad::Zeros {
        return cx.emit(op, &[x, places]);
    }
    let lowered = binary_with(cx, Fun2::Sub, x, outside)?;
    let read = cx.temp(op, &[lowered, places])?;
    let outside = cx.scalar(outside)?;
    cx.emit(Binary(Fun2::Add), &[read, outside])
}

/// Pictures under affine maps `[N or 1, 6]`, from places of the result to places of the picture.
fn affine(cx: &mut Cx<'_>) -> Done {
    let plain = cx.text("coordinates_mode").as_deref() == Some("normalized_minus_one_to_one");
    if !plain || !cx.flag("align_corners", true) || cx.float("padding_value", 0.0) != 0.0 {
        return Err(
            cx.fail("maps run over places from -1 to 1 at the centres of corners, with zeros outside")
        );
    }
    let (x, maps) = (cx.input("x")?, cx.input("transform_matrix")?);
    let size = [cx.int("output_height", 0), cx.int("output_width", 0)];
    let (count, six) = (cx.temp(Shape { start: 0, end: Some(1) }, &[x])?, cx.constant_ints(&[6])?);
    let shape = cx.temp(Concat { axis: 0 }, &[count, six])?;
    let maps = cx.temp(Expand, &[maps, shape])?;
    let shape = cx.constant_ints(&[-1, 2, 3])?;
    let maps = cx.temp(Reshape { allow_zero: false }, &[maps, shape])?;
    let size = cx.constant_ints(&[1, 1, size[0], size[1]])?;
    let grid = cx.temp(AffineGrid { align_corners: true }, &[maps, size])?;
    let op = GridSample { mode: SampleMode::Linear, pad: SamplePad::Zeros, align_corners: true };
    cx.emit(op, &[x, grid])
}

/// How a grid of places lies between two ends.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Spacing {
    /// From end to end; a single place at the start.
    Strict,
    /// From end to end; a single place in the middle.
    Aligned,
    /// From the start in equal steps.
    Start,
    /// In the middles of equal parts.
    Offset,
    /// In the middles of equal parts of whole pixels.
    Unaligned,
}

/// The spacing that `sampling_mode` names.
pub(super) fn spacing(cx: &Cx<'_>) -> Result<Spacing, CoreMlError> {
    Ok(match cx.text("sampling_mode").as_deref() {
        Some("STRICT_ALIGN_CORNERS") => Spacing::Strict,
        Some("ALIGN_CORNERS") => Spacing::Aligned,
        None | Some("DEFAULT") => Spacing::Start,
        Some("OFFSET_CORNERS") => Spacing::Offset,
        Some("UNALIGN_CORNERS") => Spacing::Unaligned,
        other => return Err(cx.fail(format!("sampling mode {other:?} is not known"))),
    })
}

impl Spacing {
    /// Place `i` of `n` is `start + factor * length + shift`, where pixels `start` to `start + length` are read.
    fn place(self, i: usize, n: usize) -> [f32; 2] {
        let (i, count) = (i as f64, n as f64);
        let [factor, shift] = match self {
            Self::Aligned if n == 1 => [0.5, 0.0],
            Self::Strict | Self::Aligned => [i / (count - 1.0).max(1.0), 0.0],
            Self::Start => [i / count, i / count],
            Self::Offset => [(i + 0.5) / count, 0.0],
            Self::Unaligned => [(i + 0.5) / count, (i + 0.5) / count - 0.5],
        };
        [factor as f32, shift as f32]
    }
}

/// Places `[N, n]` between `start` and `end` `[N, 1]`, in pixels.
fn along(cx: &mut Cx<'_>, start: ValueId, end: ValueId, n: usize, spacing: Spacing) -> Made {
    if n == 0 || n > MAX_SIDE {
        return Err(cx.fail(format!("{n} places along a side cannot be read")));
    }
    let [factors, shifts] = [0, 1].map(|part| (0..n).map(|i| spacing.place(i, n)[part]).collect::<Vec<_>>());
    let [name, other] = ["factors", "shifts"].map(|name| format!("{}.{name}", cx.op.name));
    let (factors, shifts) =
        (cx.making.floats(&name, &[1, n], &factors)?, cx.making.floats(&other, &[1, n], &shifts)?);
    let mut length = binary(cx, Fun2::Sub, end, start)?;
    if spacing == Spacing::Offset {
        length = binary_with(cx, Fun2::Max, length, 1.0)?;
    }
    let steps = binary(cx, Fun2::Mul, length, factors)?;
    let shifted = binary(cx, Fun2::Add, steps, shifts)?;
    let places = binary(cx, Fun2::Add, start, shifted)?;
    let (low, high) = (binary(cx, Fun2::Min, start, end)?, binary(cx, Fun2::Max, start, end)?);
    let places = binary(cx, Fun2::Max, places, low)?;
    binary(cx, Fun2::Min, places, high)
}

/// Columns `[N, w]` and rows `[N, h]` as places `[N, h, w, 2]`.
fn crossed(cx: &mut Cx<'_>, columns: ValueId, rows: ValueId, size: [usize; 2]) -> Made {
    let mut parts = Vec::new();
    for (list, axis, shape) in [(columns, 1, [1, size[0] as i64, 1]), (rows, 2, [1, 1, size[1] as i64])] {
        let (axis, shape, last) =
            (cx.constant_ints(&[axis])?, cx.constant_ints(&shape)?, cx.constant_ints(&[3])?);
        let plane = cx.temp(Unsqueeze, &[list, axis])?;
        let plane = cx.temp(Expand, &[plane, shape])?;
        parts.push(cx.temp(Unsqueeze, &[plane, last])?);
    }
    cx.temp(Concat { axis: 3 }, &parts)
}

/// A picture `[N, C, H, W]` read on a grid over all of it.
pub(super) fn on_grid(
    cx: &mut Cx<'_>,
    x: ValueId,
    size: [usize; 2],
    spacing: Spacing,
    nearest: bool,
) -> Done {
    let shape = cx.constant_ints(&[2, 1, 1])?;
    let sides = sides(cx, x)?;
    let ends = binary_with(cx, Fun2::Sub, sides, 1.0)?;
    let ends = cx.temp(Reshape { allow_zero: false }, &[ends, shape])?;
    let halves = cx.temps(Split { axis: 0, parts: 2 }, &[ends], 2)?;
    let (front, zero) = (cx.constant_ints(&[0])?, cx.scalar(0.0)?);
    let mut lists = Vec::new();
    for (end, n) in halves.into_iter().zip([size[1], size[0]]) {
        let end = cx.temp(Squeeze, &[end, front])?;
        let start = binary(cx, Fun2::Mul, end, zero)?;
        lists.push(along(cx, start, end, n, spacing)?);
    }
    let places = crossed(cx, lists[0], lists[1], size)?;
    let places = from_pixels(cx, x, places, false)?;
    let (count, rest) = (cx.temp(Shape { start: 0, end: Some(1) }, &[x])?, cx.constant_ints(&[1, 1, 1])?);
    let shape = cx.temp(Concat { axis: 0 }, &[count, rest])?;
    let places = cx.temp(Expand, &[places, shape])?;
    let mode = if nearest { SampleMode::Nearest } else { SampleMode::Linear };
    cx.emit(GridSample { mode, pad: SamplePad::Border, align_corners: false }, &[x, places])
}

/// Regions of pictures, resampled to one size: `[N, B or 1, C, rows, columns]`, since iOS 17 `[N, C, rows, columns]`.
fn crop_resize(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let size = [cx.int("target_height", 1), cx.int("target_width", 1)];
    let size = size.map(|n| usize::try_from(n).unwrap_or(0));
    let flat = cx.op.inputs.contains_key("boxes");
    let (boxes, images) = if flat { flat_regions(cx)? } else { regions(cx)? };
    let places = region_places(cx, x, boxes, size)?;
    let inside = within(cx, x, places)?;
    let places = from_pixels(cx, x, places, false)?;
    let single = cx.making.dims(x).is_some_and(|dims| dims.first() == Some(&1));
    let read = match images {
        Some(images) if !single => {
            let x = cx.temp(Gather { axis: 0 }, &[x, images])?;
            let axis = cx.constant_ints(&[1])?;
            let read = cx.temp(READ, &[x, places])?;
            cx.temp(Unsqueeze, &[read, axis])?
        }
        _ => every_region(cx, x, places, size)?,
    };
    let outside = cx.float("pad_value", 0.0);
    let outside = cx.scalar(outside)?;
    let made = cx.temp(Where, &[inside, read, outside])?;
    if !flat {
        cx.bind(made);
        return Ok(());
    }
    let axis = cx.constant_ints(&[1])?;
    cx.emit(Squeeze, &[made, axis])
}

const READ: GridSample =
    GridSample { mode: SampleMode::Linear, pad: SamplePad::Border, align_corners: false };

/// All regions of each picture, `[N, B, C, h, w]`: their places below each other make one grid.
fn every_region(cx: &mut Cx<'_>, x: ValueId, places: ValueId, size: [usize; 2]) -> Made {
    let [h, w] = size.map(|n| n as i64);
    let shape = cx.constant_ints(&[1, -1, w, 2])?;
    let places = cx.temp(Reshape { allow_zero: false }, &[places, shape])?;
    let (count, rest) = (cx.temp(Shape { start: 0, end: Some(1) }, &[x])?, cx.constant_ints(&[1, 1, 1])?);
    let shape = cx.temp(Concat { axis: 0 }, &[count, rest])?;
    let places = cx.temp(Expand, &[places, shape])?;
    let read = cx.temp(READ, &[x, places])?;
    let shape = cx.constant_ints(&[0, 0, -1, h, w])?;
    let read = cx.temp(Reshape { allow_zero: false }, &[read, shape])?;
    cx.temp(Transpose { perm: vec![2, 0, 1, 3, 4] }, &[read])
}

/// Boxes `[N, 4]`, and the picture of each `[N]`, of `roi` `[N, 1, 4 or 5, 1, 1]`; without the pictures, all of them.
fn regions(cx: &mut Cx<'_>) -> Result<(ValueId, Option<ValueId>), CoreMlError> {
    let roi = cx.input("roi")?;
    let width = cx.making.builder.ty(roi).tensor().and_then(|ty| ty.shape.get(2)?.fixed());
    let width =
        width.filter(|n| matches!(n, 4 | 5)).ok_or_else(|| cx.fail("`roi` holds neither 4 nor 5 numbers"))?;
    let shape = cx.constant_ints(&[-1, width as i64])?;
    let rows = cx.temp(Reshape { allow_zero: false }, &[roi, shape])?;
    if width == 4 {
        return Ok((rows, None));
    }
    let [start, end, axis] = [1, 5, 1].map(|n| cx.constant_ints(&[n]));
    let (start, end, axis) = (start?, end?, axis?);
    let boxes = cx.temp(Slice, &[rows, start, end, axis])?;
    let zero = cx.constant_index(0)?;
    let images = cx.temp(Gather { axis: 1 }, &[rows, zero])?;
    Ok((boxes, Some(cx.temp(Cast::to(DType::I64), &[images])?)))
}

fn flat_regions(cx: &mut Cx<'_>) -> Result<(ValueId, Option<ValueId>), CoreMlError> {
    let boxes = cx.input("boxes")?;
    let boxes = cx.temp(Cast::to(DType::F32), &[boxes])?;
    let images = match cx.maybe("box_indices")? {
        Some(images) => images,
        // Box `i` belongs to picture `i`.
        None => {
            let dims = cx.making.dims(boxes).ok_or_else(|| cx.fail("the number of boxes is open"))?;
            cx.constant_ints(&(0..dims[0] as i64).collect::<Vec<_>>())?
        }
    };
    Ok((boxes, Some(images)))
}

/// Where boxes `[N, 4]` read the picture: `[N, h, w, 2]` in pixels.
fn region_places(cx: &mut Cx<'_>, x: ValueId, boxes: ValueId, size: [usize; 2]) -> Made {
    let mode = cx.text("box_coordinate_mode");
    let (centres, columns_first) = match mode.as_deref() {
        None | Some("CORNERS_HEIGHT_FIRST") => (false, false),
        Some("CORNERS_WIDTH_FIRST") => (false, true),
        Some("CENTER_SIZE_HEIGHT_FIRST") => (true, false),
        Some("CENTER_SIZE_WIDTH_FIRST") => (true, true),
        other => return Err(cx.fail(format!("boxes {other:?} are not known"))),
    };
    let spacing = spacing(cx)?;
    let mut parts = cx.temps(Split { axis: 1, parts: 4 }, &[boxes], 4)?;
    if columns_first {
        parts.swap(0, 1);
        parts.swap(2, 3);
    }
    let gaps = cx.temp(Shape { start: -2, end: None }, &[x])?;
    let gaps = cx.temp(Cast::to(DType::F32), &[gaps])?;
    let gaps = binary_with(cx, Fun2::Sub, gaps, 1.0)?;
    let gaps = cx.temps(Split { axis: 0, parts: 2 }, &[gaps], 2)?;
    let (normalised, scale) = (cx.flag("normalized_coordinates", false), cx.float("spatial_scale", 1.0));
    let mut lists = Vec::new();
    for side in 0..2 {
        let mut ends = [parts[side], parts[side + 2]];
        if centres {
            let half = binary_with(cx, Fun2::Mul, ends[1], 0.5)?;
            ends = [binary(cx, Fun2::Sub, ends[0], half)?, binary(cx, Fun2::Add, ends[0], half)?];
        }
        for end in &mut ends {
            if normalised {
                *end = binary(cx, Fun2::Mul, *end, gaps[side])?;
            }
            *end = binary_with(cx, Fun2::Mul, *end, scale)?;
        }
        lists.push(along(cx, ends[0], ends[1], size[side], spacing)?);
    }
    crossed(cx, lists[1], lists[0], size)
}

/// Which places lie in the picture, `[N, 1, 1, h, w]`.
fn within(cx: &mut Cx<'_>, x: ValueId, places: ValueId) -> Made {
    let sides = sides(cx, x)?;
    let last = binary_with(cx, Fun2::Sub, sides, 1.0 - SLACK)?;
    let least = cx.scalar(-SLACK)?;
    let above = binary(cx, Fun2::GreaterOrEqual, places, least)?;
    let below = binary(cx, Fun2::LessOrEqual, places, last)?;
    let both = binary(cx, Fun2::And, above, below)?;
    let halves = cx.temps(Split { axis: 3, parts: 2 }, &[both], 2)?;
    let axis = cx.constant_ints(&[3])?;
    let (a, b) = (cx.temp(Squeeze, &[halves[0], axis])?, cx.temp(Squeeze, &[halves[1], axis])?);
    let inside = binary(cx, Fun2::And, a, b)?;
    let axes = cx.constant_ints(&[1, 2])?;
    cx.temp(Unsqueeze, &[inside, axes])
}
