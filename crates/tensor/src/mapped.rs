//! Files as shared bytes: mapped, not read, so that weights cost no memory until they are touched.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use memmap2::Mmap;

use crate::Bytes;

/// Living mappings by their first address.
static LIVING: Mutex<BTreeMap<usize, Weak<Mmap>>> = Mutex::new(BTreeMap::new());

/// Maps an open file read-only. The mapping lives as long as any slice of it.
///
/// Whoever shortens the file meanwhile ends the process (`SIGBUS`), as with every mapped file; stores replace files by
/// renaming, which keeps old mappings whole.
pub fn map_file(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is private and read-only; that nobody truncates the file is the documented requirement.
    let map = Arc::new(unsafe { Mmap::map(file)? });
    living().insert(map.as_ptr() as usize, Arc::downgrade(&map));
    Ok(Bytes::from_owner(Mapped(map)))
}

/// Lets the system take back the memory behind `bytes`, when they are part of a mapped file; they are read from the file
/// again when touched. Does nothing for other bytes, or where the system has no such call.
pub fn release_pages(bytes: &[u8]) {
    let start = bytes.as_ptr() as usize;
    let found = living().range(..=start).next_back().and_then(|(base, map)| Some((*base, map.upgrade()?)));
    if let Some((base, map)) = found
        && start - base + bytes.len() <= map.len()
    {
        drop_pages(&map, start - base, bytes.len());
    }
}

/// A failed hint changes nothing.
#[cfg(unix)]
fn drop_pages(map: &Mmap, offset: usize, len: usize) {
    // SAFETY: the mapping is of a file, private and never written: dropped pages come back with the same content.
    let _ignored = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, len) };
}

#[cfg(not(unix))]
fn drop_pages(_: &Mmap, _: usize, _: usize) {}

fn living() -> MutexGuard<'static, BTreeMap<usize, Weak<Mmap>>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Mapped(Arc<Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        living().remove(&(self.0.as_ptr() as usize));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_pages_keep_their_content() -> io::Result<()> {
        let content: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        let mut file = tempfile::tempfile()?;
        io::Write::write_all(&mut file, &content)?;
        let bytes = map_file(&file)?;
        release_pages(&bytes[5000..60_000]);
        assert_eq!(bytes, content);
        release_pages(&content);
        assert_eq!(bytes, content);
        let part = bytes.slice(10..20);
        drop(bytes);
        release_pages(&part);
        assert_eq!(part, content[10..20]);
        Ok(())
    }
}
