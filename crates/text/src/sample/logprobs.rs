//! Log-probabilities of a step, as chat APIs report them.

use super::SampleError;
use super::candidates::Candidates;

/// Natural logarithms of probabilities under the model's own distribution (no penalty, no temperature).
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the chosen token; −∞ if the model rules it out.
    pub chosen: f32,
    /// The likeliest tokens, most likely first.
    pub top: Vec<(u32, f32)>,
}

/// Log-probabilities of `chosen` and of the `n` likeliest tokens.
///
/// # Errors
/// [`SampleError::BadLogit`] for NaN or +∞, [`SampleError::NothingAllowed`] if all logits are −∞.
pub fn logprobs(logits: &[f32], chosen: u32, n: usize) -> Result<Logprobs, SampleError> {
    super::check(logits)?;
    let mut candidates = Candidates::default();
    candidates.fill_top(logits, n.max(1));
    let nothing = SampleError::NothingAllowed { vocabulary: logits.len() };
    let max = f64::from(candidates.list().first().ok_or(nothing)?.logit);
    let log_total = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum::<f64>().ln();
    let of = |logit: f32| (f64::from(logit) - max - log_total) as f32;
    Ok(Logprobs {
        chosen: logits.get(chosen as usize).map_or(f32::NEG_INFINITY, |&logit| of(logit)),
        top: candidates.list().iter().take(n).map(|c| (c.id, of(c.logit))).collect(),
    })
}
