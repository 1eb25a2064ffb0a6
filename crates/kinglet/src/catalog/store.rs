//! The local store: contents by their SHA-256, and for each model a manifest that names its files.
//!
//! ```text
//! $KINGLET_HOME/manifests/NAME.json   what a model consists of; written last, so that it is never half there
//!               blobs/SHA256          contents
//!               partial/KEY           what is being fetched
//!               locks/KEY.lock        held by the process that fetches or removes a model
//!               packs/NAME-KEY.pack   weights as kernels read them, kept for the next load ([`crate::packs`])
//! ```
//! Contract: files appear under their final name complete and verified, through a rename on one file system; two
//! processes never fetch one model at the same time. Deliberately absent: where contents come from.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{AtPath, CatalogError, Result};
use super::http::{hex, sha256_of, wait};
use super::progress::{Event, Progress};

/// How often a process that waits for another looks again.
const POLL: Duration = Duration::from_millis(200);

/// A model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name in the store, or its path.
    pub name: String,
    /// Where it came from, in words.
    pub source: String,
    /// When it was fetched; `None` for a path.
    pub pulled: Option<SystemTime>,
    /// Its files: one GGUF file, the parts of a split one in their order, or the files of a folder.
    pub files: Vec<ModelFile>,
}

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// The name it has among the model's files, such as `config.json`.
    pub name: String,
    /// Where it is; in the store its name there says nothing.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, where known.
    pub sha256: Option<String>,
    /// Whether Kinglet put it there, and so removes it with the model.
    pub owned: bool,
}

impl Model {
    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }
}

/// What removing a model did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The model.
    pub name: String,
    /// Bytes that the disk has again.
    pub freed: u64,
    /// Files that stay, because another model or another program uses them.
    pub kept: Vec<PathBuf>,
}

/// The folder of the store.
#[derive(Clone, Debug)]
pub(super) struct Store {
    root: PathBuf,
}

/// While it lives, no other process fetches or removes the model.
pub(super) struct Lock {
    _file: File,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    name: String,
    source: String,
    /// Seconds since 1970.
    pulled: u64,
    files: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// Where it is, if not among the blobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    owned: bool,
}

impl Store {
    pub(super) fn at(root: PathBuf) -> Store {
        Store { root }
    }

    /// The folder of packed weights.
    pub(super) fn packs(&self) -> PathBuf {
        self.root.join("packs")
    }

    /// All models, by name; a manifest that cannot be read is an error that names it.
    pub(super) fn list(&self) -> Result<Vec<Model>> {
        let folder = self.root.join("manifests");
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.at("read", &folder)?,
        };
        let paths =
            entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "json"));
        let mut models = paths.map(|p| self.read_manifest(&p)).collect::<Result<Vec<_>>>()?;
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// The model of this very name.
    pub(super) fn find(&self, name: &str) -> Result<Option<Model>> {
        let path = self.manifest_path(name);
        if path.exists() { self.read_manifest(&path).map(Some) } else { Ok(None) }
    }

    /// Enters a model whose files are in place.
    pub(super) fn record(&self, model: &Model) -> Result<()> {
        let path = self.manifest_path(&model.name);
        let seconds = |t: SystemTime| t.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let manifest = Manifest {
            version: 1,
            name: model.name.clone(),
            source: model.source.clone(),
            pulled: model.pulled.map_or(0, seconds),
            files: model.files.iter().map(|f| self.entry(f)).collect(),
        };
        let json = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
        let unfinished = path.with_extension("json.new");
        let mut file = create(&unfinished)?;
        file.write_all(&json).and_then(|()| file.sync_all()).at("write", &unfinished)?;
        fs::rename(&unfinished, &path).at("write", &path)
    }

    /// Where a file that is being fetched grows; `key` is its checksum, or anything else that tells it apart.
    pub(super) fn partial(&self, key: &str) -> Result<PathBuf> {
        let path = self.root.join("partial").join(file_name(key));
        make_parent(&path)?;
        Ok(path)
    }

    /// Moves a complete, verified file to its place among the contents.
    pub(super) fn adopt(&self, partial: &Path, name: &str, sha256: &str, bytes: u64) -> Result<ModelFile> {
        let path = self.blob_path(sha256);
        make_parent(&path)?;
        fs::rename(partial, &path).at("write", &path)?;
        Ok(ModelFile { name: name.into(), path, bytes, sha256: Some(sha256.into()), owned: true })
    }

    /// A file with this content, if it is here already.
    pub(super) fn blob(&self, name: &str, sha256: &str, bytes: u64) -> Option<ModelFile> {
        let path = self.blob_path(sha256);
        let there = fs::metadata(&path).is_ok_and(|m| m.len() == bytes);
        there.then(|| ModelFile { name: name.into(), path, bytes, sha256: Some(sha256.into()), owned: true })
    }

    /// Checks that a model's files are there and, with `sums`, what they contain. `false`: a file is missing.
    pub(super) fn check(&self, model: &Model, sums: bool, progress: &dyn Progress) -> Result<bool> {
        for file in &model.files {
            let Ok(metadata) = fs::metadata(&file.path) else { return Ok(false) };
            let damaged = |why| Err(CatalogError::Damaged { path: file.path.clone(), why });
            if metadata.len() != file.bytes {
                return damaged(format!("it has {} bytes, it should have {}", metadata.len(), file.bytes));
            }
            if let Some(sum) = file.sha256.as_ref().filter(|_| sums) {
                progress.event(Event::Verify { file: &file.name });
                let found = sha256_of(&file.path, progress)?;
                if found != *sum {
                    return damaged(format!("its sha256 is {found}, it should be {sum}"));
                }
            }
        }
        Ok(true)
    }

    /// Removes the content of a damaged model, so that it is fetched again.
    pub(super) fn discard(&self, path: &Path) -> Result<()> {
        remove_with_target(path).map(|_| ())
    }

    /// Removes a model, and those of its files that Kinglet put there and no other model uses.
    pub(super) fn remove(&self, model: &Model, dry_run: bool) -> Result<Removed> {
        let others: Vec<Model> = self.list()?.into_iter().filter(|m| m.name != model.name).collect();
        let shared = |f: &ModelFile| others.iter().any(|m| m.files.iter().any(|o| o.path == f.path));
        let mut removed = Removed { name: model.name.clone(), freed: 0, kept: Vec::new() };
        if !dry_run {
            let manifest = self.manifest_path(&model.name);
            fs::remove_file(&manifest).at("remove", &manifest)?;
        }
        for file in &model.files {
            if !file.owned || shared(file) {
                removed.kept.push(file.path.clone());
            } else if dry_run {
                removed.freed += file.bytes;
            } else {
                removed.freed += remove_with_target(&file.path)?;
            }
        }
        Ok(removed)
    }

    /// Takes the lock of a model, waiting for another process that has it.
    pub(super) fn lock(&self, name: &str, progress: &dyn Progress) -> Result<Lock> {
        lock(&self.lock_path(name), progress)
    }

    /// Takes the lock of a model, if nobody has it.
    pub(super) fn try_lock(&self, name: &str) -> Result<Option<Lock>> {
        try_lock(&self.lock_path(name))
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(format!("{}.lock", file_name(name)))
    }

    fn manifest_path(&self, name: &str) -> PathBuf {
        self.root.join("manifests").join(format!("{}.json", file_name(name)))
    }

    fn blob_path(&self, sha256: &str) -> PathBuf {
        self.root.join("blobs").join(file_name(sha256))
    }

    fn read_manifest(&self, path: &Path) -> Result<Model> {
        let damaged = |why: String| CatalogError::Damaged { path: path.to_owned(), why };
        let text = fs::read(path).at("read", path)?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        if manifest.version != 1 {
            return Err(damaged(format!("its version is {}, this program knows 1", manifest.version)));
        }
        let file = |e: Entry| {
            let inside = e.sha256.as_ref().map(|s| self.blob_path(s));
            let path = e.path.or(inside).ok_or_else(|| damaged(format!("{} has no place", e.name)))?;
            Ok(ModelFile { name: e.name, path, bytes: e.bytes, sha256: e.sha256, owned: e.owned })
        };
        Ok(Model {
            name: manifest.name,
            source: manifest.source,
            pulled: UNIX_EPOCH.checked_add(Duration::from_secs(manifest.pulled)),
            files: manifest.files.into_iter().map(file).collect::<Result<_>>()?,
        })
    }

    fn entry(&self, file: &ModelFile) -> Entry {
        let inside = file.sha256.as_ref().is_some_and(|s| self.blob_path(s) == file.path);
        Entry {
            name: file.name.clone(),
            bytes: file.bytes,
            sha256: file.sha256.clone(),
            path: (!inside).then(|| file.path.clone()),
            owned: file.owned,
        }
    }
}

