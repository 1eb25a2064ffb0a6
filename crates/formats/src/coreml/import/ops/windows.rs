//! Convolutions, pooling and resizing.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Conv, ConvTranspose, Coordinates, NearestRule, Pads, Pool, PoolKind, ResizeMode, Window,
};

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::making::rescale;
use crate::coreml::import::program::Cx;

type Done = Result<(), CoreMlError>;

pub(super) const OPS: &[Entry] = &[
    ("avg_pool", |cx| {
        let count_pad = !cx.flag("exclude_padding_from_average", false);
        pool(cx, PoolKind::Average { count_pad })
    }),
    ("conv", conv),
    ("conv_transpose", conv_transpose),
    ("l2_pool", |cx| pool(cx, PoolKind::Lp(2))),
    ("max_pool", |cx| pool(cx, PoolKind::Max { column_major: false })),
    ("resize_bilinear", resize),
    ("upsample_bilinear", |cx| {
        let aligned = cx.flag("align_corners", true);
        let coordinates = if aligned { Coordinates::AlignCorners } else { Coordinates::HalfPixel };
        upsample(cx, ResizeMode::Linear, coordinates)
    }),
    ("upsample_nearest_neighbor", |cx| {
        upsample(cx, ResizeMode::Nearest(NearestRule::Floor), Coordinates::Asymmetric)
    }),
];

/// The window over `x`; `pad` lists begin and end of each spatial dimension in turn.
fn window(cx: &Cx<'_>, x: ValueId) -> Result<Window, CoreMlError> {
    let spatial = cx.rank(x)?.saturating_sub(2);
    let pads = match cx.text("pad_type").as_deref() {
        Some("same") => Pads::SameUpper,
        Some("same_lower") => Pads::SameLower,
        Some("custom") => {
            let given = cx.ints("pad")?.unwrap_or_else(|| vec![0; 2 * spatial]);
            if given.len() != 2 * spatial {
                return Err(cx.fail(format!("{} pads for {spatial} spatial dimensions", given.len())));
            }
            let side = |side: usize| given.iter().skip(side).step_by(2).copied();
            Pads::Given(side(0).chain(side(1)).collect())
        }
        None | Some("valid") => Pads::default(),
        Some(other) => return Err(cx.fail(format!("pad_type `{other}` is not known"))),
    };
    Ok(Window { strides: cx.sizes("strides", &[])?, dilations: cx.sizes("dilations", &[])?, pads })
}

fn groups(cx: &Cx<'_>) -> usize {
    usize::try_from(cx.int("groups", 1)).unwrap_or(0)
}

fn inputs(cx: &mut Cx<'_>) -> Result<Vec<ValueId>, CoreMlError> {
    Ok([cx.input("x")?, cx.input("weight")?].into_iter().chain(cx.maybe("bias")?).collect())
}

fn conv(cx: &mut Cx<'_>) -> Done {
    let inputs = inputs(cx)?;
    let (window, groups) = (window(cx, inputs[0])?, groups(cx));
    cx.emit(Conv { window, groups }, &inputs)
}

fn conv_transpose(cx: &mut Cx<'_>) -> Done {
    let inputs = inputs(cx)?;
    let (window, groups) = (window(cx, inputs[0])?, groups(cx));
    let output = cx.sizes("output_shape", &[])?;
    let output_shape = output.get(2..).map(<[usize]>::to_vec).unwrap_or_default();
    cx.emit(ConvTranspose { window, groups, output_padding: Vec::new(), output_shape }, &inputs)
}

fn pool(cx: &mut Cx<'_>, kind: PoolKind) -> Done {
    let x = cx.input("x")?;
    let kernel = cx.sizes("kernel_sizes", &[])?;
    let ceil = cx.flag("ceil_mode", false);
    let window = window(cx, x)?;
    cx.emit(Pool { kind, kernel, window, ceil }, &[x])
}

fn resize(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let coordinates = match cx.text("sampling_mode").as_deref() {
        Some("STRICT_ALIGN_CORNERS" | "ALIGN_CORNERS") => Coordinates::AlignCorners,
        Some("UNALIGN_CORNERS") => Coordinates::HalfPixel,
        other => return Err(cx.fail(format!("sampling mode {other:?} cannot run"))),
    };
    let size = [cx.int("target_size_height", 1), cx.int("target_size_width", 1)];
    let (absent, size) = (cx.absent(), cx.constant_ints(&size)?);
    cx.emit(rescale(ResizeMode::Linear, coordinates), &[x, absent, absent, size])
}

fn upsample(cx: &mut Cx<'_>, mode: ResizeMode, coordinates: Coordinates) -> Done {
    let x = cx.input("x")?;
    let scales = [cx.float("scale_factor_height", 1.0), cx.float("scale_factor_width", 1.0)];
    let name = format!("{}.scales", cx.op.name);
    let scales = cx.making.floats(&name, &[2], &scales)?;
    let absent = cx.absent();
    cx.emit(rescale(mode, coordinates), &[x, absent, scales])
}
