//! Mirostat: truncation steered so that the surprise per token stays near a target.

use super::candidates::{Candidate, Candidates};
use super::config::Mirostat;

/// How many of the likeliest candidates the Zipf exponent is estimated from.
const ZIPF_SAMPLE: usize = 100;

impl Mirostat {
    /// The starting point of the controlled bound, in bits.
    pub(crate) fn initial_bound(self) -> f64 {
        2.0 * f64::from(self.target())
    }

    /// Thins out the candidates under the present bound.
    pub(crate) fn truncate(self, candidates: &mut Candidates, bound: f64) {
        match self {
            Self::V2 { .. } => candidates.max_surprise(bound),
            Self::V1 { .. } => {
                candidates.sort_prefix(ZIPF_SAMPLE);
                let exponent = zipf_exponent(candidates.list());
                candidates.top_k(rank_bound(exponent, bound, candidates.list().len()));
            }
        }
    }

    /// The bound after a token of this probability was chosen.
    pub(crate) fn update(self, bound: f64, probability: f64) -> f64 {
        let (Self::V1 { eta, .. } | Self::V2 { eta, .. }) = self;
        bound - f64::from(eta) * (-probability.log2() - f64::from(self.target()))
    }

    fn target(self) -> f32 {
        let (Self::V1 { tau, .. } | Self::V2 { tau, .. }) = self;
        tau
    }
}

/// Least-squares estimate of the exponent of p(rank) ~ rank^-s, from neighbouring ranks.
fn zipf_exponent(sorted: &[Candidate]) -> f64 {
    let (mut products, mut squares) = (0.0, 0.0);
    for (i, pair) in sorted.windows(2).take(ZIPF_SAMPLE - 1).enumerate() {
        let step = ((i + 2) as f64 / (i + 1) as f64).ln();
        products += step * f64::from(pair[0].logit - pair[1].logit);
        squares += step * step;
    }
    if squares > 0.0 { products / squares } else { 0.0 }
}

/// How many ranks to keep so that the expected surprise is `bound` bits under the estimated exponent.
fn rank_bound(exponent: f64, bound: f64, n: usize) -> usize {
    let excess = exponent - 1.0;
    let k = (excess * bound.exp2() / (1.0 - (n as f64).powf(-excess))).powf(1.0 / exponent);
    if k.is_finite() { (k.round() as usize).clamp(1, n.max(1)) } else { n.max(1) }
}
