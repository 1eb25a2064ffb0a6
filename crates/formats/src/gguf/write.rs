//! Writes GGUF 3: metadata and tensor records first, then the data, which is fetched tensor by tensor.
//!
//! A file that was read and is written with the same tensors comes out byte for byte the same, if its data was laid out
//! without gaps.

use std::io::Write;

use kinglet_tensor::{MetaValue, WeightSource};

use super::read::{ALIGNMENT, alignment_of};
use super::{DEFAULT_ALIGNMENT, Gguf, Kind, ValueType, value};
use crate::spec::{TensorSpec, WriteError};
use crate::{FormatError, Place, Problem};

/// A GGUF file to be written.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    alignment: Option<u64>,
    /// Keys and their encoded values.
    entries: Vec<(String, Vec<u8>)>,
    tensors: Vec<TensorSpec>,
}

impl Writer {
    /// A file without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// A file with the metadata of `model`, but for what says that it was split; without tensors.
    pub fn like(model: &Gguf) -> Result<Self, FormatError> {
        let mut writer = Self::new();
        for (key, kind) in model.kinds().iter().filter(|(key, _)| !key.starts_with("split.")) {
            if let Some(value) = model.metadata().get(key) {
                writer.set_as(key, *kind, value)?;
            }
        }
        Ok(writer)
    }

    /// Sets a key: whole numbers as 32 bits where they fit and floats as F32, as readers expect them.
    pub fn set(&mut self, key: &str, value: &MetaValue) -> Result<&mut Self, FormatError> {
        let kind = value::natural_kind(value);
        let kind =
            kind.ok_or_else(|| Place::key(key).has(Problem::NotStorable("a JSON object or null".into())))?;
        self.set_as(key, kind, value)
    }

    /// Sets a key, stored as `kind`; an error when the value does not fit.
    pub fn set_as(&mut self, key: &str, kind: Kind, value: &MetaValue) -> Result<&mut Self, FormatError> {
        let mut encoded = Vec::new();
        value::write(kind, value, &mut encoded)
            .ok_or_else(|| Place::key(key).has(Problem::NotStorable(format!("this value as {kind}"))))?;
        if key == ALIGNMENT {
            self.alignment = Some(alignment_of(value)?);
        }
        match self.entries.iter_mut().find(|(other, _)| other == key) {
            Some((_, old)) => *old = encoded,
            None => self.entries.push((key.to_owned(), encoded)),
        }
        Ok(self)
    }

    /// Drops a key, if it is there.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        if key == ALIGNMENT {
            self.alignment = None;
        }
        self.entries.retain(|(other, _)| other != key);
        self
    }

    /// Adds a tensor behind those already declared.
    pub fn declare(&mut self, tensor: TensorSpec) -> &mut Self {
        self.tensors.push(tensor);
        self
    }

    /// Writes the file, taking the declared tensors from `source` in order; returns its length in bytes.
    pub fn write(&self, sink: &mut dyn Write, source: &dyn WeightSource) -> Result<u64, WriteError> {
        let header = self.header()?;
        sink.write_all(&header)?;
        let mut at = header.len() as u64;
        for tensor in &self.tensors {
            tensor.copy(source, sink)?;
            at += tensor.bytes()? as u64;
            at += self.pad(at, sink)?;
        }
        sink.flush()?;
        Ok(at)
    }

    /// Everything before the data, padded.
    fn header(&self) -> Result<Vec<u8>, WriteError> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            value::write_text(key, &mut out);
            out.extend(value);
        }
        self.records(&mut out)?;
        let padded = out.len().next_multiple_of(self.alignment() as usize);
        out.resize(padded, 0);
        Ok(out)
    }

    fn records(&self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let mut seen = std::collections::HashSet::new();
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            let has = |problem| Place::tensor(&tensor.name).has(problem);
            if !seen.insert(&tensor.name) {
                return Err(has(Problem::Duplicate).into());
            }
            let number = tensor.dtype.ggml();
            let number =
                number.ok_or_else(|| has(Problem::NotStorable(format!("{} in GGUF", tensor.dtype))))?;
            value::write_text(&tensor.name, out);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|&dim| out.extend((dim as u64).to_le_bytes()));
            out.extend(number.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + tensor.bytes()? as u64).next_multiple_of(self.alignment());
        }
        Ok(())
    }

    fn alignment(&self) -> u64 {
        self.alignment.unwrap_or(DEFAULT_ALIGNMENT)
    }

    /// Writes zeros up to the alignment; returns how many.
    fn pad(&self, at: u64, sink: &mut dyn Write) -> Result<u64, WriteError> {
        let padding = at.next_multiple_of(self.alignment()) - at;
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), padding), sink)?;
        Ok(padding)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(of) => write!(f, "{of:?}"),
            Self::List(ValueType::Array) => f.write_str("a list of lists"),
            Self::List(of) => write!(f, "a list of {of:?}"),
        }
    }
}
