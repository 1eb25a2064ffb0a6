//! Images at another density.

use kinglet_graph::ops::{Aspect, Coordinates, NearestRule, Resize, ResizeMode};

use super::Entry;
use crate::onnx::write::attribute::{flag, float, ints, text};
use crate::onnx::write::node::Ex;

pub(in crate::onnx) const OPS: &[Entry] = &[("Resize", resize)];

fn resize(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let op = ex.op::<Resize>()?;
    let mut attributes = match op.mode {
        ResizeMode::Nearest(rule) => vec![text("mode", "nearest"), text("nearest_mode", rule_name(rule))],
        ResizeMode::Linear => vec![text("mode", "linear")],
        ResizeMode::Cubic(a) => vec![text("mode", "cubic"), float("cubic_coeff_a", a)],
    };
    if op.coordinates == Coordinates::HalfPixelSymmetric {
        ex.needs(19)?;
    }
    attributes.push(text("coordinate_transformation_mode", coordinates_name(op.coordinates)));
    if !op.axes.is_empty() {
        attributes.push(ints("axes", op.axes.iter().copied()));
    }
    match op.aspect {
        Aspect::Stretch => {}
        Aspect::NotLarger => attributes.push(text("keep_aspect_ratio_policy", "not_larger")),
        Aspect::NotSmaller => attributes.push(text("keep_aspect_ratio_policy", "not_smaller")),
    }
    attributes.push(flag("exclude_outside", op.exclude_outside));
    attributes.push(float("extrapolation_value", op.outside));
    attributes.push(flag("antialias", op.antialias));
    // Sizes win over scales; ONNX takes one of the two only.
    let sized = ex.has(3) && ex.ty(3).is_none_or(|ty| ty.elements() != Some(0));
    let region = if op.coordinates == Coordinates::TfCropAndResize { ex.input(1) } else { String::new() };
    let inputs = if sized {
        [ex.input(0), region, String::new(), ex.input(3)]
    } else {
        [ex.input(0), region, ex.input(2), String::new()]
    };
    ex.emit_with("Resize", &inputs, attributes)
}

fn rule_name(rule: NearestRule) -> &'static str {
    match rule {
        NearestRule::PreferFloor => "round_prefer_floor",
        NearestRule::PreferCeil => "round_prefer_ceil",
        NearestRule::Floor => "floor",
        NearestRule::Ceil => "ceil",
    }
}

fn coordinates_name(coordinates: Coordinates) -> &'static str {
    match coordinates {
        Coordinates::HalfPixel => "half_pixel",
        Coordinates::HalfPixelSymmetric => "half_pixel_symmetric",
        Coordinates::PytorchHalfPixel => "pytorch_half_pixel",
        Coordinates::AlignCorners => "align_corners",
        Coordinates::Asymmetric => "asymmetric",
        Coordinates::TfHalfPixelForNn => "tf_half_pixel_for_nn",
        Coordinates::TfCropAndResize => "tf_crop_and_resize",
    }
}
