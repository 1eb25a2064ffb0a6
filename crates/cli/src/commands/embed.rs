//! `kinglet embed`: vectors of texts, and how alike texts are.

use std::path::PathBuf;

use anyhow::Result;
use kinglet::graphs::Embedder;
use kinglet::models::task::cosine;
use serde_json::json;

use crate::commands::options::LoadArgs;
use crate::failure::hinted;
use crate::ui::{Table, Ui, brief};

/// Make vectors of texts, or tell how alike they are
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet embed ./all-MiniLM-L6-v2 \"How old are you?\" \"What is your age?\"
  kinglet embed ./all-MiniLM-L6-v2 \"one text\" --json | jq '.vectors[0]'")]
pub(crate) struct Args {
    /// A folder with model.onnx and tokenizer.json, or the model file in it
    model: PathBuf,
    /// Texts; of two or more, the cosine of each pair is told
    #[arg(required = true, value_name = "TEXT")]
    texts: Vec<String>,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    if !args.model.exists() {
        return Err(hinted(
            format!("{} is not on this machine", args.model.display()),
            "give a folder with model.onnx and tokenizer.json",
        ));
    }
    let mut embedder = Embedder::open(&args.model, &args.load.plain())?;
    let vectors = args.texts.iter().map(|text| Ok(embedder.embed(text)?)).collect::<Result<Vec<_>>>()?;
    let pairs: Vec<(usize, usize)> =
        (0..vectors.len()).flat_map(|i| (i + 1..vectors.len()).map(move |j| (i, j))).collect();
    if ui.json() {
        let pair = |(i, j): &(usize, usize)| json!({ "texts": [i, j], "cosine": cosine(&vectors[*i], &vectors[*j]) });
        let pairs: Vec<_> = pairs.iter().map(pair).collect();
        return ui.value(&json!({ "texts": args.texts, "vectors": vectors, "pairs": pairs }));
    }
    if let [vector] = &vectors[..] {
        let numbers: Vec<String> = vector.iter().map(|x| format!("{x:.6}")).collect();
        return ui.line(numbers.join(" "));
    }
    let mut table = Table::new(&[">COSINE", "TEXT", "TEXT"]);
    for (i, j) in pairs {
        let text = |i: usize| brief(&args.texts[i], 60);
        table.row([format!("{:.3}", cosine(&vectors[i], &vectors[j])), text(i), text(j)]);
    }
    ui.line(table)
}
