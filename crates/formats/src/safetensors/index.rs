//! Sharded sets: `model.safetensors.index.json` says which file holds which tensor.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use kinglet_tensor::{MetaValue, Metadata, Tensor};

use super::{Parts, read};
use crate::{FormatError, Limits, Place, Problem, hf};

/// The name that the index has in every folder, for messages.
const NAME: &str = "model.safetensors.index.json";

/// Which file holds which tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    files: BTreeMap<String, BTreeSet<String>>,
}

impl Index {
    /// Reads the JSON of an index. File names must be plain: a name that leads out of the folder is refused.
    pub fn parse(json: &[u8], limits: &Limits) -> Result<Self, FormatError> {
        let table = hf::parse(NAME, json, limits)?;
        let has = |problem| Place::named(NAME).has(problem);
        let map = table.table("weight_map");
        let Metadata(map) = map.ok_or_else(|| has(Problem::Json("`weight_map` is missing".into())))?;
        let mut files = BTreeMap::<_, BTreeSet<_>>::new();
        for (tensor, file) in map {
            let MetaValue::Str(file) = file else {
                let tensor = crate::error::printable(tensor);
                return Err(has(Problem::Json(format!("the file of `{tensor}` is not text"))));
            };
            if file.is_empty() || file.starts_with('.') || file.contains(['/', '\\', ':', '\0']) {
                return Err(has(Problem::UnsafeName(crate::error::printable(file))));
            }
            files.entry(file.clone()).or_default().insert(tensor.clone());
        }
        Ok(Self { files })
    }

    /// The names of the files, in order.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
}

pub(super) fn join(
    index: &Index,
    files: &BTreeMap<String, Bytes>,
    limits: &Limits,
) -> Result<Parts, FormatError> {
    let mut all = Parts::default();
    for (name, wanted) in &index.files {
        let has = |problem| Place::named(name).has(problem);
        let file = files.get(name).ok_or_else(|| has(Problem::MissingFile))?;
        let (metadata, tensors) =
            read::parse(file, limits).map_err(|error| has(Problem::Within(Box::new(error))))?;
        if all.0.is_empty() {
            all.0 = metadata;
        }
        let found: HashSet<&str> = tensors.iter().map(Tensor::name).collect();
        if let Some(missing) = wanted.iter().find(|name| !found.contains(name.as_str())) {
            return Err(has(Problem::NotInFile { tensor: crate::error::printable(missing) }));
        }
        all.1.extend(tensors.into_iter().filter(|tensor| wanted.contains(tensor.name())));
    }
    Ok(all)
}
