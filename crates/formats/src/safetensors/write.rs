//! Writes one safetensors file, laid out as the reference implementation does: widest types first, then by name.

use std::collections::BTreeMap;
use std::io::Write;

use kinglet_tensor::{DType, WeightSource};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::DTYPES;
use super::read::METADATA;
use crate::spec::{TensorSpec, WriteError};
use crate::{Place, Problem};

/// Header lengths are multiples of this, so that data starts aligned in a mapped file.
const HEADER_ALIGNMENT: usize = 8;

/// Writes the declared tensors with their data from `source`, and `metadata` as `__metadata__`; returns the length of
/// the file in bytes.
pub fn write(
    sink: &mut dyn Write,
    metadata: &BTreeMap<String, String>,
    mut tensors: Vec<TensorSpec>,
    source: &dyn WeightSource,
) -> Result<u64, WriteError> {
    tensors.sort_by(|a, b| rank(a.dtype).cmp(&rank(b.dtype)).then_with(|| a.name.cmp(&b.name)));
    let header = Header { metadata, entries: lay_out(&tensors)? };
    let mut json = serde_json::to_vec(&header).map_err(|error| Place::Header.has(Problem::json(&error)))?;
    json.resize(json.len().next_multiple_of(HEADER_ALIGNMENT), b' ');
    sink.write_all(&(json.len() as u64).to_le_bytes())?;
    sink.write_all(&json)?;
    for tensor in &tensors {
        tensor.copy(source, sink)?;
    }
    sink.flush()?;
    Ok(8 + json.len() as u64 + header.entries.last().map_or(0, |(_, entry)| entry.data_offsets.1))
}

/// The place of a type in the order of the data; none for types that cannot be stored.
fn rank(dtype: DType) -> Option<usize> {
    DTYPES.iter().position(|(_, other)| *other == dtype)
}

fn lay_out(tensors: &[TensorSpec]) -> Result<Vec<(&str, Entry<'_>)>, WriteError> {
    let mut seen = std::collections::HashSet::new();
    let mut entries = Vec::with_capacity(tensors.len());
    let mut end = 0_u64;
    for tensor in tensors {
        let has = |problem| Place::tensor(&tensor.name).has(problem);
        if tensor.name == METADATA || !seen.insert(&tensor.name) {
            return Err(has(Problem::Duplicate).into());
        }
        let rank = rank(tensor.dtype);
        let rank =
            rank.ok_or_else(|| has(Problem::NotStorable(format!("{} in safetensors", tensor.dtype))))?;
        let start = end;
        end += tensor.bytes()? as u64;
        let entry = Entry { dtype: DTYPES[rank].0, shape: &tensor.shape, data_offsets: (start, end) };
        entries.push((tensor.name.as_str(), entry));
    }
    Ok(entries)
}

#[derive(Serialize)]
struct Entry<'a> {
    dtype: &'static str,
    shape: &'a [usize],
    data_offsets: (u64, u64),
}

struct Header<'a> {
    metadata: &'a BTreeMap<String, String>,
    entries: Vec<(&'a str, Entry<'a>)>,
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry(METADATA, self.metadata)?;
        }
        for (name, entry) in &self.entries {
            map.serialize_entry(name, entry)?;
        }
        map.end()
    }
}
