//! The files of an ONNX or Core ML model, or of a vision model's checkpoint, opened and read to a graph.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use kinglet_formats::coreml::{Blobs, CoreMl, CoreMlError, Interface, Package};
use kinglet_formats::onnx::{self, CustomOps, ExternalError};
use kinglet_graph::{Graph, Type, ValueId};
use kinglet_models::image::Recipe;
use kinglet_models::vision;
use kinglet_tensor::Bytes;

use crate::files::{Folder as Checkpoint, config_of, map};
use crate::{Error, catalog};

/// A model read to a graph, with what its file says about it.
pub struct GraphFiles {
    /// Where it lies.
    pub path: PathBuf,
    /// Its computation.
    pub graph: Graph,
    /// `ONNX, opset 13` or `Core ML, specification 7`.
    pub format: String,
    /// What its makers noted.
    pub metadata: BTreeMap<String, String>,
    /// Inputs and outputs as a Core ML model tells them.
    pub interface: Option<Interface>,
    /// How pictures are prepared, where its files say it.
    pub recipe: Option<Recipe>,
    /// Names of classes, in the order of their numbers, where its files tell them.
    pub classes: Option<Vec<String>>,
    /// How many of the last inputs and outputs are states, which the model keeps from run to run.
    pub states: usize,
    /// What was read otherwise than it stands in the file.
    pub notes: Vec<String>,
    /// Names of the outputs in the file, and their types as far as it tells them.
    pub outputs: Vec<(String, Type)>,
    /// All files that it was read from.
    pub sources: Vec<PathBuf>,
}

impl GraphFiles {
    /// Whether a path looks like a model of this kind.
    pub fn is_one(path: &Path) -> bool {
        let end = path.extension().and_then(|end| end.to_str()).map(str::to_lowercase);
        matches!(end.as_deref(), Some("onnx" | "mlmodel" | "mlpackage")) || Self::is_checkpoint(path)
    }

    /// Where the files of a model of the catalogue are opened, when it is of this kind: at its file of operations, or at the
    /// folder of a vision model's checkpoint.
    pub fn of(model: &catalog::Model) -> Option<PathBuf> {
        let ends = |name: &str| [".onnx", ".mlmodel"].iter().any(|end| name.to_lowercase().ends_with(end));
        if let Some(file) = model.files.iter().find(|file| ends(&file.name)) {
            return Some(file.path.clone());
        }
        let config = model.files.iter().find(|file| file.name == "config.json")?;
        config.path.parent().filter(|folder| Self::is_checkpoint(folder)).map(Path::to_owned)
    }

    /// Whether it is the folder (or a file in it) of a vision model's `config.json` and weights.
    fn is_checkpoint(path: &Path) -> bool {
        config_of(path).is_some_and(|config| vision::is_vision(&config))
    }

    /// Reads a `.onnx` or `.mlmodel` file, a `.mlpackage` folder, or a folder of a vision model's checkpoint.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::read(path, &CustomOps::new(), None)
    }

    /// The same for another function of a Core ML package than its usual one.
    pub fn open_function(path: &Path, function: &str) -> Result<Self, Error> {
        Self::read(path, &CustomOps::new(), Some(function))
    }

    /// The same for a model that may use these operators besides Kinglet's own; checkpoints use none.
    pub fn open_with(path: &Path, custom: &CustomOps) -> Result<Self, Error> {
        Self::read(path, custom, None)
    }

    fn read(path: &Path, custom: &CustomOps, function: Option<&str>) -> Result<Self, Error> {
        match path.extension().and_then(|end| end.to_str()).map(str::to_lowercase).as_deref() {
            Some("mlmodel") => {
                let model = parse(map(path)?, &kinglet_formats::coreml::NoBlobs, function);
                Self::core_ml(path, model, custom, vec![path.to_owned()])
            }
            Some("mlpackage") => Self::package(path, custom, function),
            _ if function.is_some() => Err(Error::Option {
                option: "function",
                found: function.unwrap_or_default().into(),
                expected: "none, as only Core ML packages have functions to choose from".into(),
            }),
            _ if Self::is_checkpoint(path) => Self::checkpoint(path),
            // Files of the store are named by their content.
            _ => Self::onnx(path, custom),
        }
    }

    fn onnx(path: &Path, custom: &CustomOps) -> Result<Self, Error> {
        let sources = RefCell::new(vec![path.to_owned()]);
        let beside = Beside { model: path, sources: &sources };
        let model = onnx::read_with(map(path)?, &beside, custom).map_err(|e| Error::onnx(path, e))?;
        Ok(Self {
            path: path.to_owned(),
            graph: model.graph,
            format: format!("ONNX, opset {}", model.opset),
            metadata: model.metadata,
            interface: None,
            recipe: None,
            classes: None,
            states: 0,
            notes: Vec::new(),
            outputs: model.outputs,
            sources: sources.into_inner(),
        })
    }

    fn checkpoint(path: &Path) -> Result<Self, Error> {
        let (folder, sources) = Checkpoint::open(path)?;
        let model = vision::build(&folder.config, folder.preprocessor.as_ref(), &folder.weights)?;
        Ok(Self {
            path: path.to_owned(),
            graph: model.graph,
            format: format!("safetensors ({}), {}", model.library, model.name),
            metadata: BTreeMap::new(),
            interface: None,
            recipe: Some(model.recipe),
            classes: model.classes,
            states: 0,
            notes: Vec::new(),
            outputs: model.outputs,
            sources,
        })
    }

    fn package(path: &Path, custom: &CustomOps, function: Option<&str>) -> Result<Self, Error> {
        let fail = |e| Error::core_ml(path, e);
        let manifest = path.join("Manifest.json");
        if !manifest.is_file() {
            return Err(fail(CoreMlError::Manifest("it is missing".into())));
        }
        let package = Package::parse(&map(&manifest)?).map_err(fail)?;
        if !path.join(&package.model).is_file() {
            return Err(fail(CoreMlError::Manifest(format!(
                "it names `{}`, which is missing",
                package.model
            ))));
        }
        let within = |name: &str| {
            let file = path.join(name);
            match link_end(&file, path, &manifest) {
                Ok((target, false)) => {
                    Err(CoreMlError::Link { name: name.into(), target: target.display().to_string() })
                }
                _ => Ok(file),
            }
        };
        let sources = RefCell::new(vec![path.to_owned(), within(&package.model).map_err(fail)?]);
        let blobs = |name: &str| {
            let blob = within(&package.blob(name)?)?;
            let bytes = map(&blob).map_err(|_| CoreMlError::MissingBlob(name.into()));
            sources.borrow_mut().push(blob);
            bytes
        };
        let model = parse(map(&path.join(&package.model))?, &blobs, function);
        Self::core_ml(path, model, custom, sources.into_inner())
    }

    fn core_ml(
        path: &Path,
        model: Result<CoreMl, CoreMlError>,
        custom: &CustomOps,
        sources: Vec<PathBuf>,
    ) -> Result<Self, Error> {
        let fail = |e| Error::core_ml(path, e);
        let model = model.map_err(fail)?;
        let imported = model.graph_with(custom).map_err(fail)?;
        let output = |id: &ValueId| {
            let value = imported.graph.value(*id);
            (value.name.clone(), value.ty.clone())
        };
        Ok(Self {
            outputs: imported.graph.outputs().iter().map(output).collect(),
            path: path.to_owned(),
            graph: imported.graph,
            format: format!("Core ML, specification {}", model.version),
            metadata: model.interface.notes.clone(),
            recipe: None,
            classes: imported.classes.or(model
                .interface
                .classes
                .as_ref()
                .map(|classes| classes.names.clone())),
            interface: Some(model.interface),
            states: imported.states,
            notes: imported.notes,
            sources,
        })
    }
}

