//! Reductions and places of extremes.

use kinglet_graph::ops::{ArgReduce, Reduce, ReduceKind};

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "ReduceSum", |cx| reduce(cx, ReduceKind::Sum, 13)),
    ("", "ReduceMean", |cx| reduce(cx, ReduceKind::Mean, 18)),
    ("", "ReduceMax", |cx| reduce(cx, ReduceKind::Max, 18)),
    ("", "ReduceMin", |cx| reduce(cx, ReduceKind::Min, 18)),
    ("", "ReduceProd", |cx| reduce(cx, ReduceKind::Prod, 18)),
    ("", "ReduceL1", |cx| reduce(cx, ReduceKind::L1, 18)),
    ("", "ReduceL2", |cx| reduce(cx, ReduceKind::L2, 18)),
    ("", "ReduceLogSum", |cx| reduce(cx, ReduceKind::LogSum, 18)),
    ("", "ReduceLogSumExp", |cx| reduce(cx, ReduceKind::LogSumExp, 18)),
    ("", "ReduceSumSquare", |cx| reduce(cx, ReduceKind::SumSquare, 18)),
    ("", "ArgMax", |cx| arg(cx, true)),
    ("", "ArgMin", |cx| arg(cx, false)),
];

/// Axes are an input since version `since`.
fn reduce(cx: &mut Cx<'_, '_>, kind: ReduceKind, since: i64) -> Result<(), OnnxError> {
    let (x, axes) = (cx.input(0), cx.axes_or_input("axes", 1, since)?);
    let op = Reduce {
        kind,
        keep_dims: cx.flag("keepdims", true),
        keep_all: cx.flag("noop_with_empty_axes", false),
    };
    cx.emit_with(op, &[x, axes])
}

fn arg(cx: &mut Cx<'_, '_>, max: bool) -> Result<(), OnnxError> {
    cx.emit(ArgReduce {
        max,
        axis: cx.int("axis", 0),
        keep_dims: cx.flag("keepdims", true),
        last: cx.flag("select_last_index", false),
    })
}
