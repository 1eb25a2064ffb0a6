//! The header: fixed fields, metadata entries, tensor records; then the layout of the data behind it.

use std::collections::HashMap;

use bytes::Bytes;
use kinglet_tensor::{DType, MetaValue, Metadata, Tensor};

use super::{DEFAULT_ALIGNMENT, Gguf, Kind, value};
use crate::cursor::{Cursor, Fault, Limit};
use crate::{FileKind, FormatError, Limits, Place, Problem};

/// Key of the data alignment.
pub(super) const ALIGNMENT: &str = "general.alignment";

/// The largest alignment that makes sense: a huge page.
const MOST_ALIGNMENT: u64 = 1 << 21;

/// The fewest bytes an entry can take: the length of its key, a type, a value.
const LEAST_ENTRY: u64 = 8 + 4 + 1;

/// The fewest bytes a tensor record can take: name length, dimension count, type, offset.
const LEAST_RECORD: u64 = 8 + 4 + 4 + 8;

pub(super) fn parse(file: &Bytes, limits: &Limits) -> Result<Gguf, FormatError> {
    let found = FileKind::of(file);
    if found != FileKind::Gguf {
        return Err(Place::File.has(Problem::Magic { expected: "GGUF", found }));
    }
    let mut from = Cursor::new(file);
    let head = Head::read(&mut from, limits).map_err(|fault| fault.within(Place::Header))?;
    let (metadata, kinds) = read_metadata(&mut from, head.entries, limits)?;
    let alignment = metadata.get(ALIGNMENT).map_or(Ok(DEFAULT_ALIGNMENT), alignment_of)?;
    let records = read_records(&mut from, head.tensors, limits)?;
    let index = index(&records)?;
    let tensors =
        Layout { file, alignment, start: from.position().next_multiple_of(alignment) }.cut(records)?;
    Ok(Gguf { version: head.version, alignment, metadata, kinds, tensors, index })
}

/// The fixed fields.
struct Head {
    version: u32,
    tensors: usize,
    entries: usize,
}

impl Head {
    fn read(from: &mut Cursor, limits: &Limits) -> Result<Self, Fault> {
        from.take(4)?;
        let version = from.u32()?;
        match version {
            2 | 3 => {}
            _ if (1..=3).contains(&version.swap_bytes()) => return Err(from.fault(Problem::BigEndian)),
            _ => return Err(from.fault(Problem::Version(version))),
        }
        let (tensors, entries) = (from.u64()?, from.u64()?);
        let most = Limit { what: "tensors", most: limits.max_tensors, field: "max_tensors" };
        let tensors = from.count(tensors, LEAST_RECORD, most)?;
        let most = Limit { what: "metadata entries", most: limits.max_entries, field: "max_entries" };
        let entries = from.count(entries, LEAST_ENTRY, most)?;
        Ok(Self { version, tensors, entries })
    }
}

type Kinds = Vec<(String, Kind)>;

fn read_metadata(from: &mut Cursor, count: usize, limits: &Limits) -> Result<(Metadata, Kinds), FormatError> {
    let mut metadata = Metadata::default();
    let mut kinds = Vec::new();
    for number in 0..count as u64 {
        let start = from.position();
        let key = read_name(from, limits).map_err(|fault| fault.within(Place::Entry(number)))?;
        let (kind, value) = value::read(from, limits).map_err(|fault| fault.within(Place::key(key)))?;
        if metadata.0.insert(key.to_owned(), value).is_some() {
            return Err(Place::key(key).has_at(start, Problem::Duplicate));
        }
        kinds.push((key.to_owned(), kind));
    }
    Ok((metadata, kinds))
}

fn read_name<'a>(from: &mut Cursor<'a>, limits: &Limits) -> Result<&'a str, Fault> {
    from.text(Limit { what: "bytes of name", most: limits.max_name, field: "max_name" })
}

/// The alignment that the value of [`ALIGNMENT`] states.
pub(super) fn alignment_of(value: &MetaValue) -> Result<u64, FormatError> {
    match value.as_u64() {
        Some(alignment) if alignment.is_power_of_two() && alignment <= MOST_ALIGNMENT => Ok(alignment),
        Some(other) => Err(Place::key(ALIGNMENT).has(Problem::Alignment(other.to_string()))),
        None => Err(Place::key(ALIGNMENT).has(Problem::Alignment(kind_of(value).to_owned()))),
    }
}

fn kind_of(value: &MetaValue) -> &'static str {
    match value {
        MetaValue::I64(_) => "negative",
        MetaValue::F64(_) => "a fraction",
        MetaValue::Bool(_) => "a truth value",
        MetaValue::Str(_) => "text",
        _ => "a list",
    }
}

