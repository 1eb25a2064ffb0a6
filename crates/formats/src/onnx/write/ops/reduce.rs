//! Reductions and places of extremes.

use kinglet_graph::ops::{ArgReduce, Reduce, ReduceKind};

use super::Entry;
use crate::onnx::write::attribute::{flag, int};

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("Reduce", |ex| {
        let Reduce { kind, keep_dims, keep_all } = *ex.op()?;
        let name = match kind {
            ReduceKind::Sum => "ReduceSum",
            ReduceKind::Mean => "ReduceMean",
            ReduceKind::Max => "ReduceMax",
            ReduceKind::Min => "ReduceMin",
            ReduceKind::Prod => "ReduceProd",
            ReduceKind::L1 => "ReduceL1",
            ReduceKind::L2 => "ReduceL2",
            ReduceKind::LogSum => "ReduceLogSum",
            ReduceKind::LogSumExp => "ReduceLogSumExp",
            ReduceKind::SumSquare => "ReduceSumSquare",
        };
        ex.emit(name, vec![flag("keepdims", keep_dims), flag("noop_with_empty_axes", keep_all)])
    }),
    ("ArgReduce", |ex| {
        let ArgReduce { max, axis, keep_dims, last } = *ex.op()?;
        let attributes =
            vec![int("axis", axis), flag("keepdims", keep_dims), flag("select_last_index", last)];
        ex.emit(if max { "ArgMax" } else { "ArgMin" }, attributes)
    }),
];
