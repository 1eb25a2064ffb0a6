//! Memory in a file of its own: written once, then shared by reference, with other processes too.
//!
//! The file's owner decides where it lies and how it goes away; here it is only mapped. Bytes say which file they lie in
//! ([`file_of`]), so that whoever holds them can hand the file on instead of a copy.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

use crate::Bytes;

/// Files of living bytes, by their first address.
static LIVING: Mutex<BTreeMap<usize, FileRange>> = Mutex::new(BTreeMap::new());

/// A part of a file that bytes lie in.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// The open file. Nobody may shorten it while anything is mapped.
    pub file: Arc<File>,
    /// Where the bytes begin.
    pub offset: u64,
    /// How many there are.
    pub bytes: usize,
}

/// Zeroes in a file, to be written.
#[derive(Debug)]
pub struct FileBuf {
    map: MmapMut,
    file: Arc<File>,
}

impl FileBuf {
    /// Makes an open file `bytes` long and maps all of it. The file must be this buffer's alone, with room on its disk: a
    /// disk that is full when memory is written ends the process (`SIGBUS`).
    pub fn new(file: File, bytes: usize) -> io::Result<Self> {
        file.set_len(bytes as u64)?;
        // SAFETY: the caller hands over a file that nobody else has open; those it is shared with later only read it.
        let map = unsafe { MmapMut::map_mut(&file)? };
        Ok(Self { map, file: Arc::new(file) })
    }

    /// Shares the memory, which nobody writes any more. The file is open as long as any slice of it lives.
    pub fn freeze(self) -> Bytes {
        let range = FileRange { file: self.file.clone(), offset: 0, bytes: self.map.len() };
        living().insert(self.map.as_ptr() as usize, range);
        Bytes::from_owner(Frozen(self))
    }
}

impl Deref for FileBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl DerefMut for FileBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }
}

/// The file that `bytes` lie in, when a [`FileBuf`] was frozen to them; none for any others.
pub fn file_of(bytes: &[u8]) -> Option<FileRange> {
    let start = bytes.as_ptr() as usize;
    let living = living();
    let (base, range) = living.range(..=start).next_back()?;
    let offset = start - base;
    let inside = offset.checked_add(bytes.len())? <= range.bytes;
    inside.then(|| FileRange { offset: offset as u64, bytes: bytes.len(), file: range.file.clone() })
}

fn living() -> MutexGuard<'static, BTreeMap<usize, FileRange>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Frozen(FileBuf);

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        living().remove(&(self.0.as_ptr() as usize));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn bytes_know_their_file() -> io::Result<()> {
        let mut buffer = FileBuf::new(tempfile::tempfile()?, 10_000)?;
        buffer.iter_mut().enumerate().for_each(|(i, byte)| *byte = i as u8);
        let bytes = buffer.freeze();
        let part = bytes.slice(5000..5010);
        drop(bytes);
        let range = file_of(&part).expect("it lies in a file");
        assert_eq!((range.offset, range.bytes), (5000, 10));
        let mut content = Vec::new();
        (&*range.file).read_to_end(&mut content)?;
        assert_eq!(content.len(), 10_000);
        assert_eq!(content[5000..5010], part[..]);
        let (at, end) = (part.as_ptr(), part.len());
        drop(part);
        // SAFETY: the address is looked up, nothing is read.
        assert!(file_of(unsafe { std::slice::from_raw_parts(at, 0) }).is_none(), "{end} bytes");
        assert!(file_of(&content).is_none());
        Ok(())
    }
}
