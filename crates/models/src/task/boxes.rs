//! Boxes with classes, and the suppression of doubles.

/// A found object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Left, top, right, bottom, in pixels of the source picture.
    pub corners: [f32; 4],
    /// The class.
    pub class: usize,
    /// 0 to 1.
    pub score: f32,
}

impl Detection {
    /// Area of the overlap divided by that of the union; 0 for empty boxes.
    pub fn overlap(&self, other: &Self) -> f32 {
        let span = |axis: usize| {
            let end = self.corners[axis + 2].min(other.corners[axis + 2]);
            (end - self.corners[axis].max(other.corners[axis])).max(0.0)
        };
        let both = span(0) * span(1);
        let union = self.area() + other.area() - both;
        if union > 0.0 { both / union } else { 0.0 }
    }

    fn area(&self) -> f32 {
        let [left, top, right, bottom] = self.corners;
        (right - left).max(0.0) * (bottom - top).max(0.0)
    }
}

/// Keeps the best of boxes of one class that overlap by more than `most`, and at most `count` boxes in all; best first.
pub fn suppress(mut found: Vec<Detection>, most: f32, count: usize) -> Vec<Detection> {
    found.retain(|d| d.score.is_finite() && d.corners.iter().all(|c| c.is_finite()));
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for candidate in found {
        if kept.len() == count {
            break;
        }
        let double = |k: &Detection| k.class == candidate.class && k.overlap(&candidate) > most;
        if !kept.iter().any(double) {
            kept.push(candidate);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(corners: [f32; 4], class: usize, score: f32) -> Detection {
        Detection { corners, class, score }
    }

    #[test]
    fn the_best_of_overlapping_boxes_stays() {
        let strong = found([0.0, 0.0, 10.0, 10.0], 1, 0.9);
        let double = found([1.0, 0.0, 11.0, 10.0], 1, 0.8);
        let other_class = found([1.0, 0.0, 11.0, 10.0], 2, 0.7);
        let apart = found([20.0, 0.0, 30.0, 10.0], 1, 0.95);
        let broken = found([f32::NAN, 0.0, 1.0, 1.0], 1, 0.99);
        let all = vec![double, strong, other_class, apart, broken];
        assert_eq!(suppress(all.clone(), 0.45, 10), [apart, strong, other_class]);
        assert_eq!(suppress(all.clone(), 0.9, 10), [apart, strong, double, other_class]);
        assert_eq!(suppress(all, 0.45, 1), [apart]);
        assert!((strong.overlap(&double) - 90.0 / 110.0).abs() < 1e-6);
    }
}
