//! Options that several commands share: how a model is loaded.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use kinglet::catalog::{self, Catalog, ModelName, known};
use kinglet::graphs::GraphFiles;
use kinglet::packs::PackFolder;
use kinglet::tensor::KvType;
use kinglet::{LoadOptions, Model, ModelFiles, Precision};

use crate::commands::buffers::BufferArgs;
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
    /// In what numbers products of activations and weights are computed
    #[arg(long, value_name = "P", default_value = "auto")]
    precision: PrecisionArg,
    /// How keys and values are stored: q16 are 16-bit codes with a scale for each row
    #[arg(long, value_name = "TYPE", default_value = "q16")]
    kv: KvArg,
    /// Instruction set; `kinglet device` lists them [default: the best there is]
    #[arg(long, value_name = "ISA", env = "KINGLET_ISA")]
    isa: Option<String>,
    /// Disk space for weights that are kept packed for the next load; 0 keeps none
    #[arg(long, value_name = "SIZE", env = "KINGLET_PACK_CACHE", default_value = "10GB", value_parser = size)]
    pack_cache: u64,
    /// Compute each node of a graph model by a step of its own, to see what fusing them is worth
    #[arg(long)]
    no_fuse: bool,
    /// Function of a Core ML package that has several [default: the one it names]
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    #[command(flatten)]
    buffers: BufferArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionArg {
    /// Language models: int8 for quantised weights, else bf16. Graph models (ONNX, Core ML): what the file says, f32 or
    /// integers
    Auto,
    /// Weights exactly as the file has them, f32 arithmetic; graph models that quantise values themselves, too
    F32,
    /// Both rounded to bfloat16, sums in f32; on machines without instructions for it (`kinglet device --measure`) f32
    Bf16,
    /// Language models: activations in 8 bits, large ones in 16. Graph models: those that are quantised
    Int8,
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::Auto => Self::Auto,
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Bf16 => Self::Bf16,
            PrecisionArg::Int8 => Self::Int8,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum KvArg {
    Q16,
    F16,
    Bf16,
    F32,
    #[value(name = "q8_0", alias = "q8")]
    Q8,
}

/// Where the graph model of this path or name lies, fetched when it is not here; none for any other model.
pub(crate) fn graph_at(name: &str, ui: &Ui) -> Result<Option<PathBuf>> {
    let path = Path::new(name);
    if GraphFiles::is_one(path) { Ok(Some(path.to_owned())) } else { fetched(name, ui) }
}

/// Where a graph model of the catalogue lies, fetched when it is not here; none for what is no name of one.
pub(crate) fn fetched(name: &str, ui: &Ui) -> Result<Option<PathBuf>> {
    let of_words = |known: &known::Known| known.hub.is_some_and(|hub| hub.contains(':'));
    let may_be_one = match ModelName::parse(name) {
        Ok(ModelName::Hub(hub)) => hub.quant.is_none(),
        Ok(ModelName::Short { name, tag }) => {
            known::find(&name, tag.as_deref()).is_some_and(|k| !of_words(k))
        }
        Ok(ModelName::Url(url)) => !url.contains(".gguf"),
        _ => false,
    };
    if !may_be_one {
        return Ok(None);
    }
    let model = Catalog::from_env().resolve(name, &Fetching::new(ui))?;
    Ok(GraphFiles::of(&model))
}

impl LoadArgs {
    /// For models without tokens: threads, instruction set and precision.
    pub(crate) fn plain(&self, ui: &Ui) -> LoadOptions {
        self.told(
            LoadOptions {
                threads: self.threads,
                isa: self.isa.clone(),
                precision: self.precision.into(),
                buffers: self.buffers.buffers(self.packs(&Catalog::from_env())),
                fuse: !self.no_fuse,
                function: self.function.clone(),
                ..LoadOptions::default()
            },
            ui,
        )
    }

    /// Tells when a precision is asked for that the machine does not have.
    fn told(&self, options: LoadOptions, ui: &Ui) -> LoadOptions {
        if let Some(isa) = options.without_bf16() {
            ui.note(format_args!("{isa} has no products of bf16: computing in f32"));
        }
        options
    }

    fn packs(&self, catalog: &Catalog) -> Option<PackFolder> {
        (self.pack_cache > 0).then(|| catalog.packs(self.pack_cache))
    }

    fn options(&self, parallel: usize, catalog: &Catalog, model: &catalog::Model) -> LoadOptions {
        LoadOptions {
            threads: self.threads,
            isa: self.isa.clone(),
            precision: self.precision.into(),
            context: self.context,
            kv_type: match self.kv {
                KvArg::Q16 => KvType::Q16,
                KvArg::F16 => KvType::F16,
                KvArg::Bf16 => KvType::Bf16,
                KvArg::F32 => KvType::F32,
                KvArg::Q8 => KvType::Q8_0,
            },
            parallel,
            buffers: self.buffers.buffers(self.packs(catalog)),
            packs: self.packs(catalog).map(|folder| folder.of(model)),
            fuse: !self.no_fuse,
            function: self.function.clone(),
        }
    }

    /// Finds the model, fetching it when it is not here, and opens its files, to be loaded for this many requests at once.
    pub(crate) fn open(
        &self,
        name: &str,
        parallel: usize,
        ui: &Ui,
    ) -> Result<(String, ModelFiles, LoadOptions)> {
        let catalog = Catalog::from_env();
        let model = catalog.resolve(name, &Fetching::new(ui))?;
        let files = ModelFiles::of(&model)?;
        let options = self.told(self.options(parallel, &catalog, &model), ui);
        Ok((model.name, files, options))
    }

    /// Finds, fetches when needed, and loads the model.
    pub(crate) fn load(&self, name: &str, parallel: usize, ui: &Ui) -> Result<Model> {
        let (name, files, options) = self.open(name, parallel, ui)?;
        Ok(Model::from_files(&name, &files, &options)?)
    }
}

/// A number of bytes, with or without a decimal unit: `20GB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let factor = match unit.to_ascii_uppercase().trim_end_matches('B') {
        "" => 1.0,
        "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        _ => return Err(format!("unknown unit `{unit}`: use kB, MB, GB or TB")),
    };
    let number: f64 = digits.trim().parse().map_err(|_| "expected a size such as 20GB".to_owned())?;
    if number >= 0.0 { Ok((number * factor) as u64) } else { Err("expected a size such as 20GB".into()) }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_decimal_units() {
        let cases = [("0", 0), ("512", 512), ("20GB", 20_000_000_000), ("1.5 kB", 1500), ("3m", 3_000_000)];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "-1", "nan", "5 apples"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
