//! Files as shared bytes: mapped, not read, so that weights cost no memory until they are touched.

use std::fs::File;
use std::io;

use crate::Bytes;

/// Maps an open file read-only. The mapping lives as long as any slice of it.
///
/// Whoever shortens the file meanwhile ends the process (`SIGBUS`), as with every mapped file; stores replace files by
/// renaming, which keeps old mappings whole.
pub fn map_file(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is private and read-only; that nobody truncates the file is the documented requirement.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}
