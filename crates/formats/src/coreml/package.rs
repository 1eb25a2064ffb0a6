//! `Manifest.json` of an `.mlpackage` folder: which of its files is the model.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::CoreMlError;
use crate::error::printable;

/// Bytes of a manifest; real ones have under a thousand.
const MAX_MANIFEST: usize = 1 << 20;

/// The content of a package's manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The model's file, relative to the package: `Data/com.apple.CoreML/model.mlmodel`.
    pub model: String,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "rootModelIdentifier")]
    root: String,
    #[serde(rename = "itemInfoEntries")]
    items: BTreeMap<String, Item>,
}

#[derive(Deserialize)]
struct Item {
    path: String,
}

impl Package {
    /// Reads `Manifest.json`.
    pub fn parse(manifest: &[u8]) -> Result<Self, CoreMlError> {
        if manifest.len() > MAX_MANIFEST {
            return Err(CoreMlError::Manifest(format!("it has more than {MAX_MANIFEST} bytes")));
        }
        let manifest: Manifest =
            serde_json::from_slice(manifest).map_err(|e| CoreMlError::Manifest(printable(&e.to_string())))?;
        let item = manifest.items.get(&manifest.root);
        let item =
            item.ok_or_else(|| CoreMlError::Manifest("its root model is not among its items".into()))?;
        Ok(Self { model: format!("Data/{}", inside(&item.path)?) })
    }

    /// The file that a program calls `@model_path/weights/weight.bin`, relative to the package.
    pub fn blob(&self, name: &str) -> Result<String, CoreMlError> {
        let relative = inside(name.strip_prefix("@model_path/").unwrap_or(name))?;
        let folder = self.model.rsplit_once('/').map_or("", |(folder, _)| folder);
        Ok(format!("{folder}/{relative}"))
    }
}

/// The path, when it stays inside the folder it is relative to.
fn inside(path: &str) -> Result<&str, CoreMlError> {
    let plain =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
    if path.split('/').all(plain) { Ok(path) } else { Err(CoreMlError::UnsafeName(printable(path))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(path: &str) -> String {
        format!(
            r#"{{"fileFormatVersion":"1.0.0","itemInfoEntries":{{"A":{{"path":"{path}"}}}},"rootModelIdentifier":"A"}}"#
        )
    }

    #[test]
    fn files_stay_inside_the_package() {
        let package =
            Package::parse(manifest("com.apple.CoreML/model.mlmodel").as_bytes()).expect("a manifest");
        assert_eq!(package.model, "Data/com.apple.CoreML/model.mlmodel");
        let check =
            |name: &str, expected: Option<&str>| assert_eq!(package.blob(name).ok().as_deref(), expected);
        check("@model_path/weights/weight.bin", Some("Data/com.apple.CoreML/weights/weight.bin"));
        check("@model_path/../../../etc/passwd", None);
        check("/etc/passwd", None);
        check("@model_path/c:\\x", None);
        assert!(Package::parse(manifest("../x").as_bytes()).is_err());
        assert!(Package::parse(b"{}").is_err());
        assert!(Package::parse(manifest("x").replace(r#""A":"#, r#""B":"#).as_bytes()).is_err());
    }
}
