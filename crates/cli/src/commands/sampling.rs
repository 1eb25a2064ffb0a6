//! How tokens are chosen, as options.

use clap::ValueEnum;
use kinglet::sample::{Dry, Mirostat, SamplerConfig, Xtc};

/// How tokens are chosen. What is not given stays as the model's makers recommend.
#[derive(clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplerArgs {
    /// 0 always takes the likeliest token
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Move the temperature by up to R either way, with how sure the model is
    #[arg(long, value_name = "R")]
    dynamic_temperature: Option<f32>,
    /// Keep the K likeliest tokens; 0 keeps all
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep the likeliest tokens that together reach P
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Keep tokens at least P times as likely as the likeliest
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Keep the tokens of typical surprise that together reach P
    #[arg(long, value_name = "P")]
    typical_p: Option<f32>,
    /// Weigh down tokens that were seen; 1 is off
    #[arg(long, value_name = "F")]
    repeat_penalty: Option<f32>,
    /// Weigh down tokens that were seen, by as much in their logits
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Weigh down tokens as often as they were seen
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// How many of the latest tokens count as seen [default: 64]
    #[arg(long, value_name = "N")]
    repeat_last_n: Option<usize>,
    /// Weigh down what would go on with a repetition (DRY), this strongly; 0 is off
    #[arg(long, value_name = "X")]
    dry_multiplier: Option<f32>,
    /// How much more for each further repeated token [default: 1.75]
    #[arg(long, value_name = "B")]
    dry_base: Option<f32>,
    /// Repetitions shorter than N tokens are free [default: 2]
    #[arg(long, value_name = "N")]
    dry_allowed_length: Option<usize>,
    /// How often the top choices but the last are left out (XTC); 0 is off
    #[arg(long, value_name = "P")]
    xtc_probability: Option<f32>,
    /// How likely a top choice is at least [default: 0.1]
    #[arg(long, value_name = "P")]
    xtc_threshold: Option<f32>,
    /// Keep the surprise steady instead of cutting candidates
    #[arg(long, value_name = "VERSION")]
    mirostat: Option<MirostatArg>,
    /// Surprise in bits that Mirostat keeps
    #[arg(long, value_name = "BITS", default_value = "5", hide_default_value = true)]
    mirostat_tau: f32,
    /// How fast Mirostat learns
    #[arg(long, value_name = "RATE", default_value = "0.1", hide_default_value = true)]
    mirostat_eta: f32,
    /// Add to the logit of a token, by its number: 1234=-5, or 1234=-inf to forbid it (may be given several times)
    #[arg(long, value_name = "ID=X", value_parser = bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Seed of random choices [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum MirostatArg {
    #[value(name = "1")]
    V1,
    #[value(name = "2")]
    V2,
}

impl SamplerArgs {
    /// `base` with what was given.
    pub(crate) fn apply(&self, base: &SamplerConfig) -> SamplerConfig {
        let (tau, eta) = (self.mirostat_tau, self.mirostat_eta);
        let mirostat = self.mirostat.map(|version| match version {
            MirostatArg::V1 => Mirostat::V1 { tau, eta },
            MirostatArg::V2 => Mirostat::V2 { tau, eta },
        });
        SamplerConfig {
            temperature: self.temperature.unwrap_or(base.temperature),
            dynamic_temperature_range: self.dynamic_temperature.unwrap_or(base.dynamic_temperature_range),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            typical_p: self.typical_p.unwrap_or(base.typical_p),
            repetition_penalty: self.repeat_penalty.unwrap_or(base.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            penalty_last_n: self.repeat_last_n.unwrap_or(base.penalty_last_n),
            dry: Dry {
                multiplier: self.dry_multiplier.unwrap_or(base.dry.multiplier),
                base: self.dry_base.unwrap_or(base.dry.base),
                allowed_length: self.dry_allowed_length.unwrap_or(base.dry.allowed_length),
                ..base.dry.clone()
            },
            xtc: Xtc {
                probability: self.xtc_probability.unwrap_or(base.xtc.probability),
                threshold: self.xtc_threshold.unwrap_or(base.xtc.threshold),
            },
            mirostat: mirostat.or(base.mirostat),
            logit_bias: [&base.logit_bias[..], &self.logit_bias].concat(),
            seed: self.seed.unwrap_or_else(fresh_seed),
            ..base.clone()
        }
    }
}

/// The time in nanoseconds: another one at each start.
fn fresh_seed() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64)
}

/// A token's number and what is added to its logit: `1234=-5`.
fn bias(text: &str) -> Result<(u32, f32), String> {
    let parts = text.split_once('=').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    parts.ok_or_else(|| "expected a token's number and a bias, such as 1234=-5".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        sampler: SamplerArgs,
    }

    fn parse(line: &str) -> Result<SamplerConfig, clap::Error> {
        let args = std::iter::once("kinglet").chain(line.split_whitespace());
        Ok(Command::try_parse_from(args)?.sampler.apply(&SamplerConfig::greedy()))
    }

    #[test]
    fn every_option_reaches_the_sampler() {
        let plain = SamplerConfig { seed: 1, ..SamplerConfig::greedy() };
        let check = |line: &str, edit: fn(&mut SamplerConfig)| {
            let mut expected = plain.clone();
            edit(&mut expected);
            assert_eq!(parse(&format!("--seed 1 {line}")).expect(line), expected, "{line}");
        };
        check("", |_| {});
        check("--temperature 0.5", |s| s.temperature = 0.5);
        check("--dynamic-temperature 0.2", |s| s.dynamic_temperature_range = 0.2);
        check("--top-k 3", |s| s.top_k = 3);
        check("--top-p 0.3", |s| s.top_p = 0.3);
        check("--min-p 0.4", |s| s.min_p = 0.4);
        check("--typical-p 0.5", |s| s.typical_p = 0.5);
        check("--repeat-penalty 1.2", |s| s.repetition_penalty = 1.2);
        check("--presence-penalty -1", |s| s.presence_penalty = -1.0);
        check("--frequency-penalty 0.1", |s| s.frequency_penalty = 0.1);
        check("--repeat-last-n 9", |s| s.penalty_last_n = 9);
        check("--dry-multiplier 0.8", |s| s.dry.multiplier = 0.8);
        check("--dry-base 2", |s| s.dry.base = 2.0);
        check("--dry-allowed-length 3", |s| s.dry.allowed_length = 3);
        check("--xtc-probability 0.5", |s| s.xtc.probability = 0.5);
        check("--xtc-threshold 0.2", |s| s.xtc.threshold = 0.2);
        check("--mirostat 1", |s| s.mirostat = Some(Mirostat::V1 { tau: 5.0, eta: 0.1 }));
        check("--mirostat 2 --mirostat-tau 3 --mirostat-eta 0.2", |s| {
            s.mirostat = Some(Mirostat::V2 { tau: 3.0, eta: 0.2 });
        });
        check("--logit-bias 5=-inf --logit-bias 7=1.5", |s| {
            s.logit_bias = vec![(5, f32::NEG_INFINITY), (7, 1.5)];
        });
        for line in ["--mirostat 3", "--logit-bias 5", "--logit-bias x=1", "--top-k -1"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
