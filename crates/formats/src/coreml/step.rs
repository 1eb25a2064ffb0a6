//! Models of pipelines that have neither layers nor operations.

use kinglet_tensor::Bytes;

use super::interface::Classes;
use super::{CoreMlError, Fields};

/// A model that is one computation with its parameters.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it does, by the name of its field in `Model.proto`.
    pub kind: &'static str,
    /// Its parameters.
    pub params: Fields,
}

/// Kinds by their field in `Model.proto`.
const KINDS: [(u32, &str); 13] = [
    (300, "glmRegressor"),
    (301, "supportVectorRegressor"),
    (302, "treeEnsembleRegressor"),
    (400, "glmClassifier"),
    (402, "treeEnsembleClassifier"),
    (600, "oneHotEncoder"),
    (601, "imputer"),
    (602, "featureVectorizer"),
    (604, "scaler"),
    (607, "normalizer"),
    (609, "arrayFeatureExtractor"),
    (610, "nonMaximumSuppression"),
    (900, "identity"),
];

impl Step {
    /// The step in the bytes of a model, when it is one.
    pub(super) fn read(model: Bytes) -> Result<Option<Self>, CoreMlError> {
        let fields = Fields::parse("model", model)?;
        let found = KINDS.iter().find_map(|(tag, kind)| Some((*kind, fields.bytes(*tag)?)));
        let Some((kind, bytes)) = found else { return Ok(None) };
        Ok(Some(Self { kind, params: Fields::parse(kind, bytes.clone())? }))
    }

    /// Names of its classes, when it has any.
    pub(super) fn classes(&self) -> Option<Classes> {
        const CLASSIFIERS: [&str; 3] = ["glmClassifier", "treeEnsembleClassifier", "nonMaximumSuppression"];
        let list =
            |tag: u32| self.params.message(tag).ok().flatten().filter(|_| CLASSIFIERS.contains(&self.kind));
        let texts = list(100).map(|texts| texts.texts(1));
        let numbers = || Some(list(101)?.ints(1).iter().map(i64::to_string).collect());
        let names = texts.or_else(numbers).filter(|names: &Vec<String>| !names.is_empty())?;
        Some(Classes { names, layer: None })
    }

    /// An error about this step.
    pub(super) fn fails(&self, why: impl Into<String>) -> CoreMlError {
        CoreMlError::Layer { layer: self.kind.into(), kind: "model".into(), why: why.into() }
    }
}
