//! `NonMaxSuppression`, in f32 as the scores are.

use kinglet_graph::ops::NonMaxSuppression;
use kinglet_tensor::DType;

use super::numbers::from_i64;
use super::{Call, HostOp, Outcome, Outs};

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
                let kept = best(&corners[image * count..][..count], scores, most, overlap, threshold);
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

/// The boxes that are kept, best first; of equal scores the first box.
fn best(boxes: &[Corners], scores: &[f64], most: usize, overlap: f32, threshold: Option<f32>) -> Vec<usize> {
    let passes = |i: &usize| threshold.is_none_or(|t| scores[*i] as f32 > t);
    let mut order: Vec<usize> = (0..boxes.len()).filter(passes).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        if kept.len() >= most {
            break;
        }
        if !kept.iter().any(|k| shared(&boxes[i], &boxes[*k]) > overlap) {
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
