//! Core ML models: `.mlmodel` neural networks and pipelines, and the ML Programs of `.mlpackage` folders.
//!
//! [`Package`] says which of a folder's files is the model; [`CoreMl::parse`] reads its bytes, [`Blobs`] gives the weight
//! files that it names. What comes out is a tree in Rust's types: interface, layers with their parameters, blocks with their
//! operations, and tensors that share the file's bytes. [`unpack`] computes what compressed weights stand for.
//! Deliberately absent: paths, running anything, and models of other kinds (neighbours, word lists, Apple's own features).

mod blob;
mod error;
mod import;
mod interface;
mod network;
mod package;
mod program;
mod proto;
mod step;
mod unpack;
mod value;
mod weights;
pub mod write;

pub use blob::{Blobs, NoBlobs};
pub use error::CoreMlError;
pub use import::Imported;
pub use interface::{Classes, Colour, Feature, FeatureKind, Interface, Size};
pub use network::{Fields, Layer, Network, Scaler};
pub use package::Package;
pub use program::{Argument, Block, Function, Op, Program, ValueType};
pub use step::Step;
pub use unpack::unpack;
pub use value::{Dim, Literal, TensorType};
pub use weights::Weights;

use kinglet_tensor::Bytes;
use prost::Message;

/// The newest specification that is read.
const NEWEST: i32 = 11;
/// Pipelines within pipelines.
const MAX_DEPTH: usize = 8;

/// A model.
#[derive(Clone, Debug)]
pub struct CoreMl {
    /// Version of the specification that the file follows.
    pub version: i32,
    /// Inputs, outputs, states and words about the model.
    pub interface: Interface,
    /// What it is made of.
    pub body: Body,
}

/// What a model is made of.
#[derive(Clone, Debug)]
pub enum Body {
    /// Layers.
    Network(Network),
    /// Functions of operations.
    Program(Program),
    /// Models one after another, with their names.
    Pipeline(Vec<(String, CoreMl)>),
    /// A model without layers or operations: a scaler, a linear model, trees.
    Step(Step),
}

impl CoreMl {
    /// Reads the bytes of a `.mlmodel` file, or of the model in a package; `blobs` gives the weight files of the package.
    pub fn parse(bytes: Bytes, blobs: &dyn Blobs) -> Result<Self, CoreMlError> {
        Self::nested(bytes, blobs, 0, None)
    }

    /// The same, for the function `function` of a program that has several.
    pub fn parse_function(bytes: Bytes, blobs: &dyn Blobs, function: &str) -> Result<Self, CoreMlError> {
        Self::nested(bytes, blobs, 0, Some(function))
    }

    fn nested(
        bytes: Bytes,
        blobs: &dyn Blobs,
        depth: usize,
        function: Option<&str>,
    ) -> Result<Self, CoreMlError> {
        if depth > MAX_DEPTH {
            return Err(CoreMlError::Depth(MAX_DEPTH));
        }
        let model = proto::Model::decode(bytes.clone()).map_err(|e| CoreMlError::protobuf("model", &e))?;
        if !(1..=NEWEST).contains(&model.version) {
            return Err(CoreMlError::Version { found: model.version, most: NEWEST });
        }
        let description = model.description.unwrap_or_default();
        let mut interface = Interface::of(&description, function);
        let usual = Some(description.default_function.as_str()).filter(|name| !name.is_empty());
        let body = match model.kind {
            Some(proto::Kind::Program(program)) => {
                let mut program = program::read(program, blobs)?;
                program.function = function.or(usual).map(str::to_owned);
                program.chosen()?;
                Body::Program(program)
            }
            Some(_) | None if function.is_some() => return Err(CoreMlError::NoFunctions),
            Some(proto::Kind::Network(n) | proto::Kind::Classifier(n) | proto::Kind::Regressor(n)) => {
                interface.classes = Classes::of(&n);
                Body::Network(network::read(n)?)
            }
            Some(proto::Kind::Pipeline(pipeline)) => pipeline_of(Some(pipeline), blobs, depth)?,
            Some(proto::Kind::PipelineClassifier(w) | proto::Kind::PipelineRegressor(w)) => {
                pipeline_of(w.pipeline, blobs, depth)?
            }
            None => match Step::read(bytes.clone())? {
                Some(step) => {
                    interface.classes = step.classes();
                    Body::Step(step)
                }
                None => return Err(CoreMlError::Kind(kind_of(bytes))),
            },
        };
        if let Body::Pipeline(parts) = &body {
            interface.classes = parts.iter().rev().find_map(|(_, part)| part.interface.classes.clone());
        }
        Ok(Self { version: model.version, interface, body })
    }
}

fn pipeline_of(
    pipeline: Option<proto::Pipeline>,
    blobs: &dyn Blobs,
    depth: usize,
) -> Result<Body, CoreMlError> {
    let proto::Pipeline { models, names } = pipeline.unwrap_or_default();
    let parts = models.into_iter().enumerate().map(|(i, bytes)| {
        let name = names.get(i).filter(|name| !name.is_empty()).cloned();
        Ok((name.unwrap_or_else(|| format!("model {i}")), CoreMl::nested(bytes, blobs, depth + 1, None)?))
    });
    Ok(Body::Pipeline(parts.collect::<Result<_, CoreMlError>>()?))
}

/// Kinds of models that are told but not read, by their field in `Model.proto`.
const OTHERS: [(u32, &str); 16] = [
    (304, "a Bayesian regressor"),
    (401, "a support vector classifier"),
    (404, "a nearest neighbours classifier"),
    (501, "a recommender"),
    (555, "a custom model"),
    (556, "a link to a compiled model"),
    (560, "a threshold of confidence"),
    (603, "a vectoriser of dictionaries"),
    (606, "a mapping of categories"),
    (2000, "a text classifier"),
    (2001, "a word tagger"),
    (2002, "Apple's built-in vision features"),
    (2003, "Apple's built-in sound features"),
    (2004, "a list of words"),
    (2005, "a word embedding"),
    (3000, "an encrypted or serialised model"),
];

/// What the model's top-level fields say it is.
fn kind_of(bytes: Bytes) -> &'static str {
    let tags: Vec<u32> = Fields::parse("model", bytes).map_or_else(|_| Vec::new(), |f| f.tags().collect());
    let known = OTHERS.iter().find(|(tag, _)| tags.contains(tag));
    known.map_or("of a kind without layers or operations", |(_, name)| name)
}
