//! One file: eight bytes of header length, a JSON header, the data.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use kinglet_tensor::{DType, Tensor};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::{DTYPES, Parts};
use crate::cursor::{Cursor, Fault, Limit};
use crate::{FileKind, FormatError, Limits, Place, Problem};

/// The key of the free-form texts.
pub(super) const METADATA: &str = "__metadata__";

pub(super) fn parse(file: &Bytes, limits: &Limits) -> Result<Parts, FormatError> {
    check_kind(file)?;
    let mut from = Cursor::new(file);
    let json = read_header(&mut from, limits).map_err(|fault| fault.within(Place::Header))?;
    let header: Header =
        serde_json::from_slice(json).map_err(|error| Place::Header.has_at(8, Problem::json(&error)))?;
    check_limits(&header, limits)?;
    let start = 8 + json.len();
    let mut entries = header.tensors;
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let tensors = cut(file, start, &entries)?;
    Ok((header.metadata, tensors))
}

/// Refuses what is known to be something else, before its first bytes are taken for a length.
fn check_kind(file: &Bytes) -> Result<(), FormatError> {
    match FileKind::of(file) {
        FileKind::Safetensors | FileKind::Unknown => Ok(()),
        found => Err(Place::File.has(Problem::Magic { expected: "safetensors", found })),
    }
}

fn read_header<'a>(from: &mut Cursor<'a>, limits: &Limits) -> Result<&'a [u8], Fault> {
    let len = from.u64()?;
    let most = Limit { what: "bytes of header", most: limits.max_header, field: "max_header" };
    let len = from.count(len, 1, most)?;
    from.take(len as u64)
}

fn check_limits(header: &Header, limits: &Limits) -> Result<(), FormatError> {
    let check = |place: Place, what, found: usize, most: usize, field| {
        let (found, limit) = (found as u64, most as u64);
        if found > limit { Err(place.has(Problem::TooMuch { what, found, limit, field })) } else { Ok(()) }
    };
    check(Place::Header, "tensors", header.tensors.len(), limits.max_tensors, "max_tensors")?;
    for (name, entry) in &header.tensors {
        check(Place::tensor(name), "bytes of name", name.len(), limits.max_name, "max_name")?;
        check(Place::tensor(name), "dimensions", entry.shape.len(), limits.max_dims, "max_dims")?;
    }
    Ok(())
}

/// Cuts the tensors out of the data, which they must fill without gaps; `entries` are in the order of the data.
fn cut(file: &Bytes, start: usize, entries: &[(String, Entry)]) -> Result<Vec<Tensor>, FormatError> {
    let mut tensors: Vec<Tensor> = Vec::with_capacity(entries.len());
    let mut expected = 0;
    for (name, entry) in entries {
        let has = |problem| Place::tensor(name).has(problem);
        let (from, to) = entry.data_offsets;
        if from < expected {
            let other = crate::error::printable(tensors.last().map_or("", Tensor::name));
            return Err(has(Problem::Overlap { other }));
        }
        if from > expected || to < from {
            return Err(has(Problem::Gap { from, to, expected }));
        }
        tensors.push(cut_one(file, start, name, entry).map_err(has)?);
        expected = to;
    }
    let end = start as u64 + expected;
    match file.len() as u64 - end {
        0 => Ok(tensors),
        rest => Err(Place::File.has_at(end, Problem::Unclaimed(rest))),
    }
}

fn cut_one(file: &Bytes, start: usize, name: &str, entry: &Entry) -> Result<Tensor, Problem> {
    let dtype = entry.dtype()?;
    let shape: Option<Vec<usize>> = entry.shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let overflow = || Problem::Shape { shape: entry.shape.clone(), dtype, why: "its size overflows" };
    let shape = shape.ok_or_else(overflow)?;
    let (from, to) = entry.data_offsets;
    let len = Tensor::bytes_of(dtype, &shape).ok_or_else(overflow)? as u64;
    if len != to - from {
        return Err(Problem::Length { dtype, shape: entry.shape.clone(), expected: len, found: to - from });
    }
    let (from, to) = ((start as u64).saturating_add(from), (start as u64).saturating_add(to));
    if to > file.len() as u64 {
        return Err(Problem::Truncated { start: from, end: to, len: file.len() as u64 });
    }
    Ok(Tensor::new(name, dtype, shape, file.slice(from as usize..to as usize))?)
}

/// What the header says of a tensor; offsets from the start of the data.
#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Entry {
    fn dtype(&self) -> Result<DType, Problem> {
        let known = DTYPES.iter().find(|(name, _)| *name == self.dtype);
        known.map(|(_, dtype)| *dtype).ok_or_else(|| Problem::DTypeName(crate::error::printable(&self.dtype)))
    }
}

/// The JSON header: an object whose keys are tensor names, but for [`METADATA`]; each once.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, Entry)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Header, A::Error> {
        let mut header = Header { metadata: BTreeMap::new(), tensors: Vec::new() };
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = from.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                let key = crate::error::printable(&key);
                return Err(A::Error::custom(format_args!("key `{key}` occurs twice")));
            }
            if key == METADATA {
                header.metadata = from.next_value()?;
            } else {
                header.tensors.push((key, from.next_value()?));
            }
        }
        Ok(header)
    }
}
