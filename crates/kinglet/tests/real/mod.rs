//! Finds real models below the folder that `KINGLET_MODELS` names; tests without one say so and pass.

use std::path::{Path, PathBuf};

/// The first path below `KINGLET_MODELS` that ends so.
pub(crate) fn real(end: &str) -> Option<PathBuf> {
    let found = std::env::var_os("KINGLET_MODELS").and_then(|folder| find(Path::new(&folder), end));
    if found.is_none() {
        println!("skipped: {end} is not below KINGLET_MODELS");
    }
    found
}

fn find(folder: &Path, end: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
    let fits = |path: &&PathBuf| path.to_string_lossy().ends_with(end);
    let here = folders.iter().chain(&files).find(fits).cloned();
    here.or_else(|| folders.iter().find_map(|folder| find(folder, end)))
}
