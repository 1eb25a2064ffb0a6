//! Convolutions, pooling and resizing.

use kinglet_graph::ops::{
    Conv, ConvTranspose, Coordinates, NearestRule, Pads, Pool, PoolKind, ResizeMode, Window,
};

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::making::rescale;
use crate::coreml::import::network::Cx;

type Done = Result<(), CoreMlError>;

pub(super) const LAYERS: &[Entry] =
    &[("convolution", convolution), ("pooling", pooling), ("resizeBilinear", resize), ("upsample", upsample)];

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

/// To the rows and columns in field 1.
fn resize(cx: &mut Cx<'_>) -> Done {
    let x = cx.picture(0)?;
    let coordinates = match cx.params().message(2)?.unwrap_or_default().int(1) {
        0 | 1 => Coordinates::AlignCorners,
        2 => Coordinates::Asymmetric,
        other => return Err(cx.fail(format!("sampling mode {other} cannot run"))),
    };
    let sizes = cx.params().ints(1);
    let (absent, sizes) = (cx.making.builder.absent(), cx.ints(&sizes)?);
    cx.emit(rescale(ResizeMode::Linear, coordinates), &[x, absent, absent, sizes])
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
