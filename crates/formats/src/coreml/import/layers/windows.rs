//! Convolutions, pooling and resizing.

use kinglet_graph::ops::{
    Conv, ConvTranspose, Coordinates, NearestRule, Pads, Pool, PoolKind, ResizeMode, Squeeze, Window,
};

use super::Entry;
use super::operations::{bound_to, fixed_to, number, run, text, whole};
use crate::coreml::CoreMlError;
use crate::coreml::import::making::rescale;
use crate::coreml::import::network::Cx;
use crate::coreml::program::Argument;
use crate::coreml::value::Literal;

type Done = Result<(), CoreMlError>;

pub(super) const LAYERS: &[Entry] = &[
    ("convolution", convolution),
    ("cropResize", crop_resize),
    ("pooling", pooling),
    ("resizeBilinear", resize),
    ("upsample", upsample),
];

/// Pads of a layer whose `valid` and `same` are in these fields.
fn pads(cx: &Cx<'_>, valid: u32, same: u32) -> Result<Pads, CoreMlError> {
    if let Some(same) = cx.params().message(same)? {
        return Ok(if same.int(1) == 1 { Pads::SameLower } else { Pads::SameUpper });
    }
    let borders = cx.params().message(valid)?.unwrap_or_default().message(1)?.unwrap_or_default();
    let edges = borders.messages(10)?;
    let side = |side: u32| [0, 1].map(|i| edges.get(i).map_or(0, |edge| edge.int(side)));
    Ok(Pads::Given([side(1), side(2)].concat()))
}

fn convolution(cx: &mut Cx<'_>) -> Done {
    let x = cx.picture(0)?;
    let (outputs, inputs, groups) = (cx.size(1), cx.size(2), cx.size(10).max(1));
    let kernel = cx.sizes(20, &[3, 3]);
    let window =
        Window { strides: cx.sizes(30, &[1, 1]), dilations: cx.sizes(40, &[1, 1]), pads: pads(cx, 50, 51)? };
    let transposed = cx.params().bool(60);
    let front = if transposed { [inputs, outputs / groups] } else { [outputs, inputs] };
    let weight = cx.weights(90, &[&front, &kernel[..]].concat())?;
    let bias = if cx.params().bool(70) { Some(cx.weights(91, &[outputs])?) } else { None };
    let inputs: Vec<_> = [x, weight].into_iter().chain(bias).collect();
    if !transposed {
        return cx.emit(Conv { window, groups }, &inputs);
    }
    let output_shape = cx.sizes(100, &[]);
    cx.emit(ConvTranspose { window, groups, output_padding: Vec::new(), output_shape }, &inputs)
}

fn pooling(cx: &mut Cx<'_>) -> Done {
    let x = cx.picture(0)?;
    let kind = match cx.params().int(1) {
        0 => PoolKind::Max { column_major: false },
        1 => PoolKind::Average { count_pad: !cx.params().bool(50) },
        2 => PoolKind::Lp(2),
        other => return Err(cx.fail(format!("pooling {other} does not exist"))),
    };
    if cx.params().bool(60) {
        return cx.emit(Pool { kind, kernel: Vec::new(), window: Window::default(), ceil: false }, &[x]);
    }
    let ceil = cx.params().has(32);
    let pads = match cx.params().message(32)? {
        Some(complete) => {
            let amounts = complete.ints(10);
            let pad = |i: usize| amounts.get(i).copied().unwrap_or(0);
            Pads::Given(vec![pad(0), pad(1), pad(0), pad(1)])
        }
        None => pads(cx, 30, 31)?,
    };
    let window = Window { strides: cx.sizes(20, &[1, 1]), dilations: Vec::new(), pads };
    cx.emit(Pool { kind, kernel: cx.sizes(10, &[3, 3]), window, ceil }, &[x])
}

/// Names of the ways to lay a grid, by number.
const GRIDS: [&str; 4] = ["STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS"];
/// Names of the ways to tell a box, by number.
const BOXES: [&str; 4] =
    ["CORNERS_HEIGHT_FIRST", "CORNERS_WIDTH_FIRST", "CENTER_SIZE_HEIGHT_FIRST", "CENTER_SIZE_WIDTH_FIRST"];

/// The name at the number in the message of field `tag`.
fn named(cx: &Cx<'_>, tag: u32, names: &[&str]) -> Result<Literal, CoreMlError> {
    let number = cx.params().message(tag)?.unwrap_or_default().int(1);
    let name = usize::try_from(number).ok().and_then(|i| names.get(i));
    name.map(|name| text(name)).ok_or_else(|| cx.fail(format!("mode {number} does not exist")))
}

/// The rows and columns in field 1, under these names.
fn target(cx: &Cx<'_>, names: [&str; 2]) -> Result<[(String, Vec<Argument>); 2], CoreMlError> {
    let size = cx.params().ints(1);
    let side = |i: usize| whole(&[size.get(i).copied().unwrap_or(1)], true);
    Ok([fixed_to(names[0], side(0)?), fixed_to(names[1], side(1)?)])
}

/// To the rows and columns in field 1.
fn resize(cx: &mut Cx<'_>) -> Done {
    let x = cx.picture(0)?;
    let mut inputs = vec![bound_to(cx, "x", x), fixed_to("sampling_mode", named(cx, 2, &GRIDS)?)];
    inputs.extend(target(cx, ["target_size_height", "target_size_width"])?);
    run(cx, "resize_bilinear", inputs.into_iter().collect())
}

/// Regions `[N, 1, 4 or 5, 1, 1]` of pictures `[1, B, C, H, W]`.
fn crop_resize(cx: &mut Cx<'_>) -> Done {
    let (mut x, roi) = (cx.input(0)?, cx.input(1)?);
    if cx.making.rank(x) == Some(5) {
        let front = cx.ints(&[0])?;
        x = cx.temp(Squeeze, &[x, front])?;
    }
    let scale = Some(cx.params().float(5)).filter(|scale| *scale != 0.0).unwrap_or(1.0);
    let mut inputs = vec![
        bound_to(cx, "x", x),
        bound_to(cx, "roi", roi),
        fixed_to("sampling_mode", named(cx, 3, &GRIDS)?),
        fixed_to("box_coordinate_mode", named(cx, 4, &BOXES)?),
        fixed_to("normalized_coordinates", whole(&[cx.params().int(2)], true)?),
        fixed_to("spatial_scale", number(scale)?),
    ];
    inputs.extend(target(cx, ["target_height", "target_width"])?);
    run(cx, "crop_resize", inputs.into_iter().collect())
}

/// By the factors in field 1 (whole) or 7.
fn upsample(cx: &mut Cx<'_>) -> Done {
    let x = cx.picture(0)?;
    let params = cx.params();
    let (mode, coordinates) = match (params.int(5), params.int(6)) {
        (0, _) => (ResizeMode::Nearest(NearestRule::Floor), Coordinates::Asymmetric),
        (_, 0) => (ResizeMode::Linear, Coordinates::Asymmetric),
        (_, 1) => (ResizeMode::Linear, Coordinates::AlignCorners),
        _ => (ResizeMode::Linear, Coordinates::HalfPixel),
    };
    let whole: Vec<f32> = params.ints(1).iter().map(|n| *n as f32).collect();
    let scales = if whole.is_empty() { params.floats(7) } else { whole };
    let name = format!("{}.scales", cx.layer.name);
    let scales = cx.making.floats(&name, &[scales.len()], &scales)?;
    let absent = cx.making.builder.absent();
    cx.emit(rescale(mode, coordinates), &[x, absent, scales])
}
