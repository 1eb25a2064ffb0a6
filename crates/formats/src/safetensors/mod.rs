//! Safetensors files and sharded sets of them: <https://huggingface.co/docs/safetensors>.
//!
//! Contract: tensors lie one behind the other without gaps and share the file's bytes; data may start at any address, so
//! that readers of it must not assume alignment. Deliberately absent: the 8-bit and smaller float types, which nothing
//! here computes with, and writing of sharded sets.

mod index;
mod read;
mod write;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use kinglet_tensor::{DType, Tensor, TensorError, WeightSource};

use crate::{FormatError, Limits};
pub use index::Index;
pub use write::write;

/// The specification's names of the types, in the order in which writers lay out the data; others cannot be read.
const DTYPES: [(&str, DType); 13] = [
    ("U64", DType::U64),
    ("I64", DType::I64),
    ("F64", DType::F64),
    ("F32", DType::F32),
    ("U32", DType::U32),
    ("I32", DType::I32),
    ("BF16", DType::BF16),
    ("F16", DType::F16),
    ("U16", DType::U16),
    ("I16", DType::I16),
    ("I8", DType::I8),
    ("U8", DType::U8),
    ("BOOL", DType::Bool),
];

/// A safetensors file, or a sharded set of them.
#[derive(Clone, Debug)]
pub struct Safetensors {
    metadata: BTreeMap<String, String>,
    tensors: Vec<Tensor>,
    index: HashMap<String, usize>,
}

impl Safetensors {
    /// Reads and checks the header; tensor data is shared with `file`, not read.
    pub fn parse(file: Bytes, limits: &Limits) -> Result<Self, FormatError> {
        Ok(Self::from_parts(read::parse(&file, limits)?))
    }

    /// Makes one model of the files that `index` names, given with those names.
    pub fn join(
        index: &Index,
        files: &BTreeMap<String, Bytes>,
        limits: &Limits,
    ) -> Result<Self, FormatError> {
        Ok(Self::from_parts(index::join(index, files, limits)?))
    }

    /// The free-form texts under `__metadata__`; of a sharded set, those of its first file that has any.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Every tensor, in the order of the data.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    fn from_parts((metadata, tensors): Parts) -> Self {
        let index = tensors.iter().enumerate().map(|(at, tensor)| (tensor.name().to_owned(), at)).collect();
        Self { metadata, tensors, index }
    }
}

/// The texts of `__metadata__`, and the tensors, each name once.
type Parts = (BTreeMap<String, String>, Vec<Tensor>);

impl WeightSource for Safetensors {
    fn names(&self) -> Vec<String> {
        self.tensors.iter().map(|tensor| tensor.name().to_owned()).collect()
    }

    fn tensor(&self, name: &str) -> Result<Tensor, TensorError> {
        let found = self.index.get(name).map(|&at| self.tensors[at].clone());
        found.ok_or_else(|| TensorError::Missing { name: name.into() })
    }

    fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }
}
