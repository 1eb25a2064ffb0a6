//! The tokens still in the running, and the stages that thin them out.
//!
//! Contract: candidates are ordered by falling logit, ties by rising id, as far as `sorted` says; every stage keeps
//! at least one. Probabilities are in f64 and refer to the candidates present, at temperature 1.
//! Absent on purpose: a full sort of the vocabulary. Prefixes are ordered when a stage asks for them.

use std::cmp::Ordering;

/// A token and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) id: u32,
    pub(crate) logit: f32,
}

/// Candidates in the running; the buffers are reused from token to token.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    list: Vec<Candidate>,
    /// How many, from the front, are in their final order; the rest are no likelier than those.
    sorted: usize,
    weights: Vec<f64>,
}

const BLOCK: usize = 32;
const FIRST_PREFIX: usize = 128;

fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

impl Candidates {
    /// Takes every token whose logit is above −∞.
    pub(crate) fn fill(&mut self, logits: &[f32]) {
        self.list.clear();
        self.sorted = 0;
        let all = logits.iter().enumerate().map(|(id, &logit)| Candidate { id: id as u32, logit });
        self.list.extend(all.filter(|c| c.logit > f32::NEG_INFINITY));
    }

    /// Takes the `k` likeliest tokens. Blocks whose largest logit does not beat the worst one kept are skipped
    /// whole, so that the scan runs at the speed of a vector maximum.
    pub(crate) fn fill_top(&mut self, logits: &[f32], k: usize) {
        let k = k.clamp(1, logits.len().max(1));
        self.list.clear();
        let mut floor = f32::NEG_INFINITY;
        for (block, values) in logits.chunks(BLOCK).enumerate() {
            if max_of(values) <= floor {
                continue;
            }
            let all = values.iter().zip(block as u32 * BLOCK as u32..);
            self.list.extend(all.filter(|&(&v, _)| v > floor).map(|(&logit, id)| Candidate { id, logit }));
            if self.list.len() >= 2 * k + BLOCK {
                self.list.select_nth_unstable_by(k - 1, order);
                self.list.truncate(k);
                floor = self.list[k - 1].logit;
            }
        }
        self.sorted = 0;
        self.top_k(k);
    }

    pub(crate) fn list(&self) -> &[Candidate] {
        &self.list
    }

    /// Keeps the `k` likeliest, in order.
    pub(crate) fn top_k(&mut self, k: usize) {
        self.sort_prefix(k);
        self.truncate(k);
    }

    /// Keeps the shortest prefix of the order that holds probability `p`.
    pub(crate) fn top_p(&mut self, p: f32) {
        if p >= 1.0 || self.list.is_empty() {
            return;
        }
        let (max, total) = self.mass();
        let target = f64::from(p) * total;
        let (mut cumulative, mut at) = (0.0, 0);
        while at < self.list.len() {
            if at >= self.sorted {
                self.sort_prefix((at * 4).max(FIRST_PREFIX));
            }
            cumulative += weight(self.list[at].logit, max);
            at += 1;
            if cumulative >= target {
                break;
            }
        }
        self.truncate(at);
    }

    /// Keeps tokens at least `p` times as likely as the likeliest.
    pub(crate) fn min_p(&mut self, p: f32) {
        if p > 0.0 {
            let floor = f64::from(self.max()) + f64::from(p).ln();
            self.retain(|c| f64::from(c.logit) >= floor);
        }
    }

    /// Keeps the tokens whose surprise is closest to the entropy, up to probability `p`.
    pub(crate) fn typical_p(&mut self, p: f32) {
        if p >= 1.0 || self.list.is_empty() {
            return;
        }
        let (max, total) = self.mass();
        let surprise = |c: &Candidate| total.ln() - f64::from(c.logit - max);
        let entropy = self.entropy();
        let distance = |c: &Candidate| (surprise(c) - entropy).abs();
        self.list.sort_unstable_by(|a, b| distance(a).total_cmp(&distance(b)).then(order(a, b)));
        let mut cumulative = 0.0;
        let kept = self.list.iter().position(|c| {
            cumulative += weight(c.logit, max) / total;
            cumulative > f64::from(p)
        });
        self.sorted = 0;
        self.truncate(kept.map_or(self.list.len(), |at| at + 1));
    }

