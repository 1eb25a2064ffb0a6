//! Convolutions, pooling and resizing.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Conv, ConvTranspose, Coordinates, GridSample, NearestRule, Pads, Pool, PoolKind, ResizeMode, SampleMode,
    SamplePad, Window,
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
    ("resample", resample),
    ("resize", |cx| {
        let size = cx.required("shape")?;
        let last = usize::try_from(cx.int("resized_dims", 2)).unwrap_or(0);
        if last != 2 || size.len() < 2 || size[size.len() - 2..].contains(&0) {
            return Err(cx.fail("it resizes other dimensions than rows and columns"));
        }
        let nearest = cx.text("interpolation_mode").as_deref() == Some("NEAREST_NEIGHBOR");
        resize(cx, [size[size.len() - 2], size[size.len() - 1]], nearest)
    }),
    ("resize_bilinear", |cx| {
        let size = [cx.int("target_size_height", 1), cx.int("target_size_width", 1)];
        resize(cx, size, false)
    }),
    ("resize_nearest_neighbor", |cx| {
        let size = [cx.int("target_size_height", 1), cx.int("target_size_width", 1)];
        resize(cx, size, true)
    }),
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

/// Pictures read at given places, `[N, rows, columns, 2]` from -1 to 1.
fn resample(cx: &mut Cx<'_>) -> Done {
    let mode = match cx.text("sampling_mode").as_deref() {
        Some("bilinear") => SampleMode::Linear,
        Some("nearest") => SampleMode::Nearest,
        other => return Err(cx.fail(format!("sampling mode {other:?} cannot run"))),
    };
    let pad = match cx.text("padding_mode").as_deref() {
        Some("constant") if cx.float("padding_value", 0.0) == 0.0 => SamplePad::Zeros,
        Some("border") => SamplePad::Border,
        Some("reflection") => SamplePad::Reflection,
        other => return Err(cx.fail(format!("padding mode {other:?} cannot run"))),
    };
    if cx.text("coordinates_mode").as_deref() != Some("normalized_minus_one_to_one") {
        return Err(cx.fail("places that do not run from -1 to 1 cannot run"));
    }
    let (x, places, align_corners) =
        (cx.input("x")?, cx.input("coordinates")?, cx.flag("align_corners", true));
    cx.emit(GridSample { mode, pad, align_corners }, &[x, places])
}

fn resize(cx: &mut Cx<'_>, size: [i64; 2], nearest: bool) -> Done {
    let x = cx.input("x")?;
    let sampling = cx.text("sampling_mode");
    let coordinates = match sampling.as_deref() {
        Some("STRICT_ALIGN_CORNERS" | "ALIGN_CORNERS") => Coordinates::AlignCorners,
        Some("UNALIGN_CORNERS") => Coordinates::HalfPixel,
        // The grid of TensorFlow's first version: no pixel has a middle.
        None | Some("DEFAULT") => Coordinates::Asymmetric,
        other => return Err(cx.fail(format!("sampling mode {other:?} cannot run"))),
    };
    let mode = if nearest { ResizeMode::Nearest(NearestRule::Floor) } else { ResizeMode::Linear };
    let (absent, size) = (cx.absent(), cx.constant_ints(&size)?);
    cx.emit(rescale(mode, coordinates), &[x, absent, absent, size])
}

/// The grid follows from whole sizes, where they are known: exporters round factors up, so that sizes come out right.
fn upsample(cx: &mut Cx<'_>, mode: ResizeMode, coordinates: Coordinates) -> Done {
    let x = cx.input("x")?;
    let scales = [cx.float("scale_factor_height", 1.0), cx.float("scale_factor_width", 1.0)];
    let absent = cx.absent();
    if let Some([.., height, width]) = cx.making.dims(x).as_deref() {
        let size = |side: usize, scale: f32| (side as f64 * f64::from(scale)).floor() as i64;
        let size = cx.constant_ints(&[size(*height, scales[0]), size(*width, scales[1])])?;
        return cx.emit(rescale(mode, coordinates), &[x, absent, absent, size]);
    }
    let name = format!("{}.scales", cx.op.name);
    let scales = cx.making.floats(&name, &[2], &scales)?;
    cx.emit(rescale(mode, coordinates), &[x, absent, scales])
}
