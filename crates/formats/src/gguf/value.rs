//! Metadata value types and how each is read and written.

use kinglet_tensor::{MetaValue, StrList};

use crate::Limits;
use crate::Problem;
use crate::cursor::{Cursor, Fault, Limit};

/// The types of metadata values; the numbers are those of the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the specification's own")]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Str = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

use ValueType::*;

/// Every type at the place of its number.
const TYPES: [ValueType; 13] = [U8, I8, U16, I16, U32, I32, F32, Bool, Str, Array, U64, I64, F64];

/// How a metadata value is stored: the number types that [`MetaValue`] does not tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One value.
    One(ValueType),
    /// A list of values.
    List(ValueType),
}

impl ValueType {
    /// The type with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        TYPES.get(number as usize).copied()
    }

    /// Bytes of one value; for texts and lists the fewest there can be.
    fn least_bytes(self) -> u64 {
        match self {
            U8 | I8 | Bool => 1,
            U16 | I16 => 2,
            U32 | I32 | F32 => 4,
            Str | U64 | I64 | F64 => 8,
            Array => 12,
        }
    }
}

/// Reads a value with its type in front.
pub(super) fn read(from: &mut Cursor, limits: &Limits) -> Result<(Kind, MetaValue), Fault> {
    match read_type(from)? {
        Array => {
            let (of, list) = read_list(from, limits, 1)?;
            Ok((Kind::List(of), list))
        }
        one => Ok((Kind::One(one), read_one(from, one, limits)?)),
    }
}

fn read_type(from: &mut Cursor) -> Result<ValueType, Fault> {
    let number = from.u32()?;
    ValueType::from_number(number).ok_or_else(|| from.fault(Problem::ValueType(number)))
}

fn read_one(from: &mut Cursor, of: ValueType, limits: &Limits) -> Result<MetaValue, Fault> {
    Ok(match of {
        U8 => MetaValue::U64(u8::from_le_bytes(from.array()?).into()),
        U16 => MetaValue::U64(u16::from_le_bytes(from.array()?).into()),
        U32 => MetaValue::U64(from.u32()?.into()),
        U64 => MetaValue::U64(from.u64()?),
        I8 => MetaValue::I64(i8::from_le_bytes(from.array()?).into()),
        I16 => MetaValue::I64(i16::from_le_bytes(from.array()?).into()),
        I32 => MetaValue::I64(i32::from_le_bytes(from.array()?).into()),
        I64 => MetaValue::I64(i64::from_le_bytes(from.array()?)),
        F32 => MetaValue::F64(f32::from_le_bytes(from.array()?).into()),
        F64 => MetaValue::F64(f64::from_le_bytes(from.array()?)),
        Bool => MetaValue::Bool(read_bool(from)?),
        Str => MetaValue::Str(from.text(string_limit(limits))?.to_owned()),
        Array => read_list(from, limits, 1)?.1,
    })
}

fn read_list(from: &mut Cursor, limits: &Limits, depth: usize) -> Result<(ValueType, MetaValue), Fault> {
    let of = read_type(from)?;
    let count = from.u64()?;
    let limit = Limit { what: "list elements", most: limits.max_array, field: "max_array" };
    let count = from.count(count, of.least_bytes(), limit)?;
    let list = match of {
        U8 => MetaValue::U64s(numbers(from, count, |b| u8::from_le_bytes(b).into())?),
        U16 => MetaValue::U64s(numbers(from, count, |b| u16::from_le_bytes(b).into())?),
        U32 => MetaValue::U64s(numbers(from, count, |b| u32::from_le_bytes(b).into())?),
        U64 => MetaValue::U64s(numbers(from, count, u64::from_le_bytes)?),
        I8 => MetaValue::I64s(numbers(from, count, |b| i8::from_le_bytes(b).into())?),
        I16 => MetaValue::I64s(numbers(from, count, |b| i16::from_le_bytes(b).into())?),
        I32 => MetaValue::I64s(numbers(from, count, |b| i32::from_le_bytes(b).into())?),
        I64 => MetaValue::I64s(numbers(from, count, i64::from_le_bytes)?),
        F32 => MetaValue::F64s(numbers(from, count, |b| f32::from_le_bytes(b).into())?),
        F64 => MetaValue::F64s(numbers(from, count, f64::from_le_bytes)?),
        Bool => MetaValue::Bools((0..count).map(|_| read_bool(from)).collect::<Result<_, _>>()?),
        Str => MetaValue::Strs(read_texts(from, count, limits)?),
        Array => MetaValue::Mixed(read_lists(from, count, limits, depth)?),
    };
    Ok((of, list))
}

fn read_bool(from: &mut Cursor) -> Result<bool, Fault> {
    match from.array()? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(from.fault(Problem::NotBool(other))),
    }
}

