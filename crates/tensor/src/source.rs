//! Where weights come from: a file reader implements [`WeightSource`], model builders consume it.

use std::collections::BTreeMap;

use crate::{Tensor, TensorError};

/// Named tensors. Implemented by GGUF files, safetensors sets and in-memory tables.
pub trait WeightSource: Send + Sync {
    /// Every tensor's name, in file order.
    fn names(&self) -> Vec<String>;

    /// The tensor, without copying where the source is mapped; an error names it when it is missing.
    fn tensor(&self, name: &str) -> Result<Tensor, TensorError>;

    /// Whether the source holds this tensor.
    fn contains(&self, name: &str) -> bool {
        self.names().iter().any(|n| n == name)
    }
}

/// Weights held in memory: for tests, writers and converted models.
#[derive(Clone, Debug, Default)]
pub struct MemoryWeights(pub BTreeMap<String, Tensor>);

impl WeightSource for MemoryWeights {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn tensor(&self, name: &str) -> Result<Tensor, TensorError> {
        self.0.get(name).cloned().ok_or_else(|| TensorError::Missing { name: name.into() })
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl FromIterator<Tensor> for MemoryWeights {
    fn from_iter<I: IntoIterator<Item = Tensor>>(tensors: I) -> Self {
        Self(tensors.into_iter().map(|t| (t.name().to_owned(), t)).collect())
    }
}
