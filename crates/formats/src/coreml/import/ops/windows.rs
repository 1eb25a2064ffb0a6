//! Convolutions, pooling and resizing.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Binary, Cast, Conv, ConvTranspose, Coordinates, Fun2, NearestRule, Pads, Pool, PoolKind, ResizeMode,
    Slice, Unsqueeze, Window,
};
use kinglet_tensor::DType;

use super::Entry;
use super::sampling::{Spacing, on_grid, spacing};
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
    ("conv_quantized", conv_quantized),
    ("conv_transpose", conv_transpose),
    ("l2_pool", |cx| pool(cx, PoolKind::Lp(2))),
    ("max_pool", |cx| pool(cx, PoolKind::Max { column_major: false })),
    ("resize", resize_to),
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

/// `W = codes * quant_scale + quant_bias`, numbers of one channel or of all; a table of values is the other way.
fn conv_quantized(cx: &mut Cx<'_>) -> Done {
    if cx.text("quantization_type").as_deref() != Some("linear") {
        return Err(cx.fail("its weights are places in a table, which cannot run; linear ones can"));
    }
    let mut inputs = inputs(cx)?;
    let (rank, mut weight) = (cx.rank(inputs[1])?, cx.temp(Cast::to(DType::F32), &[inputs[1]])?);
    for (parameter, fun) in [("quant_scale", Fun2::Mul), ("quant_bias", Fun2::Add)] {
        let mut by = cx.input(parameter)?;
        if cx.rank(by)? == 1 {
            let axes = cx.constant_ints(&(1..rank as i64).collect::<Vec<_>>())?;
            by = cx.temp(Unsqueeze, &[by, axes])?;
        }
        weight = cx.temp(Binary(fun), &[weight, by])?;
    }
    inputs[1] = weight;
    if let Some(bias) = inputs.get_mut(2) {
        *bias = cx.temp(Cast::to(DType::F32), &[*bias])?;
    }
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

/// The last dimensions to the sizes that end `shape`; a size of 0 stays as it is.
fn resize_to(cx: &mut Cx<'_>) -> Done {
    let nearest = cx.text("interpolation_mode").as_deref() == Some("NEAREST_NEIGHBOR");
    let x = cx.input("x")?;
    let count = usize::try_from(cx.int("resized_dims", 2)).unwrap_or(0);
    let Ok(Some(list)) = cx.ints("shape") else { return resize_computed(cx, x, nearest) };
    let dims = |back: usize| {
        let given = list.len().checked_sub(back).and_then(|i| list.get(i)).filter(|_| back <= count);
        let ty = cx.making.builder.ty(x).tensor();
        let own = ty.and_then(|ty| ty.shape.get(ty.rank().checked_sub(back)?)?.fixed()).map(|n| n as i64);
        given.copied().filter(|n| *n > 0).or(own)
    };
    if (3..=count)
        .any(|back| dims(back).is_none() || list.get(list.len().wrapping_sub(back)).is_some_and(|n| *n > 0))
    {
        return Err(cx.fail("it resizes other dimensions than rows and columns"));
    }
    let (Some(rows), Some(columns)) = (dims(2), dims(1)) else {
        return Err(cx.fail("rows or columns that stay as they are have open sizes"));
    };
    resize(cx, [rows, columns], nearest)
}

/// To rows and columns that the program computes.
fn resize_computed(cx: &mut Cx<'_>, x: ValueId, nearest: bool) -> Done {
    let coordinates = match spacing(cx)? {
        Spacing::Strict | Spacing::Aligned => Coordinates::AlignCorners,
        Spacing::Unaligned => Coordinates::HalfPixel,
        Spacing::Start => Coordinates::Asymmetric,
        Spacing::Offset => return Err(cx.fail("this sampling mode takes known sizes")),
    };
    let shape = cx.input("shape")?;
    let shape = cx.temp(Cast::to(DType::I64), &[shape])?;
    let lists = [&[-2][..], &[i64::MAX], &[0]].map(|list| cx.constant_ints(list));
    let [start, end, axis] = lists;
    let (start, end, axis) = (start?, end?, axis?);
    let size = cx.temp(Slice, &[shape, start, end, axis])?;
    let mode = if nearest { ResizeMode::Nearest(NearestRule::Floor) } else { ResizeMode::Linear };
    let absent = cx.absent();
    cx.emit(rescale(mode, coordinates), &[x, absent, absent, size])
}

fn resize(cx: &mut Cx<'_>, size: [i64; 2], nearest: bool) -> Done {
    let (x, spacing) = (cx.input("x")?, spacing(cx)?);
    let coordinates = match spacing {
        Spacing::Strict => Coordinates::AlignCorners,
        Spacing::Aligned if !size.contains(&1) => Coordinates::AlignCorners,
        Spacing::Unaligned => Coordinates::HalfPixel,
        // The grid of TensorFlow's first version: no pixel has a middle.
        Spacing::Start => Coordinates::Asymmetric,
        Spacing::Aligned | Spacing::Offset => {
            let size = size.map(|n| usize::try_from(n).unwrap_or(0));
            return on_grid(cx, x, size, spacing, nearest);
        }
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
