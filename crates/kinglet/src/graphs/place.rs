//! Files and folders that appear whole or not at all: written beside their place under another name, then renamed.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::Error;

/// Something being written; what is not committed goes away.
pub(super) struct Staged {
    target: PathBuf,
    temporary: PathBuf,
}

impl Staged {
    /// A place beside `target`; an error when that exists and must not be replaced.
    pub(super) fn new(target: &Path, force: bool) -> Result<Self, Error> {
        if !force && target.symlink_metadata().is_ok() {
            return Err(Error::Exists(target.to_owned()));
        }
        let temporary = beside(target, "tmp")?;
        remove(&temporary);
        Ok(Self { target: target.to_owned(), temporary })
    }

    /// The path to write to.
    pub(super) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Writes it as a file, down to the disk.
    pub(super) fn file(&self, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), Error> {
        write(&self.temporary, fill).map_err(|e| Error::open(&self.target, e))
    }

    /// Puts it in its place.
    pub(super) fn commit(self) -> Result<(), Error> {
        let fail = |e| Error::open(&self.target, e);
        // A file replaces a file at once; a folder must make room first.
        if !self.target.is_dir() {
            return fs::rename(&self.temporary, &self.target).map_err(fail);
        }
        let old = beside(&self.target, "old")?;
        remove(&old);
        fs::rename(&self.target, &old).map_err(fail)?;
        let placed = fs::rename(&self.temporary, &self.target);
        if placed.is_err() {
            let _ = fs::rename(&old, &self.target);
        }
        placed.map_err(fail)?;
        remove(&old);
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        remove(&self.temporary);
    }
}

/// Writes a file, down to the disk.
pub(super) fn write(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut sink = BufWriter::with_capacity(1 << 20, File::create(path)?);
    fill(&mut sink)?;
    sink.into_inner().map_err(|e| e.into_error())?.sync_all()
}

/// A hidden name of this process in the same folder.
fn beside(target: &Path, end: &str) -> Result<PathBuf, Error> {
    let name = target.file_name().ok_or_else(|| Error::Target { path: target.to_owned() })?;
    Ok(target.with_file_name(format!(".{}.{}.{end}", name.to_string_lossy(), std::process::id())))
}

fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(target: &Path, force: bool, text: &str) -> Result<(), Error> {
        let staged = Staged::new(target, force)?;
        staged.file(|sink| sink.write_all(text.as_bytes()))?;
        staged.commit()
    }

    #[test]
    fn files_are_replaced_only_when_asked_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("m.onnx");
        put(&target, false, "one").expect("written");
        assert!(matches!(put(&target, false, "two"), Err(Error::Exists(_))));
        assert_eq!(fs::read_to_string(&target).expect("there"), "one");
        put(&target, true, "two").expect("replaced");
        assert_eq!(fs::read_to_string(&target).expect("there"), "two");
        drop(Staged::new(&target, true).expect("a place").file(|_| Err(std::io::ErrorKind::Other.into())));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn folders_are_replaced_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("m.mlpackage");
        for (name, force) in [("a", false), ("b", true)] {
            let staged = Staged::new(&target, force).expect("a place");
            fs::create_dir(staged.path()).expect("made");
            fs::write(staged.path().join(name), name).expect("written");
            staged.commit().expect("placed");
        }
        assert!(!target.join("a").exists() && target.join("b").is_file());
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
