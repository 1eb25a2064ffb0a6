//! `Resize` and the older `Upsample`.

use kinglet_graph::ops::{Aspect, Coordinates, NearestRule, Resize, ResizeMode};
use kinglet_tensor::DType;

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[("", "Resize", resize), ("", "Upsample", upsample)];

fn mode(cx: &Cx<'_, '_>, rule: NearestRule) -> Result<ResizeMode, OnnxError> {
    Ok(match cx.attrs.text("mode").unwrap_or("nearest") {
        "nearest" => ResizeMode::Nearest(rule),
        "linear" | "bilinear" => ResizeMode::Linear,
        "cubic" => ResizeMode::Cubic(cx.float("cubic_coeff_a", -0.75)),
        other => return Err(cx.fail(format!("mode `{other}` is not known"))),
    })
}

fn plain(mode: ResizeMode, coordinates: Coordinates) -> Resize {
    Resize {
        mode,
        coordinates,
        axes: Vec::new(),
        aspect: Aspect::Stretch,
        exclude_outside: false,
        outside: 0.0,
        antialias: false,
    }
}

fn resize(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    if cx.opset < 11 {
        return upsample(cx);
    }
    let rule = match cx.attrs.text("nearest_mode").unwrap_or("round_prefer_floor") {
        "round_prefer_ceil" => NearestRule::PreferCeil,
        "floor" => NearestRule::Floor,
        "ceil" => NearestRule::Ceil,
        _ => NearestRule::PreferFloor,
    };
    let coordinates = match cx.attrs.text("coordinate_transformation_mode").unwrap_or("half_pixel") {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_half_pixel_for_nn" => Coordinates::TfHalfPixelForNn,
        "tf_crop_and_resize" => Coordinates::TfCropAndResize,
        other => return Err(cx.fail(format!("coordinates `{other}` are not known"))),
    };
    let aspect = match cx.attrs.text("keep_aspect_ratio_policy").unwrap_or("stretch") {
        "not_larger" => Aspect::NotLarger,
        "not_smaller" => Aspect::NotSmaller,
        _ => Aspect::Stretch,
    };
    cx.emit(Resize {
        axes: cx.attrs.ints("axes").unwrap_or(&[]).to_vec(),
        aspect,
        exclude_outside: cx.flag("exclude_outside", false),
        outside: cx.float("extrapolation_value", 0.0),
        antialias: cx.flag("antialias", false),
        ..plain(mode(cx, rule)?, coordinates)
    })
}

/// Scales are an attribute before version 9. Version 10 does not say which pixel is the nearest: the one before when enlarging and
/// the one behind when shrinking, as ONNX Runtime takes it.
fn upsample(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (x, absent) = (cx.input(0), cx.builder().absent());
    let given = match cx.attrs.floats("scales") {
        Some(list) => Some(list.to_vec()),
        None => {
            let id = cx.input(1);
            let floats = cx.builder().graph().weight(id).is_some_and(|t| t.dtype() == DType::F32);
            if floats { Some(cx.weight_floats(1)?) } else { None }
        }
    };
    let asymmetric = |mode| plain(mode, Coordinates::Asymmetric);
    let (larger, smaller) =
        (asymmetric(mode(cx, NearestRule::Floor)?), asymmetric(mode(cx, NearestRule::Ceil)?));
    let Some(scales) = given else {
        let scales = cx.input(1);
        return cx.emit_with(larger, &[x, absent, scales]);
    };
    let nearest = matches!(larger.mode, ResizeMode::Nearest(_));
    let bound = |limit: fn(f32, f32) -> f32| scales.iter().map(|s| limit(*s, 1.0)).collect::<Vec<_>>();
    let (up, down) = (bound(f32::max), bound(f32::min));
    if !nearest || down == vec![1.0; down.len()] {
        let scales = cx.floats(DType::F32, vec![scales.len()], &scales)?;
        return cx.emit_with(larger, &[x, absent, scales]);
    }
    let [up, down] = [up, down].map(|list| cx.floats(DType::F32, vec![list.len()], &list));
    let (up, down) = (up?, down?);
    let enlarged = cx.temp(larger, &[x, absent, up])?;
    cx.emit_with(smaller, &[enlarged, absent, down])
}
