//! Options that several commands share: how a model is loaded, and how tokens are chosen.

use anyhow::Result;
use clap::ValueEnum;
use kinglet::catalog::Catalog;
use kinglet::sample::SamplerConfig;
use kinglet::tensor::DType;
use kinglet::{LoadOptions, Model, ModelFiles, Precision};

use crate::ui::{Fetching, Ui};

/// How a model is loaded.
#[derive(clap::Args)]
#[command(next_help_heading = "Loading")]
pub(crate) struct LoadArgs {
    /// Tokens of prompt and answer [default: what the model was trained for, as far as memory allows]
    #[arg(long, short, value_name = "TOKENS")]
    context: Option<usize>,
    /// Threads [default: one a physical core]
    #[arg(long, short, value_name = "N")]
    threads: Option<usize>,
    /// Precision of matrix products: 8-bit activations, or exact weights and f32 (slower)
    #[arg(long, value_name = "P", default_value = "int8")]
    precision: PrecisionArg,
    /// Element type of keys and values
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    kv: KvArg,
    /// Instruction set; `kinglet device` lists them [default: the best there is]
    #[arg(long, value_name = "ISA")]
    isa: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionArg {
    Int8,
    F32,
}

#[derive(Clone, Copy, ValueEnum)]
enum KvArg {
    F16,
    Bf16,
    F32,
    #[value(name = "q8_0", alias = "q8")]
    Q8,
}

impl LoadArgs {
    /// The library's form of them, for this many requests at once.
    pub(crate) fn options(&self, parallel: usize) -> LoadOptions {
        LoadOptions {
            threads: self.threads,
            isa: self.isa.clone(),
            precision: match self.precision {
                PrecisionArg::Int8 => Precision::Int8,
                PrecisionArg::F32 => Precision::F32,
            },
            context: self.context,
            kv_dtype: match self.kv {
                KvArg::F16 => DType::F16,
                KvArg::Bf16 => DType::BF16,
                KvArg::F32 => DType::F32,
                KvArg::Q8 => DType::Q8_0,
            },
            parallel,
        }
    }

    /// Finds the model, fetching it when it is not here, and opens its files.
    pub(crate) fn open(name: &str, ui: &Ui) -> Result<(String, ModelFiles)> {
        let model = Catalog::from_env().resolve(name, &Fetching::new(ui))?;
        let files = ModelFiles::of(&model)?;
        Ok((model.name, files))
    }

    /// Finds, fetches when needed, and loads the model.
    pub(crate) fn load(&self, name: &str, parallel: usize, ui: &Ui) -> Result<Model> {
        let (name, files) = Self::open(name, ui)?;
        Ok(Model::from_files(&name, &files, &self.options(parallel))?)
    }
}

/// How tokens are chosen. What is not given stays as the model's makers recommend.
#[derive(clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplerArgs {
    /// 0 always takes the likeliest token
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Keep the K likeliest tokens; 0 keeps all
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep the likeliest tokens that together reach P
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Keep tokens at least P times as likely as the likeliest
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Weigh down tokens seen in the last 64; 1 is off
    #[arg(long, value_name = "F")]
    repeat_penalty: Option<f32>,
    /// Seed of random choices [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl SamplerArgs {
    /// `base` with what was given.
    pub(crate) fn apply(&self, base: &SamplerConfig) -> SamplerConfig {
        SamplerConfig {
            temperature: self.temperature.unwrap_or(base.temperature),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repetition_penalty: self.repeat_penalty.unwrap_or(base.repetition_penalty),
            seed: self.seed.unwrap_or_else(fresh_seed),
            ..base.clone()
        }
    }
}

/// The time in nanoseconds: another one at each start.
fn fresh_seed() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64)
}
