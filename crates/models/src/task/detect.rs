//! Object detection: the outputs of known heads to boxes in the source picture.
//!
//! A head is one line of [`HEADS`]: how its outputs look, and how they are read.

use super::boxes::{Detection, suppress};
use super::error::whole;
use super::{TaskError, softmax};
use crate::image::{Array, View};

/// What counts as found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectionOptions {
    /// Least score; the head's own when not given.
    pub score: Option<f32>,
    /// Most overlap of two boxes of one class.
    pub overlap: f32,
    /// Most boxes.
    pub count: usize,
}

impl Default for DetectionOptions {
    fn default() -> Self {
        Self { score: None, overlap: 0.45, count: 300 }
    }
}

/// A kind of detection output.
#[derive(Debug)]
pub struct DetectionHead {
    /// What it is called.
    pub name: &'static str,
    /// Least score that its makers use.
    pub score: f32,
    /// Whether doubles must be suppressed.
    doubles: bool,
    /// Whether the outputs are of this kind.
    fits: fn(&[Array], &View) -> bool,
    /// Classes that the outputs distinguish.
    classes: fn(&[Array]) -> usize,
    /// Candidates of at least the given score.
    read: fn(&[Array], &View, f32) -> Vec<Detection>,
}

/// The heads, the more particular shapes first.
const HEADS: &[DetectionHead] = &[
    DetectionHead {
        name: "DETR",
        score: 0.7,
        doubles: false,
        fits: |o, _| detr_pair(o).is_some(),
        classes: |o| detr_pair(o).map_or(0, |(logits, _)| logits.shape[2] - 1),
        read: detr,
    },
    DetectionHead {
        name: "FastestDet",
        score: 0.65,
        doubles: true,
        fits: |o, v| matches!(shape(o), [1, c, h, w] if *c > 5 && *h > 1 && (*w as u32).checked_mul(16) == Some(v.size[0]) && h * 16 == v.size[1] as usize),
        classes: |o| shape(o)[1] - 5,
        read: fastest_det,
    },
    DetectionHead {
        name: "YOLO (anchor-free)",
        score: 0.25,
        doubles: true,
        fits: |o, _| matches!(shape(o), [1, c, n] if *c > 4 && *n > *c && *n >= 100),
        classes: |o| shape(o)[1] - 4,
        read: yolo_columns,
    },
    DetectionHead {
        name: "YOLO (with objectness)",
        score: 0.25,
        doubles: true,
        fits: |o, _| matches!(shape(o), [1, n, c] if *c > 5 && *n > *c && *n >= 100),
        classes: |o| shape(o)[2] - 5,
        read: yolo_rows,
    },
];

/// The head whose outputs these are.
impl DetectionHead {
    /// The head that leaves such outputs for a picture prepared with `view`; none when they mean something else.
    pub fn of(outputs: &[Array], view: &View) -> Option<&'static Self> {
        HEADS.iter().find(|head| (head.fits)(outputs, view))
    }

    /// Classes that it distinguishes.
    pub fn class_count(&self, outputs: &[Array]) -> usize {
        (self.classes)(outputs)
    }
}

/// Objects in the source picture, best first.
pub fn detect(
    outputs: &[Array],
    view: &View,
    options: &DetectionOptions,
) -> Result<Vec<Detection>, TaskError> {
    outputs.iter().try_for_each(|array| whole("detection", array))?;
    let head = DetectionHead::of(outputs, view).ok_or_else(|| TaskError::Shape {
        task: "detection",
        expected: "the outputs of DETR, FastestDet or YOLO",
        found: shape(outputs).to_vec(),
    })?;
    let found = (head.read)(outputs, view, options.score.unwrap_or(head.score));
    let most = if head.doubles { options.overlap } else { f32::INFINITY };
    Ok(suppress(found, most, options.count))
}

/// Shape of the first output.
fn shape(outputs: &[Array]) -> &[usize] {
    outputs.first().map_or(&[], |array| &array.shape)
}

