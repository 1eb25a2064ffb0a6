//! Convolutions, pooling and resizing.

use kinglet_graph::axis;
use kinglet_graph::ops::{
    Aspect, Conv, ConvTranspose, Coordinates, NearestRule, Pads, Pool, PoolKind, Resize, ResizeMode, Window,
};

use super::Entry;
use crate::coreml::Literal;
use crate::coreml::write::node::{Arg, Ex, Given};

type Done = Result<(), String>;

pub(super) const OPS: &[Entry] =
    &[("Conv", conv), ("ConvTranspose", conv_transpose), ("Pool", pool), ("Resize", resize)];

/// Strides and pads of a window over so many spatial dimensions.
fn window(window: &Window, spatial: usize) -> Result<Given<'static>, String> {
    let list = |of: &dyn Fn(usize) -> i64| Arg::Ints((0..spatial).map(of).collect());
    let mut given = vec![("strides", list(&|i| window.stride(i) as i64))];
    match &window.pads {
        Pads::SameUpper => given.push(("pad_type", Arg::Text("same"))),
        Pads::SameLower => given.push(("pad_type", Arg::Text("same_lower"))),
        Pads::Given(pads) => {
            let pad = |i: usize| pads.get(i).copied().unwrap_or(0);
            let pairs: Vec<i64> = (0..spatial).flat_map(|i| [pad(i), pad(i + spatial)]).collect();
            if pairs.iter().any(|n| *n < 0) {
                return Err("whose padding crops".into());
            }
            given.push(("pad_type", Arg::Text("custom")));
            given.push(("pad", Arg::Ints(pairs)));
        }
    }
    Ok(given)
}

fn dilations(window: &Window, spatial: usize) -> Arg<'static> {
    Arg::Ints((0..spatial).map(|i| window.dilation(i) as i64).collect())
}

/// Image, kernel and, when there is one, bias.
fn operands(ex: &mut Ex<'_, '_>) -> Result<Given<'static>, String> {
    if !ex.is_float(0) {
        return Err("of integers".into());
    }
    let mut given = vec![("x", Arg::Name(ex.input(0)?)), ("weight", Arg::Name(ex.input(1)?))];
    if ex.has(2) {
        ex.weight(2)?;
        given.push(("bias", Arg::Name(ex.input(2)?)));
    }
    Ok(given)
}

fn conv(ex: &mut Ex<'_, '_>) -> Done {
    let Conv { window: own, groups } = ex.op()?;
    let spatial = ex.ty(0)?.rank() - 2;
    let mut given = window(own, spatial)?;
    given.extend(operands(ex)?);
    given.push(("dilations", dilations(own, spatial)));
    given.push(("groups", Arg::Int(*groups as i64)));
    ex.emit("conv", given)
}

fn conv_transpose(ex: &mut Ex<'_, '_>) -> Done {
    let ConvTranspose { window: own, groups, output_padding, output_shape } = ex.op()?;
    if output_padding.iter().any(|n| *n != 0) || !output_shape.is_empty() {
        return Err("with a padding of its result".into());
    }
    let spatial = ex.ty(0)?.rank() - 2;
    let mut given = window(own, spatial)?;
    given.extend(operands(ex)?);
    given.push(("dilations", dilations(own, spatial)));
    given.push(("groups", Arg::Int(*groups as i64)));
    ex.emit("conv_transpose", given)
}

fn pool(ex: &mut Ex<'_, '_>) -> Done {
    let Pool { kind, kernel, window: own, ceil } = ex.op()?;
    let rank = ex.ty(0)?.rank();
    if kernel.is_empty() {
        let kind = match kind {
            PoolKind::Max { .. } => "reduce_max",
            PoolKind::Average { .. } => "reduce_mean",
            PoolKind::Lp(1) => "reduce_l1_norm",
            PoolKind::Lp(2) => "reduce_l2_norm",
            PoolKind::Lp(_) => return Err("with another norm than 1 and 2".into()),
        };
        let (x, axes) = (ex.input(0)?, Arg::Ints((2..rank as i64).collect()));
        return ex.emit(kind, vec![("x", x.into()), ("axes", axes), ("keep_dims", Arg::Flag(true))]);
    }
    let spatial = rank - 2;
    if (0..spatial).any(|i| own.dilation(i) != 1) {
        return Err("with gaps in its windows".into());
    }
    let mut given = window(own, spatial)?;
    given.push(("x", Arg::Name(ex.input(0)?)));
    given.push(("kernel_sizes", Arg::Ints(kernel.iter().map(|n| *n as i64).collect())));
    given.push(("ceil_mode", Arg::Flag(*ceil)));
    match kind {
        PoolKind::Max { .. } => ex.emit("max_pool", given),
        PoolKind::Average { count_pad } => {
            given.push(("exclude_padding_from_average", Arg::Flag(!count_pad)));
            ex.emit("avg_pool", given)
        }
        PoolKind::Lp(2) => ex.emit("l2_pool", given),
        PoolKind::Lp(_) => Err("with another norm than 2".into()),
    }
}

