//! Boxes: the choice among those that cover each other.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    BestBoxes, Binary, Cast, Fun2, GatherNd, Reduce, ReduceKind, Transpose, Unsqueeze, Where,
};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::program::Cx;

type Done = Result<(), CoreMlError>;

pub(super) const OPS: &[Entry] = &[("non_maximum_suppression", suppress)];

/// Boxes and scores are rows of the last dimension but one; since iOS 17, which knows no least score, columns.
fn suppress(cx: &mut Cx<'_>) -> Done {
    let (mut boxes, mut scores) = (cx.input("boxes")?, cx.input("scores")?);
    let columns = cx.literal("score_threshold").is_none();
    if columns {
        (boxes, scores) = (turned(cx, boxes)?, turned(cx, scores)?);
    }
    let [most] = cx.sizes("max_boxes", &[])?[..] else { return Err(cx.fail("`max_boxes` is missing")) };
    let op = BestBoxes {
        most,
        overlap: cx.float("iou_threshold", 0.5),
        threshold: cx.float("score_threshold", f32::NEG_INFINITY),
        by_class: cx.flag("per_class_suppression", false),
        at_least_one: true,
    };
    let chosen = cx.temp(op, &[boxes, scores])?;
    let zero = cx.constant_index(0)?;
    let there = cx.temp(Binary(Fun2::GreaterOrEqual), &[chosen, zero])?;
    let places = cx.temp(Binary(Fun2::Max), &[chosen, zero])?;
    let last = cx.constant_ints(&[-1])?;
    let (mask, places) = (cx.temp(Unsqueeze, &[there, last])?, cx.temp(Unsqueeze, &[places, last])?);
    let nothing = cx.scalar(0.0)?;
    let mut results = Vec::new();
    for values in [boxes, scores] {
        let picked = cx.temp(GatherNd { batch_dims: 1 }, &[values, places])?;
        let picked = cx.temp(Where, &[mask, picked, nothing])?;
        results.push(if columns { turned(cx, picked)? } else { picked });
    }
    results.push(cx.temp(Cast::to(DType::I32), &[chosen])?);
    let (ones, axis) = (cx.temp(Cast::to(DType::I32), &[there])?, cx.constant_ints(&[1])?);
    let count = Reduce { kind: ReduceKind::Sum, keep_dims: false, keep_all: false };
    results.push(cx.temp(count, &[ones, axis])?);
    cx.bind_all(&results);
    Ok(())
}

fn turned(cx: &mut Cx<'_>, x: ValueId) -> Result<ValueId, CoreMlError> {
    cx.temp(Transpose { perm: vec![0, 2, 1] }, &[x])
}