    /// Removes all but the least likely of the tokens that reach probability `threshold`.
    pub(crate) fn exclude_top(&mut self, threshold: f32) {
        let (max, total) = self.mass();
        let floor = f64::from(threshold) * total;
        let above = self.list.iter().filter(|c| weight(c.logit, max) >= floor).count();
        if above > 1 {
            self.sort_prefix(above);
            self.list.drain(..above - 1);
            self.sorted = 1;
        }
    }

    /// Keeps the candidates whose surprise is at most `bits`, or the likeliest one.
    pub(crate) fn max_surprise(&mut self, bits: f64) {
        let (max, total) = self.mass();
        let floor = total * (-bits).exp2();
        self.sort_prefix(1);
        let best = self.list.first().copied();
        self.retain(|c| weight(c.logit, max) >= floor || Some(*c) == best);
    }

    /// Divides the logits, taken relative to the largest so that none overflows, by the temperature.
    pub(crate) fn temper(&mut self, temperature: f32) {
        let max = self.max();
        self.list.iter_mut().for_each(|c| c.logit = (c.logit - max) / temperature);
    }

    /// Entropy in nats.
    pub(crate) fn entropy(&self) -> f64 {
        let (max, total) = self.mass();
        let weighted = self.list.iter().map(|c| (weight(c.logit, max), f64::from(c.logit - max)));
        total.ln() - weighted.map(|(w, l)| if w > 0.0 { w * l } else { 0.0 }).sum::<f64>() / total
    }

    /// The candidate at `unit` (in [0, 1)) of the cumulative distribution, and its probability.
    pub(crate) fn draw(&mut self, unit: f64) -> Option<(u32, f64)> {
        let max = self.max();
        self.weights.clear();
        self.weights.extend(self.list.iter().map(|c| weight(c.logit, max)));
        let total: f64 = self.weights.iter().sum();
        let mut rest = unit * total;
        let at = self.weights.iter().position(|&w| {
            rest -= w;
            rest < 0.0
        });
        let at = at.unwrap_or(self.list.len().checked_sub(1)?);
        Some((self.list[at].id, self.weights[at] / total))
    }

    /// Orders the first `n` candidates.
    pub(crate) fn sort_prefix(&mut self, n: usize) {
        let n = n.min(self.list.len());
        let Some(rest) = self.list.get_mut(self.sorted..).filter(|_| n > self.sorted) else { return };
        let wanted = n - self.sorted;
        if wanted < rest.len() {
            rest.select_nth_unstable_by(wanted - 1, order);
        }
        rest[..wanted].sort_unstable_by(order);
        self.sorted = n;
    }

    fn max(&self) -> f32 {
        let rest = if self.sorted > 0 { &self.list[..1] } else { &self.list[..] };
        rest.iter().fold(f32::NEG_INFINITY, |m, c| m.max(c.logit))
    }

    /// (largest logit, sum of weights relative to it).
    fn mass(&self) -> (f32, f64) {
        let max = self.max();
        (max, self.list.iter().map(|c| weight(c.logit, max)).sum())
    }

    fn retain(&mut self, mut keep: impl FnMut(&Candidate) -> bool) {
        let (mut at, mut sorted) = (0, 0);
        let was_sorted = self.sorted;
        self.list.retain(|c| {
            let kept = keep(c);
            sorted += usize::from(kept && at < was_sorted);
            at += 1;
            kept
        });
        self.sorted = sorted;
    }

    fn truncate(&mut self, n: usize) {
        self.list.truncate(n.max(1));
        self.sorted = self.sorted.min(self.list.len());
    }
}

/// The likeliest token, the first of equals; none if all are −∞.
pub(crate) fn argmax(logits: &[f32]) -> Option<u32> {
    const PART: usize = 1024;
    let (mut max, mut start) = (f32::NEG_INFINITY, logits.len());
    for (at, part) in logits.chunks(PART).enumerate() {
        let best = max_of(part);
        if best > max {
            (max, start) = (best, at * PART);
        }
    }
    logits[start..].iter().position(|&logit| logit == max).map(|at| (start + at) as u32)
}

/// Largest value; independent lanes let it vectorise.
fn max_of(values: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &value| if value > max { value } else { max })
}

fn weight(logit: f32, max: f32) -> f64 {
    f64::from(logit - max).exp()
}
