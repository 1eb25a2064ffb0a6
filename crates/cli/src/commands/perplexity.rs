//! `kinglet perplexity`: how well a model predicts a text.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;

use anyhow::{Context, Result};
use kinglet::evaluate::{self, Score};
use serde_json::json;

use crate::commands::given;
use crate::commands::options::LoadArgs;
use crate::failure::hinted;
use crate::ui::{Steps, Ui};

/// Measure how well a model predicts a text
///
/// The text is cut into chunks; the second half of each is scored with the first half before it, as llama.cpp does, so
/// that figures compare. With --kl-divergence the text and the log-probabilities to compare with come from a file that
/// --save-logits or llama.cpp's `llama-perplexity --kl-divergence-base` wrote.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet perplexity smollm2 --text wiki.test.raw
  kinglet perplexity smollm2 --text wiki.test.raw --precision f32 --save-logits f32.logits
  kinglet perplexity smollm2 --kl-divergence f32.logits")]
pub(crate) struct Args {
    /// A model's name, path or address
    model: String,
    /// The text
    #[arg(long, value_name = "FILE", required_unless_present = "kl_divergence")]
    text: Option<PathBuf>,
    /// Tokens of the text to score at most
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Tokens of a chunk
    #[arg(long, value_name = "N", default_value_t = 512)]
    chunk: usize,
    /// Compare with saved log-probabilities
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "tokens", "save_logits"])]
    kl_divergence: Option<PathBuf>,
    /// Write the log-probabilities for later comparisons
    #[arg(long, value_name = "FILE")]
    save_logits: Option<PathBuf>,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let model = args.load.load(&args.model, 1, ui)?;
    let steps = Steps::new(ui, "chunk");
    let progress = |done: usize, all: usize, score: &Score| {
        steps.set(done, all, &format!("perplexity {:.4}", score.perplexity()));
    };
    let score = if let Some(path) = &args.kl_divergence {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let saved = Box::new(BufReader::with_capacity(1 << 20, file));
        evaluate::divergence(&model, saved, progress).with_context(|| path.display().to_string())?
    } else {
        let path = args.text.clone().unwrap_or_default();
        let bytes = given::text(&path)?;
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            let at = e.valid_up_to();
            hinted(
                format!("{}: byte {at} is not UTF-8 text", path.display()),
                "convert it first, with iconv for example",
            )
        })?;
        let mut tokens = model.encode(text)?;
        tokens.truncate(args.tokens.unwrap_or(usize::MAX));
        let create = |path: &PathBuf| File::create(path).with_context(|| path.display().to_string());
        let save = args.save_logits.as_ref().map(create).transpose()?;
        let save = save.map(|file| Box::new(BufWriter::with_capacity(1 << 20, file)) as _);
        evaluate::perplexity(&model, &tokens, args.chunk, save, progress)?
    };
    drop(steps);
    if ui.json() { ui.value(&report(args, &score)) } else { print(&score, ui) }
}

fn print(score: &Score, ui: &Ui) -> Result<()> {
    let (perplexity, error) = (score.perplexity(), score.perplexity_error());
    ui.line(format_args!("perplexity       {perplexity:.4} ± {error:.4} over {} tokens", score.rows))?;
    if score.divergences.is_empty() {
        return Ok(());
    }
    let saved = score.saved_perplexity();
    ui.line(format_args!("saved            {saved:.4} ({:+.3} %)", (perplexity / saved - 1.0) * 100.0))?;
    ui.line(format_args!(
        "KL divergence    mean {:.3e}, 99 % below {:.3e}, greatest {:.3e}",
        score.mean_divergence(),
        score.divergence_quantile(0.99),
        score.divergence_quantile(1.0)
    ))?;
    ui.line(format_args!(
        "same likeliest   {:.2} %",
        100.0 * score.same_top as f64 / score.rows.max(1) as f64
    ))
}

fn report(args: &Args, score: &Score) -> serde_json::Value {
    let mut report = json!({
        "model": args.model,
        "tokens": score.rows,
        "perplexity": score.perplexity(),
        "perplexity_error": score.perplexity_error(),
    });
    if !score.divergences.is_empty() {
        report["saved_perplexity"] = json!(score.saved_perplexity());
        report["kl_divergence"] = json!({
            "mean": score.mean_divergence(),
            "p99": score.divergence_quantile(0.99),
            "max": score.divergence_quantile(1.0),
        });
        report["same_top"] = json!(score.same_top as f64 / score.rows.max(1) as f64);
    }
    report
}
