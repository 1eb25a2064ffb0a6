//! Rotary frequencies: the plain formula and the scaling schemes that models ship with.
//!
//! Llama 3: <https://arxiv.org/abs/2407.21783>; YaRN: <https://arxiv.org/abs/2309.00071>; LongRoPE:
//! <https://arxiv.org/abs/2402.13753>. All arithmetic in f64.

use std::f64::consts::PI;

use crate::ModelError;

/// How frequencies are stretched for contexts longer than the model was first trained on.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions divided by this.
    Linear(f64),
    /// Low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths longer than `original / low` count as low.
        low: f64,
        /// Wavelengths shorter than `original / high` count as high.
        high: f64,
        /// Context of the first training.
        original: f64,
    },
    /// YaRN.
    Yarn(Yarn),
    /// Each frequency divided by its own factor.
    Factors(Vec<f64>),
    /// LongRoPE: one list up to the original context, another beyond.
    Long {
        /// Divisors when the context fits the original one.
        short: Vec<f64>,
        /// Divisors otherwise.
        long: Vec<f64>,
    },
}

impl RopeScaling {
    /// Lists of what must be positive.
    fn positive(&self) -> impl Iterator<Item = Vec<f64>> {
        let [first, second] = match self {
            Self::None => [vec![], vec![]],
            Self::Linear(factor) => [vec![*factor], vec![]],
            Self::Llama3 { factor, low, high, original } => {
                [vec![*factor, *original], vec![*low, high - low]]
            }
            Self::Yarn(yarn) => {
                let ramp = yarn.beta_fast - yarn.beta_slow;
                [vec![yarn.factor, yarn.original as f64], vec![yarn.beta_slow, ramp]]
            }
            Self::Factors(factors) => [factors.clone(), vec![]],
            Self::Long { short, long } => [short.clone(), long.clone()],
        };
        [first, second].into_iter()
    }
}

/// Parameters of YaRN.
#[derive(Clone, Debug, PartialEq)]
pub struct Yarn {
    /// Ratio of the contexts.
    pub factor: f64,
    /// Context of the first training.
    pub original: usize,
    /// Rotations above which a frequency is kept.
    pub beta_fast: f64,
    /// Rotations below which a frequency is fully interpolated.
    pub beta_slow: f64,
}

impl Yarn {
    /// The paper's ramp.
    pub fn new(factor: f64) -> Self {
        Self { factor, original: 0, beta_fast: 32.0, beta_slow: 1.0 }
    }
}

/// Rotary settings of some layers.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Elements of a head that are rotated.
    pub dims: usize,
    /// Base of the geometric series.
    pub base: f64,
    /// Stretching.
    pub scaling: RopeScaling,
    /// Context of the first training, where the scheme needs it.
    pub original: Option<usize>,
    /// Factor on rotated elements, when the file gives it.
    pub magnitude: Option<f64>,
}

impl RopeConfig {
    /// Settings for windowed layers: another base, no stretching; the same settings when there is no other base.
    pub(crate) fn local(&self, base: Option<f64>) -> Self {
        match base {
            Some(base) => Self { base, scaling: RopeScaling::None, ..self.clone() },
            None => self.clone(),
        }
    }

    /// Refuses what would rotate by infinite angles or no numbers, for heads of `key_dim` elements.
    pub(crate) fn checked(self, key_dim: usize) -> Result<Self, ModelError> {
        let bad = |key: &str, found: String, expected: String| {
            Err(ModelError::BadKey { key: key.into(), found, expected })
        };
        if self.dims == 0 || self.dims > key_dim || !self.dims.is_multiple_of(2) {
            return bad("rotary dimensions", self.dims.to_string(), format!("even, 2 to {key_dim}"));
        }
        let numbers = [("base", vec![self.base]), ("magnitude", self.magnitude.into_iter().collect())];
        let numbers = numbers.into_iter().chain(self.scaling.positive().map(|list| ("scaling factor", list)));
        for (name, list) in numbers {
            if let Some(found) = list.iter().find(|number| !(number.is_finite() && **number > 0.0)) {
                return bad(&format!("rotary {name}"), found.to_string(), "a positive number".into());
            }
        }
        let pairs = self.dims / 2;
        match &self.scaling {
            RopeScaling::Long { short, long } if short.len() != pairs || long.len() != pairs => {
                let found = format!("lists of {} and {}", short.len(), long.len());
                bad("rotary scaling factors", found, format!("{pairs} each, one a pair"))
            }
            _ => Ok(self),
        }
    }

    /// Frequencies for a context of `context` positions, in radians per position, one a pair.
    pub fn inv_freq(&self, context: usize) -> Vec<f64> {
        let plain = |i: usize| self.base.powf(-2.0 * i as f64 / self.dims as f64);
        (0..self.dims / 2).map(|i| self.stretch(i, plain(i), context)).collect()
    }

    /// Factor on rotated elements.
    pub fn magnitude(&self) -> f64 {
        match (&self.scaling, self.magnitude) {
            (_, Some(magnitude)) => magnitude,
            (RopeScaling::Yarn(yarn), None) if yarn.factor > 1.0 => 0.1 * yarn.factor.ln() + 1.0,
            _ => 1.0,
        }
    }

    fn stretch(&self, i: usize, freq: f64, context: usize) -> f64 {
        match &self.scaling {
            RopeScaling::None => freq,
            RopeScaling::Linear(factor) => freq / factor,
            RopeScaling::Llama3 { factor, low, high, original } => {
                let turns = original * freq / (2.0 * PI);
                let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                freq * (keep + (1.0 - keep) / factor)
            }
            RopeScaling::Yarn(yarn) => freq * self.yarn_ramp(i, yarn),
            RopeScaling::Factors(factors) => freq / factors.get(i).copied().unwrap_or(1.0),
            RopeScaling::Long { short, long } => {
                let factors = if self.original.is_some_and(|o| context > o) { long } else { short };
                freq / factors.get(i).copied().unwrap_or(1.0)
            }
        }
    }

    /// Between 1 (kept) and `1 / factor` (interpolated).
    fn yarn_ramp(&self, i: usize, yarn: &Yarn) -> f64 {
        let dims = self.dims as f64;
        let pair_of =
            |turns: f64| dims * (yarn.original as f64 / (turns * 2.0 * PI)).ln() / (2.0 * self.base.ln());
        let first = pair_of(yarn.beta_fast).floor().max(0.0);
        let last = pair_of(yarn.beta_slow).ceil().min(dims - 1.0);
        let ramp = ((i as f64 - first) / (last - first).max(0.001)).clamp(0.0, 1.0);
        ramp / yarn.factor + (1.0 - ramp)
    }
}