/// What the header says of a tensor; dimensions outermost first, `offset` from the start of the data.
struct Record {
    name: String,
    dtype: DType,
    shape: Vec<u64>,
    offset: u64,
    at: u64,
}

fn read_records(from: &mut Cursor, count: usize, limits: &Limits) -> Result<Vec<Record>, FormatError> {
    let mut records = Vec::new();
    for number in 0..count as u64 {
        let at = from.position();
        let name = read_name(from, limits).map_err(|fault| fault.within(Place::Record(number)))?;
        let record =
            read_record(from, name, at, limits).map_err(|fault| fault.within(Place::tensor(name)))?;
        records.push(record);
    }
    Ok(records)
}

fn read_record(from: &mut Cursor, name: &str, at: u64, limits: &Limits) -> Result<Record, Fault> {
    let dims = from.u32()?;
    let most = Limit { what: "dimensions", most: limits.max_dims, field: "max_dims" };
    let dims = from.count(dims.into(), 8, most)?;
    let mut shape = (0..dims).map(|_| from.u64()).collect::<Result<Vec<_>, _>>()?;
    shape.reverse();
    let number = from.u32()?;
    let dtype = DType::from_ggml(number).ok_or_else(|| from.fault(Problem::TensorType { number }))?;
    Ok(Record { name: name.to_owned(), dtype, shape, offset: from.u64()?, at })
}

fn index(records: &[Record]) -> Result<HashMap<String, usize>, FormatError> {
    let mut index = HashMap::with_capacity(records.len());
    for (number, record) in records.iter().enumerate() {
        if index.insert(record.name.clone(), number).is_some() {
            return Err(Place::tensor(&record.name).has_at(record.at, Problem::Duplicate));
        }
    }
    Ok(index)
}

/// The data behind the header.
struct Layout<'a> {
    file: &'a Bytes,
    alignment: u64,
    start: u64,
}

impl Layout<'_> {
    /// Cuts the tensors out of the data, after checking that none leaves it and none overlaps another.
    fn cut(&self, records: Vec<Record>) -> Result<Vec<Tensor>, FormatError> {
        let ranges = records
            .iter()
            .map(|record| self.range(record).map_err(|problem| record.place_has(problem)))
            .collect::<Result<Vec<_>, _>>()?;
        self.check_overlap(&records, &ranges)?;
        let cut = |(record, (start, end)): (Record, (usize, usize))| {
            let shape = record.shape.iter().map(|&dim| dim as usize).collect();
            Tensor::new(&record.name, record.dtype, shape, self.file.slice(start..end))
                .map_err(|error| record.place_has(error.into()))
        };
        records.into_iter().zip(ranges).map(cut).collect()
    }

    /// First and last byte (exclusive) of a tensor in the file.
    fn range(&self, record: &Record) -> Result<(usize, usize), Problem> {
        let len = record.bytes()?;
        let (offset, alignment) = (record.offset, self.alignment);
        if !offset.is_multiple_of(alignment) {
            return Err(Problem::Misaligned { offset, alignment });
        }
        let start = self.start.saturating_add(offset);
        let end = start.saturating_add(len as u64);
        let size = self.file.len();
        match (usize::try_from(start), usize::try_from(end)) {
            (Ok(from), Ok(to)) if to <= size => Ok((from, to)),
            _ => Err(Problem::Truncated { start, end, len: size as u64 }),
        }
    }

    fn check_overlap(&self, records: &[Record], ranges: &[(usize, usize)]) -> Result<(), FormatError> {
        let mut order: Vec<usize> = (0..ranges.len()).collect();
        order.sort_by_key(|&number| ranges[number]);
        for pair in order.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            if ranges[second].0 < ranges[first].1 {
                let other = crate::error::printable(&records[first].name);
                return Err(records[second].place_has(Problem::Overlap { other }));
            }
        }
        Ok(())
    }
}

impl Record {
    fn place_has(&self, problem: Problem) -> FormatError {
        Place::tensor(&self.name).has_at(self.at, problem)
    }

    /// Bytes of the data.
    fn bytes(&self) -> Result<usize, Problem> {
        let (shape, dtype) = (self.shape.clone(), self.dtype);
        if shape.contains(&0) {
            return Err(Problem::ZeroDimension { shape });
        }
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(dtype.block_len() as u64) {
            let why = "its innermost dimension does not fill whole blocks";
            return Err(Problem::Shape { shape, dtype, why });
        }
        let dims: Option<Vec<usize>> = shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let bytes = dims.and_then(|dims| Tensor::bytes_of(dtype, &dims));
        bytes.ok_or(Problem::Shape { shape, dtype, why: "its size overflows" })
    }
}
