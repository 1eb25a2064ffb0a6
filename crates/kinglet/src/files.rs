//! A model's files, mapped and parsed: one GGUF file, the shards of one, or a Hugging Face folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kinglet_formats::safetensors::Index;
use kinglet_formats::{FileKind, Gguf, Limits, Safetensors, hf};
use kinglet_models::{DecoderConfig, ModelError};
use kinglet_tensor::{Bytes, Metadata, Tensor, WeightSource, map_file};

use crate::{Error, Size, catalog, vocabulary};

const INDEX: &str = "model.safetensors.index.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";

/// A model's files, mapped and parsed but not loaded: what `show` speaks of and loading starts from.
pub enum ModelFiles {
    /// GGUF; shards are joined.
    Gguf(Gguf),
    /// A Hugging Face folder.
    HuggingFace(Box<Folder>),
}

/// The parsed files of a Hugging Face folder.
pub struct Folder {
    /// `config.json`.
    pub config: Metadata,
    /// `generation_config.json`, empty when there is none.
    pub generation: Metadata,
    /// `preprocessor_config.json`, where there is one.
    pub preprocessor: Option<Metadata>,
    /// `tokenizer_config.json`, empty when there is none.
    pub tokenizer_config: Metadata,
    /// Where `config.json` lies.
    path: PathBuf,
    /// `tokenizer.json`, which only running needs.
    tokenizer: Option<Bytes>,
    /// `chat_template.jinja`, when there is one.
    pub chat_template: Option<String>,
    /// The weights of all shards.
    pub weights: Safetensors,
}

impl ModelFiles {
    /// Opens a `.gguf` file (its other shards beside it), a folder, or a file in a Hugging Face folder.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::of(&catalog::local::open(path)?)
    }

    /// Opens the files of a model of the catalogue.
    pub fn of(model: &catalog::Model) -> Result<Self, Error> {
        let files = model.files.iter().map(|file| (file.name.clone(), file.path.clone())).collect();
        Self::named(&files)
    }

    /// Opens files by the names they have in their model, wherever they lie.
    fn named(files: &BTreeMap<String, PathBuf>) -> Result<Self, Error> {
        if files.contains_key("config.json") {
            return Ok(Self::HuggingFace(Box::new(Folder::of(files)?)));
        }
        let limits = Limits::default();
        let parse = |path: &PathBuf| {
            let bytes = map(path)?;
            if FileKind::of(&bytes) == FileKind::Safetensors {
                return Err(Error::Lonely { path: path.clone() });
            }
            Gguf::parse(bytes, &limits).map_err(|e| Error::format(path, e))
        };
        let mut shards = files.values().map(parse).collect::<Result<Vec<_>, _>>()?;
        let first = files.values().next().cloned().unwrap_or_default();
        let whole = if shards.len() == 1 && shards[0].metadata().usize("split.count").unwrap_or(1) <= 1 {
            shards.remove(0)
        } else {
            Gguf::join(shards).map_err(|e| Error::format(&first, e))?
        };
        Ok(Self::Gguf(whole))
    }

    /// The weights.
    pub fn weights(&self) -> &dyn WeightSource {
        match self {
            Self::Gguf(gguf) => gguf,
            Self::HuggingFace(folder) => &folder.weights,
        }
    }

    /// Every tensor.
    pub fn tensors(&self) -> &[Tensor] {
        match self {
            Self::Gguf(gguf) => gguf.tensors(),
            Self::HuggingFace(folder) => folder.weights.tensors(),
        }
    }

    /// The configuration: GGUF's metadata, or `config.json`.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Gguf(gguf) => gguf.metadata(),
            Self::HuggingFace(folder) => &folder.config,
        }
    }

    /// The source of the chat template, when the model ships one.
    pub fn chat_template(&self) -> Option<&str> {
        vocabulary::template_source(self)
    }

    /// Sizes and switches of the decoder.
    pub fn decoder(&self) -> Result<DecoderConfig, ModelError> {
        match self {
            Self::Gguf(gguf) => DecoderConfig::from_gguf(gguf.metadata()),
            Self::HuggingFace(folder) => DecoderConfig::from_hf(&folder.config),
        }
    }
}

