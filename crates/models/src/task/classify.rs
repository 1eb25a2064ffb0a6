//! Classification: the most probable classes.

use super::TaskError;
use super::error::whole;
use crate::image::Array;

/// A class and how probable it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// The class.
    pub class: usize,
    /// 0 to 1.
    pub probability: f32,
}

/// The `count` most probable classes of a `[1, classes]` (or `[1, classes, 1, 1]`) output, best first; equal ones in the
/// order of their numbers. Scores that are no distribution already go through a softmax. NaN ranks last.
pub fn top(scores: &Array, count: usize) -> Result<Vec<Ranked>, TaskError> {
    whole("classification", scores)?;
    let classes = scores.shape.iter().copied().max().unwrap_or(0);
    if classes < 2 || classes != scores.data.len() {
        let expected = "one score for each of two or more classes";
        return Err(TaskError::Shape { task: "classification", expected, found: scores.shape.clone() });
    }
    let probabilities =
        if is_distribution(&scores.data) { scores.data.clone() } else { softmax(&scores.data) };
    let rank = |p: f32| if p.is_nan() { f32::NEG_INFINITY } else { p };
    let mut order: Vec<usize> = (0..classes).collect();
    order.sort_by(|a, b| rank(probabilities[*b]).total_cmp(&rank(probabilities[*a])).then(a.cmp(b)));
    order.truncate(count);
    Ok(order.into_iter().map(|class| Ranked { class, probability: probabilities[class] }).collect())
}

/// `exp(x) / sum(exp(x))`, computed without overflow.
pub fn softmax(scores: &[f32]) -> Vec<f32> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted: Vec<f32> = scores.iter().map(|x| (x - most).exp()).collect();
    let sum: f32 = shifted.iter().sum();
    shifted.into_iter().map(|x| x / sum).collect()
}

fn is_distribution(scores: &[f32]) -> bool {
    let sum: f64 = scores.iter().map(|x| f64::from(*x)).sum();
    scores.iter().all(|x| (0.0..=1.0001).contains(x)) && (sum - 1.0).abs() < 0.02
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scores: &[f32], count: usize, expected: &[(usize, f32)]) {
        let array = Array { shape: vec![1, scores.len()], data: scores.to_vec() };
        let found = top(&array, count).expect("scores of classes");
        assert_eq!(found.len(), expected.len(), "{scores:?}");
        for (found, (class, probability)) in found.iter().zip(expected) {
            assert_eq!(found.class, *class, "{scores:?}");
            let near = (found.probability - probability).abs() < 1e-6;
            assert!(near || (found.probability.is_nan() && probability.is_nan()), "{scores:?}: {found:?}");
        }
    }

    #[test]
    fn the_best_classes_come_first() {
        check(&[0.2, 0.5, 0.3], 2, &[(1, 0.5), (2, 0.3)]);
        check(&[0.0, (3f32).ln()], 5, &[(1, 0.75), (0, 0.25)]);
        check(&[1e30, -1e30, 1e30], 3, &[(0, 0.5), (2, 0.5), (1, 0.0)]);
        check(&[1.0, 1.0], 1, &[(0, 0.5)]);
        check(&[f32::NAN, 1.0], 2, &[(0, f32::NAN), (1, f32::NAN)]);
    }

    #[test]
    fn outputs_of_another_kind_are_refused() {
        let refused = |shape: &[usize], len: usize| {
            let array = Array { shape: shape.to_vec(), data: vec![0.0; len] };
            assert!(top(&array, 5).is_err(), "{shape:?}");
        };
        refused(&[2, 10], 20);
        refused(&[1, 10], 9);
        refused(&[1, 1], 1);
        refused(&[], 1);
        refused(&[usize::MAX, 2], 4);
    }
}
