//! Packed weights kept on disk between runs, so that a model is packed once and mapped ever after.
//!
//! ```text
//! $KINGLET_HOME/packs/NAME-KEY.pack      NAME of the model; KEY of all that its packed bytes depend on
//! ```
//!
//! Contract: keeping is never an error. A file that is missing, damaged or made for anything else is packed anew; where
//! nothing can be written, nothing is kept. Files appear whole, by renaming, and are shared by all processes that map
//! them; those used least recently make room for new ones. Writing waits until the first answers are under way and gives
//! way to them; a program that ends sooner finishes it first.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kinglet_cpu::{PackFile, PackStore};
use kinglet_tensor::{Bytes, map_file};
use sha2::{Digest, Sha256};

use crate::catalog::{self, file_name, hex};

/// How long a new file waits before it is written: the first answers come first.
const GRACE: Duration = Duration::from_secs(2);
/// Written in parts of this size, with a pause after each.
const PART: usize = 4 << 20;
const PAUSE: Duration = Duration::from_millis(10);
/// After which an unfinished file is nobody's.
const STALE: Duration = Duration::from_secs(3600);
/// Digits of a key.
const KEY: usize = 32;

/// The folder of packed weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackFolder {
    path: PathBuf,
    most: u64,
}

/// Packed weights of one model on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where.
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// When they were used last.
    pub used: SystemTime,
}

/// Where the packed weights of one model are kept; a part of [`LoadOptions`](crate::LoadOptions).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packs {
    folder: PackFolder,
    name: String,
    identity: Vec<u8>,
}

impl PackFolder {
    /// A folder that is made when it is needed and holds at most so many bytes.
    pub fn new(path: impl Into<PathBuf>, most: u64) -> Self {
        Self { path: path.into(), most }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The place for a model.
    pub fn of(&self, model: &catalog::Model) -> Packs {
        let path = Path::new(&model.name);
        let last = path.file_name().and_then(OsStr::to_str).filter(|_| path.exists());
        let name = file_name(last.unwrap_or(&model.name));
        Packs { folder: self.clone(), name, identity: identity(model) }
    }

    /// The place for a model that was read from these files, under the name of the first.
    pub fn of_files(&self, files: &[PathBuf]) -> Packs {
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let one = |path: &PathBuf| catalog::ModelFile {
            name: name(path),
            path: path.clone(),
            bytes: fs::metadata(path).map_or(0, |metadata| metadata.len()),
            sha256: None,
            owned: false,
        };
        let path = files.first().cloned().unwrap_or_default();
        let files = files.iter().map(one).collect();
        let path = path.to_string_lossy().into_owned();
        self.of(&catalog::Model { name: path, source: String::new(), pulled: None, files })
    }

    /// What is kept for a model under this name, or for all; most recently used first.
    pub fn list(&self, model: Option<&str>) -> Vec<Kept> {
        let name = model.map(file_name);
        let fits = |stem: &str| {
            name.as_ref().is_none_or(|name| stem.len() == name.len() + 1 + KEY && stem.starts_with(name))
        };
        let mut kept: Vec<Kept> = self
            .files("pack")
            .into_iter()
            .filter(|kept| kept.path.file_stem().and_then(OsStr::to_str).is_some_and(fits))
            .collect();
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.used));
        kept
    }

    /// Removes what is kept for a model under this name, or for all; hands back the bytes.
    pub fn remove(&self, model: Option<&str>) -> u64 {
        let gone = self.list(model).into_iter().filter(|kept| fs::remove_file(&kept.path).is_ok());
        gone.map(|kept| kept.bytes).sum()
    }

    fn files(&self, extension: &str) -> Vec<Kept> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let kept = entries.filter_map(|entry| {
            let (path, metadata) = (entry.path(), entry.metadata().ok()?);
            let ours = path.extension() == Some(OsStr::new(extension)) && metadata.is_file();
            ours.then(|| Kept {
                path,
                bytes: metadata.len(),
                used: metadata.modified().unwrap_or(UNIX_EPOCH),
            })
        });
        kept.collect()
    }

    /// Makes room for `bytes` by removing what was used least recently. `false` when there cannot be enough.
    fn make_room(&self, bytes: u64) -> bool {
        let age = |kept: &Kept| kept.used.elapsed().unwrap_or_default();
        for left in self.files("new").into_iter().filter(|kept| age(kept) > STALE) {
            let _gone = fs::remove_file(left.path);
        }
        let mut kept = self.list(None);
        while kept.iter().map(|kept| kept.bytes).sum::<u64>().saturating_add(bytes) > self.most {
            let Some(oldest) = kept.pop() else { return false };
            if fs::remove_file(oldest.path).is_err() {
                return false;
            }
        }
        // A cache should not be what fills a disk.
        fs4::available_space(&self.path).is_ok_and(|free| free / 2 >= bytes)
    }
}

impl Packs {
    fn file(&self, description: &[u8]) -> PathBuf {
        let key = Sha256::new().chain_update(&self.identity).chain_update(description).finalize();
        self.folder.path.join(format!("{}-{}.pack", self.name, &hex(&key)[..KEY]))
    }