/// Rows and columns of images, to known sizes.
fn resize(ex: &mut Ex<'_, '_>) -> Done {
    let op = ex.op::<Resize>()?;
    let plain = op.aspect == Aspect::Stretch && !op.antialias && !op.exclude_outside;
    if !plain || ex.ty(0)?.rank() != 4 {
        return Err("which no operation on images does".into());
    }
    let Ok(dims) = ex.dims(0) else { return resize_open(ex) };
    let scaled = ex.with_args(|args| op.scaled(args, &dims))?.ok_or("by factors that are no constants")?;
    let (mut factors, mut sizes) = ([1.0f32; 2], [dims[2], dims[3]]);
    for s in scaled {
        match s.axis {
            2 | 3 => (factors[s.axis - 2], sizes[s.axis - 2]) = (s.scale as f32, s.output),
            _ if s.scale == 1.0 => {}
            _ => return Err("of other dimensions than rows and columns".into()),
        }
    }
    let x = ex.input(0)?;
    let whole =
        factors.iter().zip(sizes).zip(&dims[2..]).all(|((f, n), m)| f.fract() == 0.0 && n == *f as usize * m);
    let by =
        [("scale_factor_height", Arg::Float(factors[0])), ("scale_factor_width", Arg::Float(factors[1]))];
    let mut given = vec![("x", Arg::Name(x))];
    match (op.mode, op.coordinates) {
        (ResizeMode::Nearest(rule), coordinates) if whole && repeats(rule, coordinates) => {
            given.extend(by);
            ex.emit("upsample_nearest_neighbor", given)
        }
        (ResizeMode::Linear, Coordinates::AlignCorners) => sampled(ex, given, sizes, "STRICT_ALIGN_CORNERS"),
        (ResizeMode::Linear, Coordinates::HalfPixel | Coordinates::PytorchHalfPixel) => {
            sampled(ex, given, sizes, "UNALIGN_CORNERS")
        }
        _ => Err("by a rule that no operation follows".into()),
    }
}

/// Rows and columns of images of open sizes, by known factors.
fn resize_open(ex: &mut Ex<'_, '_>) -> Done {
    let op = ex.op::<Resize>()?;
    let given = if ex.has(2) { Literal::Tensor(ex.weight(2)?.clone()).floats() } else { None };
    let given = given.ok_or("to sizes that are open")?;
    let mut factors = [1.0f32; 4];
    for (i, factor) in given.into_iter().enumerate() {
        let along = op.axes.get(i).map_or(Ok(i), |along| axis(*along, 4))?;
        *factors.get_mut(along).ok_or("by more factors than dimensions")? = factor;
    }
    let [1.0, 1.0, height, width] = factors else {
        return Err("of other dimensions than rows and columns".into());
    };
    let x = ex.input(0)?;
    let mut given = vec![
        ("x", Arg::Name(x)),
        ("scale_factor_height", Arg::Float(height)),
        ("scale_factor_width", Arg::Float(width)),
    ];
    let whole = height.fract() == 0.0 && width.fract() == 0.0;
    match (op.mode, op.coordinates) {
        (ResizeMode::Nearest(rule), coordinates) if whole && repeats(rule, coordinates) => {
            ex.emit("upsample_nearest_neighbor", given)
        }
        (ResizeMode::Linear, Coordinates::HalfPixel | Coordinates::PytorchHalfPixel) if whole => {
            given.push(("align_corners", Arg::Flag(false)));
            ex.emit("upsample_bilinear", given)
        }
        _ => Err("by a rule that no operation follows for open sizes".into()),
    }
}

/// Whether enlarging by whole factors repeats each element.
fn repeats(rule: NearestRule, coordinates: Coordinates) -> bool {
    match coordinates {
        Coordinates::Asymmetric => rule == NearestRule::Floor,
        Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => {
            matches!(rule, NearestRule::PreferFloor | NearestRule::PreferCeil)
        }
        _ => false,
    }
}

fn sampled(
    ex: &mut Ex<'_, '_>,
    mut given: Given<'_>,
    [height, width]: [usize; 2],
    mode: &'static str,
) -> Done {
    given.push(("target_size_height", Arg::Int(height as i64)));
    given.push(("target_size_width", Arg::Int(width as i64)));
    given.push(("sampling_mode", Arg::Text(mode)));
    ex.emit("resize_bilinear", given)
}
