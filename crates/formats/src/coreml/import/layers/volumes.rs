//! Convolutions and pooling in three dimensions, `[N, C, D, H, W]`.

use kinglet_graph::ops::{Conv, ConvTranspose, Pads, Pool, PoolKind, Window};

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::network::Cx;

type Done = Result<(), CoreMlError>;

pub(super) const LAYERS: &[Entry] =
    &[("convolution3d", convolution), ("globalPooling3d", |cx| pool_all(cx)), ("pooling3d", pool)];

/// Three sizes in fields of their own; 1 where they are not given.
fn three(cx: &Cx<'_>, tags: [u32; 3]) -> Vec<usize> {
    tags.iter().map(|tag| cx.size(*tag).max(1)).collect()
}

/// Pads by number: those in six fields, none, or as many as keep the size.
fn pads(cx: &Cx<'_>, kind: u32, tags: [u32; 6]) -> Result<Pads, CoreMlError> {
    Ok(match cx.params().int(kind) {
        0 => {
            let side = |side: usize| tags.iter().skip(side).step_by(2).map(|tag| cx.params().int(*tag));
            Pads::Given(side(0).chain(side(1)).collect())
        }
        1 => Pads::default(),
        2 => Pads::SameUpper,
        other => return Err(cx.fail(format!("padding {other} does not exist"))),
    })
}

fn convolution(cx: &mut Cx<'_>) -> Done {
    let x = cx.input(0)?;
    let (outputs, inputs, groups) = (cx.size(1), cx.size(2), cx.size(10).max(1));
    let window = Window {
        strides: three(cx, [31, 32, 33]),
        dilations: three(cx, [40, 41, 42]),
        pads: pads(cx, 70, [80, 81, 82, 83, 84, 85])?,
    };
    let transposed = cx.params().bool(86);
    let front = if transposed { [inputs, outputs / groups] } else { [outputs, inputs / groups] };
    let weight = cx.weights(60, &[&front[..], &three(cx, [20, 21, 22])].concat())?;
    let bias = if cx.params().bool(50) { Some(cx.weights(61, &[outputs])?) } else { None };
    let values: Vec<_> = [x, weight].into_iter().chain(bias).collect();
    if !transposed {
        return cx.emit(Conv { window, groups }, &values);
    }
    let output_shape = cx.sizes(87, &[]);
    cx.emit(ConvTranspose { window, groups, output_padding: Vec::new(), output_shape }, &values)
}

fn kind(cx: &Cx<'_>) -> Result<PoolKind, CoreMlError> {
    match cx.params().int(1) {
        0 => Ok(PoolKind::Max { column_major: false }),
        1 => Ok(PoolKind::Average { count_pad: !cx.params().bool(14) }),
        other => Err(cx.fail(format!("pooling {other} does not exist"))),
    }
}

fn pool(cx: &mut Cx<'_>) -> Done {
    let (x, kind, kernel) = (cx.input(0)?, kind(cx)?, three(cx, [2, 3, 4]));
    let window = Window {
        strides: three(cx, [5, 6, 7]),
        dilations: Vec::new(),
        pads: pads(cx, 15, [8, 9, 10, 11, 12, 13])?,
    };
    cx.emit(Pool { kind, kernel, window, ceil: false }, &[x])
}

fn pool_all(cx: &mut Cx<'_>) -> Done {
    let (x, kind) = (cx.input(0)?, kind(cx)?);
    cx.emit(Pool { kind, kernel: Vec::new(), window: Window::default(), ceil: false }, &[x])
}