    /// Writes the file unless there is no room; `more` is dropped when there is no more time to lose.
    fn write(&self, path: &Path, file: &PackFile, more: &Receiver<()>) -> io::Result<()> {
        wait(more, GRACE);
        fs::create_dir_all(&self.folder.path)?;
        if !self.folder.make_room(file.bytes()) {
            return Ok(());
        }
        let unfinished = path.with_extension(format!("{}.new", std::process::id()));
        let written = write_all(&unfinished, file, more).and_then(|()| fs::rename(&unfinished, path));
        if written.is_err() {
            let _gone = fs::remove_file(&unfinished);
        }
        written
    }
}

fn write_all(path: &Path, file: &PackFile, more: &Receiver<()>) -> io::Result<()> {
    let mut out = File::create(path)?;
    for part in file.parts() {
        for part in part.chunks(PART) {
            out.write_all(part)?;
            wait(more, if part.len() == PART { PAUSE } else { Duration::ZERO });
        }
    }
    Ok(())
}

/// Waits for so long, or until the other end is gone.
fn wait(more: &Receiver<()>, time: Duration) {
    let _over: Result<(), RecvTimeoutError> = more.recv_timeout(time);
}

/// Tells contents apart that have the same name: sums where they are known, else sizes and dates.
fn identity(model: &catalog::Model) -> Vec<u8> {
    let one = |file: &catalog::ModelFile| match &file.sha256 {
        Some(sum) => format!("{sum}\n"),
        None => {
            let date = fs::metadata(&file.path).and_then(|metadata| metadata.modified()).ok();
            let date = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            format!("{} {}\n", file.bytes, date.as_nanos())
        }
    };
    model.files.iter().map(one).collect::<String>().into_bytes()
}

/// Reads and writes one model's packed weights. Dropping it waits until what is being written is complete.
pub(crate) struct Keeper {
    packs: Packs,
    writers: Mutex<Vec<(Sender<()>, JoinHandle<()>)>>,
}

impl Keeper {
    pub(crate) fn new(packs: Packs) -> Self {
        Self { packs, writers: Mutex::default() }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keeper").field(&self.packs).finish()
    }
}

impl PackStore for Keeper {
    fn load(&self, description: &[u8]) -> Option<Bytes> {
        let file = File::open(self.packs.file(description)).ok()?;
        let _dated = file.set_modified(SystemTime::now());
        map_file(&file).ok()
    }

    fn keep(&self, description: &[u8], file: PackFile) {
        if file.bytes() > self.packs.folder.most {
            return;
        }
        let (packs, path, (hurry, more)) = (self.packs.clone(), self.packs.file(description), channel());
        let write = move || drop(packs.write(&path, &file, &more));
        let thread = Builder::new().name("kinglet-packs".into()).spawn(write);
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.extend(thread.ok().map(|thread| (hurry, thread)));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let writers = self.writers.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (hurry, thread) in writers.drain(..) {
            drop(hurry);
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(folder: &PackFolder, name: &str, bytes: usize, age: u64) -> PathBuf {
        let path = folder.path.join(format!("{name}-{}.pack", "0".repeat(KEY)));
        fs::create_dir_all(&folder.path).expect("a folder");
        fs::write(&path, vec![0; bytes]).expect("written");
        let date = SystemTime::now() - Duration::from_secs(age);
        File::options().write(true).open(&path).and_then(|file| file.set_modified(date)).expect("dated");
        path
    }

    #[test]
    fn the_least_recently_used_make_room() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = PackFolder::new(home.path().join("packs"), 100);
        let [new, old, older] =
            [("a", 10), ("b", 20), ("c", 30)].map(|(name, age)| kept(&folder, name, 30, age));
        assert!(folder.make_room(10) && older.exists());
        assert!(folder.make_room(50) && !older.exists() && !old.exists() && new.exists());
        assert!(!folder.make_room(101));
    }

    #[test]
    fn names_are_told_apart() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = PackFolder::new(home.path(), 100);
        kept(&folder, "a%3Ab", 1, 1);
        kept(&folder, "a%3Ab-c", 2, 2);
        kept(&folder, "other", 4, 3);
        let bytes = |name: &str| folder.list(Some(name)).iter().map(|kept| kept.bytes).sum::<u64>();
        assert_eq!((bytes("a:b"), bytes("a:b-c"), bytes("a")), (1, 2, 0));
        assert_eq!(folder.remove(Some("a:b")), 1);
        assert_eq!(folder.remove(None), 6);
        assert!(folder.list(None).is_empty());
    }

    #[test]
    fn a_changed_file_is_another_model() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("x.gguf");
        fs::write(&path, b"abc").expect("written");
        let file = |sha256: Option<&str>| catalog::ModelFile {
            name: "x".into(),
            path: path.clone(),
            bytes: 3,
            sha256: sha256.map(str::to_owned),
            owned: false,
        };
        let model = |sha256| catalog::Model {
            name: "x".into(),
            source: String::new(),
            pulled: None,
            files: vec![file(sha256)],
        };
        let (dated, summed) = (identity(&model(None)), identity(&model(Some("5a"))));
        let file = File::options().write(true).open(&path).expect("there");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(5)).expect("dated");
        assert_ne!(identity(&model(None)), dated);
        assert_eq!(identity(&model(Some("5a"))), summed);
    }
}
