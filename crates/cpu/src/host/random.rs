//! `Random`: SplitMix64 for the bits, Box and Muller's transform for the bell curve.

use std::hash::{BuildHasher, RandomState};

use kinglet_graph::ops::{Distribution, Random};

use super::{Call, HostOp, Outcome, Outs, store};

impl HostOp for Random {
    fn host(&self, _: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let (_, shape) = outs.planned(0).ok_or("the shape of the result is not known")?;
        let count = shape.iter().product();
        let mut bits = Bits(self.seed.unwrap_or_else(|| RandomState::new().hash_one(0)));
        let mut values = Vec::with_capacity(count);
        while values.len() < count {
            match self.from {
                Distribution::Uniform { low, high } => values.push(between(low, high, bits.unit())),
                // Never the logarithm of 0: an even number is at least half a step above it.
                Distribution::Gumbel => values.push(-(-(bits.unit() + f64::EPSILON / 4.0).ln()).ln()),
                Distribution::Normal { mean, deviation } => {
                    let pair = bits.normal().map(|x| f64::from(mean) + f64::from(deviation) * x);
                    values.extend_from_slice(&pair[..(count - values.len()).min(2)]);
                }
            }
        }
        store(outs, 0, &values)
    }
}

/// A number from `low` up to but without `high`, as an f32 would hold it too.
fn between(low: f32, high: f32, share: f64) -> f64 {
    let x = (f64::from(low) + (f64::from(high) - f64::from(low)) * share) as f32;
    f64::from(if x >= high && low < high { high.next_down().max(low) } else { x })
}

/// A sequence of random bits.
struct Bits(u64);

impl Bits {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 up to but without 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Two independent numbers of mean 0 and deviation 1.
    fn normal(&mut self) -> [f64; 2] {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * self.unit()).sin_cos();
        [radius * cosine, radius * sine]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean, deviation and the share within one deviation of the mean.
    fn moments(values: &[f64]) -> [f64; 3] {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
        let near = values.iter().filter(|x| (*x - mean).abs() < deviation).count();
        [mean, deviation, near as f64 / n]
    }

    #[test]
    fn numbers_follow_their_distribution() {
        let mut bits = Bits(7);
        let even: Vec<f64> = (0..100_000).map(|_| bits.unit()).collect();
        let bell: Vec<f64> = (0..50_000).flat_map(|_| bits.normal()).collect();
        for (found, wanted) in
            [(moments(&even), [0.5, 0.28868, 0.57735]), (moments(&bell), [0.0, 1.0, 0.68269])]
        {
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 0.01), "{found:?} {wanted:?}");
        }
        assert!(even.iter().all(|x| (0.0..1.0).contains(x)) && bell.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn the_upper_end_is_never_drawn() {
        assert!(between(0.0, 1.0, 1.0 - f64::EPSILON) < 1.0);
        assert_eq!(between(2.0, 2.0, 0.5), 2.0);
    }
}