/// `count` numbers of `N` bytes each.
fn numbers<const N: usize, T>(
    from: &mut Cursor,
    count: usize,
    one: fn([u8; N]) -> T,
) -> Result<Vec<T>, Fault> {
    let (chunks, _) = from.take((count as u64).saturating_mul(N as u64))?.as_chunks();
    Ok(chunks.iter().copied().map(one).collect())
}

fn read_texts(from: &mut Cursor, count: usize, limits: &Limits) -> Result<StrList, Fault> {
    let mut texts = StrList::with_capacity(count, count);
    for _ in 0..count {
        texts.push(from.text(string_limit(limits))?);
    }
    Ok(texts)
}

/// Lists within a list. Grows as it reads: reserving at every depth would multiply what a hostile file can ask for.
fn read_lists(
    from: &mut Cursor,
    count: usize,
    limits: &Limits,
    depth: usize,
) -> Result<Vec<MetaValue>, Fault> {
    if depth >= limits.max_depth {
        let (found, limit) = (depth as u64 + 1, limits.max_depth as u64);
        let problem = Problem::TooMuch { what: "lists within lists", found, limit, field: "max_depth" };
        return Err(from.fault(problem));
    }
    let mut lists = Vec::new();
    for _ in 0..count {
        lists.push(read_list(from, limits, depth + 1)?.1);
    }
    Ok(lists)
}

fn string_limit(limits: &Limits) -> Limit {
    Limit { what: "bytes of text", most: limits.max_string, field: "max_string" }
}

/// How a value is stored when nothing says otherwise; none for what GGUF cannot store.
pub(super) fn natural_kind(value: &MetaValue) -> Option<Kind> {
    Some(match value {
        MetaValue::U64(n) => Kind::One(unsigned(&[*n])),
        MetaValue::I64(n) => Kind::One(signed(&[*n])),
        MetaValue::F64(_) => Kind::One(F32),
        MetaValue::Bool(_) => Kind::One(Bool),
        MetaValue::Str(_) => Kind::One(Str),
        MetaValue::Strs(_) => Kind::List(Str),
        MetaValue::U64s(list) => Kind::List(unsigned(list)),
        MetaValue::I64s(list) => Kind::List(signed(list)),
        MetaValue::F64s(_) => Kind::List(F32),
        MetaValue::Bools(_) => Kind::List(Bool),
        MetaValue::Mixed(items) if items.is_empty() => Kind::List(Str),
        MetaValue::Mixed(_) => Kind::List(Array),
        MetaValue::Table(_) | MetaValue::Null => return None,
    })
}

fn unsigned(numbers: &[u64]) -> ValueType {
    if numbers.iter().all(|&n| u32::try_from(n).is_ok()) { U32 } else { U64 }
}

fn signed(numbers: &[i64]) -> ValueType {
    if numbers.iter().all(|&n| i32::try_from(n).is_ok()) { I32 } else { I64 }
}

/// Appends a value with its type in front; none when it does not fit the type.
pub(super) fn write(kind: Kind, value: &MetaValue, out: &mut Vec<u8>) -> Option<()> {
    match kind {
        Kind::One(of) => {
            out.extend((of as u32).to_le_bytes());
            write_one(of, value, out)
        }
        Kind::List(of) => {
            out.extend((Array as u32).to_le_bytes());
            write_list(of, value, out)
        }
    }
}

fn write_list(of: ValueType, list: &MetaValue, out: &mut Vec<u8>) -> Option<()> {
    let items = list.items()?;
    out.extend((of as u32).to_le_bytes());
    out.extend((items.len() as u64).to_le_bytes());
    items.iter().try_for_each(|item| write_one(of, item, out))
}

fn write_one(of: ValueType, value: &MetaValue, out: &mut Vec<u8>) -> Option<()> {
    match of {
        U8 => out.extend(u8::try_from(value.as_u64()?).ok()?.to_le_bytes()),
        U16 => out.extend(u16::try_from(value.as_u64()?).ok()?.to_le_bytes()),
        U32 => out.extend(u32::try_from(value.as_u64()?).ok()?.to_le_bytes()),
        U64 => out.extend(value.as_u64()?.to_le_bytes()),
        I8 => out.extend(i8::try_from(value.as_i64()?).ok()?.to_le_bytes()),
        I16 => out.extend(i16::try_from(value.as_i64()?).ok()?.to_le_bytes()),
        I32 => out.extend(i32::try_from(value.as_i64()?).ok()?.to_le_bytes()),
        I64 => out.extend(value.as_i64()?.to_le_bytes()),
        F32 => out.extend((value.as_f64()? as f32).to_le_bytes()),
        F64 => out.extend(value.as_f64()?.to_le_bytes()),
        Bool => out.push(value.as_bool()?.into()),
        Str => write_text(value.as_str()?, out),
        Array => match natural_kind(value)? {
            Kind::List(of) => write_list(of, value, out)?,
            Kind::One(_) => return None,
        },
    }
    Some(())
}

/// Appends a text behind its 64-bit length.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
