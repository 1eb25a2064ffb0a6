//! GGUF versions 2 and 3, little-endian: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! A parsed file knows its metadata, with the number types it was stored in, and its tensors, which share the file's
//! bytes. Deliberately absent: version 1 and big-endian files (refused by name), and what keys mean to a model.

mod read;
mod split;
mod value;
mod write;

use std::collections::HashMap;

use bytes::Bytes;
use kinglet_tensor::{Metadata, Tensor, TensorError, WeightSource};

use crate::{FormatError, Limits};
pub use split::shard_names;
pub use value::{Kind, ValueType};
pub use write::Writer;

/// Where tensor data starts on multiples of, unless `general.alignment` says otherwise; in bytes.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// A GGUF file, or the joined files of a split model.
#[derive(Clone, Debug)]
pub struct Gguf {
    version: u32,
    alignment: u64,
    metadata: Metadata,
    kinds: Vec<(String, Kind)>,
    tensors: Vec<Tensor>,
    index: HashMap<String, usize>,
}

impl Gguf {
    /// Reads and checks the header; tensor data is shared with `file`, not read.
    pub fn parse(file: Bytes, limits: &Limits) -> Result<Self, FormatError> {
        read::parse(&file, limits)
    }

    /// Makes one model of its split files, given in any order; a model in one file is returned as it is.
    pub fn join(shards: Vec<Self>) -> Result<Self, FormatError> {
        split::join(shards)
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Bytes that tensor data is aligned to in the file.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// All metadata, by key.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Every metadata key and how its value is stored, in file order.
    pub fn kinds(&self) -> &[(String, Kind)] {
        &self.kinds
    }

    /// Every tensor, in file order, outermost dimension first.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }
}

impl WeightSource for Gguf {
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