/// Takes the lock at `path`, waiting for another process that has it.
pub(super) fn lock(path: &Path, progress: &dyn Progress) -> Result<Lock> {
    let mut told = false;
    loop {
        if let Some(lock) = try_lock(path)? {
            return Ok(lock);
        }
        if !told {
            progress.event(Event::Waiting);
            told = true;
        }
        wait(POLL, progress)?;
    }
}

fn try_lock(path: &Path) -> Result<Option<Lock>> {
    let file = create(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e).at("lock", path),
    }
}

fn create(path: &Path) -> Result<File> {
    make_parent(path)?;
    OpenOptions::new().write(true).create(true).truncate(true).open(path).at("write", path)
}

pub(super) fn make_parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).at("create the folder", folder)
}

/// Removes a file and, if it is a link, what it points to; hands back the bytes. What is gone already is no error.
fn remove_with_target(path: &Path) -> Result<u64> {
    let bytes = fs::metadata(path).map_or(0, |m| m.len());
    let target = fs::canonicalize(path).ok();
    for path in [Some(path.to_owned()), target].into_iter().flatten() {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).at("remove", &path),
            _ => {}
        }
    }
    Ok(bytes)
}

/// A name as one file name: what file systems dislike is written as %XX, what is too long ends in its hash.
pub(crate) fn file_name(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let escaped: String = name
        .bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    if escaped.len() <= 180 {
        return escaped;
    }
    let hash = hex(&Sha256::digest(name.as_bytes()));
    format!("{}-{}", &escaped[..140], &hash[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_one_file_name() {
        assert_eq!(file_name("smollm2:135m"), "smollm2%3A135m");
        assert_eq!(file_name("org/repo:Q4"), "org%2Frepo%3AQ4");
        let long = file_name(&"é".repeat(300));
        assert!(long.len() < 200 && long != file_name(&"é".repeat(301)));
    }

    #[test]
    fn a_model_comes_back_as_it_was_recorded() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path().join("home"));
        let partial = store.partial("x").expect("a place");
        fs::write(&partial, b"abc").expect("written");
        let sha256 = hex(&Sha256::digest(b"abc"));
        let file = store.adopt(&partial, "x.gguf", &sha256, 3).expect("adopted");
        let outside = ModelFile { path: folder.path().join("y"), owned: false, ..file.clone() };
        let pulled = Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let model = Model { name: "a:b".into(), source: "here".into(), pulled, files: vec![file, outside] };
        store.record(&model).expect("recorded");
        assert_eq!(store.find("a:b").expect("readable"), Some(model.clone()));
        assert_eq!(store.list().expect("readable"), [model]);
        assert_eq!(store.find("a").expect("readable"), None);
    }
}
