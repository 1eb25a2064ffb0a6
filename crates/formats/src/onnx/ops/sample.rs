//! Images read between their elements, boxes, and what puts pooled or unfolded elements back.

use kinglet_graph::ops::{
    AffineGrid, CentreCropPad, Col2Im, DeformConv, Determinant, GridSample, MaxUnpool, NonMaxSuppression,
    RoiAlign, SampleMode, SamplePad, TensorScatter,
};

use super::Entry;
use super::linear::{groups, window};
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "GridSample", grid_sample),
    ("", "AffineGrid", |cx| cx.emit(AffineGrid { align_corners: cx.flag("align_corners", false) })),
    ("", "RoiAlign", roi_align),
    ("", "DeformConv", |cx| {
        let offset_groups = cx.int("offset_group", 1).max(0) as usize;
        cx.emit(DeformConv { window: window(cx)?, groups: groups(cx)?, offset_groups })
    }),
    ("", "NonMaxSuppression", |cx| {
        cx.emit(NonMaxSuppression { centres: cx.flag("center_point_box", false) })
    }),
    ("", "CenterCropPad", |cx| cx.emit(CentreCropPad { axes: cx.attrs.ints("axes").map(<[i64]>::to_vec) })),
    ("", "Col2Im", |cx| cx.emit(Col2Im { window: window(cx)? })),
    ("", "MaxUnpool", |cx| cx.emit(MaxUnpool { kernel: cx.sizes("kernel_shape")?, window: window(cx)? })),
    ("", "TensorScatter", |cx| {
        let circular = cx.attrs.text("mode") == Some("circular");
        cx.emit(TensorScatter { axis: cx.int("axis", -2), circular })
    }),
    ("", "Det", |cx| cx.emit(Determinant)),
];

/// The modes have other names before version 20.
fn grid_sample(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let mode = match cx.attrs.text("mode").unwrap_or("linear") {
        "nearest" => SampleMode::Nearest,
        "linear" | "bilinear" => SampleMode::Linear,
        "cubic" | "bicubic" => SampleMode::Cubic,
        other => return Err(cx.fail(format!("mode `{other}` is not known"))),
    };
    let pad = match cx.attrs.text("padding_mode").unwrap_or("zeros") {
        "zeros" => SamplePad::Zeros,
        "border" => SamplePad::Border,
        "reflection" => SamplePad::Reflection,
        other => return Err(cx.fail(format!("padding_mode `{other}` is not known"))),
    };
    cx.emit(GridSample { mode, pad, align_corners: cx.flag("align_corners", false) })
}

/// Before version 16, corners always count from the centres of elements.
fn roi_align(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let half_pixel = match cx.attrs.text("coordinate_transformation_mode") {
        None => cx.opset >= 16,
        Some("half_pixel") => true,
        Some("output_half_pixel") => false,
        Some(other) => return Err(cx.fail(format!("coordinates `{other}` are not known"))),
    };
    let size = |name: &str, default| usize::try_from(cx.int(name, default)).unwrap_or(0);
    let op = RoiAlign {
        size: [size("output_height", 1), size("output_width", 1)],
        scale: cx.float("spatial_scale", 1.0),
        samples: size("sampling_ratio", 0),
        half_pixel,
        max: cx.attrs.text("mode") == Some("max"),
    };
    cx.emit(op)
}
