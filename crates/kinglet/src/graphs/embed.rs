//! Vectors of texts: a tokenizer, a model of sentences, pooling.

use std::path::{Path, PathBuf};

use kinglet_formats::Limits;
use kinglet_models::task::{Pooling, normalise, pool};
use kinglet_tensor::{DType, Tensor};
use kinglet_text::tokenizer::{EncodeOptions, SpecialNames, Tokenizer};

use super::model::{GraphModel, Port, floats};
use crate::files::{map, read};
use crate::{Error, LoadOptions};

/// Tokens of a text that are read when the model does not say how many it takes.
const MAX_TOKENS: usize = 512;
/// Where the model and its tokenizer lie in published folders.
const MODELS: [&str; 2] = ["model.onnx", "onnx/model.onnx"];

/// Makes vectors of texts.
pub struct Embedder {
    model: GraphModel,
    tokenizer: Tokenizer,
    pooling: Pooling,
    most: usize,
}

impl Embedder {
    /// Whether a path leads to a model that stands beside its tokenizer.
    pub fn is_one(path: &Path) -> bool {
        locate(path).is_ok()
    }

    /// Opens a folder with `model.onnx` (or `onnx/model.onnx`), `tokenizer.json` and, when there is one, `config.json`;
    /// or the model file in such a folder.
    pub fn open(path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        let (model, folder) = locate(path)?;
        let tokenizer = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::from_json(&map(&tokenizer)?, &SpecialNames::default())?;
        Ok(Self {
            model: GraphModel::open(&model, options)?,
            tokenizer,
            pooling: pooling(&folder),
            most: longest(&folder),
        })
    }

    /// The vector of a text, of length one. Tokens beyond what the model takes are not read.
    pub fn embed(&mut self, text: &str) -> Result<Vec<f32>, Error> {
        let mut ids =
            self.tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: false })?;
        if ids.len() > self.most {
            let last = ids[ids.len() - 1];
            ids.truncate(self.most - 1);
            ids.push(last);
        }
        let feeds = self.model.inputs().iter().map(|port| feed(port, &ids)).collect::<Result<Vec<_>, _>>()?;
        let outputs = self.model.run(&feeds)?;
        let hidden = outputs.first().and_then(floats).ok_or(Error::NoPicture)?;
        let mut vectors = pool(&hidden, &vec![true; ids.len()], self.pooling)?;
        let mut vector = vectors.pop().unwrap_or_default();
        normalise(&mut vector);
        Ok(vector)
    }
}

/// What an input takes for these tokens: their numbers, ones for the mask, zeros for the kind of each.
fn feed(port: &Port, ids: &[u32]) -> Result<Tensor, Error> {
    let name = port.name.to_lowercase();
    let value = |id: &u32| match () {
        () if name.contains("mask") => 1,
        () if name.contains("type") => 0,
        () => i64::from(*id),
    };
    let (dtype, bytes): (_, Vec<u8>) = match port.dtype {
        Some(DType::I32) => {
            (DType::I32, ids.iter().flat_map(|id| (value(id) as i32).to_le_bytes()).collect())
        }
        _ => (DType::I64, ids.iter().flat_map(|id| value(id).to_le_bytes()).collect()),
    };
    Tensor::new(&port.name, dtype, vec![1, ids.len()], bytes.into()).map_err(|e| Error::Model(e.into()))
}

/// The model file and the folder that its tokenizer lies in.
fn locate(path: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let model = if path.is_dir() {
        let found = MODELS.iter().map(|name| path.join(name)).find(|model| model.is_file());
        found.ok_or_else(|| Error::MissingFile { folder: path.to_owned(), name: MODELS[0].into() })?
    } else {
        path.to_owned()
    };
    let beside = model.parent().unwrap_or(Path::new(""));
    let folders = [Some(beside), beside.parent()];
    let with_tokenizer = folders.into_iter().flatten().find(|folder| folder.join("tokenizer.json").is_file());
    match with_tokenizer {
        Some(folder) => Ok((model.clone(), folder.to_owned())),
        None => Err(Error::MissingFile { folder: beside.to_owned(), name: "tokenizer.json".into() }),
    }
}

fn json(path: PathBuf) -> Option<serde_json::Value> {
    serde_json::from_slice(&read(&path, Limits::default().max_json as u64).ok()?).ok()
}

/// As sentence-transformers notes it; the mean when nothing is noted.
fn pooling(folder: &Path) -> Pooling {
    let noted = json(folder.join("1_Pooling/config.json")).unwrap_or_default();
    match () {
        () if noted["pooling_mode_cls_token"] == true => Pooling::First,
        () if noted["pooling_mode_lasttoken"] == true => Pooling::Last,
        () => Pooling::Mean,
    }
}

fn longest(folder: &Path) -> usize {
    let config = json(folder.join("config.json")).unwrap_or_default();
    let noted = config["max_position_embeddings"].as_u64().and_then(|n| usize::try_from(n).ok());
    noted.filter(|n| *n >= 2).unwrap_or(MAX_TOKENS)
}
