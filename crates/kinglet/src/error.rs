//! Why a model could not be loaded or used, and what to do about it.

use std::path::{Path, PathBuf};

use kinglet_formats::coreml::CoreMlError;
use kinglet_formats::onnx::OnnxError;
use kinglet_formats::{ExportError, FormatError};
use kinglet_graph::{BuildError, ExecError};
use kinglet_models::ModelError;
use kinglet_models::task::TaskError;
use kinglet_tensor::{AllocError, DType};

use crate::catalog::CatalogError;

/// Why a model could not be loaded or used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum Error {
    #[error("{path}: {source}", path = path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}", path = path.display())]
    Format { path: PathBuf, source: Box<FormatError> },
    #[error("{path}: array `{name}` of {shape:?} is too large: at most {most} elements are taken", path = path.display())]
    Array { path: PathBuf, name: String, shape: Vec<usize>, most: usize },
    #[error("{path}: these weights come without their config.json", path = path.display())]
    Lonely { path: PathBuf },
    #[error("{folder}: `{name}` is missing", folder = folder.display())]
    MissingFile { folder: PathBuf, name: String },
    #[error("{path}: {source}", path = path.display())]
    Onnx { path: PathBuf, source: Box<OnnxError> },
    #[error("{path}: {source}", path = path.display())]
    CoreMl { path: PathBuf, source: Box<CoreMlError> },
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("{path} exists", path = .0.display())]
    Exists(PathBuf),
    #[error("{path}: nothing is written in a format of this name", path = path.display())]
    Target { path: PathBuf },
    #[error("the model does not take one picture; give its inputs as tensors")]
    NoPicture,
    #[error("output `{output}` is no tensor")]
    NoTensor { output: String },
    #[error("input `{input}` takes {dtype}, which no picture gives; give its inputs as tensors")]
    Input { input: String, dtype: DType },
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Alloc(#[from] AllocError),
    #[error("{what} needs {needed} of memory, {available} are free")]
    Memory { what: String, needed: Size, available: Size },
    #[error("instruction set `{name}` is not one of this machine's: {available}")]
    Isa { name: String, available: String },
    #[error("`{option}` is {found}, expected {expected}")]
    Option { option: &'static str, found: String, expected: String },
    #[error("the model has no chat template")]
    NoTemplate,
    #[error("{0}")]
    Template(#[from] kinglet_text::chat::ChatError),
    #[error("tokenizer: {0}")]
    Tokenizer(#[from] kinglet_text::tokenizer::TokenizerError),
    #[error(transparent)]
    Engine(#[from] kinglet_engine::ConfigError),
}

/// A number of bytes, shown in the unit that suits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..1_000_000 => write!(f, "{:.0} kB", (bytes / 1e3).ceil()),
            1_000_000..1_000_000_000 => write!(f, "{:.0} MB", bytes / 1e6),
            _ => write!(f, "{:.1} GB", bytes / 1e9),
        }
    }
}

impl Error {
    pub(crate) fn open(path: &Path, source: std::io::Error) -> Self {
        Self::Open { path: path.into(), source }
    }

    pub(crate) fn format(path: &Path, source: FormatError) -> Self {
        Self::Format { path: path.into(), source: Box::new(source) }
    }

    pub(crate) fn onnx(path: &Path, source: OnnxError) -> Self {
        Self::Onnx { path: path.into(), source: Box::new(source) }
    }

    pub(crate) fn core_ml(path: &Path, source: CoreMlError) -> Self {
        Self::CoreMl { path: path.into(), source: Box::new(source) }
    }

    /// A pass that failed.
    pub(crate) fn passes(error: BuildError) -> Self {
        Self::Exec(ExecError::Node { node: "passes".into(), reason: error.to_string() })
    }

    /// What to do about it, when the message does not say it already.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Lonely { .. } => "give the folder that holds config.json (and tokenizer.json, of a language model)".into(),
            Self::Catalog(error) => error.hint(),
            Self::Memory { .. } => {
                "use a smaller context (--context), a smaller quantisation or a smaller model".into()
            }
            Self::Array { .. } => {
                "where the model leaves the input's size open, --max-elements N takes more".into()
            }
            Self::Exists(_) => "--force replaces it".into(),
            Self::Target { .. } => {
                "name a file that ends in .onnx, or a folder that ends in .mlpackage".into()
            }
            Self::Export(ExportError::Unsupported { missing, .. })
                if missing.iter().any(|m| m.reason.contains("needs opset")) =>
            {
                "leave --opset out: the set of operators that the model needs is chosen".into()
            }
            Self::Export(ExportError::Unsupported { missing, .. })
                if missing.iter().any(|m| ["open", "constant", "data"].iter().any(|w| m.reason.contains(w))) =>
            {
                "--dim NAME=N fixes an open dimension (INPUT.AXIS=N one without a name), --constant NAME=NUMBER an input \
                 of one number; `kinglet show` tells the inputs"
                    .into()
            }
            Self::NoTemplate => "it continues text only: use the completion interface, or --raw".into(),
            Self::MissingFile { .. } => "the folder is incomplete: fetch the model again".into(),
            Self::Model(ModelError::UnknownArch(_) | ModelError::NoArch(_)) => {
                "use another model: `kinglet list --known` shows some that run".into()
            }
            Self::Model(ModelError::UnsupportedKey { .. } | ModelError::UnusedTensors { .. }) => {
                "this variant of the architecture may run with a newer version of Kinglet; use another model"
                    .into()
            }
            Self::Model(_) => {
                "the file is damaged or was converted wrongly: get it from another source".into()
            }
            Self::Tokenizer(_) => "get the model from another source, or use another model".into(),
            _ => return None,
        })
    }
}