impl Folder {
    /// Opens a folder, or a file in it; and tells all of its files.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<PathBuf>), Error> {
        let files: BTreeMap<_, _> =
            catalog::local::open(path)?.files.into_iter().map(|file| (file.name, file.path)).collect();
        Ok((Self::of(&files)?, files.into_values().collect()))
    }

    /// `tokenizer.json`; an error when there is none.
    pub fn tokenizer(&self) -> Result<&Bytes, Error> {
        let missing = || Error::MissingFile { folder: self.path.clone(), name: TOKENIZER.into() };
        self.tokenizer.as_ref().ok_or_else(missing)
    }

    fn of(files: &BTreeMap<String, PathBuf>) -> Result<Self, Error> {
        let limits = Limits::default();
        let path = |name: &str| files.get(name).ok_or_else(|| missing(files, name));
        let json = |name: &str| -> Result<Metadata, Error> {
            let path = path(name)?;
            hf::parse(name, &map(path)?, &limits).map_err(|e| Error::format(path, e))
        };
        let optional =
            |name: &str| if files.contains_key(name) { json(name) } else { Ok(Metadata::default()) };
        let template = files.get("chat_template.jinja");
        Ok(Self {
            config: json("config.json")?,
            generation: optional("generation_config.json")?,
            preprocessor: files.get(PREPROCESSOR).map(|_| json(PREPROCESSOR)).transpose()?,
            tokenizer_config: optional("tokenizer_config.json")?,
            path: folder_of(files),
            tokenizer: files.get(TOKENIZER).map(|p| map(p)).transpose()?,
            chat_template: template.map(|p| read_text(p, limits.max_string)).transpose()?,
            weights: weights(files, &limits)?,
        })
    }
}

/// The `config.json` of a folder, or of the folder that a file lies in; none where there is none that can be read.
pub(crate) fn config_of(path: &Path) -> Option<Metadata> {
    let files = catalog::local::open(path).ok()?.files;
    let config = files.iter().find(|file| file.name == "config.json")?;
    hf::parse(&config.name, &map(&config.path).ok()?, &Limits::default()).ok()
}

fn weights(files: &BTreeMap<String, PathBuf>, limits: &Limits) -> Result<Safetensors, Error> {
    let Some(index_path) = files.get(INDEX) else {
        let path = sole_weights(files)?;
        return Safetensors::parse(map(path)?, limits).map_err(|e| Error::format(path, e));
    };
    let fail = |e| Error::format(index_path, e);
    let index = Index::parse(&map(index_path)?, limits).map_err(fail)?;
    let named = index.files().filter_map(|name| Some((name, files.get(name)?)));
    let shards = named.map(|(name, path)| Ok((name.to_owned(), map(path)?))).collect::<Result<_, Error>>()?;
    Safetensors::join(&index, &shards, limits).map_err(fail)
}

/// The one file with weights; where there are several, only an index could say how they belong together.
fn sole_weights(files: &BTreeMap<String, PathBuf>) -> Result<&PathBuf, Error> {
    let others = || files.iter().filter(|(name, _)| name.ends_with(".safetensors")).map(|(_, path)| path);
    match (files.get(WEIGHTS), others().count()) {
        (Some(path), _) => Ok(path),
        (None, 0) => Err(missing(files, WEIGHTS)),
        (None, 1) => others().next().ok_or_else(|| missing(files, WEIGHTS)),
        (None, _) => Err(missing(files, INDEX)),
    }
}

/// The error for a file that should be among `files`.
fn missing(files: &BTreeMap<String, PathBuf>, name: &str) -> Error {
    Error::MissingFile { folder: folder_of(files), name: name.into() }
}

fn folder_of(files: &BTreeMap<String, PathBuf>) -> PathBuf {
    files.values().next().and_then(|path| path.parent()).map(Path::to_owned).unwrap_or_default()
}

/// A file's content of at most `most` bytes, which devices and pipes may exceed without an end.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let much =
        || io::Error::other(format!("it is longer than {}, which is the most that is read", Size(most)));
    let whole = || {
        let file = File::open(path)?;
        let known = file.metadata()?.len();
        if known > most {
            return Err(much());
        }
        let mut bytes = Vec::with_capacity(known as usize);
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most { Err(much()) } else { Ok(bytes) }
    };
    whole().map_err(|e| Error::open(path, e))
}

/// The same of a text.
pub(crate) fn read_text(path: &Path, most: usize) -> Result<String, Error> {
    let no_text = |e| Error::open(path, io::Error::new(io::ErrorKind::InvalidData, e));
    String::from_utf8(read(path, most as u64)?).map_err(no_text)
}

/// A file's content, mapped. Pipes and devices are errors: opening them may wait forever.
pub(crate) fn map(path: &Path) -> Result<Bytes, Error> {
    let whole = || {
        if fs::metadata(path)?.is_file() {
            map_file(&File::open(path)?)
        } else {
            Err(io::Error::other("it is no file"))
        }
    };
    whole().map_err(|e| Error::open(path, e))
}
