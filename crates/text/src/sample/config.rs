//! What a sampler is told to do, and the ranges it accepts.
//!
//! Absent on purpose: serde. Wire formats convert by hand, so that their names may differ.

use super::SampleError;

/// How the next token is chosen. The default is a mild, reproducible random choice; [`SamplerConfig::greedy`]
/// always takes the likeliest token.
///
/// Stages act in this order: logit bias, grammar mask, penalties, DRY, top-k, typical-p, top-p, min-p, XTC,
/// temperature, draw. With [`Mirostat`] only bias, mask, penalties, DRY and temperature act before it.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerConfig {
    /// Seed of every random choice; any value.
    pub seed: u64,
    /// Divides the logits; 0 takes the likeliest token. Range 0..=100, default 0.8.
    pub temperature: f32,
    /// Half-width of the dynamic temperature: the temperature moves within `temperature ± range` with the entropy
    /// of the candidates. Range 0..=100, default 0 (off).
    pub dynamic_temperature_range: f32,
    /// Exponent applied to the normalised entropy for the dynamic temperature. Range 0..=100, default 1.
    pub dynamic_temperature_exponent: f32,
    /// Keeps the k likeliest tokens; 0 keeps all. Default 40.
    pub top_k: usize,
    /// Keeps the likeliest tokens that together reach this probability. Range 0..=1, 1 is off, default 0.95.
    pub top_p: f32,
    /// Keeps tokens at least this likely relative to the likeliest. Range 0..=1, 0 is off, default 0.05.
    pub min_p: f32,
    /// Keeps the tokens whose surprise is closest to the entropy, up to this probability. Range 0..=1, 1 is off,
    /// default 1.
    pub typical_p: f32,
    /// How many of the latest tokens the three penalties look at; 0 turns them off, `usize::MAX` means all.
    /// Default 64.
    pub penalty_last_n: usize,
    /// Positive logits of seen tokens are divided by it, others multiplied. Range 0.01..=100, default 1 (off).
    pub repetition_penalty: f32,
    /// Subtracted from the logit of each seen token. Range −100..=100, default 0.
    pub presence_penalty: f32,
    /// Subtracted from the logit of each seen token as often as it was seen. Range −100..=100, default 0.
    pub frequency_penalty: f32,
    /// Added to single logits. Each bias in −∞..=1000 (−∞ forbids the token), default none.
    pub logit_bias: Vec<(u32, f32)>,
    /// The penalty on continuing a repeated sequence.
    pub dry: Dry,
    /// Exclusion of top choices.
    pub xtc: Xtc,
    /// Sampling at a steady surprise, in place of the truncating stages.
    pub mirostat: Option<Mirostat>,
}

/// "Don't repeat yourself": a token that would continue a sequence of `n` tokens already seen loses
/// `multiplier · base^(n − allowed_length)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    /// Strength. Range 0..=100, default 0 (off).
    pub multiplier: f32,
    /// Growth with each further repeated token. Range 1..=100, default 1.75.
    pub base: f32,
    /// Repetitions shorter than this are free. At least 1, default 2.
    pub allowed_length: usize,
    /// How many of the latest tokens are searched for repetitions; default `usize::MAX` (all).
    pub last_n: usize,
    /// Tokens that no repetition reaches across (the caller resolves strings such as a newline to the tokens that
    /// hold them). Default none.
    pub breakers: Vec<u32>,
}

/// "Exclude top choices": now and then all but the least likely of the tokens above a threshold are removed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Xtc {
    /// How often it acts. Range 0..=1, default 0 (off).
    pub probability: f32,
    /// What counts as a top choice. Range 0..=1, default 0.1; above 0.5 there can be no second one.
    pub threshold: f32,
}

/// Feedback control of the surprise per token (Basu et al. 2020, arXiv 2007.14966).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mirostat {
    /// Estimates the Zipf exponent and truncates by rank.
    V1 {
        /// Target surprise in bits. Range 0..=100, usual 5.
        tau: f32,
        /// Learning rate. Range 0..=1, usual 0.1.
        eta: f32,
    },
    /// Truncates by surprise.
    V2 {
        /// Target surprise in bits. Range 0..=100, usual 5.
        tau: f32,
        /// Learning rate. Range 0..=1, usual 0.1.
        eta: f32,
    },
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            temperature: 0.8,
            dynamic_temperature_range: 0.0,
            dynamic_temperature_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            penalty_last_n: 64,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            dry: Dry::default(),
            xtc: Xtc { probability: 0.0, threshold: 0.1 },
            mirostat: None,
        }
    }
}

impl Default for Dry {
    fn default() -> Self {
        Self { multiplier: 0.0, base: 1.75, allowed_length: 2, last_n: usize::MAX, breakers: Vec::new() }
    }
}

impl SamplerConfig {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::plain() }
    }

    /// Draws from the model's own distribution: temperature 1 and every other stage off.
    pub fn plain() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Self::default() }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// [`SampleError::Setting`] names the first field out of range, its value and the range.
    pub fn validate(&self) -> Result<(), SampleError> {
        let (tau, eta) = match self.mirostat {
            Some(Mirostat::V1 { tau, eta } | Mirostat::V2 { tau, eta }) => (tau, eta),
            None => (0.0, 0.0),
        };
        for (field, value, low, high) in [
            ("temperature", self.temperature, 0.0, 100.0),
            ("dynamic_temperature_range", self.dynamic_temperature_range, 0.0, 100.0),
            ("dynamic_temperature_exponent", self.dynamic_temperature_exponent, 0.0, 100.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
            ("typical_p", self.typical_p, 0.0, 1.0),
            ("repetition_penalty", self.repetition_penalty, 0.01, 100.0),
            ("presence_penalty", self.presence_penalty, -100.0, 100.0),
            ("frequency_penalty", self.frequency_penalty, -100.0, 100.0),
            ("dry.multiplier", self.dry.multiplier, 0.0, 100.0),
            ("dry.base", self.dry.base, 1.0, 100.0),
            ("dry.allowed_length", self.dry.allowed_length as f32, 1.0, f32::INFINITY),
            ("xtc.probability", self.xtc.probability, 0.0, 1.0),
            ("xtc.threshold", self.xtc.threshold, 0.0, 1.0),
            ("mirostat.tau", tau, 0.0, 100.0),
            ("mirostat.eta", eta, 0.0, 1.0),
        ] {
            in_range(field, value, low, high)?;
        }
        self.logit_bias
            .iter()
            .try_for_each(|&(_, bias)| in_range("logit_bias", bias, f32::NEG_INFINITY, 1000.0))
    }
}

fn in_range(field: &'static str, value: f32, low: f32, high: f32) -> Result<(), SampleError> {
    match value >= low && value <= high {
        true => Ok(()),
        false => Err(SampleError::Setting { field, value, low, high }),
    }
}