/// A Core ML model, with the function that was asked for.
fn parse(bytes: Bytes, blobs: &dyn Blobs, function: Option<&str>) -> Result<CoreMl, CoreMlError> {
    match function {
        Some(function) => CoreMl::parse_function(bytes, blobs, function),
        None => CoreMl::parse(bytes, blobs),
    }
}

/// Where `path` leads to, links followed, and whether that lies in `folder` or, when `anchor` is a link itself (as in the
/// cache of the Hugging Face hub), in the folder where that one ends.
fn link_end(path: &Path, folder: &Path, anchor: &Path) -> io::Result<(PathBuf, bool)> {
    let target = fs::canonicalize(path)?;
    let mut inside = target.starts_with(fs::canonicalize(if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    })?);
    if anchor.is_symlink() {
        inside |= fs::canonicalize(anchor)?.parent().is_some_and(|home| target.starts_with(home));
    }
    Ok((target, inside))
}

/// Files beside an ONNX model.
struct Beside<'a> {
    model: &'a Path,
    sources: &'a RefCell<Vec<PathBuf>>,
}

impl Beside<'_> {
    fn folder(&self) -> &Path {
        self.model.parent().unwrap_or(Path::new(""))
    }

    /// The file that `location` leads to. Links must end in the model's folder; those of a model file that is a link
    /// itself may also end where that one does, as in the cache of the Hugging Face hub.
    fn target(&self, location: &str) -> Result<PathBuf, ExternalError> {
        let path = self.folder().join(location);
        let end = link_end(&path, self.folder(), self.model);
        let (target, inside) = end.map_err(|e| unopened(location, Error::open(&path, e)))?;
        if inside {
            return Ok(target);
        }
        Err(ExternalError::Link { location: location.into(), target: target.display().to_string() })
    }
}

impl onnx::External for Beside<'_> {
    fn read(&self, location: &str, offset: u64, length: Option<u64>) -> Result<Bytes, ExternalError> {
        if !Path::new(location).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(ExternalError::Outside { location: location.into() });
        }
        let path = self.folder().join(location);
        if !path.exists() {
            return Err(ExternalError::Missing { location: location.into() });
        }
        let bytes = map(&self.target(location)?).map_err(|e| unopened(location, e))?;
        let mut sources = self.sources.borrow_mut();
        if !sources.contains(&path) {
            sources.push(path);
        }
        let start = usize::try_from(offset).ok().filter(|start| *start <= bytes.len());
        let end = start.and_then(|start| match length {
            None => Some(bytes.len()),
            Some(length) => start.checked_add(usize::try_from(length).ok()?),
        });
        match (start, end.filter(|end| *end <= bytes.len())) {
            (Some(start), Some(end)) => Ok(bytes.slice(start..end)),
            _ => Err(ExternalError::Short { location: location.into(), bytes: bytes.len() }),
        }
    }
}

fn unopened(location: &str, error: Error) -> ExternalError {
    ExternalError::Open { location: location.into(), reason: error.to_string() }
}