/// A box by centre and size in pixels of the prepared picture.
fn found(view: &View, [x, y, width, height]: [f32; 4], class: usize, score: f32) -> Detection {
    let [left, top] = view.to_source(x - width / 2.0, y - height / 2.0);
    let [right, bottom] = view.to_source(x + width / 2.0, y + height / 2.0);
    Detection { corners: [left, top, right, bottom], class, score }
}

/// The greatest value and its place.
fn best(scores: impl Iterator<Item = f32>) -> (usize, f32) {
    scores
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (i, score)| if score > best.1 { (i, score) } else { best })
}

/// Class logits `[1, queries, classes + 1]` and boxes `[1, queries, 4]`, in whichever order.
fn detr_pair(outputs: &[Array]) -> Option<(&Array, &Array)> {
    let [a, b] = outputs else { return None };
    let pair = |logits: &Array, boxes: &Array| match (&logits.shape[..], &boxes.shape[..]) {
        ([1, n, classes], [1, m, 4]) => n == m && *classes > 1,
        _ => false,
    };
    if pair(a, b) {
        Some((a, b))
    } else if pair(b, a) {
        Some((b, a))
    } else {
        None
    }
}

/// Each query's best class but the last, which is "nothing"; boxes are centre and size relative to the picture.
fn detr(outputs: &[Array], view: &View, least: f32) -> Vec<Detection> {
    let Some((logits, boxes)) = detr_pair(outputs) else { return Vec::new() };
    let size = [view.size[0] as f32, view.size[1] as f32];
    let queries = logits.data.chunks_exact(logits.shape[2]).zip(boxes.data.chunks_exact(4));
    let read = |(logits, b): (&[f32], &[f32])| {
        let probabilities = softmax(logits);
        let (class, score) = best(probabilities[..logits.len() - 1].iter().copied());
        let place = [b[0] * size[0], b[1] * size[1], b[2] * size[0], b[3] * size[1]];
        (score >= least).then(|| found(view, place, class, score))
    };
    queries.filter_map(read).collect()
}

/// One cell a place of the grid: objectness, an offset (tanh) and a size (sigmoid) relative to grid and picture, and the
/// distribution over classes. A cell's score is `objectness^0.6 * class^0.4`.
fn fastest_det(outputs: &[Array], view: &View, least: f32) -> Vec<Detection> {
    let [_, channels, height, width] = outputs[0].shape[..] else { return Vec::new() };
    let (cells, data) = (height * width, &outputs[0].data);
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let size = [view.size[0] as f32, view.size[1] as f32];
    let read = |cell: usize| {
        let value = |channel: usize| data[channel * cells + cell];
        let (class, probability) = best((5..channels).map(value));
        let score = value(0).powf(0.6) * probability.powf(0.4);
        let x = ((cell % width) as f32 + value(1).tanh()) / width as f32;
        let y = ((cell / width) as f32 + value(2).tanh()) / height as f32;
        let place = [x * size[0], y * size[1], sigmoid(value(3)) * size[0], sigmoid(value(4)) * size[1]];
        (score > least).then(|| found(view, place, class, score))
    };
    (0..cells).filter_map(read).collect()
}

/// `[1, 4 + classes, places]`: centre, size, then a probability for each class.
fn yolo_columns(outputs: &[Array], view: &View, least: f32) -> Vec<Detection> {
    let [_, channels, places] = outputs[0].shape[..] else { return Vec::new() };
    let read = |place: usize| {
        let value = |channel: usize| outputs[0].data[channel * places + place];
        let (class, score) = best((4..channels).map(value));
        (score >= least).then(|| found(view, [0, 1, 2, 3].map(value), class, score))
    };
    (0..places).filter_map(read).collect()
}

/// `[1, places, 5 + classes]`: centre, size, objectness, then a probability for each class.
fn yolo_rows(outputs: &[Array], view: &View, least: f32) -> Vec<Detection> {
    let rows = outputs[0].data.chunks_exact(outputs[0].shape[2]);
    let read = |row: &[f32]| {
        let (class, probability) = best(row[5..].iter().copied());
        let score = row[4] * probability;
        (score >= least).then(|| found(view, [row[0], row[1], row[2], row[3]], class, score))
    };
    rows.filter_map(read).collect()
}
