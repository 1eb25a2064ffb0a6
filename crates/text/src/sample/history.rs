//! What the sequence has said so far, and the penalties that follow from it.
//!
//! Contract: penalties change only logits of tokens that were seen, so their cost does not depend on the
//! vocabulary. Ids beyond the vocabulary are skipped.

use std::collections::HashMap;

use super::config::{Dry, SamplerConfig};

/// Penalties keep logits within it, so that however strong they are the tokens stay comparable.
const LARGEST: f32 = f32::MAX / 4.0;

/// Accepted tokens of one sequence.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    tokens: Vec<u32>,
    /// How often each token occurs in the penalty window.
    counts: HashMap<u32, u32>,
    /// Lengths of repetitions, and the longest one each token would continue; reused.
    matches: Vec<usize>,
    longest: HashMap<u32, usize>,
}

impl History {
    pub(crate) fn push(&mut self, token: u32, window: usize) {
        self.tokens.push(token);
        if window == 0 {
            return;
        }
        *self.counts.entry(token).or_insert(0) += 1;
        let before = self.tokens.len().saturating_sub(window);
        let Some(&old) = before.checked_sub(1).and_then(|at| self.tokens.get(at)) else { return };
        if let Some(count) = self.counts.get_mut(&old) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&old);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.counts.clear();
    }

    /// Repetition, frequency and presence penalties over the window.
    pub(crate) fn penalise(&self, logits: &mut [f32], config: &SamplerConfig) {
        for (&token, &count) in &self.counts {
            let Some(logit) = logits.get_mut(token as usize).filter(|l| **l > f32::NEG_INFINITY) else {
                continue;
            };
            let scaled = match *logit > 0.0 {
                true => *logit / config.repetition_penalty,
                false => *logit * config.repetition_penalty,
            };
            let scaled = scaled.clamp(-LARGEST, LARGEST);
            *logit = scaled - count as f32 * config.frequency_penalty - config.presence_penalty;
        }
    }

    /// The DRY penalty: for each token, by the longest repetition it would continue.
    pub(crate) fn penalise_repeats(&mut self, logits: &mut [f32], dry: &Dry) {
        let window = &self.tokens[self.tokens.len().saturating_sub(dry.last_n)..];
        let reach = window.iter().rev().take_while(|token| !dry.breakers.contains(token)).count();
        if dry.multiplier == 0.0 || reach < dry.allowed_length {
            return;
        }
        suffix_matches(window, &mut self.matches);
        self.longest.clear();
        // A suffix that also ends `back` tokens before the end was followed by the token after that place.
        for back in 1..window.len() {
            let length = self.matches[back].min(reach);
            if length >= dry.allowed_length {
                let next = self.longest.entry(window[window.len() - back]).or_insert(0);
                *next = length.max(*next);
            }
        }
        for (&token, &length) in &self.longest {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= dry_penalty(dry, length);
            }
        }
    }
}

fn dry_penalty(dry: &Dry, length: usize) -> f32 {
    let power = f64::from(dry.base).powf((length - dry.allowed_length) as f64);
    (f64::from(dry.multiplier) * power).min(f64::from(LARGEST)) as f32
}

/// `matches[back]`: length of the longest common suffix of `tokens` and `tokens` without its last `back`
/// (the Z function of the reversed sequence).
fn suffix_matches(tokens: &[u32], matches: &mut Vec<usize>) {
    let n = tokens.len();
    matches.clear();
    matches.resize(n, 0);
    let at = |i: usize| tokens[n - 1 - i];
    let (mut left, mut right) = (0, 0);
    for i in 1..n {
        let mut length = if i < right { matches[i - left].min(right - i) } else { 0 };
        while i + length < n && at(length) == at(i + length) {
            length += 1;
        }
        matches[i] = length;
        if i + length > right {
            (left, right) = (i, i + length);
        }
    }
}
