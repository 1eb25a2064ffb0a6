//! `kinglet embed`: vectors of texts or pictures, and how alike they are.

use std::path::{Path, PathBuf};

use anyhow::Result;
use kinglet::graphs::{Embedder, GraphFiles, PictureEmbedder};
use kinglet::models::task::cosine;
use serde_json::json;

use crate::commands::given;
use crate::commands::options::{LoadArgs, fetched};
use crate::failure::hinted;
use crate::ui::{Table, Ui, brief};

/// Make vectors of texts or pictures, or tell how alike they are
///
/// The model decides: one that stands beside its tokenizer reads texts, any other graph model or vision checkpoint looks at
/// pictures. A classifier's vector is what its last layer reads.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  kinglet embed all-minilm \"How old are you?\" \"What is your age?\"
  kinglet embed ./all-MiniLM-L6-v2 \"one text\" --json | jq '.vectors[0]'
  kinglet embed ./mobilenet_v2.onnx one.jpg other.jpg")]
pub(crate) struct Args {
    /// A model's name; a folder with model.onnx and tokenizer.json, or the model file in it; or a model of pictures
    model: String,
    /// Texts, or pictures; of two or more, the cosine of each pair is told
    #[arg(required = true, value_name = "TEXT|PICTURE")]
    texts: Vec<String>,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let path = find(&args.model, ui)?;
    let sees = !Embedder::is_one(&path) && GraphFiles::is_one(&path);
    let (what, heading) = if sees { ("pictures", "PICTURE") } else { ("texts", "TEXT") };
    let vectors = if sees { pictures(args, &path, ui) } else { texts(args, &path, ui) }?;
    let pairs: Vec<(usize, usize)> =
        (0..vectors.len()).flat_map(|i| (i + 1..vectors.len()).map(move |j| (i, j))).collect();
    if ui.json() {
        let pair =
            |(i, j): &(usize, usize)| json!({ what: [i, j], "cosine": cosine(&vectors[*i], &vectors[*j]) });
        let pairs: Vec<_> = pairs.iter().map(pair).collect();
        return ui.value(&json!({ what: args.texts, "vectors": vectors, "pairs": pairs }));
    }
    if let [vector] = &vectors[..] {
        let numbers: Vec<String> = vector.iter().map(|x| format!("{x:.6}")).collect();
        return ui.line(numbers.join(" "));
    }
    let mut table = Table::new(&[">COSINE", heading, heading]);
    for (i, j) in pairs {
        let text = |i: usize| brief(&args.texts[i], 60);
        table.row([format!("{:.3}", cosine(&vectors[i], &vectors[j])), text(i), text(j)]);
    }
    ui.line(table)
}

/// The model's place on this machine, where it is fetched to when it is not here.
fn find(name: &str, ui: &Ui) -> Result<PathBuf> {
    let path = PathBuf::from(name);
    if path.exists() {
        return Ok(path);
    }
    fetched(name, ui)?.ok_or_else(|| {
        hinted(
            format!("{name} is not on this machine, and no name of a model of texts or pictures"),
            "give a folder with model.onnx and tokenizer.json, a model of pictures, or a name as all-minilm",
        )
    })
}

fn texts(args: &Args, path: &Path, ui: &Ui) -> Result<Vec<Vec<f32>>> {
    let mut embedder = Embedder::open(path, &args.load.plain(ui))?;
    args.texts.iter().map(|text| Ok(embedder.embed(text)?)).collect()
}

fn pictures(args: &Args, path: &Path, ui: &Ui) -> Result<Vec<Vec<f32>>> {
    let mut embedder = PictureEmbedder::open(path, &args.load.plain(ui))?;
    args.texts.iter().map(|name| Ok(embedder.embed(&given::picture(name)?)?)).collect()
}
