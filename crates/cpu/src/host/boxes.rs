//! `NonMaxSuppression` and `BestBoxes`, in f32 as the scores are.

use kinglet_graph::ops::{BestBoxes, NonMaxSuppression};
use kinglet_tensor::DType;

use super::numbers::from_i64;
use super::{Call, HostOp, Outcome, Outs, store_ints};

/// Two opposite corners: least y and x, most y and x.
type Corners = [f32; 4];

impl HostOp for NonMaxSuppression {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (boxes, scores) = (call.view(0)?, call.view(1)?);
        let (&[images, count, 4], &[n, classes, b]) = (boxes.shape, scores.shape) else {
            return Err("takes [N, B, 4] and [N, classes, B]".into());
        };
        if n != images || b != count {
            return Err(format!("boxes {:?} and scores {:?}", boxes.shape, scores.shape));
        }
        let first = |i: usize| call.get(i).map(|v| v.f64s()).transpose().map(|v| v?.first().copied());
        let most = first(2)?.map_or(0, |n| n.max(0.0) as usize);
        let overlap = first(3)?.unwrap_or(0.0) as f32;
        let threshold = first(4)?.map(|x| x as f32);
        let (values, scores) = (boxes.f64s()?, scores.f64s()?);
        let corners: Vec<Corners> = values.chunks_exact(4).map(|v| corners(v, self.centres)).collect();
        let mut chosen = Vec::new();
        for image in 0..images {
            for class in 0..classes {
                let scores = &scores[(image * classes + class) * count..][..count];
                let passes = |i: usize| threshold.is_none_or(|t| scores[i] as f32 > t);
                let boxes = &corners[image * count..][..count];
                let kept = best(scores, most, passes, |a, b| shared(&boxes[a], &boxes[b]) > overlap);
                chosen.extend(kept.into_iter().flat_map(|i| [image as i64, class as i64, i as i64]));
            }
        }
        from_i64(DType::I64, &chosen, outs.make(0, DType::I64, &[chosen.len() / 3, 3])?)
    }
}

fn corners(v: &[f64], centres: bool) -> Corners {
    let [a, b, c, d] = [v[0] as f32, v[1] as f32, v[2] as f32, v[3] as f32];
    if centres {
        return [b - d / 2.0, a - c / 2.0, b + d / 2.0, a + c / 2.0];
    }
    [a.min(c), b.min(d), a.max(c), b.max(d)]
}

impl HostOp for BestBoxes {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (boxes, scores) = (call.view(0)?, call.view(1)?);
        let (&[images, count, 4], &[n, b, classes]) = (boxes.shape, scores.shape) else {
            return Err("takes [N, B, 4] and [N, B, classes]".into());
        };
        if n != images || b != count || classes == 0 {
            return Err(format!("boxes {:?} and scores {:?}", boxes.shape, scores.shape));
        }
        let corners: Vec<Corners> = boxes.f64s()?.chunks_exact(4).map(|v| corners(v, true)).collect();
        let classes: Vec<(usize, f64)> = scores.f64s()?.chunks_exact(classes).map(top).collect();
        let mut chosen = Vec::with_capacity(images * self.most);
        for image in 0..images {
            let boxes = &corners[image * count..][..count];
            let (best_class, scores): (Vec<usize>, Vec<f64>) =
                classes[image * count..][..count].iter().copied().unzip();
            let covers = |a: usize, b: usize| {
                let rivals = !self.by_class || best_class[a] == best_class[b];
                rivals && shared(&boxes[a], &boxes[b]) > self.overlap
            };
            let mut kept = best(&scores, self.most, |i| scores[i] as f32 >= self.threshold, covers);
            if kept.is_empty() && self.at_least_one {
                kept = best(&scores, self.most.min(1), |_| true, covers);
            }
            kept.resize(self.most, usize::MAX);
            chosen.extend(kept.into_iter().map(|i| i64::try_from(i).unwrap_or(-1)));
        }
        store_ints(outs, 0, &chosen)
    }
}

/// The first of the largest scores: its class and itself.
fn top(scores: &[f64]) -> (usize, f64) {
    let larger = |best: (usize, f64), (i, s): (usize, &f64)| if *s > best.1 { (i, *s) } else { best };
    scores.iter().enumerate().fold((0, f64::NEG_INFINITY), larger)
}

/// The boxes that are kept, best first, at most `most` of those that pass; a kept box removes those that it covers. Of equal
/// scores the first box.
fn best(
    scores: &[f64],
    most: usize,
    passes: impl Fn(usize) -> bool,
    covers: impl Fn(usize, usize) -> bool,
) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).filter(|i| passes(*i)).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        if kept.len() >= most {
            break;
        }
        if !kept.iter().any(|k| covers(*k, i)) {
            kept.push(i);
        }
    }
    kept
}

/// The area of the intersection over that of the union.
fn shared(a: &Corners, b: &Corners) -> f32 {
    let side = |d: usize| a[d + 2].min(b[d + 2]) - a[d].max(b[d]);
    let area = |c: &Corners| (c[2] - c[0]) * (c[3] - c[1]);
    if side(0) <= 0.0 || side(1) <= 0.0 {
        return 0.0;
    }
    let both = side(0) * side(1);
    both / (area(a) + area(b) - both)
}
