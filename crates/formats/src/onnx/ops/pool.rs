//! Sliding windows and whole-image pooling.

use kinglet_graph::ops::{Pool, PoolKind, Window};

use super::Entry;
use super::linear::window;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "MaxPool", |cx| {
        let column_major = cx.flag("storage_order", false);
        pool(cx, PoolKind::Max { column_major })
    }),
    ("", "AveragePool", |cx| {
        let count_pad = cx.flag("count_include_pad", false);
        pool(cx, PoolKind::Average { count_pad })
    }),
    ("", "LpPool", |cx| {
        let p = PoolKind::Lp(cx.int("p", 2).max(0) as u32);
        pool(cx, p)
    }),
    ("", "GlobalMaxPool", |cx| global(cx, PoolKind::Max { column_major: false })),
    ("", "GlobalAveragePool", |cx| global(cx, PoolKind::Average { count_pad: false })),
    ("", "GlobalLpPool", |cx| {
        let p = PoolKind::Lp(cx.int("p", 2).max(0) as u32);
        global(cx, p)
    }),
];

fn pool(cx: &mut Cx<'_, '_>, kind: PoolKind) -> Result<(), OnnxError> {
    let kernel = cx.sizes("kernel_shape")?;
    if kernel.is_empty() || kernel.contains(&0) {
        return Err(cx.fail(format!("a kernel of {kernel:?}")));
    }
    let window = window(cx)?;
    cx.emit(Pool { kind, kernel, window, ceil: cx.flag("ceil_mode", false) })
}

fn global(cx: &mut Cx<'_, '_>, kind: PoolKind) -> Result<(), OnnxError> {
    cx.emit(Pool { kind, kernel: Vec::new(), window: Window::default(), ceil: false })
}
