//! Sliding windows and whole-image pooling.

use kinglet_graph::ops::{Pool, PoolKind};

use super::Entry;
use super::linear::attributes;
use crate::onnx::write::attribute::{flag, int, sizes};
use crate::onnx::write::node::Ex;

pub(in crate::onnx) const OPS: &[Entry] = &[("Pool", pool)];

fn pool(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let Pool { kind, kernel, window, ceil } = ex.op()?;
    let whole = kernel.is_empty();
    let (name, extra) = match *kind {
        PoolKind::Max { .. } if whole => ("GlobalMaxPool", None),
        PoolKind::Max { column_major } => ("MaxPool", Some(flag("storage_order", column_major))),
        PoolKind::Average { .. } if whole => ("GlobalAveragePool", None),
        PoolKind::Average { count_pad } => ("AveragePool", Some(flag("count_include_pad", count_pad))),
        PoolKind::Lp(p) => (if whole { "GlobalLpPool" } else { "LpPool" }, Some(int("p", p.into()))),
    };
    if whole {
        return ex.emit(name, extra.into_iter().collect());
    }
    let dilated = window.dilations.iter().any(|n| *n != 1);
    if matches!(kind, PoolKind::Average { .. }) && dilated {
        ex.needs(19)?;
    }
    if *ceil {
        // Before, a last window could start behind the input.
        ex.prefers(22);
    }
    let mut attributes = attributes(window);
    attributes.push(sizes("kernel_shape", kernel));
    attributes.push(flag("ceil_mode", *ceil));
    attributes.extend(extra);
    ex.emit(name, attributes)
}
