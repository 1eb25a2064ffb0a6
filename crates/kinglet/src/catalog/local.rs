//! A model by its path: a GGUF file, one part of a split one, a folder, or a file by which a folder is known.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kinglet_formats::gguf::shard_names;

use super::error::{AtPath, CatalogError, Result};
use super::store::{Model, ModelFile};

/// How the files end that a folder in the Hugging Face layout may consist of.
const FOLDER_FILES: &[&str] = &[".json", ".safetensors", ".model", ".jinja", ".txt"];

/// How files end that stand for the folder they lie in, if it holds a `config.json`.
const OF_A_FOLDER: &[&str] = &["config.json", ".safetensors", ".safetensors.index.json"];

/// The model at `path`; nothing is read but names and sizes.
pub(crate) fn open(path: &Path) -> Result<Model> {
    let metadata = match fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(CatalogError::NoSuchPath(path.to_owned())),
        other => other.at("read", path)?,
    };
    let folder = path.parent().filter(|_| OF_A_FOLDER.iter().any(|end| name(path).ends_with(end)));
    let paths = match folder.filter(|folder| folder.join("config.json").is_file()) {
        _ if metadata.is_dir() => in_folder(path)?,
        _ if !metadata.is_file() => return Err(wrong(path, "it is neither a file nor a folder".into())),
        Some(folder) => hugging_face(&files_in(folder)?),
        None => parts(path)?,
    };
    let files = paths.iter().map(|p| file(p)).collect::<Result<_>>()?;
    Ok(Model { name: path.display().to_string(), source: "local path".into(), pulled: None, files })
}

/// The single GGUF model of a folder, or else its `config.json` with all that belongs to it.
fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let paths = files_in(folder)?;
    let ggufs: Vec<&PathBuf> =
        paths.iter().filter(|p| name(p).ends_with(".gguf") && is_first_part(&name(p))).collect();
    match ggufs.as_slice() {
        [one] => parts(one),
        [] if folder.join("config.json").is_file() => Ok(hugging_face(&paths)),
        [] => Err(wrong(folder, "there is neither a .gguf file nor a config.json".into())),
        several => {
            let names: Vec<String> = several.iter().map(|p| name(p)).collect();
            Err(wrong(folder, format!("there are several models: {}", names.join(", "))))
        }
    }
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    // The parent of a bare file name is the empty path.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = fs::read_dir(folder).at("read", folder)?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
    paths.sort();
    Ok(paths)
}

/// Those files that a model in the Hugging Face layout may consist of.
fn hugging_face(paths: &[PathBuf]) -> Vec<PathBuf> {
    paths.iter().filter(|p| FOLDER_FILES.iter().any(|end| name(p).ends_with(end))).cloned().collect()
}

fn wrong(place: &Path, why: String) -> CatalogError {
    CatalogError::NotOneModel { place: place.display().to_string(), why }
}

/// All parts of a split model in their order, whichever of them is named; otherwise the file itself.
fn parts(path: &Path) -> Result<Vec<PathBuf>> {
    let Some(names) = shard_names(&name(path)) else { return Ok(vec![path.to_owned()]) };
    let count = names.len();
    let part = |name| {
        let path = path.with_file_name(name);
        if path.is_file() { Ok(path) } else { Err(CatalogError::MissingPart { path, count }) }
    };
    names.into_iter().map(part).collect()
}

fn is_first_part(name: &str) -> bool {
    shard_names(name).is_none_or(|parts| parts[0] == name)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn file(path: &Path) -> Result<ModelFile> {
    let bytes = fs::metadata(path).at("read", path)?.len();
    Ok(ModelFile { name: name(path), path: path.to_owned(), bytes, sha256: None, owned: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a folder of empty files and opens `open` in it; `shown` is the model's files or the error.
    fn check(files: &[&str], open: &str, shown: &str) {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            fs::write(folder.path().join(file), b"").expect("written");
        }
        let got = match super::open(&folder.path().join(open)) {
            Ok(model) => model.files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(" "),
            Err(e) => e.to_string().replace(&folder.path().display().to_string(), "DIR"),
        };
        assert_eq!(got.trim_end_matches('/'), shown);
    }

    #[test]
    fn a_path_leads_to_the_files_of_one_model() {
        check(&["x.gguf", "README.md"], "", "x.gguf");
        check(
            &["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"],
            "",
            "x-00001-of-00002.gguf x-00002-of-00002.gguf",
        );
        check(&["a.gguf", "b.gguf"], "b.gguf", "b.gguf");
        check(&["config.json", "model.safetensors", "x.py"], "", "config.json model.safetensors");
        check(&["config.json", "x.gguf"], "", "x.gguf");
        check(&["config.json", "x.gguf"], "config.json", "config.json");
        let sharded = ["config.json", "m-1.safetensors", "m-2.safetensors"];
        check(&sharded, "m-2.safetensors", &sharded.join(" "));
        check(&["model.safetensors", "tokenizer.json"], "model.safetensors", "model.safetensors");
        check(&["a.gguf", "b.gguf"], "", "DIR/: there are several models: a.gguf, b.gguf");
        check(&[], "", "DIR/: there is neither a .gguf file nor a config.json");
        check(&[], "x.gguf", "DIR/x.gguf: no such file or folder");
        check(
            &["x-00001-of-00002.gguf"],
            "x-00001-of-00002.gguf",
            "DIR/x-00002-of-00002.gguf: the model has 2 parts, and this one is missing",
        );
    }
}
