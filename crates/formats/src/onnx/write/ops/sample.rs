//! Images read between their elements, boxes, and what puts pooled or unfolded elements back.

use kinglet_graph::ops::{
    AffineGrid, CentreCropPad, Col2Im, DeformConv, GridSample, MaxUnpool, NonMaxSuppression, RoiAlign,
    SampleMode, SamplePad, TensorScatter,
};

use super::Entry;
use super::linear::attributes;
use crate::onnx::write::attribute::{flag, float, int, ints, size, sizes, text};
use crate::onnx::write::node::Ex;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("GridSample", grid_sample),
    ("AffineGrid", |ex| {
        ex.needs(20)?;
        let aligned = ex.op::<AffineGrid>()?.align_corners;
        ex.emit("AffineGrid", vec![flag("align_corners", aligned)])
    }),
    ("RoiAlign", roi_align),
    ("DeformConv", |ex| {
        ex.needs(19)?;
        let DeformConv { window, groups, offset_groups } = ex.op()?;
        let mut attributes = attributes(window);
        attributes.extend([size("group", *groups), size("offset_group", *offset_groups)]);
        ex.emit("DeformConv", attributes)
    }),
    ("NonMaxSuppression", |ex| {
        let centres = ex.op::<NonMaxSuppression>()?.centres;
        ex.emit("NonMaxSuppression", vec![flag("center_point_box", centres)])
    }),
    ("CentreCropPad", |ex| {
        let axes = ex.op::<CentreCropPad>()?.axes.clone();
        ex.emit("CenterCropPad", axes.map(|axes| ints("axes", axes)).into_iter().collect())
    }),
    ("Col2Im", |ex| {
        let attributes = attributes(&ex.op::<Col2Im>()?.window);
        ex.emit("Col2Im", attributes)
    }),
    ("MaxUnpool", |ex| {
        let MaxUnpool { kernel, window } = ex.op()?;
        let mut attributes = attributes(window);
        attributes.push(sizes("kernel_shape", kernel));
        ex.emit("MaxUnpool", attributes)
    }),
    ("TensorScatter", |ex| {
        ex.needs(24)?;
        let TensorScatter { axis, circular } = *ex.op()?;
        let mode = text("mode", if circular { "circular" } else { "linear" });
        ex.emit("TensorScatter", vec![int("axis", axis), mode])
    }),
    ("Determinant", |ex| ex.emit("Det", vec![])),
];

/// The modes have other names before version 20.
fn grid_sample(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let GridSample { mode, pad, align_corners } = *ex.op()?;
    let new = ex.allows(20);
    let mode = match mode {
        SampleMode::Nearest => "nearest",
        SampleMode::Linear => {
            if new {
                "linear"
            } else {
                "bilinear"
            }
        }
        SampleMode::Cubic => {
            if new {
                "cubic"
            } else {
                "bicubic"
            }
        }
    };
    let pad = match pad {
        SamplePad::Zeros => "zeros",
        SamplePad::Border => "border",
        SamplePad::Reflection => "reflection",
    };
    ex.emit(
        "GridSample",
        vec![text("mode", mode), text("padding_mode", pad), flag("align_corners", align_corners)],
    )
}

fn roi_align(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let RoiAlign { size: [height, width], scale, samples, half_pixel, max } = *ex.op()?;
    let coordinates = if half_pixel { "half_pixel" } else { "output_half_pixel" };
    let attributes = vec![
        size("output_height", height),
        size("output_width", width),
        float("spatial_scale", scale),
        size("sampling_ratio", samples),
        text("coordinate_transformation_mode", coordinates),
        text("mode", if max { "max" } else { "avg" }),
    ];
    ex.emit("RoiAlign", attributes)
}
