//! Choosing the next token from a model's logits.
//!
//! Contract: a [`Sampler`] is the state of one sequence; the same configuration, logits and accepted tokens give the
//! same choices on every platform whose `exp` and `ln` agree. Logits are read, never changed. Greedy choice without
//! penalties takes one pass and no memory; otherwise buffers are reused from token to token.
//! Absent on purpose: grammars (they arrive as a [`TokenMask`]) and stop conditions.

mod candidates;
mod config;
mod history;
mod logprobs;
mod mask;
mod mirostat;
mod rng;

pub use config::{Dry, Mirostat, SamplerConfig, Xtc};
pub use logprobs::{Logprobs, logprobs};
pub use mask::TokenMask;

use candidates::Candidates;
use history::History;
use rng::Rng;

/// Why no token could be chosen.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// A field of the configuration is out of its range.
    #[error("sampler setting `{field}` is {value}, it must lie between {low} and {high}")]
    Setting {
        /// Name of the field.
        field: &'static str,
        /// What it was set to.
        value: f32,
        /// Smallest value allowed.
        low: f32,
        /// Largest value allowed.
        high: f32,
    },
    /// The model produced a logit that is not a number, or +∞.
    #[error("the model's logit for token {token} is {value}: the weights or the computation are broken")]
    BadLogit {
        /// First such token.
        token: u32,
        /// Its logit.
        value: f32,
    },
    /// Every token was ruled out.
    #[error("no token is allowed: the grammar mask and logit bias rule out all {vocabulary} tokens")]
    NothingAllowed {
        /// Number of logits given.
        vocabulary: usize,
    },
}

/// Chooses tokens for one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    config: SamplerConfig,
    rng: Rng,
    history: History,
    /// Mirostat's controlled bound in bits.
    bound: f64,
    logits: Vec<f32>,
    candidates: Candidates,
}

impl Sampler {
    /// A sampler at the beginning of a sequence.
    ///
    /// # Errors
    /// [`SampleError::Setting`] if a field is out of range.
    pub fn new(config: SamplerConfig) -> Result<Self, SampleError> {
        config.validate()?;
        Ok(Self {
            rng: Rng::new(config.seed),
            history: History::default(),
            bound: config.mirostat.map_or(0.0, Mirostat::initial_bound),
            logits: Vec::new(),
            candidates: Candidates::default(),
            config,
        })
    }

    /// What this sampler was told to do.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// Forgets the sequence and starts the random stream anew.
    pub fn reset(&mut self) {
        self.rng = Rng::new(self.config.seed);
        self.history.clear();
        self.bound = self.config.mirostat.map_or(0.0, Mirostat::initial_bound);
    }

    /// Notes a token of the sequence, so that penalties count it: each prompt token that shall count, and each
    /// token that [`Sampler::sample`] returned and the caller keeps.
    pub fn accept(&mut self, token: u32) {
        self.history.push(token, self.config.penalty_last_n);
    }

    /// Chooses the next token. `logits`: one per token of the vocabulary; −∞ rules a token out, and so does a
    /// mask that does not allow it.
    ///
    /// # Errors
    /// [`SampleError::BadLogit`] for NaN or +∞, [`SampleError::NothingAllowed`] if no token is left.
    pub fn sample(&mut self, logits: &[f32], allowed: Option<&TokenMask>) -> Result<u32, SampleError> {
        check(logits)?;
        let mut edited = std::mem::take(&mut self.logits);
        let choice = if allowed.is_some() || self.edits_logits() {
            self.edit(logits, allowed, &mut edited);
            self.choose(&edited)
        } else {
            self.choose(logits)
        };
        self.logits = edited;
        choice.ok_or(SampleError::NothingAllowed { vocabulary: logits.len() })
    }

    fn edits_logits(&self) -> bool {
        let c = &self.config;
        let penalties =
            c.repetition_penalty != 1.0 || c.presence_penalty != 0.0 || c.frequency_penalty != 0.0;
        penalties || c.dry.multiplier != 0.0 || !c.logit_bias.is_empty()
    }

    /// Bias, mask and penalties, into a copy of the logits.
    fn edit(&mut self, logits: &[f32], allowed: Option<&TokenMask>, edited: &mut Vec<f32>) {
        edited.clear();
        edited.extend_from_slice(logits);
        for &(token, bias) in &self.config.logit_bias {
            if let Some(logit) = edited.get_mut(token as usize) {
                *logit += bias;
            }
        }
        if let Some(mask) = allowed {
            mask.apply(edited);
        }
        self.history.penalise(edited, &self.config);
        self.history.penalise_repeats(edited, &self.config.dry);
    }

    fn choose(&mut self, logits: &[f32]) -> Option<u32> {
        if self.config.temperature == 0.0 {
            return candidates::argmax(logits);
        }
        match self.config.mirostat {
            None => self.truncate(logits),
            Some(mirostat) => {
                self.candidates.fill(logits);
                self.temper();
                mirostat.truncate(&mut self.candidates, self.bound);
            }
        }
        let (token, probability) = self.candidates.draw(self.rng.unit())?;
        self.bound = self.config.mirostat.map_or(0.0, |mirostat| mirostat.update(self.bound, probability));
        Some(token)
    }

    /// The stages from top-k to temperature.
    fn truncate(&mut self, logits: &[f32]) {
        let (config, candidates) = (&self.config, &mut self.candidates);
        match config.top_k {
            0 => candidates.fill(logits),
            k => candidates.fill_top(logits, k),
        }
        candidates.typical_p(config.typical_p);
        candidates.top_p(config.top_p);
        candidates.min_p(config.min_p);
        if config.xtc.probability > 0.0 && self.rng.unit() < f64::from(config.xtc.probability) {
            candidates.exclude_top(config.xtc.threshold);
        }
        self.temper();
    }

    fn temper(&mut self) {
        let SamplerConfig { temperature, dynamic_temperature_range: range, .. } = self.config;
        let count = self.candidates.list().len();
        if range == 0.0 || count < 2 {
            return self.candidates.temper(temperature);
        }
        let low = (temperature - range).max(0.0);
        let spread = (self.candidates.entropy() / (count as f64).ln()) as f32;
        let share = spread.clamp(0.0, 1.0).powf(self.config.dynamic_temperature_exponent);
        match low + (temperature + range - low) * share {
            0.0 => self.candidates.top_k(1),
            dynamic => self.candidates.temper(dynamic),
        }
    }
}

/// Refuses NaN and +∞; the pass without early exit runs at vector speed.
fn check(logits: &[f32]) -> Result<(), SampleError> {
    let is_bad = |value: f32| value.is_nan() || value == f32::INFINITY;
    if !logits.iter().fold(false, |bad, &value| bad | is_bad(value)) {
        return Ok(());
    }
    let at = logits.iter().position(|&value| is_bad(value)).unwrap_or(0);
    Err(SampleError::BadLogit { token: at as u32, value: logits[at] })
}
