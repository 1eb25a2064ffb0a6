//! Weight files of ML Programs (`weight.bin`, storage version 2).
//!
//! A 64-byte header, then for each weight a 64-byte record and its data, both at multiples of 64. A program names a weight by
//! the place of its record. All numbers are little-endian.

use kinglet_tensor::Bytes;

use super::CoreMlError;
use crate::error::printable;

/// Gives the weight files of a package by the names that its program uses.
pub trait Blobs {
    /// The bytes of a file called `@model_path/…`, or why there are none.
    fn blob(&self, name: &str) -> Result<Bytes, CoreMlError>;
}

impl<F: Fn(&str) -> Result<Bytes, CoreMlError>> Blobs for F {
    fn blob(&self, name: &str) -> Result<Bytes, CoreMlError> {
        self(name)
    }
}

/// No weight files: for models that are one file.
pub struct NoBlobs;

impl Blobs for NoBlobs {
    fn blob(&self, name: &str) -> Result<Bytes, CoreMlError> {
        Err(CoreMlError::MissingBlob(printable(name)))
    }
}

const SENTINEL: u32 = 0xDEAD_BEEF;
const RECORD: usize = 64;

/// The data of the weight whose record is at `offset`, and the storage's number of its type.
pub(super) fn read(file: &Bytes, name: &str, offset: u64) -> Result<(Bytes, u32), CoreMlError> {
    let fail = |why: String| CoreMlError::Blob { file: printable(name), offset, why };
    let whole = |from: u64, len: u64| {
        let from = usize::try_from(from).ok()?;
        let end = from.checked_add(usize::try_from(len).ok()?)?;
        (end <= file.len()).then_some(from..end)
    };
    let record = whole(offset, RECORD as u64)
        .ok_or_else(|| fail(format!("its record lies outside the {} bytes of the file", file.len())))?;
    let record = &file[record];
    let u32_at = |at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    if u32_at(0) != SENTINEL {
        return Err(fail("there is no weight record".into()));
    }
    let (size, start) = (u64_at(8), u64_at(16));
    let data = whole(start, size).ok_or_else(|| {
        fail(format!("its {size} bytes from {start} lie outside the {} of the file", file.len()))
    })?;
    Ok((file.slice(data), u32_at(4)))
}
