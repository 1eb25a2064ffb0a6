//! Pooling of codes.

use kinglet_graph::ops::{Coded, Pool, PoolKind, Reduce, ReduceKind};
use kinglet_graph::{Args, ExecError, Node};
use kinglet_kernels::nd;
use kinglet_kernels::nd::codes::{Recode, mean_codes, pool_codes};

use super::operand::{bounds, result_scale, scale_at};
use crate::blocked::{Image, rows_of};
use crate::fast::conv::window;
use crate::lower::{Lowering, Work};

/// Binds pooling over images of codes, and bounds behind it.
pub(super) fn pool(low: &mut Lowering<'_>, node: &Node, op: &Coded) -> Result<bool, ExecError> {
    let x = node.inputs[0];
    let (Some(image), Some(from), Some(to), Some((lo, hi))) =
        (low.code_image(x), scale_at(low, node, 1, x), result_scale(low, node), bounds(low, node, op, 1))
    else {
        return Ok(false);
    };
    let Some((kind, window)) = kind(low, node, op, image) else { return Ok(false) };
    let bounded = lo != f32::NEG_INFINITY || hi != f32::INFINITY;
    if kind == nd::Pool::Max && (from != to || bounded) {
        return Ok(false);
    }
    let from_codes = low.codes(node, x)?;
    let out = low.make_codes(node.outputs[0])?;
    let recode = (to.scale, Recode::new(to.zero, lo / to.scale, hi / to.scale));
    low.step(node, &[from_codes], &[out], Work::default(), move |s| {
        let spans = [rows_of(s, from_codes, image.images), rows_of(s, out, image.images)];
        match window {
            Some(window) => pool_codes(kind, image.channels, window, from, recode, spans),
            None => mean_codes(image.channels, image.pixels(), from, recode, spans),
        }
    })
    .parts = image.images;
    Ok(true)
}

/// What pools, and over which windows; none: over all pixels.
fn kind(low: &Lowering<'_>, node: &Node, op: &Coded, image: Image) -> Option<(nd::Pool, Option<nd::Window>)> {
    if let Some(reduce) = op.links[0].op.downcast::<Reduce>() {
        let args: Vec<_> =
            [0, 3].into_iter().filter_map(|i| node.inputs.get(i)).map(|id| low.graph.arg(*id)).collect();
        let given = op.links[0].inputs.len() > 1;
        let axes = reduce.axes(&Args(&args[..1 + usize::from(given)])).ok()??;
        let pixels = reduce.kind == ReduceKind::Mean && reduce.keep_dims && axes == [2, 3];
        return pixels.then_some((nd::Pool::Mean, None));
    }
    let pool = op.links[0].op.downcast::<Pool>()?;
    let kind = match pool.kind {
        PoolKind::Max { .. } => nd::Pool::Max,
        PoolKind::Average { count_pad: false } => nd::Pool::Mean,
        PoolKind::Average { count_pad: true } if !pool.ceil => nd::Pool::PaddedMean,
        _ => return None,
    };
    if pool.kernel.is_empty() {
        return (kind != nd::Pool::Max).then_some((nd::Pool::Mean, None));
    }
    let kernel = <[usize; 2]>::try_from(pool.kernel.as_slice()).ok()?;
    let window = window(&pool.window, image.size, &kernel, pool.ceil)?;
    let sees = (0..2).all(|i| window.before[i] < kernel[i] && window.after[i] < kernel[i]);
    (sees && window.dilation == [1, 1]).then_some((kind, Some(window)))
}
