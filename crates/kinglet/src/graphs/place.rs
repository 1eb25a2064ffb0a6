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

    /// Writes it as a file, down to the disk. Returns where that will be, and its bytes.
    pub(super) fn file(&self, fill: Fill<'_>) -> Result<(PathBuf, u64), Error> {
        let bytes = write(&self.temporary, fill).map_err(|e| Error::open(&self.target, e))?;
        Ok((self.target.clone(), bytes))
    }

    /// The same for a file of it when it is a folder.
    pub(super) fn part(&self, name: &str, fill: Fill<'_>) -> Result<(PathBuf, u64), Error> {
        let path = self.temporary.join(name);
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        let bytes = folder.and_then(|()| write(&path, fill)).map_err(|e| Error::open(&self.target, e))?;
        Ok((self.target.join(name), bytes))
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

/// Writes the content of a file.
pub(super) type Fill<'a> = &'a mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>;

/// Writes a file, down to the disk; returns its bytes.
fn write(path: &Path, fill: Fill<'_>) -> std::io::Result<u64> {
    let mut sink = BufWriter::with_capacity(1 << 20, File::create(path)?);
    fill(&mut sink)?;
    let file = sink.into_inner().map_err(|e| e.into_error())?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
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
        staged.file(&mut |sink| sink.write_all(text.as_bytes()))?;
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
        let failing = Staged::new(&target, true).expect("a place");
        assert!(failing.file(&mut |_| Err(std::io::ErrorKind::Other.into())).is_err());
        drop(failing);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn folders_are_replaced_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("m.mlpackage");
        for (name, force) in [("a", false), ("b", true)] {
            let staged = Staged::new(&target, force).expect("a place");
            let inner = format!("inner/{name}");
            let part = staged.part(&inner, &mut |sink| sink.write_all(b"text")).expect("written");
            assert_eq!(part, (target.join(&inner), 4));
            staged.commit().expect("placed");
        }
        assert!(!target.join("inner/a").exists() && target.join("inner/b").is_file());
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
