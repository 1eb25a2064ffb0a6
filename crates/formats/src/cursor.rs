//! Little-endian reads that cannot leave the bytes.

use crate::{FormatError, Place, Problem};

/// A read position in a byte slice.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A problem and where it is, before it is known in which part of the file.
#[derive(Debug)]
pub(crate) struct Fault {
    at: u64,
    problem: Problem,
}

impl Fault {
    pub(crate) fn within(self, place: Place) -> FormatError {
        place.has_at(self.at, self.problem)
    }
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes from the start of the file.
    pub(crate) fn position(&self) -> u64 {
        self.at as u64
    }

    /// A problem with what has just been read.
    pub(crate) fn fault(&self, problem: Problem) -> Fault {
        Fault { at: self.position(), problem }
    }

    /// Checks that `count` items of at least `size` bytes can follow, and are not more than `limit`.
    pub(crate) fn count(&self, count: u64, size: u64, limit: Limit) -> Result<usize, Fault> {
        let Limit { what, most, field } = limit;
        if count > most as u64 {
            return Err(self.fault(Problem::TooMuch { what, found: count, limit: most as u64, field }));
        }
        self.ahead(count.saturating_mul(size))?;
        usize::try_from(count)
            .map_err(|_| self.fault(Problem::TooMuch { what, found: count, limit: most as u64, field }))
    }

    /// The end of the next `len` bytes, when there are as many.
    fn ahead(&self, len: u64) -> Result<usize, Fault> {
        let rest = self.bytes.len() - self.at;
        match usize::try_from(len) {
            Ok(len) if len <= rest => Ok(self.at + len),
            _ => Err(self.fault(Problem::Truncated {
                start: self.position(),
                end: self.position().saturating_add(len),
                len: self.bytes.len() as u64,
            })),
        }
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: u64) -> Result<&'a [u8], Fault> {
        let end = self.ahead(len)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    /// A text behind its 64-bit length.
    pub(crate) fn text(&mut self, limit: Limit) -> Result<&'a str, Fault> {
        let len = self.u64()?;
        let len = self.count(len, 1, limit)?;
        let at = self.position();
        std::str::from_utf8(self.take(len as u64)?).map_err(|_| Fault { at, problem: Problem::NotUtf8 })
    }
}

/// A bound on a count: what is counted, the most there may be, and the field of `Limits` that says so.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) what: &'static str,
    pub(crate) most: usize,
    pub(crate) field: &'static str,
}
