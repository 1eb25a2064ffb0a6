//! Vectors of texts and pictures.

use super::TaskError;
use super::error::whole;
use crate::image::Array;

/// How the vectors of a sequence become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over the tokens that the mask keeps.
    Mean,
    /// The first token's vector.
    First,
    /// The last token's vector that the mask keeps.
    Last,
}

/// One vector for each sequence of a `[batch, tokens, dim]` output; `mask` is `[batch, tokens]`, row-major. An output of
/// `[batch, dim]` is pooled already.
pub fn pool(hidden: &Array, mask: &[bool], pooling: Pooling) -> Result<Vec<Vec<f32>>, TaskError> {
    whole("embedding", hidden)?;
    let wrong = |expected| TaskError::Shape { task: "embedding", expected, found: hidden.shape.clone() };
    match hidden.shape[..] {
        [batch, dim] if dim > 0 => {
            Ok(hidden.data.chunks_exact(dim).take(batch).map(<[f32]>::to_vec).collect())
        }
        [batch, tokens, dim] if tokens > 0 && dim > 0 => {
            if mask.len() != batch * tokens {
                return Err(wrong("a mask of one entry for each token"));
            }
            let sequences = hidden.data.chunks_exact(tokens * dim).zip(mask.chunks_exact(tokens));
            Ok(sequences.map(|(rows, mask)| pool_one(rows, mask, dim, pooling)).collect())
        }
        _ => Err(wrong("[batch, tokens, dim] or [batch, dim]")),
    }
}

fn pool_one(rows: &[f32], mask: &[bool], dim: usize, pooling: Pooling) -> Vec<f32> {
    let row = |at: usize| rows[at * dim..(at + 1) * dim].to_vec();
    match pooling {
        Pooling::First => row(0),
        Pooling::Last => row(mask.iter().rposition(|kept| *kept).unwrap_or(mask.len() - 1)),
        Pooling::Mean => {
            let mut sum = vec![0f64; dim];
            for (values, _) in rows.chunks_exact(dim).zip(mask).filter(|(_, kept)| **kept) {
                sum.iter_mut().zip(values).for_each(|(s, v)| *s += f64::from(*v));
            }
            let count = mask.iter().filter(|kept| **kept).count().max(1) as f64;
            sum.into_iter().map(|s| (s / count) as f32).collect()
        }
    }
}

/// Scales a vector to length one; zeros stay.
pub fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// Cosine of the angle between two vectors; 0 when one is zero or their lengths differ.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum() };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if a.len() == b.len() && lengths > 0.0 { (dot(a, b) / lengths) as f32 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_pooled_over_their_own_tokens() {
        let hidden = Array { shape: vec![2, 3, 2], data: (0..12).map(|i| i as f32).collect() };
        let mask = [true, true, false, true, true, true];
        let check = |pooling, expected: [[f32; 2]; 2]| {
            assert_eq!(pool(&hidden, &mask, pooling).expect("shapes agree"), expected, "{pooling:?}");
        };
        check(Pooling::Mean, [[1.0, 2.0], [8.0, 9.0]]);
        check(Pooling::First, [[0.0, 1.0], [6.0, 7.0]]);
        check(Pooling::Last, [[2.0, 3.0], [10.0, 11.0]]);
        assert!(pool(&hidden, &mask[1..], Pooling::Mean).is_err());
        let flat = Array { shape: vec![12], data: hidden.data.clone() };
        assert!(pool(&flat, &mask, Pooling::Mean).is_err());
    }

    #[test]
    fn angles_are_measured() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert!((cosine(&[1.0, 1.0], &[2.0, 2.0]) - 1.0).abs() < 1e-6);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
        assert_eq!(cosine(&[1.0], &[1.0, 0.0]), 0.0);
        let mut vector = [3.0, 4.0];
        normalise(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
    }
}
